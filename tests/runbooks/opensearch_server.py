"""OpenSearch's HTTP API as far as counting and updating by query go, with its tasks and its shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer, basic

KEY = "watchkeeper:search-password"
SCRIPTS = ("ctx._source[params.key] = true", "ctx._source.remove(params.key)")


@dataclass(kw_only=True)
class OpenSearchServer(RememberingServer):
    """`indices` is index -> documents. An update is a task, which is done after `looks` looks at it."""

    indices: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    looks: int = 1
    report: dict[str, Any] = field(default_factory=dict)  # what differs in a task's report
    maps: bool = True  # does the index map a field that it did not know?
    failed_shards: int = 0
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: Callable[[], None] | None = None  # what somebody else does while a task ends

    def writes(self) -> list[str]:
        """The paths of everything that was to change something; counting is a POST, too."""
        return [one.path for one in self.of("POST") if "/_update_by_query" in one.path]

    def marked(self, index: str) -> list[Any]:
        return [document["id"] for document in self.indices[index] if "quarantined" in document]

    def strikes(self, request: web.Request) -> bool:
        return request.method != "POST" or request.path.endswith("/_update_by_query")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != basic(*KEY.split(":")):
            return web.json_response({"error": {"type": "security_exception"}, "status": 401}, status=401)
        match request.method, request.path.split("/")[1:]:
            case "POST", [index, "_count"] if index in self.indices:
                found = [each for each in self.indices[index] if self._fits(each, (await request.json())["query"])]
                shards = {"total": 1, "successful": 1 - self.failed_shards, "failed": self.failed_shards}
                return web.json_response({"count": len(found), "_shards": shards})
            case "POST", [index, "_update_by_query"] if index in self.indices:
                assert dict(request.query) == {
                    "conflicts": "proceed", "refresh": "true", "wait_for_completion": "false",
                }  # fmt: skip
                return self._begin(index, await request.json(), request.headers.get("X-Opaque-Id", ""))
            case "GET", ["_tasks"]:
                running = {name: task for name, task in self.tasks.items() if task["looks"] > 0}
                return web.json_response({"nodes": {"n1": {"tasks": running}} if running else {}})
            case "GET", ["_tasks", name] if name in self.tasks:
                return self._look(self.tasks[name])
        error = {"type": "index_not_found_exception", "reason": f"no such index [{request.path}]"}
        return web.json_response({"error": error, "status": 404}, status=404)

    def _begin(self, index: str, body: dict[str, Any], opaque: str) -> web.Response:
        script = body["script"]
        assert script["lang"] == "painless"
        assert script["source"] in SCRIPTS
        assert set(script["params"]) == {"key"}
        found = [each for each in self.indices[index] if self._fits(each, body["query"])]
        for document in found:
            if script["source"] == SCRIPTS[1]:
                document.pop(script["params"]["key"], None)
            elif self.maps:
                document[script["params"]["key"]] = True
        name = f"n1:{len(self.tasks) + 1}"
        self.tasks[name] = {"looks": self.looks, "updated": len(found), "headers": {"X-Opaque-Id": opaque}}
        return web.json_response({"task": name})

    def _look(self, task: dict[str, Any]) -> web.Response:
        task["looks"] -= 1
        if task["looks"] > 0:
            return web.json_response({"completed": False, "task": {"status": {"updated": 0}}})
        if self.ended is not None:
            self.ended()
        report = {"timed_out": False, "updated": task["updated"], "version_conflicts": 0, "failures": [], **self.report}
        return web.json_response({"completed": True, "task": {}, "response": report})

    def _fits(self, document: dict[str, Any], query: dict[str, Any]) -> bool:
        """Conditions `term` and `exists` below `bool.filter`; a query with anything else fails the test."""
        assert set(query) == {"bool"}
        assert set(query["bool"]) == {"filter"}
        return all(_holds(document, each) for each in query["bool"]["filter"])


def _holds(document: dict[str, Any], condition: dict[str, Any]) -> bool:
    [(kind, what)] = condition.items()
    if kind == "exists":
        return what["field"] in document
    assert kind == "term"
    [(name, wanted)] = what.items()
    assert set(wanted) == {"value"}
    value: Any = document
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return bool(value == wanted["value"])
