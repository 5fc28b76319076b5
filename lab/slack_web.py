"""
The local Slack over HTTP: `/api/<method>` for the app, and a page with plain JSON addresses for people.

What a person can do goes through `/people/...` and nothing else, whether a browser, a test or the demo's actors act.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lab.people import BOT_USER, CAST, CHANNEL, TEAM, Person, who_is
from lab.slack import Json, Message, SlackError, Workspace, channel_shown
from lab.slack_api import Api, RateLimitedError
from lab.slack_carriers import Answer
from lab.slack_delivery import AppLink

PAGE = Path(__file__).parent / "page"
MAX_BODY_BYTES = 4 * 1024 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_PRIVATE = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_STATUS = {
    "no_such_element": 409,
    "no_such_option": 409,
    "message_not_found": 404,
    "channel_not_found": 404,
    "user_not_found": 404,
    "used_url": 404,
    "expired_url": 404,
    "invalid_url": 404,
}


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Click(_Wish):
    """A press of a button, or a choice from a menu (`value` is the option's)."""

    ts: str
    action_id: str
    channel: str = CHANNEL
    block_id: str = ""
    value: str | None = None


class Command(_Wish):
    """A line such as `/oncall status`."""

    text: str


class Writing(_Wish):
    """A message that a person writes, in the channel or in a thread."""

    text: str
    thread_ts: str = ""


def slack_app(
    workspace: Workspace,
    link: AppLink,
    *,
    base_url: str,
    rate_limited: bool = False,
    lab_state: Callable[[], Mapping[str, Any]] = dict,
) -> FastAPI:
    """The whole application; `lab_state` is what the page's status bar shows (`/lab/state`)."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await link.aclose()

    app = FastAPI(title="Local Slack", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    # A page of somebody else's could otherwise reach the lab by pointing its own name at 127.0.0.1.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.exception_handler(SlackError)
    async def refuse(_request: Request, refusal: SlackError) -> JSONResponse:
        return JSONResponse(refusal.body(), status_code=_STATUS.get(refusal.error, 400))

    _serve_app_side(app, workspace, Api(workspace, base_url=base_url, rate_limited=rate_limited))
    _serve_people(app, workspace, link)
    _serve_page(app, workspace, lab_state)
    return app


# -- what the app calls ------------------------------------------------------------------------------------------


def _serve_app_side(app: FastAPI, workspace: Workspace, api: Api) -> None:
    @app.api_route("/api/{method}", methods=["GET", "POST"])
    async def call_method(method: str, request: Request) -> JSONResponse:
        try:
            arguments = await _arguments(request)
        except SlackError as refusal:
            return JSONResponse(refusal.body())
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        token = bearer if scheme == "Bearer" else str(arguments.get("token", ""))
        try:
            return JSONResponse(api.call(method, token, arguments))
        except RateLimitedError as limit:
            headers = {"Retry-After": str(limit.retry_after_s)}
            return JSONResponse({"ok": False, "error": "ratelimited"}, status_code=429, headers=headers)

    @app.post("/upload/{file_id}")
    async def upload(file_id: str, request: Request) -> Response:
        file = workspace.files.get(file_id)
        content = await request.body()
        if file is None:
            return PlainTextResponse("no such upload", status_code=404)
        if len(content) != file.length or len(content) > MAX_BODY_BYTES:
            return PlainTextResponse(f"expected {file.length} bytes, got {len(content)}", status_code=400)
        file.content = content
        return PlainTextResponse(f"OK - {len(content)}")

    @app.post("/actions/{_team}/{key}")
    async def use_response_url(_team: str, key: str, request: Request) -> JSONResponse:
        workspace.respond(key, _json_object(await request.body(), error="invalid_payload"))
        return JSONResponse({"ok": True})


def _json_object(raw: bytes, *, error: str) -> Json:
    try:
        body = json.loads(raw)
    except ValueError:
        raise SlackError(error) from None
    if not isinstance(body, dict):
        raise SlackError(error)
    return body


async def _arguments(request: Request) -> Json:
    """A call's arguments from its query and body, form or JSON. Raises SlackError."""
    arguments: Json = dict(request.query_params)
    raw = await request.body()
    if not raw:
        return arguments
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type == "application/json":
        return arguments | _json_object(raw, error="invalid_json")
    if content_type == "application/x-www-form-urlencoded":
        return arguments | dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
    raise SlackError("invalid_post_type")


# -- what people see and do --------------------------------------------------------------------------------------


def _serve_people(app: FastAPI, workspace: Workspace, link: AppLink) -> None:
    @app.get("/people")
    async def people() -> Json:
        return {
            "team": TEAM,
            "channel": channel_shown(len(workspace.users)),
            "app": {"slack": BOT_USER, "name": workspace.users[BOT_USER]["real_name"]},
            "people": [
                {"id": p.id, "slack": p.slack, "name": p.name, "title": p.title, "email": p.email} for p in CAST
            ],
        }

    @app.get("/channel")
    async def channel(person: str = "", since: int = -1) -> Json:
        viewer = who_is(person)
        if since == workspace.version:
            return {"version": workspace.version, "unchanged": True}
        return _seen_by(workspace, viewer.slack if viewer else "")

    @app.post("/people/{user}/click")
    async def click(user: str, wish: Click) -> JSONResponse:
        person = _person(user)
        if wish.channel != CHANNEL:
            raise SlackError("channel_not_found")
        message = _visible(workspace, wish.ts, person)
        answer = await link.click(
            user=person.slack, message=message, action_id=wish.action_id, block_id=wish.block_id, value=wish.value
        )
        return _told(answer)

    @app.post("/people/{user}/command")
    async def command(user: str, wish: Command) -> JSONResponse:
        name, _, text = wish.text.strip().partition(" ")
        if not name.startswith("/"):
            raise SlackError("not_a_command", [f"a command starts with a slash, unlike {name!r}"])
        return _told(await link.command(user=_person(user).slack, command=name, text=text.strip()))

    @app.post("/people/{user}/message")
    async def message(user: str, wish: Writing) -> Json:
        written = workspace.post({"text": wish.text, "thread_ts": wish.thread_ts}, user=_person(user).slack)
        answer = await link.message_event(written)
        return {"ok": True, "ts": written.ts, "delivered": answer.is_acknowledged}


def _person(user: str) -> Person:
    person = who_is(user)
    if person is None:
        raise SlackError("user_not_found", [f"nobody here is called {user!r}"])
    return person


def _visible(workspace: Workspace, ts: str, viewer: Person) -> Message:
    message = workspace.message(ts)
    if message.only_to not in {"", viewer.slack}:
        raise SlackError("message_not_found")
    return message


def _told(answer: Answer) -> JSONResponse:
    """What a person notices of a delivery: nothing when it worked, a warning sign when the app did not answer."""
    if answer.is_acknowledged:
        return JSONResponse({"ok": True, "took_s": round(answer.took_s, 3)})
    body = {"ok": False, "error": answer.error, "status": answer.status}
    return JSONResponse(body, status_code=504 if answer.error == "http_timeout" else 502)


def _seen_by(workspace: Workspace, viewer: str) -> Json:
    """The channel with its threads as one person sees it: their own ephemeral messages are in it, nobody else's."""
    shown: dict[str, Json] = {}
    for message in sorted(workspace.messages.values(), key=lambda m: float(m.ts)):
        if message.only_to in {"", viewer}:
            body = workspace.shown(message)
            body |= {"author": workspace.users[message.user]["real_name"], "replies": []}
            body["only_visible_to_you"] = bool(message.only_to)
            shown[message.ts] = body
    for body in shown.values():
        parent = shown.get(body.get("thread_ts", ""))
        if parent is not None and parent is not body:
            parent["replies"].append(body)
    return {
        "version": workspace.version,
        "person": viewer,
        "channel": channel_shown(len(workspace.users)),
        "messages": [body for body in shown.values() if body.get("thread_ts", body["ts"]) == body["ts"]],
        "view": workspace.views.get(viewer),
    }


# -- the page ----------------------------------------------------------------------------------------------------


def _serve_page(app: FastAPI, workspace: Workspace, lab_state: Callable[[], Mapping[str, Any]]) -> None:
    @app.get("/lab/state")
    async def state() -> JSONResponse:
        return JSONResponse({"now": workspace.now().isoformat(), **lab_state()})

    @app.get("/files/{file_id}")
    async def picture(file_id: str) -> Response:
        file = workspace.files.get(file_id)
        if file is None or file.content is None:
            return PlainTextResponse("no such file", status_code=404)
        is_picture = file.content.startswith(_PNG)
        kind = "image/png" if is_picture else "application/octet-stream"
        return Response(file.content, media_type=kind, headers=_PRIVATE)

    @app.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=_PRIVATE)

    @app.get("/archives/{_channel}/p{digits}")
    async def permalink(_channel: str, digits: str) -> Response:
        """Slack's form of a message's address."""
        return RedirectResponse(f"/#{digits[:-6]}.{digits[-6:]}" if digits.isdecimal() else "/")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
