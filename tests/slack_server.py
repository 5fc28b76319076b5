"""A Slack Web API on 127.0.0.1 that remembers what it was asked and answers what it was told to."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TEAM = "T0LAB00001"


def account(user: str, **more: Any) -> dict[str, Any]:
    """A full, active member as users.info describes one."""
    flags = {"deleted": False, "is_bot": False, "is_restricted": False, "is_ultra_restricted": False}
    return {"id": user, "team_id": TEAM, "name": user.lower(), **flags, **more}


@dataclass
class SlackServer:
    """
    `accounts` answer users.info, `messages` the history; `faults` are (status, headers, body) to answer first.

    `breaks` is how many calls are heard and then cut off without an answer.
    """

    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, list[tuple[int, dict[str, str], str]]] = field(default_factory=lambda: defaultdict(list))
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    breaks: int = 0
    new_address: Callable[[], str] = str  # of a WebSocket
    url: str = ""

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The arguments of every call of this method."""
        return [arguments for name, arguments in self.calls if name == method]

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self._call)
        app.router.add_route("*", "/upload", self._upload)
        app.router.add_post("/respond", self._respond)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _call(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        arguments = await _arguments(request)
        self.calls.append((method, arguments))
        if self.breaks and request.transport is not None:
            self.breaks -= 1
            request.transport.abort()
        if self.faults[method]:
            status, headers, body = self.faults[method].pop(0)
            return web.Response(status=status, headers=headers, text=body, content_type="application/json")
        return web.json_response({"ok": True, **self._answer(method, arguments)})

    def _answer(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if method == "users.info":
            known = self.accounts.get(arguments["user"])
            return {"user": known} if known else {"ok": False, "error": "user_not_found"}
        if method == "apps.connections.open":
            return {"url": self.new_address()}
        if method in {"conversations.history", "conversations.replies"}:
            start = int(arguments.get("cursor") or 0)
            cursor = str(start + 100) if len(self.messages) > start + 100 else ""
            page = self.messages[start : start + 100]
            return {"messages": page, "response_metadata": {"next_cursor": cursor}}
        canned: dict[str, dict[str, Any]] = {
            "auth.test": {"team_id": TEAM, "user_id": "U0BOT", "bot_id": "B0BOT", "team": "lab", "url": f"{self.url}/"},
            "chat.postMessage": {"channel": arguments.get("channel"), "ts": "1700000000.000100"},
            "chat.update": {"channel": arguments.get("channel"), "ts": "1700000000.000100"},
            "files.getUploadURLExternal": {"upload_url": f"{self.url}/upload", "file_id": "F1"},
            "files.completeUploadExternal": {"files": [{"id": "F1"}]},
        }
        return canned.get(method, {})

    async def _upload(self, request: web.Request) -> web.Response:
        self.calls.append(("upload", {"bytes": await request.read()}))
        return web.Response(text="OK")

    async def _respond(self, request: web.Request) -> web.Response:
        self.calls.append(("response_url", await request.json()))
        return web.Response(text="ok")


async def _arguments(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        loaded: dict[str, Any] = await request.json()
        return loaded
    values = {**request.query, **dict(await request.post())}
    return {name: _maybe_json(value) for name, value in values.items()}


def _maybe_json(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        return json.loads(value)
    return value
