"""
Folds waiting deliveries into incidents, many in one transaction.

A commit costs milliseconds and the next one waits for it, so in a storm a hundred events share one. The rows are locked
in one order (deliveries, incidents by id, plans, the record last), so that several processes can fold side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.fold import begins_anew, fold, says_a_state
from bot.incidents import Delivery, IncidentState, PlanState
from bot.store.audit import Entry, append_all
from bot.store.statements import insert_all_new, queue_runs
from bot.store.tables import delivery, incident, plan

BATCH = 100
_OURS = {"acknowledged_by": None, "resolved_by": None, "run": 0}
_COLUMNS = (
    "number", "title", "url", "urgency", "service_id", "service_name", "service", "assignees", "assigned_key",
    "created_at", "state", "state_at", "latest_key", "latest_state", "resolved_key", "reopened_key", "merged_into",
    *_OURS,
)  # fmt: skip
_UPDATE = (
    incident.update()
    .where(incident.c.incident_id == sa.bindparam("which"))
    .values({name: sa.bindparam(f"new_{name}") for name in _COLUMNS})
    .values(revision=incident.c.revision + 1)
)
_RESOLVED = "The incident was resolved in PagerDuty."
_MERGED = "PagerDuty merged the incident into another one."


class OvertakenError(Exception):
    """Another process saw one of these incidents first, in the same moment; fold again on top of it."""


@dataclass(frozen=True, kw_only=True)
class _Course:
    """What the events of one incident make of it; `known` is None at its first sight, `ends` says: its open plans."""

    known: Mapping[str, Any] | None
    values: Mapping[str, Any]
    runs: Sequence[tuple[int, str]]
    record: Sequence[Entry]
    ends: bool

    @property
    def is_changed(self) -> bool:
        return self.known is None or any(self.known[name] != self.values[name] for name in _COLUMNS)


def fold_some(connection: sa.Connection, *, services: Mapping[str, str], now: datetime, only: str | None = None) -> int:
    """
    Fold up to a hundred of the oldest waiting deliveries, or only this one; returns how many.

    Raises KeyError, TypeError, ValueError or DBAPIError when one of them cannot be folded; OvertakenError.
    """
    events = _claim(connection, only)
    if not events:
        return 0
    by_incident: dict[str, list[Delivery]] = {}
    for event in events:
        if says_a_state(event):
            by_incident.setdefault(str(event.incident_id), []).append(event)
    known = _locked(connection, by_incident)
    courses = {which: _course(known.get(which), by_incident[which], services) for which in sorted(by_incident)}
    ended = _write(connection, {which: each for which, each in courses.items() if each.is_changed}, now)
    done = delivery.update().where(delivery.c.event_id.in_([event.event_id for event in events])).values(state="done")
    connection.execute(done)
    seen = [entry for course in courses.values() for entry in course.record]
    append_all(connection, [*seen, *ended], at=now)
    return len(events)


def waiting(connection: sa.Connection) -> list[str]:
    """The event ids of the next batch."""
    query = sa.select(delivery.c.event_id).where(delivery.c.state == "new")
    query = query.order_by(delivery.c.received_at, delivery.c.event_id).limit(BATCH)
    return list((connection.execute(query)).scalars())


def _claim(connection: sa.Connection, only: str | None) -> list[Delivery]:
    """What another process is folding at this moment is left to it."""
    columns = [column for column in delivery.c if column.name not in ("raw", "state", "why", "received_at")]
    query = sa.select(*columns).where(delivery.c.state == "new")
    if only is not None:
        query = query.where(delivery.c.event_id == only)
    query = query.order_by(delivery.c.received_at, delivery.c.event_id).limit(BATCH).with_for_update(skip_locked=True)
    return [Delivery(**row._asdict()) for row in connection.execute(query)]


def _locked(connection: sa.Connection, incident_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    query = sa.select(incident).where(incident.c.incident_id.in_(list(incident_ids)))
    rows = connection.execute(query.order_by(incident.c.incident_id).with_for_update())
    return {row.incident_id: row._asdict() for row in rows}


def _course(known: Mapping[str, Any] | None, events: Sequence[Delivery], services: Mapping[str, str]) -> _Course:
    """Pure: every event in turn, and what each one means for runs, plans and the record."""
    before, values, ends = known, dict(known or {}), False
    runs, record = [], []
    for event in events:
        values = {**_OURS, **fold(before, event)}
        values["service"] = services.get(values["service_id"])
        if values["state"] == IncidentState.TRIGGERED:  # nobody has it any more: the buttons come back
            values["acknowledged_by"] = None
        if values["state"] != IncidentState.RESOLVED and before and before["state"] == IncidentState.RESOLVED:
            values["resolved_by"] = None
        if begins_anew(before, values):
            values["run"] += 1
            runs.append((values["run"], event.kind))
        if before is None or values["state"] != before["state"]:
            record.append(_entry(before, values, event))
            ends = known is not None and values["state"] == IncidentState.RESOLVED
        before = values
    return _Course(known=known, values=values, runs=runs, record=record, ends=ends)


def _entry(before: Mapping[str, Any] | None, values: Mapping[str, Any], event: Delivery) -> Entry:
    details = {"event": event.event_id, "kind": event.kind}
    if event.source != "pagerduty":
        details["source"] = event.source
    if values["state"] == IncidentState.RESOLVED and values["merged_into"]:
        details["into"] = values["merged_into"]
    if before is None:
        action, details["state"] = "incident.seen", values["state"]
    else:
        action = "incident.gone" if event.kind == "incident.gone" else f"incident.{values['state']}"
    return Entry(actor="pagerduty", action=action, subject=str(event.incident_id), details=details)


def _write(connection: sa.Connection, courses: Mapping[str, _Course], now: datetime) -> list[Entry]:
    """Returns what became of plans. Raises OvertakenError."""
    columns = {which: {name: course.values[name] for name in _COLUMNS} for which, course in courses.items()}
    new = [which for which, course in courses.items() if course.known is None]
    rows = [{**columns[which], "incident_id": which, "revision": 1, "shown": 0} for which in new]
    if len(insert_all_new(connection, incident, rows)) < len(new):
        raise OvertakenError(f"one of {len(new)} incidents")
    updates = [{"which": which, **_as_new(values)} for which, values in columns.items() if which not in new]
    if updates:
        connection.execute(_UPDATE, updates)
    record: list[Entry] = []
    for which, course in courses.items():
        if course.ends:
            why = _MERGED if course.values["merged_into"] else _RESOLVED
            record += _end_plans(connection, which, why, now)
    queue_runs(connection, [(which, *each) for which, course in courses.items() for each in course.runs], now=now)
    return record


def _as_new(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in columns.items()}


def _end_plans(connection: sa.Connection, incident_id: str, why: str, now: datetime) -> list[Entry]:
    """Nobody needs to decide on them any more. Taking back what was done stays possible."""
    of_incident = (plan.c.incident_id == incident_id, plan.c.undoes.is_(None))
    proposed = plan.update().where(*of_incident, plan.c.state == PlanState.PROPOSED.value)
    proposed = proposed.values(state=PlanState.STALE.value, state_why=why, state_at=now)
    ended = (connection.execute(proposed.returning(plan.c.plan_id))).scalars()
    others = plan.update().where(*of_incident, plan.c.state == PlanState.ALTERNATIVE.value)
    connection.execute(others.values(state=PlanState.SUPERSEDED.value, state_at=now))
    details = [{"plan": plan_id, "why": why} for plan_id in ended]
    return [Entry(actor="pagerduty", action="plan.stale", subject=incident_id, details=each) for each in details]
