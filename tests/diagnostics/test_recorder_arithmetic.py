"""The recorder's vectorised arithmetic against the same formulas written plainly for one series at a time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diagnostics.telemetry.evaluate import quantile_of_buckets
from diagnostics.telemetry.model import Function, Query
from diagnostics.telemetry.recorded import load_openmetrics

START_S = 1_772_359_200
WINDOW_S = 60
Points = list[tuple[int, float]]

# Seconds between samples, and values that often repeat and often fall.
POINTS = st.lists(
    st.tuples(st.integers(1, 40), st.one_of(st.integers(0, 5).map(float), st.floats(0, 1e9))), max_size=12
)
SERIES = st.lists(POINTS, min_size=1, max_size=4)


def _absolute(steps: Points) -> Points:
    """Samples with their seconds after START_S."""
    at, points = 0, []
    for step, value in steps:
        at += step
        points.append((at, value))
    return points


def _increase(points: Points, end: int) -> float | None:
    """promql/functions.go extrapolatedRate of Prometheus 2.42, for a counter."""
    inside = [(at, value) for at, value in points if end - WINDOW_S <= at <= end]
    if len(inside) < 2:
        return None
    (first_at, first), (last_at, last) = inside[0], inside[-1]
    grown = last - first
    for (_, before), (_, after) in pairwise(inside):
        if after < before:
            grown += before
    sampled = float(last_at - first_at)
    average = sampled / (len(inside) - 1)
    to_start, to_end = float(first_at - (end - WINDOW_S)), float(end - last_at)
    if grown > 0 and first >= 0:
        to_start = min(to_start, sampled * (first / grown))
    covered = sampled
    covered += to_start if to_start < average * 1.1 else average / 2
    covered += to_end if to_end < average * 1.1 else average / 2
    return grown * covered / sampled


def _changes(points: Points, end: int) -> float | None:
    inside = [value for at, value in points if end - WINDOW_S <= at <= end]
    return float(sum(a != b for a, b in pairwise(inside))) if inside else None


def _value(points: Points, end: int) -> float | None:
    return next((value for at, value in reversed(points) if end - 300 <= at <= end), None)


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(steps=SERIES, end=st.integers(0, 500))
@example(steps=[[(1, 0.0), (1, 16777216.0), (1, 0.6), (1, 0.0)]], end=62)  # rounding depends on the order of adding
async def test_each_series_gets_prometheus_formula(steps: list[Points], end: int) -> None:
    """Series of any length, side by side in one array, do not leak into each other; resets never make less."""
    series = [_absolute(one) for one in steps]
    lines = [f'c{{s="{at}"}} {value!r} {START_S + t}' for at, points in enumerate(series) for t, value in points]
    telemetry = load_openmetrics("\n".join([*lines, "# EOF"]))
    at = datetime.fromtimestamp(START_S + end, UTC)

    for function, formula in ((Function.INCREASE, _increase), (Function.CHANGES, _changes), (Function.VALUE, _value)):
        window = None if function is Function.VALUE else timedelta(seconds=WINDOW_S)
        answer = await telemetry.vector(Query(metric="c", function=function, window=window, by=("s",)), at)
        expected = {(str(number),): formula(points, end) for number, points in enumerate(series)}
        assert answer == pytest.approx({key: value for key, value in expected.items() if value is not None}, rel=1e-9)
        assert all(value >= 0 for value in answer.values())


@settings(deadline=None, max_examples=60)  # a busy machine is no failure
@given(
    counts=st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any),
    quantile=st.floats(0.01, 1),
)
def test_a_quantile_lies_in_the_bucket_that_holds_its_rank(counts: list[int], quantile: float) -> None:
    """The interpolated value is between the bounds of that bucket, or the last bound when it is beyond all."""
    bounds = np.array([*range(1, len(counts)), math.inf])
    cumulative = np.cumsum(counts, dtype=float)
    [value] = quantile_of_buckets(quantile, bounds, cumulative[:, None], np.ones((len(counts), 1), dtype=bool))
    bucket = next(at for at, count in enumerate(cumulative) if count >= quantile * cumulative[-1])

    if bucket == len(counts) - 1:
        assert value == bounds[-2]
    else:
        assert bucket <= value <= bucket + 1


def test_buckets_without_a_last_one_have_no_quantile() -> None:
    """Without +Inf nobody knows how many observations there were."""
    bounds, counts = np.array([1.0, 2.0]), np.array([[1.0], [2.0]])

    assert np.isnan(quantile_of_buckets(0.5, bounds, counts, np.ones((2, 1), dtype=bool))).all()
