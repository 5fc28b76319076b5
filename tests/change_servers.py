"""Stand-ins over real HTTP for Argo CD, LaunchDarkly, Unleash and Kubernetes, with the shapes that they document."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer

Json = dict[str, Any]


def milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(kw_only=True)
class Guarded(RememberingServer):
    """Answers only who shows this `Authorization`; a wrong one gets a 401."""

    token: str

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != self.token:
            return web.json_response({"message": "unauthorized"}, status=401)
        return self.told(request)

    @abstractmethod
    def told(self, request: web.Request) -> web.StreamResponse:
        """What it tells who may ask."""


@dataclass(kw_only=True)
class ArgoServer(Guarded):
    """GET /api/v1/applications, all or one by its name."""

    applications: list[Json] = field(default_factory=list)

    def told(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/applications":
            return web.json_response({"metadata": {}, "items": self.applications or None})
        named = {f"/api/v1/applications/{each['metadata']['name']}": each for each in self.applications}
        if request.path in named:
            return web.json_response(named[request.path])
        return web.json_response({"error": "permission denied", "code": 7}, status=403)


@dataclass(kw_only=True)
class LaunchDarklyServer(Guarded):
    """GET /api/v2/auditlog: newest first, at most twenty, both times exclusive."""

    entries: list[Json] = field(default_factory=list)

    def told(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        limit = int(query.get("limit", "10"))
        if request.path != "/api/v2/auditlog" or not 1 <= limit <= 20:
            return web.json_response({"code": "invalid_request"}, status=400)
        after, before = int(query["after"]), int(query["before"])
        found = [each for each in self.entries if after < each["date"] < before]
        found.sort(key=lambda each: each["date"], reverse=True)
        return web.json_response({"items": found[:limit], "_links": {"self": {"href": request.path_qs}}})


@dataclass(kw_only=True)
class UnleashServer(Guarded):
    """GET /api/admin/search/events: newest first, by page, whole days."""

    events: list[Json] = field(default_factory=list)

    def told(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if request.path != "/api/admin/search/events" or int(query.get("limit", "50")) > 1000:
            return web.json_response({"name": "NotFoundError"}, status=404)
        asked = {name: query[name].removeprefix("IS:") for name in ("project", "from", "to")}
        found = [
            each
            for each in self.events
            if each["project"] == asked["project"] and asked["from"] <= each["createdAt"][:10] <= asked["to"]
        ]
        found.sort(key=lambda each: each["id"], reverse=True)
        begin = int(query.get("offset", "0"))
        page = found[begin : begin + int(query.get("limit", "50"))]
        return web.json_response({"events": page, "total": len(found)})


@dataclass(kw_only=True)
class ListServer(Guarded):
    """A Kubernetes API that lists objects by path, by pages of two, and leaves out contents for who asks so."""

    lists: dict[str, list[Json]] = field(default_factory=dict)
    forbidden: tuple[str, ...] = ()

    def told(self, request: web.Request) -> web.StreamResponse:
        if request.path in self.forbidden:
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        items = self.lists.get(request.path, [])
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            items = [{"metadata": each["metadata"]} for each in items]
        if selector := request.query.get("fieldSelector"):
            kind = selector.removeprefix("involvedObject.kind=")
            items = [each for each in items if each["involvedObject"]["kind"] == kind]
        begin = int(request.query.get("continue", "0"))
        more = {"continue": str(begin + 2)} if begin + 2 < len(items) else {}
        return web.json_response({"kind": "List", "metadata": more, "items": items[begin : begin + 2]})
