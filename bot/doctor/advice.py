"""What the doctor says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """UNKNOWN is an answer of its own: it never counts as fine."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """`about` is what was looked at, `says` what was found, and `remedy` what to do about it."""

    state: State
    about: str
    says: str
    remedy: str = ""

    @classmethod
    def ok(cls, about: str, says: str) -> Advice:
        return cls(state=State.OK, about=about, says=says)

    @classmethod
    def bad(cls, about: str, says: str, remedy: str) -> Advice:
        return cls(state=State.BAD, about=about, says=says, remedy=remedy)

    @classmethod
    def unknown(cls, about: str, says: str, remedy: str) -> Advice:
        return cls(state=State.UNKNOWN, about=about, says=says, remedy=remedy)
