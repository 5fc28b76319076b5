"""PagerDuty's ways to bring people in and to start what it automates, over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request

from lab.pagerduty import ESCALATION_POLICIES, USERS, PagerDuty, PagerDutyError
from lab.pagerduty_shapes import Incident, Json, User, new_id, policy_reference, reference

WORKFLOWS = {"PLABWFL": "Open a bridge"}
AUTOMATIONS = {"01LABACTION": "Collect engine logs"}


def response_routes(
    account: PagerDuty,
    *,
    authorised: Callable[[PagerDuty, Request], None],
    body_of: Callable[[Request], Awaitable[Json]],
) -> APIRouter:
    """`authorised` refuses a request without the key, `body_of` one whose body is no JSON object."""
    router = APIRouter()

    async def written(request: Request) -> tuple[User, Json]:
        authorised(account, request)
        return account.user_of(request.headers.get("from")), await body_of(request)

    @router.get("/escalation_policies/{policy_id}")
    async def escalation_policy(policy_id: str, request: Request) -> Json:
        authorised(account, request)
        return {"escalation_policy": _policy(policy_id)}

    @router.get("/users/{user_id}")
    async def user(user_id: str, request: Request) -> Json:
        authorised(account, request)
        found = _user(user_id, 404)
        return {"user": {**found.reference(), "type": "user", "name": found.name, "email": found.email}}

    @router.get("/incident_workflows/{workflow_id}")
    async def incident_workflow(workflow_id: str, request: Request) -> Json:
        authorised(account, request)
        return {"incident_workflow": _workflow(workflow_id)}

    @router.post("/incidents/{incident_id}/responder_requests")
    async def add_responders(incident_id: str, request: Request) -> Json:
        _, body = await written(request)
        return {"responder_request": _add_responders(account.incident(incident_id), body, account.stamp())}

    @router.post("/incidents/{incident_id}/status_updates")
    async def status_update(incident_id: str, request: Request) -> Json:
        sender, body = await written(request)
        update = {"id": new_id("P", 6), "message": _text(body, "message"), "sender": sender.reference()}
        account.incident(incident_id).status_updates.append(update)
        return {"status_update": {**update, "created_at": account.stamp()}}

    @router.post("/incident_workflows/{workflow_id}/instances", status_code=201)
    async def start_workflow(workflow_id: str, request: Request) -> Json:
        _, body = await written(request)
        _workflow(workflow_id)
        wanted = body.get("incident_workflow_instance")
        if not isinstance(wanted, dict) or not isinstance(wanted.get("incident"), dict):
            raise _invalid("incident_workflow_instance.incident is required")
        incident = account.incident(str(wanted["incident"].get("id")))
        about = reference("incident", incident.id, incident.title)
        instance = {"id": wanted.get("id") or new_id("P", 6), "type": "incident_workflow_instance", "incident": about}
        incident.workflows.append({**instance, "workflow": workflow_id})
        return {"incident_workflow_instance": instance}

    router.include_router(_automation_routes(account, authorised=authorised, written=written))
    return router


def _automation_routes(
    account: PagerDuty,
    *,
    authorised: Callable[[PagerDuty, Request], None],
    written: Callable[[Request], Awaitable[tuple[User, Json]]],
) -> APIRouter:
    """Automation Actions; a runner takes an invocation when the test or the drill says so."""
    router = APIRouter(prefix="/automation_actions")

    @router.get("/actions/{action_id}")
    async def action(action_id: str, request: Request) -> Json:
        authorised(account, request)
        return {"action": _automation(action_id)}

    @router.get("/invocations")
    async def invocations(request: Request) -> Json:
        authorised(account, request)
        wanted = dict(request.query_params)
        if not set(wanted) <= {"action_id", "incident_id", "invocation_state", "not_invocation_state"}:
            raise _invalid("unknown query parameter")
        rows = [
            each
            for incident in account.incidents.values()
            for each in incident.invocations
            if wanted.get("incident_id") in {None, incident.id}
            and wanted.get("action_id") in {None, each["action_id"]}
            and wanted.get("invocation_state") in {None, each["state"]}
        ]
        return {"invocations": rows}

    @router.post("/actions/{action_id}/invocations", status_code=201)
    async def invoke(action_id: str, request: Request) -> Json:
        sender, body = await written(request)
        _automation(action_id)
        match body:
            case {"invocation": {"metadata": {"incident_id": str(incident_id)}}}:
                incident = account.incident(incident_id)
            case _:
                raise _invalid("invocation.metadata.incident_id is required")
        about = reference("incident", incident.id, incident.title)
        invocation: Json = {
            "id": new_id("01", 24),
            "type": "invocation",
            "action_id": action_id,
            "state": "created",
            "timing": [{"state": "created", "timestamp": account.stamp()}],
            "metadata": {"agent": sender.reference(), "incident": about},
        }
        incident.invocations.append(invocation)
        return {"invocation": invocation}

    return router


def _automation(action_id: str) -> Json:
    if action_id not in AUTOMATIONS:
        raise PagerDutyError(404, 2100, "Not Found")
    name = AUTOMATIONS[action_id]
    return {"id": action_id, "type": "action", "name": name, "action_type": "script"}


def _policy(policy_id: str) -> Json:
    if policy_id not in ESCALATION_POLICIES:
        raise PagerDutyError(404, 2100, "Not Found")
    name, levels = ESCALATION_POLICIES[policy_id]
    rules = [
        {"id": f"R{n}", "escalation_delay_in_minutes": 30, "targets": [u.reference()]} for n, u in enumerate(levels)
    ]
    return {**policy_reference(policy_id, name), "type": "escalation_policy", "name": name, "escalation_rules": rules}


def _workflow(workflow_id: str) -> Json:
    if workflow_id not in WORKFLOWS:
        raise PagerDutyError(404, 2100, "Not Found")
    return {"id": workflow_id, "type": "incident_workflow", "name": WORKFLOWS[workflow_id]}


def _add_responders(incident: Incident, body: Json, at: str) -> Json:
    requester, message = _user(body.get("requester_id"), 400), _text(body, "message")
    targets = body.get("responder_request_targets")
    if not isinstance(targets, list) or not targets:
        raise _invalid("responder_request_targets can't be blank")
    people = [_target(each) for each in targets]
    known = [each for each in incident.responders if each["user"]["id"] not in {person.id for person in people}]
    asked: list[Json] = [
        {"state": "pending", "user": person.reference(), "message": message, "requester": requester.reference()}
        for person in people
    ]
    incident.responders = [*known, *asked]
    return {
        "incident": reference("incident", incident.id, incident.title),
        "requester": requester.reference(),
        "requested_at": at,
        "message": message,
        "responder_request_targets": targets,
    }


def _target(wrapped: Any) -> User:
    target = wrapped.get("responder_request_target") if isinstance(wrapped, dict) else None
    if not isinstance(target, dict) or target.get("type") not in ("user", "user_reference"):
        raise _invalid("a responder_request_target is an id with a type")
    return _user(target.get("id"), 400)


def _user(user_id: Any, status: int) -> User:
    found = next((user for user in USERS if user.id == user_id), None)
    if found is None:
        raise PagerDutyError(404, 2100, "Not Found") if status == 404 else _invalid("User not found")
    return found


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(f"{name} can't be blank")
    return value


def _invalid(why: str) -> PagerDutyError:
    return PagerDutyError(400, 2001, "Invalid Input Provided", (why,))
