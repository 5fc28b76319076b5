"""PagerDuty over HTTP: the parts of REST API v2 and Events API v2 that an incident bot calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from lab.pagerduty import ESCALATION_POLICIES, USERS, InvalidEventError, PagerDuty, PagerDutyError
from lab.pagerduty_response import response_routes
from lab.pagerduty_shapes import (
    SERVICE_ID,
    SERVICE_NAME,
    Json,
    User,
    policy_reference,
    rest_incident,
    service_reference,
)
from lab.pagerduty_webhooks import SUBSCRIPTION_ID, WebhookSender


def pagerduty_app(account: PagerDuty) -> FastAPI:
    """REST and Events on one address; REST wants `Authorization: Token token=...`, Events the routing key."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        if account.webhooks is not None:
            await account.webhooks.aclose()

    app = FastAPI(title="PagerDuty stand-in", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(PagerDutyError)
    async def refuse(_request: Request, refusal: PagerDutyError) -> JSONResponse:
        return JSONResponse(refusal.body(), status_code=refusal.status)

    @app.middleware("http")
    async def remember(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Every call and its status, so that a test can see what the product asked for; and the key's limit."""
        is_rest = not request.url.path.startswith("/v2/")
        response = account.meter.refusal() if is_rest else None
        response = response or await call_next(request)
        if is_rest:
            response.headers.update(account.meter.headers())
        account.calls.append(
            {
                "method": request.method,
                "path": request.url.path,
                "from": request.headers.get("from", ""),
                "status": response.status_code,
                "at": account.now().isoformat(),
            }
        )
        return response

    app.include_router(_events(account))
    for routes in (_incidents, _of_incidents, _directory, _subscriptions):
        app.include_router(routes(account))
    app.include_router(response_routes(account, authorised=_authorised, body_of=_body))
    return app


def _authorised(account: PagerDuty, request: Request) -> None:
    if request.headers.get("authorization") not in {f"Token token={account.api_key}", f"Bearer {account.api_key}"}:
        raise PagerDutyError(401, 2006, "Authentication failed")


async def _body(request: Request) -> Json:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise PagerDutyError(400, 2001, "Invalid Input Provided", ("The body is not JSON",)) from None
    if not isinstance(body, dict):
        raise PagerDutyError(400, 2001, "Invalid Input Provided", ("The body is not an object",))
    return body


def _wrapped(body: Json, name: str, kind: type) -> Any:
    if not isinstance(body.get(name), kind):
        raise PagerDutyError(400, 2001, "Invalid Input Provided", (f"{name} is required",))
    return body[name]


def _page(request: Request, name: str, rows: list[Json]) -> Json:
    try:
        limit = min(int(request.query_params.get("limit", 25)), 100)
        offset = int(request.query_params.get("offset", 0))
    except ValueError:
        limit, offset = -1, -1
    if limit < 0 or offset < 0 or limit + offset > 10_000:
        raise PagerDutyError(400, 2001, "Invalid Input Provided", ("limit and offset: at most 10000 together",))
    total = len(rows) if request.query_params.get("total") == "true" else None
    more = offset + limit < len(rows)
    return {name: rows[offset : offset + limit], "limit": limit, "offset": offset, "more": more, "total": total}


def _events(account: PagerDuty) -> APIRouter:
    router = APIRouter()

    @router.post("/v2/enqueue")
    async def enqueue(request: Request) -> JSONResponse:
        try:
            key = account.enqueue(await _body(request))
        except InvalidEventError as fault:
            body = {"status": "invalid event", "message": "Event object is invalid", "errors": fault.errors}
            return JSONResponse(body, status_code=400)
        answer = {"status": "success", "message": "Event processed", "dedup_key": key}
        return JSONResponse(answer, status_code=202)

    return router


def _incidents(account: PagerDuty) -> APIRouter:
    router = APIRouter(prefix="/incidents")

    def actor(request: Request) -> User:
        return account.user_of(request.headers.get("from"))

    @router.get("")
    async def incidents(request: Request) -> Json:
        _authorised(account, request)
        statuses = request.query_params.getlist("statuses[]")
        services = request.query_params.getlist("service_ids[]")
        key = request.query_params.get("incident_key")
        rows = [
            rest_incident(incident)
            for incident in account.incidents.values()
            if (not statuses or incident.status in statuses)
            and (not services or SERVICE_ID in services)
            and key in {None, incident.key}
        ]
        return _page(request, "incidents", rows)

    @router.put("")
    async def change_many(request: Request) -> Json:
        _authorised(account, request)
        user, wishes = actor(request), _wrapped(await _body(request), "incidents", list)
        if len(wishes) > 250:
            raise PagerDutyError(413, 2001, "Request Entity Too Large")
        changed = [account.change(str(wish.get("id")), wish, user) for wish in wishes]
        return {"incidents": [rest_incident(incident) for incident in changed]}

    @router.get("/{incident_id}")
    async def incident(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        return {"incident": rest_incident(account.incident(incident_id))}

    @router.put("/{incident_id}")
    async def change_one(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        user, wish = actor(request), _wrapped(await _body(request), "incident", dict)
        return {"incident": rest_incident(account.change(incident_id, wish, user))}

    @router.put("/{incident_id}/merge")
    async def merge(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        user, sources = actor(request), _wrapped(await _body(request), "source_incidents", list)
        return {"incident": rest_incident(account.merge(incident_id, [str(each.get("id")) for each in sources], user))}

    return router


def _of_incidents(account: PagerDuty) -> APIRouter:
    router = APIRouter(prefix="/incidents")

    @router.get("/{incident_id}/log_entries")
    async def log_entries(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        return _page(request, "log_entries", account.incident(incident_id).log)

    @router.get("/{incident_id}/alerts")
    async def alerts(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        return _page(request, "alerts", account.incident(incident_id).alerts)

    @router.get("/{incident_id}/notes")
    async def notes(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        return {"notes": account.incident(incident_id).notes}

    @router.post("/{incident_id}/notes", status_code=201)
    async def add_note(incident_id: str, request: Request) -> Json:
        _authorised(account, request)
        user, note = account.user_of(request.headers.get("from")), _wrapped(await _body(request), "note", dict)
        return {"note": account.add_note(incident_id, note.get("content"), user)}

    return router


def _directory(account: PagerDuty) -> APIRouter:
    router = APIRouter()

    @router.get("/users/me")
    async def me(request: Request) -> Json:
        _authorised(account, request)
        reason = "The current user can't be determined with an account-level API key"
        raise PagerDutyError(400, 2001, "Invalid Input Provided", (reason,))

    @router.get("/users")
    async def users(request: Request) -> Json:
        _authorised(account, request)
        query = request.query_params.get("query", "").lower()
        rows = [_user(user) for user in USERS if query in f"{user.name} {user.email}".lower()]
        return _page(request, "users", rows)

    @router.get("/services")
    async def services(request: Request) -> Json:
        _authorised(account, request)
        return _page(request, "services", [_service()])

    @router.get("/services/{service_id}")
    async def service(service_id: str, request: Request) -> Json:
        _authorised(account, request)
        if service_id != SERVICE_ID:
            raise PagerDutyError(404, 2100, "Not Found")
        return {"service": _service()}

    @router.get("/oncalls")
    async def on_calls(request: Request) -> Json:
        _authorised(account, request)
        asked = request.query_params.getlist("escalation_policy_ids[]")
        rows = [
            {
                "escalation_policy": policy_reference(policy_id, name),
                "escalation_level": level,
                "schedule": None,
                "user": user.reference(),
                "start": None,
                "end": None,
            }
            for policy_id, (name, levels) in ESCALATION_POLICIES.items()
            if not asked or policy_id in asked
            for level, user in enumerate(levels, start=1)
        ]
        return _page(request, "oncalls", rows)

    @router.get("/abilities")
    async def abilities(request: Request) -> Json:
        _authorised(account, request)
        return {"abilities": ["teams", "urgencies"]}

    return router


def _subscriptions(account: PagerDuty) -> APIRouter:
    router = APIRouter()

    @router.get("/webhook_subscriptions")
    async def webhook_subscriptions(request: Request) -> Json:
        _authorised(account, request)
        sender = account.webhooks
        return _page(request, "webhook_subscriptions", [_subscription(sender)] if sender else [])

    @router.post("/webhook_subscriptions/{subscription_id}/enable")
    async def enable(subscription_id: str, request: Request) -> Json:
        _authorised(account, request)
        if account.webhooks is None or subscription_id != SUBSCRIPTION_ID:
            raise PagerDutyError(404, 2100, "Not Found")
        account.webhooks.enable()
        return {"webhook_subscription": _subscription(account.webhooks)}

    return router


def _user(user: User) -> Json:
    return {**user.reference(), "type": "user", "name": user.name, "email": user.email, "role": "user"}


def _subscription(sender: WebhookSender) -> Json:
    method: Json = {
        "id": "PLABDLV",
        "type": "http_delivery_method",
        "url": sender.url,
        "secret": None,
        "custom_headers": [],
    }
    return {
        "id": SUBSCRIPTION_ID,
        "type": "webhook_subscription",
        "active": True,
        "delivery_method": {**method, "temporarily_disabled": sender.is_disabled},
        "description": "Watchkeeper",
        "events": ["incident.triggered", "incident.acknowledged", "incident.resolved", "incident.reopened"],
        "filter": {"type": "account_reference"},
    }


def _service() -> Json:
    policy = policy_reference()
    return {
        **service_reference(),
        "type": "service",
        "name": SERVICE_NAME,
        "status": "active",
        "escalation_policy": policy,
    }
