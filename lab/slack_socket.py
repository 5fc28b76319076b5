"""
Slack's Socket Mode: the app opens a WebSocket, and every envelope on it wants an acknowledgement within three seconds.

An app may hold ten connections; an envelope goes to one of them (docs.slack.dev/apis/events-api/using-socket-mode).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from lab.listening import url_of
from lab.people import APP
from lab.slack import Workspace
from lab.slack_carriers import PATIENCE_S, Answer, Kind, Retry

_TYPES: Mapping[Kind, str] = {"event": "events_api", "interactivity": "interactive", "command": "slash_commands"}
_MOST_CONNECTIONS = 10


class SocketCarrier:
    """Brings payloads to whichever app is connected; `disconnect` does what Slack does to its connections."""

    def __init__(self, workspace: Workspace, *, patience_s: float = PATIENCE_S) -> None:
        self._workspace = workspace
        self._patience_s = patience_s
        self._acknowledged: dict[str, asyncio.Future[Any]] = {}
        self._turn = itertools.count()
        self.connections: list[web.WebSocketResponse] = []

    async def carry(self, kind: Kind, payload: Mapping[str, Any], retry: Retry | None) -> Answer:
        started_s = time.monotonic()
        error, body = "", ""
        try:
            async with asyncio.timeout(self._patience_s):
                said = await self._acknowledgement(kind, payload, retry)
        except TimeoutError:
            error = "http_timeout" if self.connections else "connection_failed"
        else:
            body = json.dumps(said) if said else ""
        took_s = time.monotonic() - started_s
        return Answer(kind=kind, status=None if error else 200, error=error, took_s=took_s, body=body)

    async def _acknowledgement(self, kind: Kind, payload: Mapping[str, Any], retry: Retry | None) -> Any:
        while not self.connections:  # noqa: ASYNC110 - a bounded wait for somebody else's process
            await asyncio.sleep(0.02)
        envelope_id = secrets.token_hex(16)
        envelope = {
            "envelope_id": envelope_id,
            "type": _TYPES[kind],
            "payload": dict(payload),
            "accepts_response_payload": kind != "event",
        }
        if retry is not None:
            envelope |= {"retry_attempt": retry.number, "retry_reason": retry.reason}
        acknowledged = self._acknowledged[envelope_id] = asyncio.get_running_loop().create_future()
        try:
            connection = self.connections[next(self._turn) % len(self.connections)]
            with contextlib.suppress(ConnectionError):  # it went away just now; nobody will acknowledge
                await connection.send_json(envelope)
            return await acknowledged
        finally:
            del self._acknowledged[envelope_id]

    async def disconnect(self, reason: str, *, hard: bool = True) -> None:
        """Announce the end of each connection (`refresh_requested`, `warning`, `link_disabled`), and end it if hard."""
        for connection in list(self.connections):
            await connection.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "lab"}})
            if hard:
                await connection.close()

    async def aclose(self) -> None:
        for connection in list(self.connections):
            await connection.close()

    @asynccontextmanager
    async def listening(self, at: socket.socket) -> AsyncIterator[None]:
        """Take connections while the block runs; apps.connections.open names the address."""
        self._workspace.socket_url = url_of(at, "ws")
        app = web.Application()
        app.router.add_get("/link/", self._link)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, at).start()
        try:
            yield
        finally:
            await self.aclose()
            await runner.cleanup()

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        if not self._workspace.use_ticket(request.query.get("ticket", "")):
            raise web.HTTPNotFound
        connection = web.WebSocketResponse(heartbeat=10)
        await connection.prepare(request)
        if len(self.connections) >= _MOST_CONNECTIONS:
            await connection.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await connection.close()
            return connection
        self.connections.append(connection)
        hello = {"type": "hello", "num_connections": len(self.connections), "connection_info": {"app_id": APP}}
        try:
            await connection.send_json(hello)
            async for message in connection:
                if message.type is WSMsgType.TEXT:
                    self._hear(json.loads(message.data))
        finally:
            self.connections.remove(connection)
        return connection

    def _hear(self, said: Mapping[str, Any]) -> None:
        acknowledged = self._acknowledged.get(str(said.get("envelope_id")))
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(said.get("payload"))
