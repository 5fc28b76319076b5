"""PagerDuty's V3 webhooks -> our values; pure. Tolerant of fields we do not know, strict about those we need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bot.incidents import Delivery, IncidentState, UnreadableEventError
from bot.redact import safe_json, safe_text

DEEPEST = 64  # levels of JSON; real events have fewer than ten
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
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
    deeper than 64 levels, a type we do not know (PagerDuty adds new ones; `pagey.ping` counts too), a field missing.
    """
    event = _object(_json(raw), "event", "the body")
    event_id = _text(event, "id", "event")
    kind = _text(event, "event_type", "event")
    if len(event_id) > 255:
        raise UnreadableEventError("event.id is longer than 255 characters")
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
        event_id=safe_text(event_id),
        source="pagerduty",
        kind=kind,
        occurred_at=_time(event.get("occurred_at"), "event.occurred_at"),
        incident_id=incident.get("id"),
        incident=incident,
        raw=safe_text(raw.decode("utf-8", "replace")),
    )


def _incident(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the webhook says of the incident; absent fields are absent, since a reference has only id, title and URL."""
    known: dict[str, Any] = {"id": _text(data, "id", "data")}
    service = data.get("service")
    service = service if isinstance(service, Mapping) else {}
    fields = {
        "title": data.get("title") or data.get("summary"),
        "url": data.get("html_url"),
        "urgency": data.get("urgency"),
        "service_id": service.get("id"),
        "service_name": service.get("summary"),
    }
    known |= {name: value for name, value in fields.items() if isinstance(value, str) and value}
    if isinstance(number := data.get("number"), int) and not isinstance(number, bool) and 0 <= number < 2**63:
        known["number"] = number
    if isinstance(status := data.get("status"), str) and status in set(IncidentState):
        known["status"] = status
    if isinstance(created_at := data.get("created_at"), str):
        known["created_at"] = _time(created_at, "data.created_at").isoformat()
    if isinstance(assignees := data.get("assignees"), list):
        known["assignees"] = {
            one["id"]: str(one.get("summary") or one["id"])
            for one in _mappings(assignees)
            if isinstance(one.get("id"), str)
        }
    cleaned: dict[str, Any] = safe_json(known)
    return cleaned


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
    if not isinstance(value, str) or not safe_text(value).strip():
        raise UnreadableEventError(f"{where}.{name} is missing or not a text")
    return value


def _time(value: Any, where: str) -> datetime:
    """RFC 3339 -> UTC; a time without a zone cannot be ordered, so it is refused."""
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise UnreadableEventError(f"{where} has no time zone")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableEventError(f"{where} is not an RFC 3339 time") from error
