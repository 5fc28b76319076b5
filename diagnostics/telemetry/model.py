"""The questions that diagnostics asks of telemetry: a small query model that every backend answers alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

Key = tuple[str, ...]
"""The values of a query's `by` labels, in their order; a label that a series lacks is ""."""

Vector = Mapping[Key, float]
"""One number per group at one instant. A group without data is absent, never zero."""

Matrix = Mapping[Key, Sequence[tuple[datetime, float]]]
"""Points per group, oldest first; an instant without data has no point."""

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class TelemetryError(Exception):
    """The telemetry backend cannot be asked: unreachable, refusing, too slow, or answering nonsense."""


class Function(StrEnum):
    """What is computed per series before groups are aggregated; meanings are Prometheus' own."""

    VALUE = "value"  # newest sample at most five minutes old and not marked stale
    RATE = "rate"
    INCREASE = "increase"
    DELTA = "delta"
    CHANGES = "changes"
    MAX_OVER_TIME = "max_over_time"
    AVG_OVER_TIME = "avg_over_time"
    QUANTILE = "quantile"  # histogram_quantile over rate(<metric>_bucket[window]); aggregation is always the sum


class Aggregation(StrEnum):
    """How the series of one group become one number."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    AVG = "avg"
    COUNT = "count"


@dataclass(frozen=True, kw_only=True)
class Query:
    """
    One question about one metric.

    `where` maps a label to a matcher: `"x"` equals, `"!x"` differs, `"~re"` matches and `"!~re"` does not match the
    whole value (RE2/Python common subset). `window` is needed by every function but VALUE. `quantile` is 0 to 1.
    Raises ValueError when a name is not a Prometheus name or a function lacks its window.
    """

    metric: str
    where: Mapping[str, str] = field(default_factory=dict)
    function: Function = Function.VALUE
    window: timedelta | None = None
    by: tuple[str, ...] = ()
    aggregation: Aggregation = Aggregation.SUM
    quantile: float | None = None

    def __post_init__(self) -> None:
        if not _METRIC_NAME.fullmatch(self.metric):
            raise ValueError(f"{self.metric!r} is not a metric name")
        for label in (*self.where, *self.by):
            if not _LABEL_NAME.fullmatch(label):
                raise ValueError(f"{label!r} is not a label name")
        if (self.function is Function.VALUE) != (self.window is None):
            raise ValueError(f"{self.function} and window={self.window} do not go together")
        if (self.function is Function.QUANTILE) != (self.quantile is not None):
            raise ValueError("a quantile query needs its quantile, and no other query takes one")


class Telemetry(Protocol):
    """
    A source of metrics: Prometheus, or the built-in recorder.

    Every method raises TelemetryError when the source cannot be asked. Missing data is an absent group.
    """

    async def now(self) -> datetime:
        """The telemetry's own clock (UTC): the wall clock, or in a drill the newest sample's time."""

    async def vector(self, query: Query, at: datetime) -> Vector:
        """The answer at one instant."""

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        """The answer at start, start+step, ... up to and including end."""

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        """Whether any series of this metric had a sample in the hour before: tells "zero" from "not exported"."""
