"""
The state of an incident as a fold over its events: in any order, any number of times, the same end. Pure.

PagerDuty delivers at least once, and after an outage late. So nothing here depends on which event came first: it keeps
the newest event, the newest `resolved` and the newest `reopened`, each by (occurred_at, rank of the state, event id).
An incident is resolved while its newest `resolved` is newer than its newest `reopened`; else the newest event's state
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bot.incidents import Delivery, IncidentState

Columns = Mapping[str, Any]
"""The columns of `incident` that events decide."""

_RANK = {IncidentState.TRIGGERED: 0, IncidentState.ACKNOWLEDGED: 1, IncidentState.RESOLVED: 2}
_NOTHING: Columns = {
    "latest_key": "",
    "resolved_key": "",
    "reopened_key": "",
    "assigned_key": "",
    "assignees": {},
    "merged_into": None,
}


def says_a_state(event: Delivery) -> bool:
    """Whether the event can change its incident; the others (notes, responders, services) only refer to one."""
    return event.incident_id is not None and event.incident.get("status") in set(IncidentState)


def fold(known: Columns | None, event: Delivery) -> dict[str, Any]:
    """
    The incident after one more event; `known` is None at the first sight of it.

    Raises KeyError or ValueError for an event without a readable time of creation.
    """
    facts = event.incident
    state = IncidentState(facts["status"])
    key = f"{event.occurred_at.isoformat(timespec='microseconds')}|{_RANK[state]}|{event.event_id}"
    values = dict(known or _NOTHING)
    if key > values["latest_key"]:
        values |= {"latest_key": key, "latest_state": state.value, "state_at": event.occurred_at, **_facts(facts)}
    # A resolved incident has no assignees any more, but whoever was paged for it may still have to answer.
    if facts.get("assignees") and key > (values["assigned_key"] or ""):
        values |= {"assigned_key": key, "assignees": dict(facts["assignees"])}
    if state is IncidentState.RESOLVED and key > values["resolved_key"]:
        values |= {"resolved_key": key, "merged_into": facts.get("merged_into")}
    if event.kind == "incident.reopened":
        values["reopened_key"] = max(values["reopened_key"], key)
    is_resolved = values["resolved_key"] > values["reopened_key"]
    values["state"] = IncidentState.RESOLVED.value if is_resolved else values["latest_state"]
    return values


def begins_anew(known: Columns | None, values: Columns) -> bool:
    """
    Whether the incident needs a diagnosis now: at its first sight, and once for each time that it was re-opened.

    A re-opening counts when both it and the resolution before it are known, so a second word of the same one (from
    PagerDuty's list, or with another id) begins nothing.
    """
    if known is None:
        return bool(values["state"] != IncidentState.RESOLVED)
    was_back = "" < known["resolved_key"] < known["reopened_key"]
    is_back = "" < values["resolved_key"] < values["reopened_key"]
    return is_back and (not was_back or bool(values["resolved_key"] > known["resolved_key"]))


def _facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that the newest event decides."""
    return {
        "number": facts.get("number"),
        "title": facts.get("title") or "(no title)",
        "url": facts.get("url") or "",
        "urgency": facts.get("urgency") or "high",
        "service_id": facts.get("service_id") or "",
        "service_name": facts.get("service_name") or "",
        "created_at": datetime.fromisoformat(facts["created_at"]),
    }
