# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Bring more people to the incident in PagerDuty: escalate it, ask for responders.

Whoever was paged cannot be un-paged, so none of them has an undo.
Facts: PUT /incidents/{id} with `escalation_level` or `escalation_policy` (and no status), POST
/incidents/{id}/responder_requests. An escalation is in the incident's log with who asked for it, a responder in its
`incidents_responders`.
"""

from __future__ import annotations

from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from runbooks.engine.actions.json_api import change
from runbooks.engine.actions.pagerduty import (
    SYSTEM,
    IncidentAction,
    OfIncident,
    PagerDutyId,
    Text,
    incident_of,
    objects,
    part,
    read,
    require_same,
    standing,
    text,
)
from runbooks.engine.actions.parameters import Whole
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError

_NEWEST = "100"
"""Log entries that are looked at; more in one incident between a plan and its start cannot be told apart."""

_ESCALATIONS = ("escalate_log_entry", "assign_log_entry", "delegate_log_entry")


def _user_list(value: Any) -> Any:
    """`[A, B]`, or `"A, B"` where it comes from a placeholder."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _no_twice(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("a user stands there twice, and would be paged twice")
    return value


class EscalateParams(OfIncident):
    """To a level of the incident's own escalation policy, or to the first level of another policy."""

    level: Annotated[Whole, Field(ge=1, le=20)] | None = None
    escalation_policy: PagerDutyId | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> EscalateParams:
        if (self.level is None) == (self.escalation_policy is None):
            raise ValueError("say `level` or `escalation_policy`, one of the two")
        return self


class AddRespondersParams(OfIncident):
    """`users` are ids of PagerDuty users; each of them is paged with `message`."""

    users: Annotated[
        tuple[PagerDutyId, ...],
        BeforeValidator(_user_list),
        AfterValidator(_no_twice),
        Field(min_length=1, max_length=10),
    ]
    message: Text


class Escalate(IncidentAction):
    """`pagerduty.escalate`: R1, since it wakes somebody and changes nothing that runs."""

    name = "pagerduty.escalate"
    params: type[BaseModel] = EscalateParams

    def effect(self, params: EscalateParams, before: JsonObject) -> str:
        where = f"level {params.level} of {before['policy']}" if params.level else before["policy"]
        return (
            f"The PagerDuty incident #{before['number']} is escalated to {where}: {before['pages']} "
            "gets paged, which cannot be taken back."
        )

    def refusal(self, params: EscalateParams, before: JsonObject) -> str | None:
        if params.level and params.level > before["levels"]:
            return f"{before['policy']} has {before['levels']} levels only"
        if params.escalation_policy == before["held_by"]:
            return f"{before['policy']} holds the incident already: name a `level` to escalate within it"
        return super().refusal(params, before)

    async def read(self, params: OfIncident) -> JsonObject:
        """The policy that is meant with who is paged by it, the policy that holds the incident now, the last move."""
        async with self.client() as client:
            return await self._before(client, params)

    async def _before(self, client: httpx.AsyncClient, params: OfIncident) -> JsonObject:
        incident = await incident_of(client, params)
        held_by = text(part(incident, "escalation_policy"), "id")
        wanted = params if isinstance(params, EscalateParams) else None
        policy_id = (wanted.escalation_policy if wanted else None) or held_by
        if not policy_id:
            raise ActionError(f"no escalation policy holds the incident {params.incident}: name one")
        policy = part(await read(client, f"/escalation_policies/{policy_id}"), "escalation_policy")
        rules = objects(policy, "escalation_rules")
        level = (wanted.level if wanted else None) or 1
        paged = objects(rules[level - 1], "targets") if level <= len(rules) else []
        moves = await self._moves(client, params)
        return {
            **standing(incident),
            "held_by": held_by,
            "policy": text(policy, "name") or policy_id,
            "levels": len(rules),
            "pages": ", ".join(_name_of(each) for each in paged) or "nobody",
            "last_move": text(moves[0], "id") if moves else "",
        }

    async def act(self, params: EscalateParams, before: JsonObject, token: str) -> JsonObject:
        wish: dict[str, Any] = {"type": "incident_reference"}  # and never a status
        if params.level:
            wish["escalation_level"] = params.level
        else:
            wish["escalation_policy"] = {"id": params.escalation_policy, "type": "escalation_policy_reference"}
        async with self.client() as client:
            require_same(await self._before(client, params), before)
            answer = await change(client, SYSTEM, "PUT", f"/incidents/{params.incident}", {"incident": wish}, token)
        incident = part(answer, "incident")
        held_by = text(part(incident, "escalation_policy"), "id")
        if text(incident, "id") != params.incident or held_by != (params.escalation_policy or before["held_by"]):
            raise OutcomeUnknownError("PagerDuty answered, but not with the escalated incident")
        return {"assigned_to": [_name_of(part(each, "assignee")) for each in objects(incident, "assignments")]}

    async def happened(self, params: EscalateParams, before: JsonObject, token: str) -> Happened:
        """A move in the log that is younger than the plan and ours; others' moves say nothing about ours."""
        try:
            async with self.client() as client:
                moves = await self._moves(client, params)
                me = await self.sender(client)
        except ActionError:
            return Happened.CANNOT_TELL
        known = [text(move, "id") for move in moves]
        if before["last_move"] and before["last_move"] not in known:
            return Happened.CANNOT_TELL
        younger = moves[: known.index(before["last_move"])] if before["last_move"] else moves
        if any(text(part(move, "agent"), "id") == me for move in younger):
            return Happened.YES
        return Happened.CANNOT_TELL if younger else Happened.NO

    async def _moves(self, client: httpx.AsyncClient, params: OfIncident) -> list[JsonObject]:
        """What brought the incident to somebody, the newest first."""
        entries = await read(client, f"/incidents/{params.incident}/log_entries", {"limit": _NEWEST})
        return [entry for entry in objects(entries, "log_entries") if text(entry, "type") in _ESCALATIONS]


class AddResponders(IncidentAction):
    """`pagerduty.add_responders`: R1, since it wakes people and changes nothing that runs."""

    name = "pagerduty.add_responders"
    params: type[BaseModel] = AddRespondersParams

    def effect(self, params: AddRespondersParams, before: JsonObject) -> str:
        names = ", ".join(f"{before['names'][user]} ({user})" for user in params.users)
        return (
            f"PagerDuty pages {names} as responders to the incident #{before['number']}, which cannot be taken back, "
            f"with this message: {params.message}"
        )

    def refusal(self, params: AddRespondersParams, before: JsonObject) -> str | None:
        asked = [before["names"][user] for user in params.users if before["states"][user] in ("pending", "joined")]
        if asked:
            return f"{', '.join(asked)} was asked already"
        return super().refusal(params, before)

    async def read(self, params: OfIncident) -> JsonObject:
        """The users' names, and what each said when asked before ("" for whom nobody asked)."""
        users = params.users if isinstance(params, AddRespondersParams) else ()
        async with self.client() as client:
            incident = await incident_of(client, params)
            names = {user: _name_of(part(await read(client, f"/users/{user}"), "user")) for user in users}
        return {**standing(incident), "names": names, "states": _states(incident, users)}

    async def act(self, params: AddRespondersParams, before: JsonObject, token: str) -> JsonObject:
        require_same(await self.read(params), before)
        async with self.client() as client:
            request = {
                "requester_id": await self.sender(client),
                "message": params.message,
                "responder_request_targets": [
                    {"responder_request_target": {"id": user, "type": "user_reference"}} for user in params.users
                ],
            }
            path = f"/incidents/{params.incident}/responder_requests"
            answer = await change(client, SYSTEM, "POST", path, request, token)
        if text(part(part(answer, "responder_request"), "incident"), "id") != params.incident:
            raise OutcomeUnknownError("PagerDuty answered, but not with the request for responders")
        return {"asked": list(params.users)}

    async def happened(self, params: AddRespondersParams, before: JsonObject, token: str) -> Happened:
        """Whether we asked them; that somebody else did says nothing about ours."""
        try:
            async with self.client() as client:
                incident = await incident_of(client, params)
                now, askers = _states(incident, params.users), _askers(incident)
                me = await self.sender(client)
        except ActionError:
            return Happened.CANNOT_TELL
        changed = [user for user in params.users if now[user] != before["states"][user]]
        if not changed:
            return Happened.NO
        is_ours = len(changed) == len(params.users) and all(askers.get(user) == me for user in changed)
        return Happened.YES if is_ours else Happened.CANNOT_TELL


def _states(incident: JsonObject, users: tuple[str, ...]) -> dict[str, str]:
    """Each user's answer to having been asked for. Raises ActionError where the account cannot ask."""
    if "incidents_responders" not in incident:
        raise ActionError("PagerDuty does not say who responds to this incident: the account cannot add responders")
    said = {text(part(each, "user"), "id"): text(each, "state") for each in objects(incident, "incidents_responders")}
    return {user: said.get(user, "") for user in users}


def _askers(incident: JsonObject) -> dict[str, str]:
    """Who asked for each responder."""
    responders = objects(incident, "incidents_responders")
    return {text(part(each, "user"), "id"): text(part(each, "requester"), "id") for each in responders}


def _name_of(found: JsonObject) -> str:
    return text(found, "summary") or text(found, "name") or text(found, "id")
