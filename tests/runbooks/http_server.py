"""A real HTTP server on 127.0.0.1 for a test, with the faults that networks have."""

from __future__ import annotations

import asyncio
import base64
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True)
class Faults:
    """
    What goes wrong with the next requests of a method: `before` the server does its work, or `after` it did.

    A fault is a status to answer with, `reset` (the connection breaks), `hang` (no answer at all), `redirect` (to
    `elsewhere`), `garbage` (200 with a page of HTML), `gzip` (200 with a body that only says it is gzip) or `deep`
    (200 with JSON that nests too deeply).
    """

    before: dict[str, int | str] = field(default_factory=dict)
    after: dict[str, int | str] = field(default_factory=dict)
    elsewhere: str = ""


@dataclass(kw_only=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any


@dataclass(kw_only=True)
class RememberingServer(ABC):
    """Keeps every request, and plays the faults around the real work."""

    faults: Faults = field(default_factory=Faults)
    seen: list[Seen] = field(default_factory=list)
    before_patch: Callable[[], None] | None = None  # what somebody else does between our look and our change
    url: str = ""
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, method: str) -> list[Seen]:
        return [one for one in self.seen if one.method == method]

    def strikes(self, _request: web.Request) -> bool:
        """Do the faults of its method strike this request?"""
        return True

    @abstractmethod
    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The server's real work."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            Seen(
                method=request.method,
                path=request.raw_path,
                headers={name.lower(): value for name, value in request.headers.items()},
                json=await request.json() if body and request.content_type.endswith("json") else None,
            )
        )
        if (fault := self.faults.before.get(request.method)) is not None and self.strikes(request):
            return await self._fail(request, fault)
        if request.method == "PATCH" and self.before_patch is not None:
            self.before_patch()
        answer = await self.answer(request)
        if (fault := self.faults.after.get(request.method)) is not None and self.strikes(request):
            return await self._fail(request, fault)
        return answer

    async def _fail(self, request: web.Request, fault: int | str) -> web.StreamResponse:
        if isinstance(fault, int):
            return web.json_response({"message": "made up"}, status=fault)
        if fault == "redirect":
            return web.Response(status=307, headers={"Location": self.faults.elsewhere})
        if fault == "garbage":
            return web.Response(text="<html>Please log in</html>", content_type="text/html")
        if fault == "gzip":
            return web.Response(body=b"<html>not gzip</html>", headers={"Content-Encoding": "gzip"})
        if fault == "deep":
            return web.Response(text="[" * 100_000, content_type="application/json")
        if fault == "hang":
            await self._closing.wait()
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._serve)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # typed as an abstract server
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield
        finally:
            self._closing.set()
            await runner.cleanup()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
