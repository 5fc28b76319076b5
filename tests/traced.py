"""Traces for tests: spans by seconds from a trace's start, and Tempo and Jaeger over real HTTP in their own forms."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aiohttp import web

from diagnostics.traces.model import Span, Trace
from tests.change_servers import Guarded

Json = dict[str, Any]
_IDS = itertools.count(1)


def span(
    start: float,
    end: float,
    *,
    of: Span | None = None,
    name: str = "work",
    service: str = "chat",
    is_error: bool = False,
    **attributes: str | float,
) -> Span:
    """A span from `start` to `end` (seconds), called by `of`; `gen_ai__tool__name="x"` is `gen_ai.tool.name`."""
    return Span(
        id=f"{next(_IDS):016x}",
        parent=None if of is None else of.id,
        service=service,
        name=name,
        start_ns=round(start * 1e9),
        end_ns=round(end * 1e9),
        is_error=is_error,
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
    )


def trace(*spans: Span) -> Trace:
    return Trace(id=f"{next(_IDS):032x}", spans=spans)


def at(found: Trace, begin: datetime) -> Trace:
    """The same trace, begun at another time."""
    shift = round(begin.timestamp() * 1e9)
    return replace(
        found,
        spans=tuple(replace(one, start_ns=one.start_ns + shift, end_ns=one.end_ns + shift) for one in found.spans),
    )


def begin_of(found: Trace) -> int:
    return min(one.start_ns for one in found.spans)


@dataclass(kw_only=True)
class TempoServer(Guarded):
    """GET /api/search, and traces by id: the new path in OTLP's own form, or only the old one with ids in base64."""

    stored: Sequence[Trace] = ()
    is_old: bool = False
    cut: frozenset[str] = frozenset()
    adds: Callable[[Span], Json] = field(default=lambda _: {})

    def told(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/search":
            return self._search(request)
        path = re.fullmatch(r"/api/(v2/)?traces/([0-9a-f]+)", request.path)
        if path is None or (self.is_old and path[1]):
            return web.Response(status=404, text="404 page not found")
        found = next((one for one in self.stored if one.id == path[2]), None)
        if found is None:
            return web.Response(status=404, text="trace not found")
        if not path[1]:
            return web.json_response({"batches": self._batches(found)})
        answer: Json = {"trace": {"resourceSpans": self._batches(found)}, "metrics": {}}
        if found.id in self.cut:
            answer |= {"status": "PARTIAL", "message": "Trace exceeds maximum size"}
        return web.json_response(answer)

    def _search(self, request: web.Request) -> web.StreamResponse:
        asked = re.fullmatch(r'\{ resource\.service\.name = "([^"]*)" \}', request.query["q"])
        assert asked is not None
        start, end = (int(request.query[name]) * 10**9 for name in ("start", "end"))
        found = [
            one
            for one in self.stored
            if start <= begin_of(one) < end and any(each.service == asked[1] for each in one.spans)
        ]
        traces = [
            {
                "traceID": one.id,
                "rootServiceName": one.spans[0].service,
                "rootTraceName": one.spans[0].name,
                "startTimeUnixNano": str(begin_of(one)),
                "durationMs": 1,
            }
            for one in found[: int(request.query["limit"])]
        ]
        return web.json_response({"traces": traces, "metrics": {"totalBlocks": 13}})

    def _batches(self, found: Trace) -> list[Json]:
        return [
            {
                "resource": {"attributes": [_pair("service.name", one.service)]},
                "scopeSpans": [{"scope": {"name": "made up"}, "spans": [self._span(found, one)]}],
            }
            for one in found.spans
        ]

    def _span(self, found: Trace, one: Span) -> Json:
        written = {
            "traceId": self._id(found.id),
            "spanId": self._id(one.id),
            "name": one.name,
            "kind": "SPAN_KIND_INTERNAL",
            "startTimeUnixNano": str(one.start_ns),
            "endTimeUnixNano": str(one.end_ns),
            "attributes": [_pair(key, value) for key, value in one.attributes.items()],
            "status": {"code": "STATUS_CODE_ERROR"} if one.is_error else {},
        }
        return written | ({} if one.parent is None else {"parentSpanId": self._id(one.parent)}) | self.adds(one)

    def _id(self, identity: str) -> str:
        return base64.b64encode(bytes.fromhex(identity)).decode() if self.is_old else identity


@dataclass(kw_only=True)
class JaegerServer(Guarded):
    """GET /api/traces by service and time (microseconds), newest first."""

    stored: Sequence[Trace] = ()
    adds: Callable[[Span], Json] = field(default=lambda _: {})

    def told(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/api/traces":
            return web.Response(status=404, text="404 page not found")
        query = request.query
        start, end = (int(query[name]) * 1000 for name in ("start", "end"))
        found = [
            one
            for one in sorted(self.stored, key=begin_of, reverse=True)
            if start <= begin_of(one) < end and any(each.service == query["service"] for each in one.spans)
        ]
        traces = [self._trace(one) for one in found[: int(query["limit"])]]
        return web.json_response({"data": traces, "total": 0, "limit": 0, "offset": 0, "errors": None})

    def _trace(self, found: Trace) -> Json:
        services = sorted({one.service for one in found.spans})
        processes = {service: f"p{number}" for number, service in enumerate(services, start=1)}
        return {
            "traceID": found.id,
            "spans": [self._span(found, one, processes[one.service]) for one in found.spans],
            "processes": {key: {"serviceName": service, "tags": []} for service, key in processes.items()},
            "warnings": None,
        }

    def _span(self, found: Trace, one: Span, process: str) -> Json:
        reference = {"refType": "CHILD_OF", "traceID": found.id, "spanID": one.parent}
        tags = [{"key": key, "type": _kind(value), "value": value} for key, value in one.attributes.items()]
        if one.is_error:
            tags.append({"key": "error", "type": "bool", "value": True})
        return {
            "traceID": found.id,
            "spanID": one.id,
            "operationName": one.name,
            "references": [] if one.parent is None else [reference],
            "startTime": one.start_ns // 1000,
            "duration": (one.end_ns - one.start_ns) // 1000,
            "tags": tags,
            "logs": [],
            "processID": process,
            "warnings": None,
        } | self.adds(one)


def _kind(value: str | float) -> str:
    return "string" if isinstance(value, str) else "float64"


def _pair(key: str, value: str | float) -> Json:
    return {"key": key, "value": {"stringValue": value} if isinstance(value, str) else {"doubleValue": value}}
