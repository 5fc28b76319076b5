"""PagerDuty's V3 webhooks -> our values; pure. Tolerant of fields we do not know, strict about those we need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from bot.incidents import Delivery, IncidentState, UnreadableEventError
from bot.redact import safe_text

DEEPEST = 64  # levels of JSON; real events have fewer than ten

# What the database's columns hold. An id that does not fit is an event that we cannot read: a cut id is another one.
LONGEST_ID = 255
LONGEST_INCIDENT_ID = 200  # keys of messages are made of it, and a button's value; PagerDuty's have 14 to 26
LONGEST_URGENCY = 16
LONGEST_TEXT = 2000
LONGEST_NAME = 255
MOST_ASSIGNEES = 50
LARGEST_NUMBER = 2**31 - 1
LAST_YEAR = 9000
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_OPAQUE_ID = re.compile(r"[0-9A-Z]{1,26}")  # an event's is a ULID of 26
_LONGEST_REMEMBERED = 512
_BRACKET = re.compile(rb"[\[\]{}]")

# Their data is the incident itself, with the state that it is in after the event.
STATE_EVENTS = frozenset(
    f"incident.{name}"
    for name in (
        "triggered", "acknowledged", "unacknowledged", "escalated", "reassigned", "delegated", "reopened", "resolved",
        "priority_updated", "service_updated", "incident_type.changed",
    )
)  # fmt: skip

# Their data refers to the incident.
REFERRING_EVENTS = frozenset(
    f"incident.{name}"
    for name in (
        "annotated", "conference_bridge.updated", "custom_field_values.updated", "responder.added", "responder.replied",
        "role.assigned", "status_update_published", "task.created", "task.updated", "task.completed",
        "action_invocation.created", "action_invocation.updated", "action_invocation.terminated",
        "workflow.started", "workflow.completed",
    )
)  # fmt: skip

# About a service, not an incident.
SERVICE_EVENTS = frozenset(
    f"service.{name}" for name in ("created", "updated", "deleted", "custom_field_values.updated")
)


def parse_event(raw: bytes) -> Delivery:
    """
    The event of one webhook body.

    Every text of it is cleaned and redacted. Raises UnreadableEventError, which says what is wrong with it: not JSON,
    deeper than 64 levels, a type we do not know (PagerDuty adds new ones; `pagey.ping` counts too), a field missing,
    an id that is too long.
    """
    event = _object(_json(raw), "event", "the body")
    event_id = _id(_text(event, "id", "event"), "event.id", LONGEST_ID)
    kind = _text(event, "event_type", "event")
    incident: dict[str, Any] = {}
    if kind in STATE_EVENTS:
        incident = _incident(_object(event, "data", "event"))
        if "status" not in incident:
            raise UnreadableEventError(f"{kind}: data.status is none of triggered, acknowledged, resolved")
    elif kind in REFERRING_EVENTS:
        incident = _incident(_reference(_object(event, "data", "event"), kind))
    elif kind not in SERVICE_EVENTS:
        raise UnreadableEventError(f"unknown event type {safe_text(kind)[:80]!r}")
    return Delivery(
        event_id=event_id,
        source="pagerduty",
        kind=kind,
        occurred_at=_time(event.get("occurred_at"), "event.occurred_at"),
        incident_id=incident.get("id"),
        incident=incident,
    )


def _incident(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the webhook says of the incident; absent fields are absent, since a reference has only id, title and URL."""
    known: dict[str, Any] = {"id": _id(_text(data, "id", "data"), "data.id", LONGEST_INCIDENT_ID)}
    service = data.get("service")
    service = service if isinstance(service, Mapping) else {}
    texts = {
        "title": data.get("title") or data.get("summary"),
        "url": data.get("html_url"),
        "urgency": data.get("urgency"),
        "service_name": service.get("summary"),
    }
    known |= {name: shown for name, value in texts.items() if (shown := _bounded(value, name))}
    if isinstance(service_id := service.get("id"), str) and service_id:
        known["service_id"] = _id(service_id, "data.service.id", LONGEST_ID)
    number = data.get("number")
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= LARGEST_NUMBER:
        known["number"] = number
    if isinstance(status := data.get("status"), str) and status in set(IncidentState):
        known["status"] = status
    if isinstance(created_at := data.get("created_at"), str):
        known["created_at"] = _time(created_at, "data.created_at").isoformat()
    if isinstance(assignees := data.get("assignees"), list):
        known["assignees"] = _assignees(_mappings(assignees))
    if merged_into := _merged_into(data.get("resolve_reason")):
        known["merged_into"] = merged_into
    return known


def incident_facts(rest: Mapping[str, Any]) -> dict[str, Any]:
    """What a webhook would say of an incident, from what REST says of it. Raises UnreadableEventError."""
    assignments = _mappings(rest.get("assignments"))
    assignees = [each["assignee"] for each in assignments if isinstance(each.get("assignee"), Mapping)]
    return _incident({**rest, "number": rest.get("incident_number"), "assignees": assignees})


def changed_at(rest: Mapping[str, Any]) -> datetime:
    """When PagerDuty changed this incident last, to the second. Raises UnreadableEventError."""
    times = [rest[name] for name in ("last_status_change_at", "updated_at", "created_at") if rest.get(name)]
    if not times:
        raise UnreadableEventError("the incident has no time of its last change")
    return max(_time(each, "a time of the incident") for each in times)


def _merged_into(reason: Any) -> str:
    """The incident that took this one in; merging is the only reason that PagerDuty gives for a resolution."""
    if not isinstance(reason, Mapping) or reason.get("type") != "merge_resolve_reason":
        return ""
    target = reason.get("incident")
    which = target.get("id") if isinstance(target, Mapping) else None
    return _safe(which) if isinstance(which, str) and len(_safe(which)) <= LONGEST_INCIDENT_ID else ""


def _assignees(people: list[Mapping[str, Any]]) -> dict[str, str]:
    """PagerDuty's user id -> name; the first fifty are as many as anybody reads."""
    found: dict[str, str] = {}
    for one in people:
        if len(found) < MOST_ASSIGNEES and isinstance(one.get("id"), str):
            user_id = _safe(one["id"])
            if len(user_id) <= LONGEST_ID:
                found[user_id] = _safe(str(one.get("summary") or user_id))[:LONGEST_NAME]
    return found


def _bounded(value: Any, name: str) -> str:
    """A text that fits; a title is cut, while half an address or urgency would be another one and is left out."""
    text = _safe(value) if isinstance(value, str) else ""
    if name in ("title", "service_name"):
        return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
    return text if len(text) <= (LONGEST_URGENCY if name == "urgency" else LONGEST_TEXT) else ""


def _reference(data: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The incident that the data refers to; `role.assigned` has it one level deeper."""
    places = [data, *_mappings(data.get("incident_role_assignments"))]
    for place in places:
        if isinstance(incident := place.get("incident"), Mapping):
            return incident
    raise UnreadableEventError(f"{kind}: data.incident is missing")


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _json(raw: bytes) -> Mapping[str, Any]:
    if is_too_deep(raw):
        raise UnreadableEventError(f"the body is nested deeper than {DEEPEST} levels")
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except ValueError as error:  # not UTF-8, not JSON, NaN, or an integer of thousands of digits
        raise UnreadableEventError(f"the body is not JSON: {safe_text(str(error))[:120]}") from error
    if not isinstance(value, Mapping):
        raise UnreadableEventError("the body is not a JSON object")
    return value


def is_too_deep(raw: bytes) -> bool:
    """Whether the brackets outside strings nest too deeply; counted before parsing, since a parser recurses."""
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", raw)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > DEEPEST:
            return True
    return False


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _object(parent: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = parent.get(name)
    if not isinstance(value, Mapping):
        raise UnreadableEventError(f"{where} has no object {name!r}")
    return value


def _text(parent: Mapping[str, Any], name: str, where: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not _safe(value).strip():
        raise UnreadableEventError(f"{where}.{name} is missing or not a text")
    return value


def _id(value: str, where: str, longest: int) -> str:
    shown = _safe(value)
    if len(shown) > longest:
        raise UnreadableEventError(f"{where} is longer than {longest} characters")
    return shown


def _safe(value: str) -> str:
    """
    As `safe_text`, and quick: redaction takes longer than everything else that is done for a webhook.

    PagerDuty's ids hold no secret, and an incident's events repeat the same title, address, service and people.
    """
    if len(value) > _LONGEST_REMEMBERED:
        return safe_text(value)
    return value if _OPAQUE_ID.fullmatch(value) else _remembered(value)


_remembered = lru_cache(maxsize=2048)(safe_text)


def _time(value: Any, where: str) -> datetime:
    """RFC 3339 -> UTC; a time without a zone cannot be ordered, so it is refused."""
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise UnreadableEventError(f"{where} has no time zone")
        if at.year > LAST_YEAR:  # nothing could ever be newer: no later event, and nothing that is read from REST
            raise UnreadableEventError(f"{where} is in the year {at.year}")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableEventError(f"{where} is not an RFC 3339 time") from error
