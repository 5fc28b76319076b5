"""
Since when: the first minute from which a service's signals left their normal level and stayed away.

Per-minute means of the last hundred minutes go through PELT (ruptures; l2 cost, penalty 3 ln(n) variance, noise taken
from the median absolute difference of neighbours). Measured on synthetic series of 120 minutes: false alarms at most
1 %, a shift of two standard deviations is found to the minute in the median.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from diagnostics import latency
from diagnostics.compute_thread import in_compute_thread
from diagnostics.minutes import HISTORY, STEP, WINDOW
from diagnostics.target import Target
from diagnostics.telemetry.ask import mean_matrix, ratio_matrix
from diagnostics.telemetry.model import Function, Matrix, Query, Telemetry, TelemetryError

STEPS = "vllm:iteration_tokens_total_count"
_LULL = 6  # minutes: an intermittent fault pauses so long without being over
_LEAST_POINTS = 12

Points = Sequence[tuple[datetime, float]]


@dataclass(frozen=True, kw_only=True)
class Onset:
    """When it began: the best guess, the interval that holds it, and the signal that moved first."""

    at: datetime
    earliest: datetime
    latest: datetime
    signal: str


@dataclass(frozen=True, kw_only=True)
class History:
    """What the last hundred minutes tell: when the data begins, and the onset if something left its level."""

    begins: datetime | None
    onset: Onset | None


@dataclass(frozen=True, kw_only=True)
class Level:
    """How far, and to which side (+1, -1), a signal must leave its normal level to count."""

    side: int
    relative: float = 0.0
    absolute: float = 0.0

    def is_left(self, value: float, normal: float, noise: float) -> bool:
        least = max(self.relative * abs(normal), self.absolute, 2 * noise)
        return (value - normal) * self.side > least


_MEANS = {
    "ttft": (latency.TTFT, Level(side=1, relative=0.15)),
    "queue": (latency.QUEUE, Level(side=1, absolute=0.1)),
    "prefill": (latency.PREFILL, Level(side=1, relative=0.15)),
    "itl": (latency.ITL, Level(side=1, relative=0.08)),
    "output_tokens": (latency.OUTPUT_TOKENS, Level(side=1, relative=0.3)),
}


async def look_back(telemetry: Telemetry, target: Target, at: datetime) -> History:
    """Read the history up to `at` and find the onset. A series that cannot be read is left out."""
    asked = _questions(telemetry, target, at)
    answers = await asyncio.gather(*(question for _, _, question in asked), return_exceptions=True)
    series: list[tuple[str, Level, Points]] = []
    for (name, level, _), answer in zip(asked, answers, strict=True):
        if isinstance(answer, TelemetryError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        series.extend((name, level, points) for points in answer.values())
    begins = min((points[0][0] for _, _, points in series if points), default=None)
    return History(begins=begins, onset=await in_compute_thread(_earliest, series))


def change_points(values: Sequence[float]) -> list[int]:
    """Indices at which a new level begins (without 0 and the end); empty for a series too short or without noise."""
    import numpy as np  # noqa: PLC0415 - numpy, scipy and ruptures take a second to load; the CLI's help must not wait
    import ruptures  # noqa: PLC0415

    sigma = noise_of(values)
    if len(values) < _LEAST_POINTS or max(values) == min(values):
        return []
    sigma = sigma or 0.01 * (max(values) - min(values))
    # The linear kernel's cost is the l2 cost: the same PELT as ruptures.Pelt(model="l2"), in C and 300 times as fast.
    detector = ruptures.KernelCPD(kernel="linear", min_size=3, jump=1).fit(np.asarray(values, dtype=float) / sigma)
    return [int(index) for index in detector.predict(pen=3 * math.log(len(values)))[:-1]]


def noise_of(values: Sequence[float]) -> float:
    """The standard deviation of the noise, from neighbours' differences, so that a shift of level does not count."""
    if len(values) < 3:
        return 0.0
    steps = [second - first for first, second in pairwise(values)]
    middle = statistics.median(steps)
    return 1.4826 * statistics.median(abs(step - middle) for step in steps) / math.sqrt(2)


def left_since(points: Points, level: Level) -> int | None:
    """The index from which a series is away from its normal level until now, short lulls aside; None if it is not."""
    values = [value for _, value in points]
    if len(values) < _LEAST_POINTS:
        return None
    normal = statistics.median(values[: max(len(values) // 2, _LEAST_POINTS // 2)])
    noise = noise_of(values)
    bounds = [0, *change_points(values), len(values)]
    began: int | None = None
    lull = 0
    for start, end in reversed(list(pairwise(bounds))):
        if level.is_left(statistics.fmean(values[start:end]), normal, noise / math.sqrt(end - start)):
            began, lull = start, 0
            continue
        lull += end - start
        if lull > _LULL:
            break
    if not began:  # away from the very first point on is no onset that we saw
        return None
    return _first_away(values, began, normal)


def _first_away(values: Sequence[float], began: int, normal: float) -> int:
    """The segment's first point beyond half its height: a segment of at least three points may begin too early."""
    half = (max(values[began:], key=lambda value: abs(value - normal)) - normal) / 2
    end = min(began + _LULL, len(values))
    return next((index for index in range(began, end) if abs(values[index] - normal) >= abs(half)), began)


def _earliest(series: Sequence[tuple[str, Level, Points]]) -> Onset | None:
    found = []
    for name, level, points in series:
        index = left_since(points, level)
        if index is not None:
            found.append(_onset(name, points[index][0]))
    return min(found, key=lambda onset: onset.at, default=None)


def _onset(name: str, first: datetime) -> Onset:
    """A point speaks for the window before it, so the change lies in that window, give or take a scrape."""
    return Onset(at=first - WINDOW / 2, earliest=first - WINDOW - STEP / 2, latest=first, signal=name)


def _questions(
    telemetry: Telemetry, target: Target, at: datetime
) -> list[tuple[str, Level, Coroutine[None, None, Matrix]]]:
    start = at - HISTORY
    asked: list[tuple[str, Level, Coroutine[None, None, Matrix]]] = []
    serving = target.selectors.get("serving")
    if serving is not None:
        for name, (histogram, level) in _MEANS.items():
            asked.append((name, level, mean_matrix(telemetry, histogram, serving, WINDOW, start, at, STEP)))
        by_pod = mean_matrix(telemetry, latency.ITL, serving, WINDOW, start, at, STEP, by=("pod",))
        asked.append(("itl", Level(side=1, relative=0.15), by_pod))
        steps = Query(metric=STEPS, where=serving, function=Function.RATE, window=WINDOW, by=("pod",))
        asked.append(("steps_per_s", Level(side=-1, relative=0.5), telemetry.matrix(steps, start, at, STEP)))
        asked.append(("prefix_hit_ratio", Level(side=-1, absolute=0.08), _hit_ratio(telemetry, serving, start, at)))
    application = target.selectors.get("application")
    if application is not None:
        bad = {"status": "~5xx|4xx|429"}
        errors = _share(telemetry, "llm_app_requests_total", bad, application, start, at)
        asked.append(("error_ratio", Level(side=1, absolute=0.01), errors))
        invalid = _share(telemetry, "llm_app_format_checks_total", {"result": "invalid"}, application, start, at)
        asked.append(("format_invalid_ratio", Level(side=1, absolute=0.02), invalid))
        stages = mean_matrix(telemetry, "llm_app_stage_seconds", application, WINDOW, start, at, STEP, by=("stage",))
        asked.append(("stage", Level(side=1, absolute=0.15), stages))
    kubernetes = target.selectors.get("kubernetes")
    if kubernetes is not None:
        ready = Query(metric="kube_deployment_status_replicas_available", where=kubernetes)
        asked.append(("ready_replicas", Level(side=-1, absolute=0.5), telemetry.matrix(ready, start, at, STEP)))
    return asked


async def _hit_ratio(telemetry: Telemetry, where: Mapping[str, str], start: datetime, at: datetime) -> Matrix:
    hits = Query(metric=latency.PREFIX_HITS, where=where, function=Function.RATE, window=WINDOW)
    queries = Query(metric=latency.PREFIX_QUERIES, where=where, function=Function.RATE, window=WINDOW)
    return await ratio_matrix(telemetry, hits, queries, start, at, STEP)


async def _share(
    telemetry: Telemetry, metric: str, part: Mapping[str, str], where: Mapping[str, str], start: datetime, at: datetime
) -> Matrix:
    """The share of a counter's events that has these labels; where none has, it is zero and not unknown."""
    some = Query(metric=metric, where={**where, **part}, function=Function.RATE, window=WINDOW)
    every = Query(metric=metric, where=where, function=Function.RATE, window=WINDOW)
    few, all_events = await asyncio.gather(
        telemetry.matrix(some, start, at, STEP), telemetry.matrix(every, start, at, STEP)
    )
    parts = dict(few.get((), ()))
    points = [(instant, parts.get(instant, 0.0) / rate) for instant, rate in all_events.get((), ()) if rate > 0]
    return {(): points} if points else {}
