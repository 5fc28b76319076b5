"""Qdrant's HTTP API as far as aliases and payloads go, with its filters and its shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer

KEY = "qdrant-api-key"
SIZES = {"docs-v1": 768, "docs-v2": 1024, "docs-v3": 768, "docs-empty": 768, "search-v1": 768}


@dataclass(kw_only=True)
class QdrantServer(RememberingServer):
    """`aliases` is alias -> collection, `points` is collection -> payloads."""

    aliases: dict[str, str] = field(default_factory=dict)
    points: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    finished: bool = True
    only: str = ""  # faults of a POST strike paths with this word alone, since counting is a POST, too

    def writes(self) -> list[str]:
        """The paths of everything that was to change something; counting is a POST, too."""
        return [one.path for one in self.of("POST") if not one.path.endswith("/points/count")]

    def marked(self, collection: str) -> list[Any]:
        """The ids of the points that carry the mark."""
        return [payload["id"] for payload in self.points[collection] if payload.get("quarantined")]

    def strikes(self, _request: web.Request) -> bool:
        return _request.method != "POST" or self.only in _request.path

    async def answer(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - a table
        if request.headers.get("api-key") != KEY:
            return web.json_response({"status": {"error": "Invalid API key"}}, status=401)
        parts = request.path.split("/")[1:]
        match request.method, parts:
            case "GET", ["aliases"]:
                pairs = [{"alias_name": alias, "collection_name": name} for alias, name in self.aliases.items()]
                return _ok({"aliases": pairs})
            case "GET", ["collections"]:
                return _ok({"collections": [{"name": name} for name in self.points]})
            case "POST", ["collections", "aliases"]:
                return self._move((await request.json())["actions"])
            case "GET", ["collections", name] if name in self.points:
                return _ok({"config": {"params": {"vectors": {"size": SIZES[name], "distance": "Cosine"}}}})
            case "POST", ["collections", name, "points", *rest] if name in self.points:
                return self._points(name, "/".join(rest), await request.json(), request.query.get("wait") == "true")
        return _error(404, f"Not found: {request.path}")

    def _move(self, actions: list[dict[str, dict[str, str]]]) -> web.Response:
        """All of them or none."""
        after = dict(self.aliases)
        for action in actions:
            [(kind, wish)] = action.items()
            if kind == "delete_alias":
                after.pop(wish["alias_name"], None)
            elif kind == "create_alias" and wish["collection_name"] in self.points:
                after[wish["alias_name"]] = wish["collection_name"]
            else:
                return _error(400, "Wrong input")
        self.aliases = after
        return _ok(True)

    def _points(self, name: str, what: str, body: dict[str, Any], wait: bool) -> web.Response:  # noqa: FBT001
        if what == "count" and set(body) <= {"exact", "filter"}:
            return _ok({"count": len([each for each in self.points[name] if _fits(each, body.get("filter"))])})
        if what not in ("payload", "payload/delete") or "filter" not in body:
            return _error(400, "Wrong input")
        for payload in self.points[name]:
            if _fits(payload, body["filter"]):
                payload.update(body.get("payload", {}))
                for key in body.get("keys", []):
                    payload.pop(key, None)
        return _ok({"operation_id": 1, "status": "completed" if wait and self.finished else "acknowledged"})


def _fits(payload: dict[str, Any], wanted: dict[str, Any] | None) -> bool:
    """Conditions `match.value` and `is_empty`; a filter with anything else fails the test."""
    wanted = wanted or {}
    assert set(wanted) <= {"must", "must_not"}
    return all(_holds(payload, each) for each in wanted.get("must", [])) and not any(
        _holds(payload, each) for each in wanted.get("must_not", [])
    )


def _holds(payload: dict[str, Any], condition: dict[str, Any]) -> bool:
    if "is_empty" in condition:
        return payload.get(condition["is_empty"]["key"]) in (None, [])
    assert set(condition) == {"key", "match"}
    value: Any = payload
    for part in condition["key"].split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return bool(value == condition["match"]["value"])


def _ok(result: Any) -> web.Response:
    return web.json_response({"result": result, "status": "ok", "time": 0.001})


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"status": {"error": message}, "time": 0.0}, status=status)
