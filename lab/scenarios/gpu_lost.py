"""G01: a GPU falls off its bus; its pod dies, and the one that replaces it finds no GPU."""

from __future__ import annotations

from datetime import datetime, timedelta

from lab.cluster_failures import PodFailure
from lab.scenarios.node_fault import NodeFault, occupy_spare_nodes
from lab.stage import Stage

_NO_DEVICE = (
    "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, "
    "which is unexpected"
)
_FALLEN_OFF_THE_BUS = 79
_REBOOT = 2


class GpuLost(NodeFault):
    """
    Heals when somebody reboots the node or replaces the board; until then its only GPU is missing.

    The spare nodes are another team's by then, so that the new pod waits.
    """

    id = "G01"
    title = "A GPU has fallen off the bus"
    alert = "GPUXidCritical"
    by_hand = "power-cycle"
    silent_after = 3  # steps
    replaced_after = timedelta(seconds=60)

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.silent_after = int(stage.rng.integers(2, 7))
        self.replaced_after = timedelta(seconds=float(stage.rng.uniform(40, 100)))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        if not level:
            stage.hardware.repair(self.node)
            return
        occupy_spare_nodes(stage)
        hardware = stage.hardware
        hardware.strike(self.node, _FALLEN_OFF_THE_BUS)
        chip = hardware.chip(self.node)
        chip.is_lost = True
        chip.recovery_action = _REBOOT
        chip.silent_from = hardware.now + self.silent_after
        stage.cluster.failures.append(
            PodFailure(
                hits=lambda pod: hardware.lost(pod["spec"]["nodeName"]) > 0,
                exit_code=134,
                message=_NO_DEVICE,
                replaced_after=self.replaced_after,
            )
        )

    def is_healthy(self, stage: Stage) -> bool:
        return not self.is_broken(stage)

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.lost(self.node) > 0
