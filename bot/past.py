"""What became of an incident: its cause and how that is known, the fix that ran, and how it ended; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from bot.incidents import Alert, Incident, PlanState
from bot.question import question_of
from retrieval.documents import Question
from retrieval.similar import Past, Similar
from runbooks.engine.run import MANUAL

_ALERTS = TypeAdapter(list[Alert])
_NO_CAUSE = frozenset({"none", "other"})
_NOTHING: Mapping[str, Any] = {"cause": "none", "title": "", "probability": 0.0}


class Outcome(StrEnum):
    """How the last fix ended that ran for an incident."""

    VERIFIED = "verified"
    NOT_VERIFIED = "not verified"
    UNDONE = "undone"
    BY_HAND = "by hand"
    UNPROVEN = "done, unproven"
    CUT_SHORT = "cut short"  # failed or stopped: some of its steps may have run
    NONE = "none"


_OUTCOMES = {
    PlanState.VERIFIED: Outcome.VERIFIED,
    PlanState.NOT_VERIFIED: Outcome.NOT_VERIFIED,
    PlanState.DONE: Outcome.UNPROVEN,
    PlanState.FAILED: Outcome.CUT_SHORT,
    PlanState.STOPPED: Outcome.CUT_SHORT,
}


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A plan of which something is in the journal."""

    plan_id: str
    run: int
    state: PlanState
    ended: datetime
    runbook: str
    titles: tuple[str, ...]
    actions: tuple[str, ...]
    undoes: str | None


@dataclass(frozen=True, kw_only=True)
class Look:
    """One diagnosis as JSON, with the alerts that it read."""

    number: int
    alerts: Sequence[Mapping[str, Any]] | None
    diagnosis: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class PastIncident:
    """An incident that is over. `is_confirmed` says that a fix for this cause ran and the telemetry recovered."""

    incident: Incident
    burst: int | None
    question: Question
    cause: str
    cause_title: str
    probability: float
    is_confirmed: bool
    fix: str
    outcome: Outcome

    @property
    def began(self) -> datetime:
        return self.incident.created_at

    @property
    def took(self) -> timedelta:
        return max(self.incident.state_at - self.incident.created_at, timedelta())

    def as_searched(self) -> Past:
        """What the search compares."""
        return Past(
            incident_id=self.incident.incident_id,
            began=self.began,
            title=self.incident.title,
            text=self.question.text,
            alert=self.question.alert,
            service=self.question.service,
            cause=self.cause,
            certainty=1.0 if self.is_confirmed else self.probability,
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A past incident that resembles another one, and why."""

    past: PastIncident
    similar: Similar


def past_of(
    incident: Incident,
    looks: Sequence[Look],
    fixes: Sequence[Fix],
    *,
    burst: int | None,
    treats: Callable[[str], Collection[str]],
) -> PastIncident:
    """`treats` gives the causes that a runbook declares; none for one that does not exist any more."""
    fix, outcome = _last(fixes)
    verified = fix if outcome is Outcome.VERIFIED else None
    look = _telling(looks, verified.run if verified else None)
    causes: list[Mapping[str, Any]] = list((look.diagnosis or {}).get("causes", ())) if look else []
    treated = set(treats(verified.runbook)) if verified else set()
    confirmed = next((cause for cause in causes if cause["cause"] in treated), None)
    first = confirmed or next(iter(causes), _NOTHING)
    is_known = first["cause"] not in _NO_CAUSE
    return PastIncident(
        incident=incident,
        burst=burst,
        question=question_about(incident, look),
        cause=first["cause"] if is_known else "",
        cause_title=first["title"] if is_known else "",
        probability=float(first["probability"]) if is_known else 0.0,
        is_confirmed=confirmed is not None,
        fix="; ".join(fix.titles) if fix else "",
        outcome=outcome,
    )


def question_about(incident: Incident, look: Look | None) -> Question:
    """
    The alert in its author's words, and the sentences of the verdict: how incidents are compared, past or not.

    An incident without a service of ours is of PagerDuty's.
    """
    alerts = _ALERTS.validate_python(look.alerts) if look and look.alerts else []
    causes = (look.diagnosis or {}).get("causes", ()) if look else ()
    asked = question_of(incident.title, service_of(incident), alerts, None)
    said = [asked.text]
    if causes and causes[0]["cause"] not in _NO_CAUSE:
        said += [causes[0]["title"], *causes[0].get("evidence_for", ())]
    return Question(
        text="\n".join(said),
        alert=asked.alert,
        service=asked.service,
        causes=tuple((cause["cause"], float(cause["probability"])) for cause in causes),
    )


def service_of(incident: Incident) -> str:
    """Our name for it, else PagerDuty's id, which is no name of ours."""
    return incident.service or f"pagerduty:{incident.pagerduty_service}"


def _telling(looks: Sequence[Look], number: int | None) -> Look | None:
    """The diagnosis that the fix was made from, else the latest that has one, else the latest."""
    for look in looks:
        if look.number == number:
            return look
    newest_first = sorted(looks, key=lambda look: -look.number)
    return next((look for look in newest_first if look.diagnosis), newest_first[0] if looks else None)


def _last(fixes: Sequence[Fix]) -> tuple[Fix | None, Outcome]:
    """The fix that ended last, and what it came to."""
    ran = [fix for fix in fixes if fix.undoes is None and fix.state in _OUTCOMES]
    if not ran:
        return None, Outcome.NONE
    last = max(ran, key=lambda fix: fix.ended)
    undone = {fix.undoes for fix in fixes if fix.undoes and fix.state is PlanState.DONE}
    if last.plan_id in undone:
        return last, Outcome.UNDONE
    if last.state is PlanState.DONE and all(action == MANUAL for action in last.actions):
        return last, Outcome.BY_HAND
    return last, _OUTCOMES[last.state]
