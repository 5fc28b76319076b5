# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Tell people about the incident in PagerDuty: a note, a status update; and what all actions there share.

They act on the plan's own incident, which no runbook can name otherwise, and never touch its status: PagerDuty
re-opens a resolved incident that is told another one. Nobody can be un-told and nobody un-paged, so none has an undo.
Facts: POST /incidents/{id}/notes and /incidents/{id}/status_updates; every write names a user in `From`. Notes can be
read back, status updates cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import change, look, object_of, open_client, reason
from runbooks.engine.actions.manual import printable
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

SYSTEM = "PagerDuty"

# Ids are opaque: letters and digits, and for workflows perhaps a UUID.
PagerDutyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str, Field(max_length=1000), AfterValidator(printable)]


class OfIncident(BaseModel):
    """The plan's own incident; a step that names another one is refused when the plan is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    incident: PagerDutyId


class NoteParams(OfIncident):
    """`text` is written as it is, with a line below it by which it is found again."""

    text: Text


class StatusUpdateParams(OfIncident):
    """`message` goes to everybody who subscribed to the incident's status updates."""

    message: Text


@dataclass(frozen=True, kw_only=True)
class PagerDutyAccess:
    """A REST key that may write, and the e-mail address of the PagerDuty user in whose name that is done."""

    key: str = field(repr=False)
    from_email: str
    url: str = "https://api.pagerduty.com"
    timeout_s: float = 10.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `url` cannot be used."""
        headers = {
            "Accept": "application/vnd.pagerduty+json;version=2",
            "Authorization": f"Token token={self.key}",
            "From": self.from_email,
        }
        return open_client(SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=None, headers=headers)


class IncidentAction:
    """What all actions on an incident share."""

    name = ""
    tier = Tier.R1
    dry_run = DryRun.READS
    subject: type[BaseModel] = OfIncident
    can_undo = False
    verify_at_will = True

    def __init__(self, account: PagerDutyAccess | None) -> None:
        self._account = account

    def target(self, params: OfIncident) -> str:
        return f"{self.name.replace('.', '/')}/{params.incident}"

    def refusal(self, params: Any, before: JsonObject) -> str | None:
        return None if before["open"] else f"the incident #{before['number']} is resolved in PagerDuty"

    def undo(self, params: Any, before: JsonObject) -> JsonObject | None:
        return None

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError."""
        if self._account is None:
            raise ActionError(
                "PAGERDUTY_API_KEY or PAGERDUTY_FROM is not set here, so PagerDuty cannot be told anything"
            )
        return self._account.client()

    async def sender(self, client: httpx.AsyncClient) -> str:
        """The id of the user in whose name we write. Raises ActionError."""
        email = self._account.from_email if self._account else ""
        users = objects(await read(client, "/users", {"query": email}), "users")
        found = [text(user, "id") for user in users if text(user, "email").lower() == email.lower()]
        if len(found) != 1:
            raise ActionError(f"PagerDuty has no user {email}: PAGERDUTY_FROM must be the address of one")
        return found[0]


class Note(IncidentAction):
    """`pagerduty.note`: pages nobody and changes nothing that runs, hence R0. Watchkeeper writes notes unasked, too."""

    name = "pagerduty.note"
    tier = Tier.R0
    params: type[BaseModel] = NoteParams

    def effect(self, params: NoteParams, before: JsonObject) -> str:
        return f"The PagerDuty incident #{before['number']} gets this note, which cannot be taken back: {params.text}"

    def refusal(self, params: Any, before: JsonObject) -> str | None:
        return None

    async def read(self, params: OfIncident) -> JsonObject:
        """`{"number"}`, and not whether it is open: a resolved incident takes notes, too."""
        async with self.client() as client:
            return {"number": (await incident_of(client, params)).get("incident_number")}

    async def act(self, params: NoteParams, before: JsonObject, token: str) -> JsonObject:
        async with self.client() as client:
            await incident_of(client, params)
            note = {"note": {"content": f"{params.text}\n\n{_mark(token)}"}}
            answer = await change(client, SYSTEM, "POST", f"/incidents/{params.incident}/notes", note, token)
        if _mark(token) not in text(part(answer, "note"), "content"):
            raise OutcomeUnknownError("PagerDuty answered, but not with the note")
        return {"note": text(part(answer, "note"), "id")}

    async def happened(self, params: NoteParams, before: JsonObject, token: str) -> Happened:
        try:
            async with self.client() as client:
                notes = objects(await read(client, f"/incidents/{params.incident}/notes"), "notes")
        except ActionError:
            return Happened.CANNOT_TELL
        return Happened.YES if any(_mark(token) in text(note, "content") for note in notes) else Happened.NO


class StatusUpdate(IncidentAction):
    """`pagerduty.status_update`: R1, since it reaches people outside the team; what they read stays read."""

    name = "pagerduty.status_update"
    params: type[BaseModel] = StatusUpdateParams

    def effect(self, params: StatusUpdateParams, before: JsonObject) -> str:
        return (
            f"The subscribers of the PagerDuty incident #{before['number']} are sent this status update, "
            f"which cannot be taken back: {params.message}"
        )

    async def read(self, params: OfIncident) -> JsonObject:
        """`{"number", "open"}`."""
        async with self.client() as client:
            return standing(await incident_of(client, params))

    async def act(self, params: StatusUpdateParams, before: JsonObject, token: str) -> JsonObject:
        async with self.client() as client:
            require_same(standing(await incident_of(client, params)), before)
            path = f"/incidents/{params.incident}/status_updates"
            answer = await change(client, SYSTEM, "POST", path, {"message": params.message}, token)
        if text(part(answer, "status_update"), "message") != params.message:
            raise OutcomeUnknownError("PagerDuty answered, but not with the status update")
        return {"status_update": text(part(answer, "status_update"), "id")}

    async def happened(self, params: StatusUpdateParams, before: JsonObject, token: str) -> Happened:
        """PagerDuty's API does not list status updates, and one must not be sent twice."""
        return Happened.CANNOT_TELL


def _mark(token: str) -> str:
    return f"(Watchkeeper {token})"


async def incident_of(client: httpx.AsyncClient, params: OfIncident) -> JsonObject:
    """The incident as REST gives it. Raises ActionError, also when PagerDuty takes the id for another's number."""
    incident = part(await read(client, f"/incidents/{params.incident}"), "incident")
    if text(incident, "id") != params.incident:
        raise ActionError(f"PagerDuty answered with another incident than {params.incident}")
    return incident


def standing(incident: JsonObject) -> JsonObject:
    """What of an incident decides whether people may be told about it; an acknowledgement changes nothing of it."""
    return {"number": incident.get("incident_number"), "open": incident.get("status") in ("triggered", "acknowledged")}


def require_same(now: JsonObject, before: JsonObject) -> None:
    """Raises ActionError unless all is as it was when the plan was made."""
    if now != before:
        moved = ", ".join(sorted(name for name in now if now[name] != before.get(name)))
        raise ActionError(f"the incident is not as it was any more ({moved}): nobody was told anything")


async def read(client: httpx.AsyncClient, path: str, query: Mapping[str, str] | None = None) -> JsonObject:
    """The answer to a GET. Raises ActionError."""
    answer = await look(client, SYSTEM, path, query or {})
    if answer.status_code == 404:
        raise ActionError(f"PagerDuty has no {path}")
    if not 200 <= answer.status_code < 300:
        raise ActionError(f"PagerDuty answered HTTP {answer.status_code} for {path}{reason(answer)}")
    return object_of(answer, SYSTEM)


def part(body: JsonObject, name: str) -> JsonObject:
    """An object in an answer; an empty one where there is none."""
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def objects(body: JsonObject, name: str) -> list[JsonObject]:
    """The objects of a list in an answer."""
    value = body.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text(body: JsonObject, name: str) -> str:
    """A text in an answer; "" where there is none."""
    value = body.get(name)
    return value if isinstance(value, str) else ""
