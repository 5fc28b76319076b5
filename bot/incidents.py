"""The words of the application: incidents, deliveries, people, decisions, and the errors that refuse them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `watchkeeper --help` imports this module, and need not wait for pydantic
    from runbooks.engine.declared import Parameter


class IncidentState(StrEnum):
    """
    PagerDuty's states of an incident.

        triggered -> acknowledged -> resolved
             ^____________|  unacknowledged        resolved -> triggered only by `incident.reopened`
    """

    TRIGGERED = "triggered"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class PlanState(StrEnum):
    """
    The life of a plan.

        alternative -> proposed -> approved -> running -> verified
                          |           |           |-----> not_verified -> (undo: a plan of its own)
                          |           |           |-----> done (an undo, or a person's work: nothing to verify)
                          |           |           |-----> failed
                          |           |           |-----> stopped (the kill switch, before the next step)
                          |           |           '-----> in_doubt | waiting -> running | failed | not_verified
                          |           '-> stale | expired | stopped
                          '-> denied | expired | superseded
    """

    ALTERNATIVE = "alternative"  # another possible fix, offered on request
    PROPOSED = "proposed"
    APPROVED = "approved"
    RUNNING = "running"
    VERIFIED = "verified"
    DONE = "done"
    NOT_VERIFIED = "not_verified"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    WAITING = "waiting"  # its next step is for a person to do
    DENIED = "denied"
    EXPIRED = "expired"
    STALE = "stale"
    STOPPED = "stopped"  # by the kill switch; it never goes on
    SUPERSEDED = "superseded"


ASKS_A_PERSON = frozenset({PlanState.IN_DOUBT, PlanState.WAITING})
"""A person's answer begins the plan's next chapter."""


class WatchkeeperError(Exception):
    """Something that a person is told in one sentence; the message is that sentence."""


class StoreUnavailableError(WatchkeeperError):
    """The database cannot be written now; nothing was stored, and the sender must try again."""


class OverloadedError(WatchkeeperError):
    """We are behind, and this event changes nothing about an incident; nothing was stored, send it again later."""


class LifelessError(StoreUnavailableError):
    """This process has not reached its database for so long that others may take it for dead: it keeps still."""


class DeclaredDeadError(WatchkeeperError):
    """Another process declared this one dead and took over; it ends, so that its supervisor starts a fresh one."""


class UnreadableEventError(WatchkeeperError):
    """An authentic webhook whose content we do not understand; it goes to the dead letters."""


class NotAllowedError(WatchkeeperError):
    """This person may not do this; the message says who may."""


class AlreadyDecidedError(WatchkeeperError):
    """Somebody decided first."""


class StaleError(WatchkeeperError):
    """The world moved on: the plan expired, was replaced, or the state it was made for is gone."""


class StoppedError(StaleError):
    """The kill switch is on, was on since the plan was made, or cannot be read: nothing starts."""


class StepUpNeededError(WatchkeeperError):
    """This needs a one-time code, outside Slack; the message says how, and `url` is the page for it ("" for none)."""

    def __init__(self, message: str, *, url: str = "") -> None:
        self.url = url
        super().__init__(message)


class StepUpRefusedError(WatchkeeperError):
    """A one-time code that does not count: wrong, used, or of somebody who is locked out for a while."""


class NotFoundError(WatchkeeperError):
    """There is no such incident or plan."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """
    One authentic event, as it came through the door.

    `event_id` is the signed identity that duplicates share. `incident` holds what the webhook says of the incident
    (id, number, title, status, service_id, service_name, url, urgency, created_at, assignees), empty when the event
    is not about one. `raw` is the body as text, cleaned and redacted.
    """

    event_id: str
    source: str  # pagerduty | reconcile
    kind: str  # incident.triggered, ...
    occurred_at: datetime
    incident_id: str | None
    incident: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert of an incident with its details; `labels` and `annotations` come from Alertmanager's text, if any."""

    alert_id: str
    name: str
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Incident:
    """An incident as we know it. `run` is the number of its latest diagnosis; `revision` counts what the card shows."""

    incident_id: str
    number: int | None
    title: str
    state: IncidentState
    state_at: datetime
    created_at: datetime
    pagerduty_service: str
    pagerduty_service_name: str
    service: str | None  # name in watchkeeper.toml; None when it is not configured
    url: str
    urgency: str
    assignees: Mapping[str, str]  # PagerDuty user id -> name
    run: int
    revision: int
    acknowledged_by: str | None = None
    resolved_by: str | None = None
    merged_into: str | None = None  # PagerDuty's id of the incident that carries on, while this one is resolved


@dataclass(frozen=True, kw_only=True)
class Person:
    """
    Somebody whom the configuration knows; roles are global, the others depend on the service and the incident.

    `given` are those that Slack's groups and PagerDuty's schedules give now, as (service or "*", role).

    `channel` is how they came this time: `slack`, or `operator` for who signed in outside it. It goes on record.
    """

    person_id: str
    name: str
    pagerduty: str | None = None
    email: str | None = None
    roles: frozenset[str] = frozenset()
    given: frozenset[tuple[str, str]] = frozenset()
    slack_user: str = ""
    channel: str = "slack"


@dataclass(frozen=True, kw_only=True)
class IncidentLine:
    """One open incident in `/oncall status`."""

    incident_id: str
    title: str
    service: str
    state: str
    cause: str
    waiting_for: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be chosen in a plan: its runbook's parameters, and the values that it has now, as text."""

    plan_id: str
    digest: str
    title: str
    declared: Mapping[str, Parameter]
    values: Mapping[str, str]
