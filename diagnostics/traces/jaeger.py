"""Traces from Jaeger's query API, the one that its own pages use: whole traces by service and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx
from pydantic import BaseModel, Field, NonNegativeInt

from diagnostics.telemetry.model import TelemetryError
from diagnostics.traces.far_end import PATIENCE_S, TraceApi
from diagnostics.traces.genai import kept
from diagnostics.traces.model import LONGEST, MOST_SPANS, MOST_TRACES, Attribute, Span, Trace

SLICES = 4
"""A window is asked in so many parts: Jaeger answers the newest traces of each, so the sample spreads over it."""


class _Tag(BaseModel):
    key: str = ""
    value: Any = None


class _Reference(BaseModel):
    kind: str = Field(default="CHILD_OF", alias="refType")
    trace_id: str = Field(default="", alias="traceID")
    span_id: str = Field(default="", alias="spanID")


class _Process(BaseModel):
    service: str = Field(default="", alias="serviceName")


class _Span(BaseModel):
    span_id: str = Field(alias="spanID")
    name: str = Field(default="", alias="operationName")
    references: tuple[_Reference, ...] | None = None
    start_us: NonNegativeInt = Field(alias="startTime")
    duration_us: NonNegativeInt = Field(alias="duration")
    tags: tuple[_Tag, ...] | None = None
    process: str = Field(default="", alias="processID")


class _Trace(BaseModel):
    trace_id: str = Field(alias="traceID")
    spans: tuple[_Span, ...]
    processes: dict[str, _Process] = {}


class _Answer(BaseModel):
    data: tuple[_Trace, ...] | None = None
    errors: tuple[Any, ...] | None = None


class JaegerTraces:
    """One service's traces: those in which it takes part."""

    def __init__(
        self, *, name: str, url: str, client: httpx.AsyncClient, service: str, patience_s: float = PATIENCE_S
    ) -> None:
        self.name = name
        self._api = TraceApi(name=name, url=url, client=client)
        self._service = service
        self._patience_s = patience_s

    async def traces(self, start: datetime, end: datetime) -> Sequence[Trace]:
        """A sample of the window's traces, spread over it."""
        part = (end - start) / SLICES
        try:
            async with asyncio.timeout(self._patience_s):
                answers = await asyncio.gather(
                    *(self._slice(start + part * number, start + part * (number + 1)) for number in range(SLICES))
                )
        except TimeoutError as error:
            raise TelemetryError(f"{self.name} did not answer within {self._patience_s:g} s") from error
        found = {trace.trace_id: trace for answer in answers for trace in answer}
        return [_read(trace) for trace in found.values() if 0 < len(trace.spans) <= MOST_SPANS]

    async def _slice(self, start: datetime, end: datetime) -> tuple[_Trace, ...]:
        query = {
            "service": self._service,
            "start": f"{start.timestamp() * 1e6:.0f}",
            "end": f"{end.timestamp() * 1e6:.0f}",
            "limit": str(MOST_TRACES // SLICES),
        }
        answer = await self._api.ask(_Answer, "/api/traces", query)
        if answer is None:
            raise TelemetryError(f"{self.name} has no /api/traces (404); is its address Jaeger's query service?")
        if answer.errors:
            raise TelemetryError(f"{self.name} could not read its traces: its answer lists errors")
        return answer.data or ()


def _read(trace: _Trace) -> Trace:
    return Trace(id=trace.trace_id, spans=tuple(_span(span, trace) for span in trace.spans))


def _span(span: _Span, trace: _Trace) -> Span:
    """A span may refer to several others, in other traces too; its caller is the first that it is a child of here."""
    found = {tag.key: kept(tag.key, tag.value) for tag in span.tags or ()}
    attributes: dict[str, Attribute] = {name: value for name, value in found.items() if value is not None}
    callers = [
        each.span_id for each in span.references or () if each.kind == "CHILD_OF" and each.trace_id == trace.trace_id
    ]
    process = trace.processes.get(span.process, _Process())
    return Span(
        id=span.span_id,
        parent=next(iter(callers), None),
        service=process.service[:LONGEST],
        name=span.name[:LONGEST],
        start_ns=span.start_us * 1000,
        end_ns=(span.start_us + span.duration_us) * 1000,
        is_error=attributes.get("error") in {True, "true"} or attributes.get("otel.status_code") == "ERROR",
        attributes=attributes,
    )
