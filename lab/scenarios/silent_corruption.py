"""G10: one GPU computes wrong numbers and says nothing about it; its pod's answers are bad and do not end."""

from __future__ import annotations

from datetime import datetime

from lab.scenarios.fault import Shape
from lab.scenarios.node_fault import NodeFault, pod_on
from lab.stage import Stage

_USUAL = 0.4
"""The share of answers that wrong arithmetic spoils at the usual strength."""


class SilentCorruption(NodeFault):
    """Heals when the node's GPU is replaced; taking the pod out of the traffic spares its users meanwhile."""

    id = "G10"
    title = "One GPU computes wrong answers"
    alert = "LLMJudgeDrop"
    by_hand = "reset the GPU and run it again"
    shapes = (Shape.STEP, Shape.INTERMITTENT)
    _pod = ""

    def set_up(self, stage: Stage, start: datetime) -> None:
        super().set_up(stage, start)
        self.share = _USUAL * self.strength

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.share = min(0.9, _USUAL * self.strength * float(stage.rng.uniform(0.8, 1.2)))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        self._pod = self._pod or pod_on(stage, self.node)
        stage.hardware.chip(self.node).corruption = self.share * level

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        return "pod", [self._pod or pod_on(stage, self.node)]

    def is_broken(self, stage: Stage) -> bool:
        return stage.hardware.corrupts(self.node) > 0
