"""The derived questions that all checks share: means of histograms, ratios, single numbers, and waiting for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from diagnostics.telemetry.model import Function, Matrix, Query, Telemetry, TelemetryError, Vector

STANDSTILL = timedelta(milliseconds=100)
"""A clock that gained less has not moved: a recorder whose scrapes fail still creeps by a millisecond each."""


async def scalar(telemetry: Telemetry, query: Query, at: datetime) -> float | None:
    """The one number of a query without `by`; None without data. Raises ValueError for a query with `by`."""
    if query.by:
        raise ValueError(f"{query.metric} by {', '.join(query.by)} has no single answer")
    return (await telemetry.vector(query, at)).get(())


async def ratio(telemetry: Telemetry, numerator: Query, denominator: Query, at: datetime) -> Vector:
    """
    Numerator / denominator per group, both grouped by the same labels.

    A group is absent where either side is absent or the denominator is zero: nothing happened, so nothing is known.
    A numerator that is only exported once it happens (an error status) is the caller's to read as zero.
    """
    _require_same_groups(numerator, denominator)
    above, below = await asyncio.gather(telemetry.vector(numerator, at), telemetry.vector(denominator, at))
    return {key: value / below[key] for key, value in above.items() if below.get(key)}


async def ratio_matrix(
    telemetry: Telemetry, numerator: Query, denominator: Query, start: datetime, end: datetime, step: timedelta
) -> Matrix:
    """The ratio at start, start+step, ... up to and including end; an instant without observations has no point."""
    _require_same_groups(numerator, denominator)
    above, below = await asyncio.gather(
        telemetry.matrix(numerator, start, end, step), telemetry.matrix(denominator, start, end, step)
    )
    divided = {}
    for key, points in above.items():
        divisors = dict(below.get(key, ()))
        quotients = [(instant, value / divisors[instant]) for instant, value in points if divisors.get(instant)]
        if quotients:
            divided[key] = quotients
    return divided


async def mean(
    telemetry: Telemetry,
    histogram: str,
    where: Mapping[str, str],
    window: timedelta,
    at: datetime,
    by: tuple[str, ...] = (),
) -> Vector:
    """
    The mean observation of a histogram or summary over the window: rate(_sum) / rate(_count), in the metric's unit.

    `histogram` is the name without `_sum`. A group without observations in the window is absent.
    """
    return await ratio(
        telemetry, _rate(f"{histogram}_sum", where, window, by), _rate(f"{histogram}_count", where, window, by), at
    )


async def mean_matrix(
    telemetry: Telemetry,
    histogram: str,
    where: Mapping[str, str],
    window: timedelta,
    start: datetime,
    end: datetime,
    step: timedelta,
    by: tuple[str, ...] = (),
) -> Matrix:
    """The mean observation at start, start+step, ... up to and including end, each over the window before it."""
    above = _rate(f"{histogram}_sum", where, window, by)
    below = _rate(f"{histogram}_count", where, window, by)
    return await ratio_matrix(telemetry, above, below, start, end, step)


async def wait_until(
    telemetry: Telemetry, instant: datetime, *, stalled_after_s: float = 120.0, poll_s: float = 0.1
) -> None:
    """
    Return once the telemetry's own clock has reached the instant; a drill's clock may run faster than the wall.

    Raises TelemetryError when that clock stands still for `stalled_after_s` real seconds, or cannot be read.
    """
    reached = await telemetry.now()
    moved_at = time.monotonic()
    while reached < instant:
        if time.monotonic() - moved_at > stalled_after_s:
            raise TelemetryError(
                f"the telemetry's clock stands still at {reached.isoformat()} since {stalled_after_s:g} s, "
                f"while waiting for {instant.isoformat()}"
            )
        await asyncio.sleep(poll_s)
        current = await telemetry.now()
        if current - reached >= STANDSTILL or current >= instant:
            reached, moved_at = current, time.monotonic()


def _rate(metric: str, where: Mapping[str, str], window: timedelta, by: tuple[str, ...]) -> Query:
    return Query(metric=metric, where=where, function=Function.RATE, window=window, by=by)


def _require_same_groups(numerator: Query, denominator: Query) -> None:
    if numerator.by != denominator.by:
        raise ValueError(f"a ratio needs the same groups on both sides, not {numerator.by} and {denominator.by}")
