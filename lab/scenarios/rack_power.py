"""G05: a rack gets too little power, and all its GPUs halve their clocks within a minute."""

from __future__ import annotations

from datetime import datetime

from lab.fleet import gpu_racks
from lab.gateway import NODE_WEIGHT
from lab.hardware import Brake
from lab.scenarios.fault import Fault
from lab.scenarios.node_fault import is_used, put_back, serving_nodes, shared_racks
from lab.stage import Stage

_BRAKE, _CAP = "hw_power_brake", "power_cap"


class RackPower(Fault):
    """Heals when the rack has its power back; shifting load away spares its users meanwhile."""

    id = "G05"
    title = "A rack lost power and its GPUs are held back"
    alert = "LLMHighITL"
    by_hand = "power of the slow rack"
    reason = _BRAKE
    rack = ""

    def set_up(self, stage: Stage, start: datetime) -> None:
        super().set_up(stage, start)
        self.rack = next(iter(shared_racks(stage)))
        self.depth = self.strength

    def draw(self, stage: Stage) -> None:
        racks = list(shared_racks(stage))
        self.rack = racks[int(stage.rng.integers(len(racks)))]
        self.reason = _CAP if stage.rng.random() < 0.35 else _BRAKE
        self.depth = self.strength * float(stage.rng.uniform(0.85, 1.15))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        for node, rack in gpu_racks(stage.cluster).items():
            if rack == self.rack and level:
                stage.hardware.braked[node] = Brake(reason=self.reason, depth=self.depth * level)
            elif rack == self.rack:
                stage.hardware.braked.pop(node, None)

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        del stage
        return "rack", [self.rack]

    def is_healthy(self, stage: Stage) -> bool:
        return not any(is_used(stage, node) for node in stage.hardware.braked)

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:
        """The rack's engines out of the traffic, as far as the others can bear it; or the rack's power."""
        if "weight of each engine" not in instruction:
            return super().carry_out(instruction, stage, at)
        racks, serving = gpu_racks(stage.cluster), serving_nodes(stage)
        others = [node for node in serving if racks[node] != self.rack]
        left = 0 if 3 * len(others) >= 2 * len(serving) else NODE_WEIGHT // 2
        for one in stage.gateway.deployments.values():
            if racks.get(one.node) == self.rack:
                one.weight = left
        return True

    def repair(self, stage: Stage, at: datetime) -> None:
        super().repair(stage, at)
        for node, rack in gpu_racks(stage.cluster).items():
            if rack == self.rack:
                put_back(stage, node)
