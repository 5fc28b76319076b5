"""Traces from Grafana Tempo: a TraceQL search for the service's traces, then each by its id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field

from diagnostics.telemetry.model import TelemetryError
from diagnostics.traces.far_end import PATIENCE_S, TraceApi
from diagnostics.traces.model import MOST_SPANS, MOST_TRACES, Trace
from diagnostics.traces.otlp import OtlpValue, ResourceSpans

AT_ONCE = 4
"""Requests at the same time per window: a Tempo that serves an incident's eyes has better things to do."""

_BAD_LUCK = 8
"""So many traces may fail (too long for Tempo, gone since) before the others are not tried any more."""

_NEW, _OLD = "/api/v2/traces/", "/api/traces/"  # the new one came with Tempo 2.7
_CUT = frozenset({"PARTIAL", 1})


class _Found(BaseModel):
    trace_id: str = Field(alias="traceID")


class _Search(BaseModel):
    traces: tuple[_Found, ...] | None = None


class _Trace(OtlpValue):
    resource_spans: tuple[ResourceSpans, ...] = ()


class _TraceById(BaseModel):
    """Both forms: {"trace": {"resourceSpans": ...}, "status": ...}, and before it {"batches": ...}."""

    trace: _Trace = _Trace()
    batches: tuple[ResourceSpans, ...] = ()
    status: str | int | None = None


class TempoTraces:
    """One service's traces: those in which its `service.name` takes part."""

    def __init__(
        self, *, name: str, url: str, client: httpx.AsyncClient, service: str, patience_s: float = PATIENCE_S
    ) -> None:
        self.name = name
        self._api = TraceApi(name=name, url=url, client=client)
        self._service = service
        self._patience_s = patience_s
        self._path = _NEW

    async def traces(self, start: datetime, end: datetime) -> Sequence[Trace]:
        """A sample of the window's traces; those that were not read when patience ended are left out."""
        found: dict[str, Trace] = {}
        failures: list[TelemetryError] = []
        try:
            async with asyncio.timeout(self._patience_s):
                ids = iter(await self._search(start, end))
                await asyncio.gather(*(self._read(ids, found, failures) for _ in range(AT_ONCE)))
        except TimeoutError:
            failures.append(TelemetryError(f"{self.name} did not answer within {self._patience_s:g} s"))
        if failures and not found:
            raise failures[0]
        return list(found.values())

    async def _search(self, start: datetime, end: datetime) -> list[str]:
        query = {
            "q": f"{{ resource.service.name = {json.dumps(self._service)} }}",
            "start": f"{start.timestamp():.0f}",
            "end": f"{end.timestamp():.0f}",
            "limit": str(MOST_TRACES),
            "spss": "1",
        }
        answer = await self._api.ask(_Search, "/api/search", query)
        if answer is None:
            raise TelemetryError(f"{self.name} has no search (404); is its address Tempo's query frontend?")
        return list(dict.fromkeys(each.trace_id for each in answer.traces or ()))[:MOST_TRACES]

    async def _read(self, ids: Iterator[str], found: dict[str, Trace], failures: list[TelemetryError]) -> None:
        """Take ids that nobody has taken yet, until none is left."""
        for identity in ids:
            try:
                trace = await self._trace(identity)
            except TelemetryError as error:
                failures.append(error)
                if len(failures) >= _BAD_LUCK:
                    return
            else:
                if trace is not None:
                    found[identity] = trace

    async def _trace(self, identity: str) -> Trace | None:
        """The whole trace; None for one that is gone, or that Tempo has cut."""
        path = quote(identity, safe="")
        answer = await self._api.ask(_TraceById, f"{self._path}{path}")
        if answer is None and self._path == _NEW:
            answer = await self._api.ask(_TraceById, f"{_OLD}{path}")
            self._path = _NEW if answer is None else _OLD
        if answer is None or answer.status in _CUT:
            return None
        spans = tuple(span for each in (*answer.trace.resource_spans, *answer.batches) for span in each.read())
        return Trace(id=identity, spans=spans) if 0 < len(spans) <= MOST_SPANS else None
