"""Q05: a flag lets answers get only so long, and many are cut off in the middle."""

from __future__ import annotations

from datetime import datetime

from lab.answers import limit
from lab.scenarios.fault import Fault
from lab.stage import Stage

_USUAL = 1024


class AnswersCutOff(Fault):
    """Heals when the flag allows longer answers again."""

    id = "Q05"
    title = "A flag cuts answers off"
    alert = "LLMTruncation"
    by_hand = "Set max_tokens"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.max_tokens = 200

    def draw(self, stage: Stage) -> None:
        """The smallest limit, in steps of eight tokens, that cuts off no more than a drawn share."""
        cut = min(0.75, 0.35 * self.strength * float(stage.rng.uniform(0.8, 1.2)))
        mean = stage.normal.output_tokens
        self.max_tokens = next(most for most in range(16, _USUAL + 1, 8) if limit(most, mean).cut <= cut)

    def begin(self, stage: Stage, at: datetime) -> None:
        told = {"author": "frank", "scope": {"route": ("chat",)}, "before": str(stage.flags.max_tokens)}
        summary = f"max_tokens of the route chat: {stage.flags.max_tokens} -> {self.max_tokens}"
        stage.log.append(self.guilty(at, "flag", summary, "flags", **told, after=str(self.max_tokens)))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a flag has two states
        stage.flags.max_tokens = self.max_tokens if level > 0 else _USUAL

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "route", ["chat"]

    def is_healthy(self, stage: Stage) -> bool:
        return stage.flags.max_tokens >= _USUAL
