"""G02, G03 and G11: memory errors of a GPU: uncontained, contained to one process, and corrected without a trace."""

from __future__ import annotations

from datetime import datetime, timedelta

from lab.cluster import ENGINE
from lab.cluster_failures import PodFailure
from lab.cluster_objects import Json
from lab.scenarios.node_fault import NodeFault, pod_on
from lab.stage import Stage

_DOUBLE_BIT, _ROW_REMAPPED, _REMAP_FAILED, _CONTAINED, _UNCONTAINED = 48, 63, 64, 94, 95
_UNRECOVERED, _IN_DRAM = 140, 171
_RESET = 1
_OFTEN = 0.3


class UncontainedMemoryError(NodeFault):
    """
    G02. Every engine that is loaded into the bad memory dies of it; heals with a reset of the GPU or another node.

    With `remap_fails` no spare row is left, and only another board helps.
    """

    id = "G02"
    title = "A GPU's memory fails and keeps killing its pod"
    alert = "GPUXidCritical"
    by_hand = "reset the failed GPU"
    xids: tuple[int, ...] = (_DOUBLE_BIT, _UNCONTAINED)
    errors = 2
    remap_fails = False
    lives = (timedelta(seconds=30), timedelta(seconds=120))

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        rng = stage.rng
        last = int(rng.choice([_UNCONTAINED, _UNCONTAINED, _UNRECOVERED]))
        self.errors = int(rng.integers(1, 5))
        self.remap_fails = rng.random() < _OFTEN
        detail = (_IN_DRAM,) if rng.random() < _OFTEN else ()
        self.xids = (_DOUBLE_BIT, *detail, last, *((_REMAP_FAILED,) if self.remap_fails else ()))
        shortest = float(rng.uniform(15, 60))
        self.lives = (timedelta(seconds=shortest), timedelta(seconds=shortest + float(rng.uniform(20, 90))))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        hardware = stage.hardware
        if not level:
            hardware.repair(self.node)
            return
        chip = hardware.chip(self.node)
        for xid in self.xids:
            hardware.strike(self.node, xid)
        chip.double_bit_errors += self.errors
        chip.is_remap_pending = True
        chip.is_remap_failed = self.remap_fails
        chip.is_memory_bad = True
        chip.recovery_action = _RESET
        stage.cluster.failures.append(
            PodFailure(
                hits=lambda pod: hardware.has_bad_memory(pod["spec"]["nodeName"]),
                exit_code=139,
                message="CUDA error: uncorrectable ECC error encountered",
                lives=self.lives,
                ends=lambda pod: hardware.strike(pod["spec"]["nodeName"], self.xids[-1]),
            )
        )

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.has_bad_memory(self.node)


class ContainedMemoryError(NodeFault):
    """G03. One process dies of it, once; the row is replaced at the next reset, and the GPU is sound without it."""

    id = "G03"
    title = "A contained memory error killed one engine"
    alert = "LLMReplicaLoss"
    rows = 1
    _pod = ""

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.rows = int(stage.rng.integers(1, 3))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        if not level:
            stage.hardware.repair(self.node)
            return
        self._pod = pod_on(stage, self.node)
        chip = stage.hardware.chip(self.node)
        for xid in (_ROW_REMAPPED, _CONTAINED):
            stage.hardware.strike(self.node, xid)
        chip.remapped_uncorrectable += self.rows
        chip.is_remap_pending = True
        chip.recovery_action = _RESET
        stage.cluster.failures.append(
            PodFailure(
                hits=self._is_victim,
                exit_code=139,
                message="CUDA error: uncorrectable ECC error encountered",
                times=1,
            )
        )

    def _is_victim(self, pod: Json) -> bool:
        return bool(pod["metadata"]["name"] == self._pod)

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        return "pod", [self._pod or pod_on(stage, self.node)]

    def is_healthy(self, stage: Stage) -> bool:
        deployment = stage.cluster.get("deployments", ENGINE)
        return bool(deployment["status"]["availableReplicas"] >= deployment["spec"]["replicas"])

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.chip(self.node).is_remap_pending


class CorrectedMemoryError(NodeFault):
    """G11, a control: errors were corrected, a row was replaced, and nobody noticed."""

    id = "G11"
    title = "A GPU replaced a row of its memory and nobody noticed"
    alert = "GPURowRemapInfo"
    is_only_recorded = True
    is_harmless = True
    is_control = True
    rows = 1
    errors = 4

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.rows = 1 + int(stage.rng.random() < _OFTEN)
        self.errors = max(1, round(self.strength * float(stage.rng.lognormal(1.5, 1))))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        if not level:
            stage.hardware.repair(self.node)
            return
        chip = stage.hardware.chip(self.node)
        stage.hardware.strike(self.node, _ROW_REMAPPED)
        chip.remapped_correctable += self.rows
        chip.single_bit_errors += self.errors

    def is_broken(self, stage: Stage) -> bool:
        """It works as well as before."""
        del stage
        return False
