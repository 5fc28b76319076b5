"""What the card and its thread say about one incident, as plain values; the only input of `blocks` and `thread`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from bot.incidents import PlanState
from diagnostics.findings import Status
from runbooks.engine.values import Tier


class CardState(StrEnum):
    """Which buttons make sense; DIAGNOSING is an open incident whose verdict is still being worked out."""

    DIAGNOSING = "diagnosing"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class StepState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    VERIFYING = "verifying"
    VERIFIED = "verified"
    NOT_VERIFIED = "not_verified"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A Slack message: `text` for notifications and screen readers, `blocks` for the eye. Both are safe to send."""

    text: str
    blocks: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CauseLine:
    """A ranked cause; `probability` is 0 to 1."""

    cause: str  # catalogue id, `none` or `other`
    title: str
    probability: float
    evidence_for: tuple[str, ...] = ()
    evidence_against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvidenceLine:
    """One finding: its sentence, and the number that matters most beside its baseline."""

    status: Status
    summary: str
    label: str = ""
    now: float | None = None
    baseline: float | None = None
    unit: str = ""
    url: str = ""  # its graph in the Prometheus that was asked


@dataclass(frozen=True, kw_only=True)
class BlindLine:
    """Questions that stayed open for one reason, which says what would answer them."""

    checks: tuple[str, ...]
    why: str

    @property
    def sentence(self) -> str:
        """ "gpu ecc, gpu xid and 3 more (the service has no gpu selector)"."""
        more = len(self.checks) - 3
        return f"{', '.join(self.checks[:3])}{f' and {more} more' if more > 0 else ''} ({self.why})"


@dataclass(frozen=True, kw_only=True)
class SuspectLine:
    """The change that may be guilty: how long before the trouble it was made, and where it can be read."""

    summary: str
    at: datetime
    author: str = ""
    source: str = ""
    before_onset_s: float | None = None
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    diff: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class RunbookLine:
    """A runbook that fits, and why; `score` is 0 to 1. `helpful` and `wrong` are votes on it in this incident."""

    title: str
    reasons: tuple[str, ...] = ()
    url: str = ""
    heading: str = ""
    score: float | None = None
    doc_id: str = ""
    helpful: int = 0
    wrong: int = 0


@dataclass(frozen=True, kw_only=True)
class SeenLine:
    """
    A past incident that resembles this one: how long before it began, what it was, what was done, how long it took.

    `sentence` says all that but the reasons; `score` is 0 to 1.
    """

    incident_id: str
    name: str  # "#12", or PagerDuty's id
    title: str
    service: str
    began: datetime
    cause: str  # catalogue id, "" where none was found
    cause_title: str
    is_confirmed: bool  # by a fix that was verified; else it was only diagnosed
    fix: str  # "" where none ran
    outcome: str
    took_s: float
    sentence: str
    score: float
    reasons: tuple[str, ...] = ()
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """One step of a plan; `effect` is exactly what it changes, `undo` how that is taken back ("" = it cannot be)."""

    index: int
    title: str
    effect: str
    undo: str = ""
    state: StepState = StepState.WAITING
    note: str = ""  # the outcome in words: "TTFT 0.74 s -> 0.47 s"


@dataclass(frozen=True, kw_only=True)
class PlanLine:
    """
    A fix and how far it is.

    `may_approve` names roles or people in words, `needed` is how many of them. `why` explains a state that needs it
    (denied, failed, stale, not verified). `doubt_step` is the step that may or may not have run. `params` are the names
    and values that a person may change.
    """

    plan_id: str
    title: str
    state: PlanState
    tier: Tier
    steps: tuple[StepLine, ...]
    may_approve: tuple[str, ...] = ()
    needed: int = 1
    approved_by: tuple[str, ...] = ()
    decided_by: str = ""
    requester: str = ""
    expires_at: datetime | None = None
    why: str = ""
    doubt_step: int | None = None
    can_undo: bool = False
    hold: str = ""  # why nobody can approve it now: a freeze, or a service that only shows its fixes
    is_undo: bool = False
    params: tuple[tuple[str, str], ...] = ()
    on_failure: str = ""  # what whoever approves is told of an undo without a click; "" where there is none
    needs_code: bool = False  # each approver proves themselves outside Slack


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Another possible fix that a person may request."""

    plan_id: str
    title: str
    tier: Tier


@dataclass(frozen=True, kw_only=True)
class Deed:
    """Something that a person (or Watchkeeper) did to the incident: "approved the fix", "was refused: approve"."""

    at: datetime
    who: str
    did: str


@dataclass(frozen=True, kw_only=True)
class CardView:
    """
    One incident as people see it.

    `service` is the name in the configuration, or PagerDuty's when `is_configured` is false; such an incident is
    shown, never dropped, but nothing can be diagnosed or fixed. `offers_fixes` is false in modes `observe` and
    `suggest`, `shows_fixes` in `observe` only. `plan` is the fix that is on the table, `earlier_plans` those that are
    over. `troubles` are sentences about parts of Watchkeeper that do not work now ("PagerDuty cannot be asked for the
    alert's details").
    """

    incident_id: str
    title: str
    service: str
    state: CardState
    paged_at: datetime
    number: int | None = None
    environment: str = ""
    url: str = ""
    urgency: str = ""
    assignees: tuple[str, ...] = ()
    is_configured: bool = True
    offers_fixes: bool = True
    shows_fixes: bool = True
    run: int = 1
    since: datetime | None = None
    user_impact: bool | None = None
    impact: str = ""  # who is hurt and how many, in a sentence
    scope: str = ""
    causes: tuple[CauseLine, ...] = ()
    evidence: tuple[EvidenceLine, ...] = ()
    suspect: SuspectLine | None = None
    other_suspects: tuple[SuspectLine, ...] = ()
    runbook: RunbookLine | None = None
    other_runbooks: tuple[RunbookLine, ...] = ()
    seen: tuple[SeenLine, ...] | None = None  # None until somebody looked; nothing like it is an answer
    plan: PlanLine | None = None
    no_plan_because: str = ""
    earlier_plans: tuple[PlanLine, ...] = ()
    other_fixes: tuple[Choice, ...] = ()
    blind_spots: tuple[BlindLine, ...] = ()
    asked: int = 0  # how many questions the diagnosis asked, and how many of them stayed open
    unanswered: int = 0
    next_check: str = ""
    acknowledged_by: str = ""
    resolved_by: str = ""
    merged_into: str = ""  # "PagerDuty #12", the incident that carries on
    merged_url: str = ""
    deeds: tuple[Deed, ...] = ()
    stopped: str = ""  # a sentence while the kill switch is on
    troubles: tuple[str, ...] = ()
    diagnosis_s: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state is CardState.RESOLVED


def newest(deeds: Sequence[Deed], count: int) -> list[Deed]:
    """The last deeds in the order in which they were done."""
    return sorted(deeds, key=lambda deed: deed.at)[-count:]
