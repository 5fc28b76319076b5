"""The result of one diagnosis: findings, ranked causes, suspects, since when, and what nobody could check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.changes.change import Change
from diagnostics.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Frame:
    """
    The times that a diagnosis compares: `recent` up to `at`, against the baseline window.

    A verification uses the frame of the diagnosis with a later `at`, so both compare with the same healthy past. With
    `events_from` it counts only what happened since (restarts, memory errors): those that the fix was for are past.
    """

    at: datetime
    baseline_start: datetime
    baseline_end: datetime
    recent: timedelta = timedelta(minutes=5)
    events_from: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RankedCause:
    """A cause with the probability that it is the first one, and the evidence in plain sentences."""

    cause: str  # catalogue id (S04), `none` or `other`
    title: str
    probability: float
    evidence_for: tuple[str, ...] = ()
    evidence_against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A change that may be guilty; `score` is 0 to 1 and `diff` a short unified diff of what it changed, if known."""

    change: Change
    score: float
    reasons: tuple[str, ...] = ()
    diff: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """
    One stage of the latency breakdown: mean seconds now and in the baseline, and its share of the total change.

    `error_s` is the standard error of its change, None where the minutes are too few or unknown.
    """

    stage: str
    now_s: float | None
    baseline_s: float | None
    share: float | None = None
    error_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class BlindSpot:
    """A question that stayed open, and what would answer it (an exporter setting, a credential)."""

    check: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where the trouble is: one dimension (fleet, pod, node, prompt_version, ...) and its values; fleet has none."""

    dimension: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that the card, the plan and the record need to know about one look at one service."""

    service: str
    frame: Frame
    since: datetime | None
    user_impact: bool
    causes: tuple[RankedCause, ...]
    findings: tuple[Finding, ...]
    stages: tuple[Stage, ...] = ()
    scope: Scope | None = None
    suspects: tuple[Suspect, ...] = ()
    culprit_change: str | None = None
    blind_spots: tuple[BlindSpot, ...] = ()
    next_check: str | None = None
    seconds: float = 0.0
