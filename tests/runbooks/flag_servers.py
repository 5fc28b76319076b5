"""LaunchDarkly and Unleash as far as switching a flag in one environment goes, strict about paths and bodies."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer

TOKEN = "api-switches"
SEMANTIC_PATCH = "application/json; domain-model=launchdarkly.semanticpatch"


@dataclass(kw_only=True)
class FlagServer(RememberingServer):
    """The flags of the project `default` in `production`; a `forgetful` one says yes and switches nothing."""

    flags: dict[str, bool] = field(default_factory=dict)
    forgetful: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != TOKEN:
            return web.json_response({"message": "Unknown token"}, status=401)
        return await self.told(request)

    def switch(self, flag: str, *, on: bool) -> None:
        if not self.forgetful:
            self.flags[flag] = on

    @property
    @abstractmethod
    def changes(self) -> list[Any]:
        """The requests that asked for a change."""

    @abstractmethod
    async def told(self, request: web.Request) -> web.StreamResponse:
        """What it answers who may ask."""


@dataclass(kw_only=True)
class LaunchDarkly(FlagServer):
    """GET and PATCH /api/v2/flags/default/KEY. Each write raises the environment's version."""

    versions: dict[str, int] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)

    @property
    def changes(self) -> list[Any]:
        return self.of("PATCH")

    async def told(self, request: web.Request) -> web.StreamResponse:
        *place, key = request.raw_path.split("?")[0].split("/")
        if place != ["", "api", "v2", "flags", "default"] or key not in self.flags:
            return web.json_response({"code": "not_found", "message": "Unknown flag key"}, status=404)
        if request.method == "GET" and dict(request.query) == {"env": "production"}:
            return self._flag(key)
        if request.method == "PATCH" and request.headers["Content-Type"] == SEMANTIC_PATCH:
            return self._patched(key, await request.json())
        return web.json_response({"code": "invalid_request", "message": "Invalid request body"}, status=400)

    def _patched(self, key: str, body: dict[str, Any]) -> web.Response:
        kinds = [one["kind"] for one in body["instructions"]]
        if set(body) != {"environmentKey", "instructions", "comment"} or body["environmentKey"] != "production":
            return web.json_response({"code": "invalid_request", "message": "Unknown environment"}, status=400)
        if kinds not in (["turnFlagOn"], ["turnFlagOff"]):
            return web.json_response({"code": "invalid_request", "message": "Unknown instruction"}, status=400)
        self.switch(key, on=kinds == ["turnFlagOn"])
        self.versions[key] = self.versions.get(key, 1) + 1
        return self._flag(key)

    def _flag(self, key: str) -> web.Response:
        environment = {"on": self.flags[key], "version": self.versions.get(key, 1), "salt": "s", "rules": []}
        body = {"key": key, "archived": key in self.archived, "environments": {"production": environment}}
        return web.json_response(body)


@dataclass(kw_only=True)
class Unleash(FlagServer):
    """GET .../environments/production, and POST on or off below it; `strategies` says which of them are disabled."""

    strategies: dict[str, list[bool]] = field(default_factory=dict)

    @property
    def changes(self) -> list[Any]:
        return self.of("POST")

    async def told(self, request: web.Request) -> web.StreamResponse:
        parts = request.raw_path.split("/")
        if parts[:6] != ["", "api", "admin", "projects", "default", "features"] or parts[7:9] != [
            "environments",
            "production",
        ]:
            return web.json_response({"name": "NotFoundError"}, status=404)
        flag, verb = parts[6], parts[9:]
        if flag not in self.flags:
            return web.json_response({"name": "NotFoundError", "message": "Could not find feature"}, status=404)
        if request.method == "GET" and not verb:
            return self._environment(flag)
        if request.method == "POST" and verb in (["on"], ["off"]):
            self.switch(flag, on=verb == ["on"])
            return web.Response(status=200)
        return web.json_response({"name": "NotFoundError"}, status=404)

    def _environment(self, flag: str) -> web.Response:
        listed = [{"name": "default", "disabled": disabled} for disabled in self.strategies.get(flag, [False])]
        return web.json_response({"name": "production", "enabled": self.flags[flag], "strategies": listed})
