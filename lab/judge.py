"""The judge that scores a tenth of the answers: a model with a version of its own, which may drift."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(kw_only=True)
class Judge:
    """
    `bias` is what the judge's own version adds to every score.

    `lag` is how long after an answer its score and its users' thumbs are counted; read once, when the fleet starts.
    """

    version: str = "judge-7"
    bias: float = 0.0
    lag: timedelta = timedelta(0)
