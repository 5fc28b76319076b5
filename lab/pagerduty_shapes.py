"""The shapes that PagerDuty gives its things: references, incidents for REST and for webhooks, and events' rules."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

SERVICE_ID = "PCHAT01"
SERVICE_NAME = "chat"

_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
_SEVERITIES = ("critical", "error", "warning", "info")
_ALPHANUMERIC = string.ascii_uppercase + string.digits


@dataclass(frozen=True, kw_only=True)
class User:
    id: str
    name: str
    email: str

    def reference(self) -> Json:
        return reference("user", self.id, self.name)


@dataclass(kw_only=True)
class Incident:
    """One incident with everything that belongs to it. `last_changed_by` is the user, or None for the integration."""

    id: str
    number: int
    title: str
    key: str
    urgency: str
    created_at: str
    status: str = "triggered"
    changed_at: str = ""
    resolved_at: str | None = None
    last_changed_by: User | None = None
    acknowledged_by: list[tuple[str, User]] = field(default_factory=list)
    assigned_to: tuple[User, ...] = ()
    alerts: list[Json] = field(default_factory=list)
    notes: list[Json] = field(default_factory=list)
    log: list[Json] = field(default_factory=list)  # newest first
    resolve_reason: Json | None = None
    policy: tuple[str, str] = ("PLABPOL", "Default")  # the escalation policy that holds it: id, name
    responders: list[Json] = field(default_factory=list)
    status_updates: list[Json] = field(default_factory=list)
    workflows: list[Json] = field(default_factory=list)  # instances of incident workflows, by whoever started them
    invocations: list[Json] = field(default_factory=list)  # of Automation Actions


def new_id(prefix: str, length: int) -> str:
    return prefix + "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))


def reference(kind: str, identity: str, summary: str) -> Json:
    path = "service-directory" if kind == "service" else f"{kind}s"
    return {
        "id": identity,
        "type": f"{kind}_reference",
        "summary": summary,
        "self": f"https://api.pagerduty.com/{kind}s/{identity}",
        "html_url": f"https://lab.pagerduty.com/{path}/{identity}",
    }


def service_reference() -> Json:
    return reference("service", SERVICE_ID, SERVICE_NAME)


def policy_reference(policy_id: str = "PLABPOL", name: str = "Default") -> Json:
    return {**reference("escalation_policy", policy_id, name), "self": None}


def webhook_incident(incident: Incident) -> Json:
    """An incident as webhooks give it: `number` and `assignees`, and no alert details."""
    about = reference("incident", incident.id, incident.title)
    return {
        "id": incident.id,
        "type": "incident",
        "self": about["self"],
        "html_url": about["html_url"],
        "number": incident.number,
        "status": incident.status,
        "incident_key": incident.key,
        "created_at": incident.created_at,
        "title": incident.title,
        "incident_type": {"name": "incident_default"},
        "service": service_reference(),
        "assignees": [user.reference() for user in incident.assigned_to],
        "escalation_policy": policy_reference(*incident.policy),
        "teams": [],
        "priority": None,
        "urgency": incident.urgency,
        "conference_bridge": None,
        "resolve_reason": incident.resolve_reason,
    }


def rest_incident(incident: Incident) -> Json:
    """An incident as REST gives it: `incident_number`, `assignments` and a summary."""
    about = reference("incident", incident.id, f"[#{incident.number}] {incident.title}")
    resolved = incident.status == "resolved"
    count = len(incident.alerts)
    return {
        **about,
        "type": "incident",
        "incident_number": incident.number,
        "title": incident.title,
        "status": incident.status,
        "incident_key": incident.key,
        "urgency": incident.urgency,
        "created_at": incident.created_at,
        "updated_at": incident.changed_at,
        "last_status_change_at": incident.changed_at,
        "last_status_change_by": (
            incident.last_changed_by.reference() if incident.last_changed_by else service_reference()
        ),
        "resolved_at": incident.resolved_at,
        "service": service_reference(),
        "escalation_policy": policy_reference(*incident.policy),
        "incidents_responders": incident.responders,
        "assignments": [
            {"at": incident.created_at, "assignee": user.reference()} for user in incident.assigned_to if not resolved
        ],
        "acknowledgements": [{"at": at, "acknowledger": user.reference()} for at, user in incident.acknowledged_by],
        "teams": [],
        "pending_actions": [],
        "alert_counts": {
            "all": count,
            "triggered": 0 if resolved else count,
            "resolved": count if resolved else 0,
        },
        "priority": None,
        "resolve_reason": incident.resolve_reason,
        "body": {"type": "incident_body", "details": None},
    }


def event_faults(event: Mapping[str, Any], routing_key: str) -> list[str]:
    """What the Events API would complain about; empty for a good event."""
    faults = []
    if not _ROUTING_KEY.fullmatch(str(event.get("routing_key", ""))) or event["routing_key"] != routing_key:
        faults.append("'routing_key' must be the 32 character integration key of a service")
    action = event.get("event_action")
    if action not in {"trigger", "acknowledge", "resolve"}:
        faults.append("'event_action' must be one of trigger, acknowledge, resolve")
    if len(str(event.get("dedup_key") or "")) > 255:
        faults.append("'dedup_key' is longer than 255 characters")
    if action != "trigger":
        return faults if event.get("dedup_key") else [*faults, "'dedup_key' is required"]
    payload = event.get("payload")
    if not isinstance(payload, dict):
        return [*faults, "'payload' is missing"]
    faults += [f"'payload.{name}' is missing or blank" for name in ("summary", "source") if not payload.get(name)]
    if payload.get("severity") not in _SEVERITIES:
        faults.append(f"'payload.severity' is invalid (must be one of: {', '.join(_SEVERITIES)})")
    if len(str(payload.get("summary") or "")) > 1024:
        faults.append("'payload.summary' is longer than 1024 characters")
    return faults
