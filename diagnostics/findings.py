"""What a check answers: ok, bad, or unknown with the reason; always with the numbers behind the word."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """UNKNOWN is an answer of its own: it never counts as fine."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """
    One number that a check read, beside what is normal for it.

    `signal` is the name that the causes' knowledge base uses (`prefill`, `prefix_hit_ratio`, ...). `unit` is SI or a
    plain word ("s", "1/s", "ratio", "tokens", "usd/h"). `scope` says where (label, value); empty means the service.
    """

    signal: str
    value: float | None
    baseline: float | None = None
    unit: str = ""
    scope: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check. `summary` is one sentence for a person; `reason` says why it is unknown."""

    check: str
    status: Status
    summary: str
    measures: tuple[Measure, ...] = ()
    reason: str | None = None

    @classmethod
    def ok(cls, check: str, summary: str, *measures: Measure) -> Finding:
        return cls(check=check, status=Status.OK, summary=summary, measures=measures)

    @classmethod
    def bad(cls, check: str, summary: str, *measures: Measure) -> Finding:
        return cls(check=check, status=Status.BAD, summary=summary, measures=measures)

    @classmethod
    def unknown(cls, check: str, reason: str, *measures: Measure) -> Finding:
        return cls(check=check, status=Status.UNKNOWN, summary=reason, measures=measures, reason=reason)
