"""G09: a GPU's firmware stops answering; what was given to it never comes back, and neither do its sensors."""

from __future__ import annotations

from datetime import datetime

from lab.scenarios.node_fault import NodeFault
from lab.stage import Stage

_RPC_TIMEOUT, _FIRMWARE_ERROR = 119, 120
_RESET = 1


class GpuFirmwareHang(NodeFault):
    """The pod stays ready, since its health check asks no GPU. Heals with a reset of the GPU, or another node."""

    id = "G09"
    title = "A GPU's firmware hangs"
    alert = "LLMEngineStalled"
    by_hand = "reset the hung GPU"
    xid = _RPC_TIMEOUT
    repeats = 1
    silent_after = 4  # steps

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.xid = _FIRMWARE_ERROR if stage.rng.random() < 0.25 else _RPC_TIMEOUT
        self.repeats = int(stage.rng.integers(1, 4))
        self.silent_after = int(stage.rng.integers(2, 9))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        if not level:
            stage.hardware.repair(self.node)
            return
        for _ in range(self.repeats):
            stage.hardware.strike(self.node, self.xid)
        chip = stage.hardware.chip(self.node)
        chip.is_hung = True
        chip.recovery_action = _RESET
        chip.silent_from = stage.hardware.now + self.silent_after

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.is_stalled(self.node)
