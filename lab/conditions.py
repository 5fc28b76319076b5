"""
The conditions of alert rules, each as a question to the telemetry and as the PromQL that says the same.

All rates are Prometheus' own. A group without data holds no condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from diagnostics.telemetry.model import Aggregation, Function, Key, Query, Telemetry, Vector
from lab.rule import Excess

FIVE_MINUTES = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class MeanAboveBaseline:
    """The mean of a histogram: each pod now against its model's own past."""

    metric: str  # the histogram, without _sum and _count
    factor: float
    window: timedelta = FIVE_MINUTES
    baseline_window: timedelta = timedelta(hours=6)
    baseline_offset: timedelta = timedelta(minutes=30)
    by: tuple[str, ...] = ("model_name", "pod")

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.metric})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        now = await self._mean(telemetry, at, self.window, self.by)
        past = await self._mean(telemetry, at - self.baseline_offset, self.baseline_window, self.by[:1])
        return {
            key: Excess(value=value, limit=past[key[:1]])
            for key, value in now.items()
            if key[:1] in past and self.is_beyond(value, past[key[:1]])
        }

    def is_beyond(self, value: float, past: float) -> bool:
        return value > self.factor * past

    async def _mean(self, telemetry: Telemetry, at: datetime, window: timedelta, by: tuple[str, ...]) -> Vector:
        sums, counts = [
            await telemetry.vector(_rate(f"{self.metric}_{part}", window, by), at) for part in ("sum", "count")
        ]
        return _divided(sums, counts)

    def promql(self) -> str:
        def mean(by: tuple[str, ...], window: timedelta, offset: timedelta) -> str:
            parts = [_promql_rate(f"{self.metric}_{part}", {}, window, by, offset) for part in ("sum", "count")]
            return " / ".join(parts)

        past = mean(self.by[:1], self.baseline_window, self.baseline_offset)
        now = mean(self.by, self.window, timedelta(0))
        return f"{now} > on ({self.by[0]}) group_left () ({self.factor:g} * {past})"


@dataclass(frozen=True, kw_only=True)
class ShareBeyond:
    """Which part of a counter's events has certain labels: above a limit, or below one."""

    part: str
    whole: str
    where: Mapping[str, str] = field(default_factory=dict)  # of the part
    by: tuple[str, ...]
    above: float | None = None
    below: float | None = None
    window: timedelta = FIVE_MINUTES

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("a share is held against one limit: `above` or `below`")

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.part, self.whole})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        parts = await telemetry.vector(_rate(self.part, self.window, self.by, self.where), at)
        wholes = await telemetry.vector(_rate(self.whole, self.window, self.by), at)
        limit = self._limit
        return {
            key: Excess(value=share, limit=limit)
            for key, share in _divided(parts, wholes).items()
            if (share > limit if self.below is None else share < limit)
        }

    @property
    def _limit(self) -> float:
        return self.above if self.above is not None else self.below or 0.0

    def promql(self) -> str:
        part = _promql_rate(self.part, self.where, self.window, self.by)
        whole = _promql_rate(self.whole, {}, self.window, self.by)
        return f"{part} / {whole} {'>' if self.below is None else '<'} {self._limit:g}"


@dataclass(frozen=True, kw_only=True)
class FullWhile:
    """A gauge above a limit in groups where a counter grows faster than another limit."""

    gauge: str
    above: float
    counter: str
    faster_than: float  # per second
    window: timedelta = FIVE_MINUTES
    by: tuple[str, ...] = ("model_name", "pod")

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.gauge, self.counter})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        levels = await telemetry.vector(Query(metric=self.gauge, by=self.by, aggregation=Aggregation.MAX), at)
        rates = await telemetry.vector(_rate(self.counter, self.window, self.by), at)
        return {
            key: Excess(value=level, limit=self.above)
            for key, level in levels.items()
            if level > self.above and rates.get(key, 0.0) > self.faster_than
        }

    def promql(self) -> str:
        labels = ", ".join(self.by)
        rate = _promql_rate(self.counter, {}, self.window, self.by)
        full = f"max by ({labels}) ({self.gauge}) > {self.above:g}"
        return f"{full} and on ({labels}) {rate} > {self.faster_than:g}"


@dataclass(frozen=True, kw_only=True)
class RateAboveBaseline:
    """The rate of a counter against its own past."""

    metric: str
    factor: float
    where: Mapping[str, str] = field(default_factory=dict)
    window: timedelta = timedelta(minutes=30)
    baseline_window: timedelta = timedelta(days=7)
    baseline_offset: timedelta = timedelta(days=1)
    by: tuple[str, ...] = ()

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.metric})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        now = await telemetry.vector(_rate(self.metric, self.window, self.by, self.where), at)
        earlier = at - self.baseline_offset
        past = await telemetry.vector(_rate(self.metric, self.baseline_window, self.by, self.where), earlier)
        return {
            key: Excess(value=rate, limit=past[key])
            for key, rate in now.items()
            if key in past and rate > self.factor * past[key]
        }

    def promql(self) -> str:
        past = _promql_rate(self.metric, self.where, self.baseline_window, self.by, self.baseline_offset)
        return f"{_promql_rate(self.metric, self.where, self.window, self.by)} > {self.factor:g} * {past}"


def _rate(metric: str, window: timedelta, by: tuple[str, ...], where: Mapping[str, str] | None = None) -> Query:
    return Query(metric=metric, where=where or {}, function=Function.RATE, window=window, by=by)


def _divided(parts: Vector, wholes: Vector) -> dict[Key, float]:
    return {key: parts[key] / whole for key, whole in wholes.items() if key in parts and whole > 0}


def _promql_rate(
    metric: str,
    where: Mapping[str, str],
    window: timedelta,
    by: tuple[str, ...],
    offset: timedelta = timedelta(0),
) -> str:
    series = promql_series(metric, where)
    back = f" offset {offset.total_seconds():.0f}s" if offset else ""
    group = f" by ({', '.join(by)})" if by else ""
    return f"sum{group} (rate({series}[{window.total_seconds():.0f}s]{back}))"


def promql_series(metric: str, where: Mapping[str, str]) -> str:
    """A selector; a value that begins with a tilde is a pattern, as in `Query.where`."""
    matchers = ",".join(
        f'{label}=~"{value[1:]}"' if value.startswith("~") else f'{label}="{value}"' for label, value in where.items()
    )
    return f"{metric}{{{matchers}}}" if matchers else metric
