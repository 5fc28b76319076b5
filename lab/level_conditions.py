"""Conditions of alert rules on levels: a gauge or a rate beyond a limit, missing replicas, an engine standing still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from diagnostics.telemetry.model import Aggregation, Function, Key, Query, Telemetry
from lab.conditions import MeanAboveBaseline, promql_series
from lab.rule import Condition, Excess


@dataclass(frozen=True, kw_only=True)
class LevelAbove:
    """What a function makes of one metric is above a limit. `where` may hold patterns, as `Query.where`."""

    metric: str
    above: float
    by: tuple[str, ...]
    where: Mapping[str, str] = field(default_factory=dict)
    function: Function = Function.VALUE
    window: timedelta | None = None
    aggregation: Aggregation = Aggregation.SUM

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.metric})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        query = Query(
            metric=self.metric,
            where=self.where,
            function=self.function,
            window=self.window,
            by=self.by,
            aggregation=self.aggregation,
        )
        levels = await telemetry.vector(query, at)
        return {key: Excess(value=level, limit=self.above) for key, level in levels.items() if level > self.above}

    def promql(self) -> str:
        series = promql_series(self.metric, self.where)
        if self.window is not None:
            series = f"{self.function}({series}[{self.window.total_seconds():.0f}s])"
        return f"{self.aggregation} by ({', '.join(self.by)}) ({series}) > {self.above:g}"


@dataclass(frozen=True, kw_only=True)
class MeanBelowBaseline(MeanAboveBaseline):
    """The mean of two counters (a sum and its count) is below so many times its past, in groups with enough events."""

    at_least: float = 0.02  # events per second: fewer than these scatter too widely

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({f"{self.metric}_sum", f"{self.metric}_count"})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        count = Query(metric=f"{self.metric}_count", function=Function.RATE, window=self.window, by=self.by)
        often = {key for key, rate in (await telemetry.vector(count, at)).items() if rate >= self.at_least}
        return {key: excess for key, excess in (await super().exceeding(telemetry, at)).items() if key in often}

    def is_beyond(self, value: float, past: float) -> bool:
        return value < self.factor * past

    def promql(self) -> str:
        labels = ", ".join(self.by)
        count = f"sum by ({labels}) (rate({self.metric}_count[{self.window.total_seconds():.0f}s]))"
        fell = super().promql().replace(" > on ", " < on ")
        return f"({fell}) and on ({labels}) {count} >= {self.at_least:g}"


@dataclass(frozen=True, kw_only=True)
class ReplicasMissing:
    """A deployment has fewer available replicas than it wants; the value is the share that it has."""

    by: tuple[str, ...] = ("namespace", "deployment")

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({_AVAILABLE, _WANTED})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        there = await telemetry.vector(Query(metric=_AVAILABLE, by=self.by), at)
        wanted = await telemetry.vector(Query(metric=_WANTED, by=self.by), at)
        return {
            key: Excess(value=there[key] / number, limit=1.0)
            for key, number in wanted.items()
            if number and there.get(key, number) < number
        }

    def promql(self) -> str:
        labels = ", ".join(self.by)
        return f"sum by ({labels}) ({_AVAILABLE}) / sum by ({labels}) ({_WANTED}) < 1"


@dataclass(frozen=True, kw_only=True)
class StandsStill:
    """A gauge says that there is work, and a counter that none of it is done."""

    counter: str
    gauge: str
    window: timedelta = timedelta(minutes=2)
    by: tuple[str, ...] = ("pod",)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({self.counter.removesuffix("_count"), self.gauge})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        rate = Query(metric=self.counter, function=Function.RATE, window=self.window, by=self.by)
        rates = await telemetry.vector(rate, at)
        waiting = await telemetry.vector(Query(metric=self.gauge, by=self.by), at)
        still = [key for key, value in rates.items() if value == 0 and waiting.get(key, 0.0) > 0]
        return {key: Excess(value=waiting[key], limit=0.0) for key in still}

    def promql(self) -> str:
        labels = ", ".join(self.by)
        rate = f"sum by ({labels}) (rate({self.counter}[{self.window.total_seconds():.0f}s])) == 0"
        return f"({rate}) and on ({labels}) (sum by ({labels}) ({self.gauge}) > 0)"


@dataclass(frozen=True, kw_only=True)
class ScrapeLost:
    """A scrape job's target is down, or engines are available whose metrics nobody has."""

    jobs: str = ".*(vllm|llm).*"
    deployments: str = ".*vllm.*"
    expected: str = "vllm:num_requests_running"
    by: tuple[str, ...] = ("namespace",)

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset({"up", _AVAILABLE, self.expected})

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        where = {"job": f"~{self.jobs}"}
        up = await telemetry.vector(Query(metric="up", where=where, by=self.by, aggregation=Aggregation.MIN), at)
        engines = {"deployment": f"~{self.deployments}"}
        there = await telemetry.vector(Query(metric=_AVAILABLE, where=engines, by=self.by), at)
        seen = await telemetry.vector(Query(metric=self.expected, by=self.by), at)
        lost = {key for key, value in up.items() if value == 0}
        lost |= {key for key, value in there.items() if value > 0 and key not in seen}
        return {key: Excess(value=0.0, limit=1.0) for key in lost}

    def promql(self) -> str:
        labels = ", ".join(self.by)
        available = promql_series(_AVAILABLE, {"deployment": f"~{self.deployments}"})
        down = f"min by ({labels}) ({promql_series('up', {'job': f'~{self.jobs}'})}) == 0"
        unseen = f"sum by ({labels}) ({available}) > 0 unless on ({labels}) sum by ({labels}) ({self.expected})"
        return f"({down}) or ({unseen})"


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """At least one of several conditions with the same groups."""

    conditions: tuple[Condition, ...]

    @property
    def by(self) -> tuple[str, ...]:
        return self.conditions[0].by

    @property
    def metrics(self) -> frozenset[str]:
        return frozenset[str]().union(*(each.metrics for each in self.conditions))

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        found: dict[Key, Excess] = {}
        for each in reversed(self.conditions):
            found |= await each.exceeding(telemetry, at)
        return found

    def promql(self) -> str:
        return " or ".join(f"({each.promql()})" for each in self.conditions)


_AVAILABLE, _WANTED = "kube_deployment_status_replicas_available", "kube_deployment_spec_replicas"
