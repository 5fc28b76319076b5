"""Traces as diagnostics reads them: spans with their times and a few known attributes, never what anybody said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

MOST_TRACES = 200
"""As many are read of one window; the standard error of a mean hardly shrinks beyond."""

MOST_SPANS = 2000
"""A trace with more is left out: it is no single request, and reading it would cost as much as all others."""

LONGEST = 80
"""Names and error types are short by convention, so they are cut here; a longer one may be anything."""

Attribute = str | float | bool


@dataclass(frozen=True, kw_only=True)
class Span:
    """
    One piece of work. Times are nanoseconds since 1970 by its own host's clock.

    `attributes` holds those of `genai.KEPT` and no others, so that no prompt, answer or tool argument gets this far.
    """

    id: str
    parent: str | None
    service: str
    name: str
    start_ns: int
    end_ns: int
    is_error: bool = False
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The spans of one request, in no order; some may be missing."""

    id: str
    spans: tuple[Span, ...]


class TraceSource(Protocol):
    """A trace backend, asked for one service's traces."""

    name: str

    async def traces(self, start: datetime, end: datetime) -> Sequence[Trace]:
        """
        A sample of at most MOST_TRACES of the traces that began in this time, whole ones only.

        What could not be read in time is left out. Raises TelemetryError when the source cannot be asked.
        """
