"""The queries that verify a step: a number of the service's telemetry, and the range that it must return to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from diagnostics.engines import speaking
from diagnostics.findings import Finding
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Function, Query, Telemetry
from runbooks.engine.declared import MetricQuery, Range, seconds


def longest_window(ranges: Sequence[Range]) -> timedelta:
    """How far the queries look back: they must not see the time before the change."""
    windows = [seconds(each.query.window) for each in ranges if each.query.window is not None]
    return timedelta(seconds=max(windows, default=0.0))


async def measured(ranges: Sequence[Range], target: Target, telemetry: Telemetry, at: datetime) -> list[Finding]:
    """
    One finding per range: ok when every group lies in it, unknown without data. Raises TelemetryError.

    vLLM's names are understood for every engine that we know.
    """
    translated = speaking(telemetry, target)
    return [await _finding(each, target, translated, at) for each in ranges]


async def _finding(asked: Range, target: Target, telemetry: Telemetry, at: datetime) -> Finding:
    name, family = asked.query.metric, asked.query.family
    selector = target.selectors.get(family)
    if selector is None:
        return Finding.unknown(name, f"the service has no {family} selector, so {name} is not observed")
    answer = await telemetry.vector(_query(asked.query, {**selector, **asked.query.where}), at)
    if not answer:
        return Finding.unknown(name, f"{name} has no data")
    outside = {key: value for key, value in answer.items() if not asked.holds(value)}
    key, value = next(iter((outside or answer).items()))
    where = f" ({', '.join(filter(None, key))})" if any(key) else ""
    summary = f"{name} is {value:.4g}{where} and must be {asked.bounds}."
    return (Finding.bad if outside else Finding.ok)(name, summary)


def _query(asked: MetricQuery, where: dict[str, str]) -> Query:
    return Query(
        metric=asked.metric,
        where=where,
        function=Function(asked.function),
        window=None if asked.window is None else timedelta(seconds=seconds(asked.window)),
        by=asked.by,
        aggregation=Aggregation(asked.aggregation),
        quantile=asked.quantile,
    )
