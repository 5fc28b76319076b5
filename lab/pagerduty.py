"""
A PagerDuty account in memory: incidents, alerts and notes, and the webhook that follows every change.

Only state and its rules; `lab.pagerduty_web` serves them. Shapes are those of PagerDuty's REST API v2, Events API v2
and V3 webhooks (PagerDuty/api-schema and developer-docs, November 2026).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lab.pagerduty_meter import Meter
from lab.pagerduty_shapes import (
    Incident,
    Json,
    User,
    event_faults,
    new_id,
    reference,
    service_reference,
    webhook_incident,
)
from lab.pagerduty_webhooks import WebhookSender
from lab.people import CAST, WATCHKEEPER_EMAIL, WATCHKEEPER_PAGERDUTY

MAX_NOTES = 2000
MAX_ALERTS = 1000


class PagerDutyError(Exception):
    """PagerDuty refuses: HTTP status, its own error code, and what it says."""

    def __init__(self, status: int, code: int, message: str, errors: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.errors = errors

    def body(self) -> Json:
        return {"error": {"message": str(self), "code": self.code, "errors": list(self.errors)}}


class InvalidEventError(Exception):
    """An event that the Events API refuses; `errors` says why."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


USERS = (
    User(id=WATCHKEEPER_PAGERDUTY, name="Watchkeeper", email=WATCHKEEPER_EMAIL),
    *(User(id=p.pagerduty, name=p.name, email=p.email) for p in CAST if p.pagerduty),
)
ON_CALL = USERS[1]
ESCALATION_POLICIES: Mapping[str, tuple[str, tuple[User, ...]]] = {
    "PLABPOL": ("Default", USERS[1:3]),
    "PLABOWN": ("Service owners", USERS[3:]),
}
"""id -> name, and whom each level pages."""


class PagerDuty:
    """The account. `now` is the lab's clock; every change is told to `webhooks` when there is a subscriber."""

    def __init__(self, *, now: Callable[[], datetime], routing_key: str, webhooks: WebhookSender | None = None) -> None:
        self.now = now
        self.api_key = "lab-" + secrets.token_hex(8)
        self.routing_key = routing_key
        self.webhooks = webhooks
        self.meter = Meter()
        self.incidents: dict[str, Incident] = {}
        self.calls: list[Json] = []

    # -- what happens to incidents -----------------------------------------------------------------------------------

    def enqueue(self, event: Mapping[str, Any]) -> str:
        """An Events API v2 event; returns its dedup_key. Raises InvalidEventError."""
        errors = event_faults(event, self.routing_key)
        if errors:
            raise InvalidEventError(errors)
        key = str(event.get("dedup_key") or secrets.token_hex(16))
        incident = next((i for i in self.incidents.values() if i.key == key and i.status != "resolved"), None)
        if event["event_action"] == "trigger":
            self._trigger(event, key, incident)
        elif incident is not None:
            status = "acknowledged" if event["event_action"] == "acknowledge" else "resolved"
            self._set_status(incident, status, None)
        return key

    def _trigger(self, event: Mapping[str, Any], key: str, incident: Incident | None) -> None:
        payload = event["payload"]
        is_new = incident is None
        if incident is None:
            incident = Incident(
                id=new_id("Q", 13),
                number=len(self.incidents) + 1,
                title=str(payload["summary"]),
                key=key,
                urgency="high" if payload["severity"] in {"critical", "error"} else "low",
                created_at=self._stamp(),
                changed_at=self._stamp(),
                assigned_to=(ON_CALL,),
            )
            self.incidents[incident.id] = incident
        if not any(alert["alert_key"] == key for alert in incident.alerts):
            incident.alerts.append(self._alert(event, key, incident))
        if is_new:
            self._log("trigger", incident, None)
            self._tell("incident.triggered", incident, None)

    def _alert(self, event: Mapping[str, Any], key: str, incident: Incident) -> Json:
        payload = event["payload"]
        details = payload.get("custom_details", {})
        cef = {**payload, "client": event.get("client"), "client_url": event.get("client_url"), "dedup_key": key}
        alert_id = new_id("Q", 13)
        return {
            **reference("alert", alert_id, payload["summary"]),
            "type": "alert",
            "status": "triggered",
            "alert_key": key,
            "severity": payload["severity"],
            "suppressed": False,
            "created_at": self._stamp(),
            "service": service_reference(),
            "incident": reference("incident", incident.id, incident.title),
            "body": {
                "type": "alert_body",
                "contexts": [{"type": "link", **link} for link in event.get("links", [])],
                "details": details,
                "cef_details": cef,
            },
        }

    def change(self, incident_id: str, wish: Mapping[str, Any], user: User) -> Incident:
        """One update of PUT /incidents. Raises PagerDutyError (1001 when it is resolved already)."""
        incident = self.incident(incident_id)
        status = wish.get("status")
        if status is not None:
            if status not in {"acknowledged", "resolved", "triggered"}:
                raise PagerDutyError(400, 2001, "Invalid Input Provided", ("Status is not valid",))
            if status == incident.status == "resolved":
                raise PagerDutyError(400, 1001, "Incident Already Resolved", ("Incident Already Resolved",))
            self._set_status(incident, status, user)
        if wish.get("title"):
            incident.title = str(wish["title"])
        if wish.get("escalation_level") or wish.get("escalation_policy"):
            self._escalate(incident, wish, user)
        elif wish.get("assignments"):
            self._reassign(incident, wish, user)
        return incident

    def _escalate(self, incident: Incident, wish: Mapping[str, Any], user: User) -> None:
        """To a level of its own escalation policy, or to another policy's first. Raises PagerDutyError."""
        if incident.status == "resolved":
            raise PagerDutyError(400, 1001, "Incident Already Resolved", ("Incident Already Resolved",))
        wanted, level = wish.get("escalation_policy") or {}, wish.get("escalation_level", 1)
        policy_id = str(wanted.get("id") or incident.policy[0])
        levels = ESCALATION_POLICIES.get(policy_id, ("", ()))[1]
        if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= len(levels):
            raise PagerDutyError(400, 2001, "Invalid Input Provided", ("Escalation level is not valid",))
        incident.policy, incident.changed_at = (policy_id, ESCALATION_POLICIES[policy_id][0]), self._stamp()
        self._assign(incident, (levels[level - 1],), user, "escalate", "incident.escalated")

    def _reassign(self, incident: Incident, wish: Mapping[str, Any], user: User) -> None:
        """To people by name, which ends the way through the escalation policy. Raises PagerDutyError."""
        if incident.status == "resolved" or wish.get("escalation_level"):
            raise PagerDutyError(400, 2001, "Invalid Input Provided", ("Assignments are not valid",))
        known = {each.id: each for each in USERS}
        wanted = [str(each["assignee"]["id"]) for each in wish["assignments"]]
        if not set(wanted) <= set(known):
            raise PagerDutyError(400, 2001, "Invalid Input Provided", ("Assignee is not valid",))
        self._assign(incident, tuple(known[each] for each in wanted), user, "assign", "incident.reassigned")

    def _assign(self, incident: Incident, people: tuple[User, ...], user: User, entry: str, kind: str) -> None:
        """Whoever has it now is paged anew."""
        incident.assigned_to, incident.acknowledged_by, incident.status = people, [], "triggered"
        incident.changed_at = self._stamp()
        self._log(entry, incident, user)
        self._tell(kind, incident, user)

    def _set_status(self, incident: Incident, status: str, user: User | None) -> None:
        was, incident.status = incident.status, status
        incident.changed_at, incident.last_changed_by = self._stamp(), user
        if status == "resolved":
            incident.resolved_at, incident.acknowledged_by = self._stamp(), []
            for alert in incident.alerts:
                alert["status"] = "resolved"
            self._log("resolve", incident, user)
            self._tell("incident.resolved", incident, user)
            return
        if was == "resolved":
            incident.resolved_at = incident.resolve_reason = None
            self._tell("incident.reopened", incident, user)
        if status == "acknowledged":
            incident.acknowledged_by.append((self._stamp(), user or ON_CALL))
            self._log("acknowledge", incident, user)
            self._tell("incident.acknowledged", incident, user)
        elif was == "acknowledged":
            incident.acknowledged_by = []
            self._log("unacknowledge", incident, user)
            self._tell("incident.unacknowledged", incident, user)

    def merge(self, target_id: str, source_ids: Sequence[str], user: User) -> Incident:
        """The sources' alerts move to the target, and the sources are resolved. Raises PagerDutyError."""
        target, sources = self.incident(target_id), [self.incident(each) for each in source_ids]
        if target.status == "resolved" or target in sources:
            raise PagerDutyError(400, 2001, "Invalid Input Provided", ("The target incident must be open",))
        if len(target.alerts) + sum(len(source.alerts) for source in sources) > MAX_ALERTS:
            raise PagerDutyError(400, 2001, "Invalid Input Provided", (f"At most {MAX_ALERTS} alerts",))
        about = reference("incident", target.id, target.title)
        for source in sources:
            target.alerts += [{**alert, "incident": about} for alert in source.alerts]
            source.alerts = []
            source.resolve_reason = {"type": "merge_resolve_reason", "incident": about}
            if source.status != "resolved":
                self._set_status(source, "resolved", user)
        return target

    def add_note(self, incident_id: str, content: object, user: User) -> Json:
        """Raises PagerDutyError for an empty note, or the 2001st."""
        incident = self.incident(incident_id)
        if not isinstance(content, str) or not content.strip():
            raise PagerDutyError(400, 2001, "Invalid Input Provided", ("Content can't be blank",))
        if len(incident.notes) >= MAX_NOTES:
            raise PagerDutyError(400, 5002, "Simple Log Entry Limit Reached")
        note = {"id": new_id("P", 6), "user": user.reference(), "content": content, "created_at": self._stamp()}
        incident.notes.insert(0, note)
        about = reference("incident", incident.id, incident.title)
        data = {"incident": about, "id": note["id"], "content": content, "trimmed": False, "type": "incident_note"}
        self._tell("incident.annotated", incident, user, data)
        return note

    # -- looking things up -------------------------------------------------------------------------------------------

    def incident(self, incident_id: str) -> Incident:
        """By id or number. Raises PagerDutyError 404."""
        for incident in self.incidents.values():
            if incident_id in {incident.id, str(incident.number)}:
                return incident
        raise PagerDutyError(404, 2100, "Not Found")

    def user_of(self, email: str | None) -> User:
        """Whom a From header names. Raises PagerDutyError when it is missing or nobody's."""
        if not email:
            raise PagerDutyError(
                400, 2001, "Invalid Input Provided", ("From header: email of a valid user is required",)
            )
        for user in USERS:
            if user.email == email:
                return user
        raise PagerDutyError(400, 1008, "Requester User Not Found")

    # -- telling -----------------------------------------------------------------------------------------------------

    def _log(self, kind: str, incident: Incident, user: User | None) -> None:
        entry = {"id": new_id("R", 20), "type": f"{kind}_log_entry", "created_at": self._stamp()}
        agent = user.reference() if user else service_reference()
        incident.log.insert(0, {**entry, "agent": agent, "incident": reference("incident", incident.id, "")})

    def _tell(self, kind: str, incident: Incident, user: User | None, data: Json | None = None) -> None:
        if self.webhooks is None:
            return
        event = {
            "id": new_id("01", 24),
            "event_type": kind,
            "resource_type": "incident",
            "occurred_at": self._stamp(milliseconds=True),
            "agent": user.reference() if user else None,
            "client": {"name": "PagerDuty"} if user else None,
            "data": data or webhook_incident(incident),
        }
        self.webhooks.send(incident.id, event)

    def stamp(self) -> str:
        """The lab's time as PagerDuty writes it."""
        return self._stamp()

    def _stamp(self, *, milliseconds: bool = False) -> str:
        moment = self.now().isoformat(timespec="milliseconds" if milliseconds else "seconds")
        return moment.replace("+00:00", "Z")
