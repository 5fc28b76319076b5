"""The judge that scores a tenth of the answers: a model with a version of its own, which may drift."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Judge:
    """`bias` is what the judge's own version adds to every score."""

    version: str = "judge-7"
    bias: float = 0.0
