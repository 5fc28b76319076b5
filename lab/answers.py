"""How good the answers to a prompt are: what the schema check, the users and the judge make of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ASKS_FOR_JSON = re.compile(r"\bJSON\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class AnswerQuality:
    """Shares of answers that pass the schema check and that users mark down (0 to 1), and the judge's mean score."""

    valid: float = 0.992
    thumbs_down: float = 0.04
    judge: float = 0.86
    refusal: float = 0.015
    empty: float = 0.002
    truncated: float = 0.03

    @property
    def outcomes(self) -> dict[str, float]:
        """Shares by outcome; they sum to 1."""
        ok = 1 - self.refusal - self.empty - self.truncated
        return {"ok": ok, "refusal": self.refusal, "empty": self.empty, "truncated": self.truncated}


USUAL = AnswerQuality()
WITHOUT_A_FORM = AnswerQuality(valid=0.71, thumbs_down=0.07, judge=0.80)
"""
What a model makes of a task that needs JSON and does not say so: by habit and by the history in its prompt most answers
still are, the others are prose that the application cannot show.
"""


def answer_quality(text: str, *, needs_json: bool) -> AnswerQuality:
    """What becomes of a prompt with this text on a route whose application parses JSON, or does not."""
    return WITHOUT_A_FORM if needs_json and not _ASKS_FOR_JSON.search(text) else USUAL
