"""What callers ask about: whether a segment's questions still look like those of the reference week."""

from __future__ import annotations

from dataclasses import dataclass, field

SEGMENTS = ("en", "de", "fr", "es", "pl")
"""The languages that the drift monitor tells apart; each caller writes in one."""

_SCORE_LOST = 0.08
"""How much less similar the best passage is to a question that nobody wrote a passage for."""


@dataclass(kw_only=True)
class Inputs:
    """
    `strangeness` is by segment how well a classifier tells its questions from those of the reference week: 0 at rest,
    0.5 when it always can. What is strange is what callers ask much of, so that it shows in the whole service.
    """

    strangeness: dict[str, float] = field(default_factory=dict)

    def auc(self, segment: str) -> float:
        """The domain classifier's ROC-AUC: 0.5 is a coin."""
        return 0.5 + self.strangeness.get(segment, 0.0)

    @property
    def level(self) -> float:
        """How unfamiliar the questions are: 0 at rest, about 1 for a language that the service was not made for."""
        return max(self.strangeness.values(), default=0.0) / 0.32

    @property
    def score_lost(self) -> float:
        """By how much the best passage's similarity is lower."""
        return _SCORE_LOST * self.level
