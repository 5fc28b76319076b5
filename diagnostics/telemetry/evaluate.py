"""
Prometheus' arithmetic over recorded samples, for many series and many instants at once.

The semantics are those of Prometheus 2.42 (promql/engine.go, functions.go, quantile.go): a lookback of five minutes,
stale markers end a series, and ranges are closed, [t - window, t] (Prometheus 3 leaves the left end out; the two
differ only where a sample lies exactly on it).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from diagnostics.telemetry.model import Aggregation, Function
from diagnostics.telemetry.samples import Row, Times, Values, is_stale

LOOKBACK_MS = 300_000

Grid = NDArray[np.float64]
"""Values by series (or group) and instant; what is absent is told by a mask beside it, since NaN is a value."""

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Columns:
    """The samples of some series, series after series, each oldest first; `column` numbers the series."""

    count: int
    column: NDArray[np.uint32]
    time: Times
    value: Values


def gather(rows: list[Row], metric: int, column_of: NDArray[np.int32], count: int) -> Columns:
    """The samples of one metric's chosen series; `column_of` gives each series id its column, or -1."""
    chosen: dict[int, tuple[slice | Places, NDArray[np.int32]] | None] = {}
    columns, values, times, lengths = [], [], [], []
    for row in rows:
        number = row.layout.number
        if number not in chosen:
            chosen[number] = _choose(row, metric, column_of)
        choice = chosen[number]
        if choice is not None:
            columns.append(choice[1])
            values.append(row.values[choice[0]])
            times.append(row.time)
            lengths.append(len(choice[1]))
    if not columns:
        return Columns(count=count, column=np.empty(0, np.uint32), time=np.empty(0, np.int64), value=np.empty(0))
    column = np.concatenate(columns)
    # Sixteen bits get numpy's radix sort, ten times faster than its merge sort.
    order = np.argsort(column.astype(np.uint16) if count < 2**16 else column, kind="stable")
    return Columns(
        count=count,
        column=column[order].astype(np.uint32),
        time=np.repeat(np.array(times, dtype=np.int64), lengths)[order],
        value=np.concatenate(values)[order],
    )


def _choose(row: Row, metric: int, column_of: NDArray[np.int32]) -> tuple[slice | Places, NDArray[np.int32]] | None:
    bounds = row.layout.slice_of(metric)
    if bounds is None:
        return None
    columns = column_of[row.layout.ids[bounds]]
    wanted = columns >= 0
    if wanted.all():
        return bounds, columns
    return (np.flatnonzero(wanted) + bounds.start, columns[wanted]) if wanted.any() else None


def evaluate(function: Function, columns: Columns, instants: Times, window_ms: int) -> tuple[Grid, Mask]:
    """
    One number per series and instant (ms), and where there is one.

    QUANTILE is not for single series: see `quantile_of_buckets`. VALUE takes the lookback, not the window.
    """
    if function is Function.VALUE:
        window_ms = LOOKBACK_MS
    else:
        columns = without_stale(columns)
    shape = (columns.count, len(instants))
    grid, mask = np.full(shape, np.nan).ravel(), np.zeros(shape, dtype=bool).ravel()
    if len(columns.time):
        first, after = _ranges(columns, instants, window_ms)
        filled = np.flatnonzero(after - first >= _NEEDED[function])
        instant = np.tile(instants, columns.count)[filled]
        window = _Window(columns=columns, first=first[filled], after=after[filled], instant=instant, width=window_ms)
        with np.errstate(all="ignore"):  # infinities in, NaN out, as there
            grid[filled] = _FUNCTIONS[function](window)
        mask[filled] = ~is_stale(grid[filled])
    return grid.reshape(shape), mask.reshape(shape)


def without_stale(columns: Columns) -> Columns:
    """The columns without stale markers: ranges do not see them."""
    kept = ~is_stale(columns.value)
    if kept.all():
        return columns
    return Columns(count=columns.count, column=columns.column[kept], time=columns.time[kept], value=columns.value[kept])


def _ranges(columns: Columns, instants: Times, window_ms: int) -> tuple[Places, Places]:
    """The samples [first, after) of every series' closed interval [instant - window, instant], series by series."""
    origin = min(int(columns.time.min()), int(instants.min()) - window_ms)
    span = max(int(columns.time.max()), int(instants.max())) - origin + 2
    keys = columns.column.astype(np.int64) * span + (columns.time - origin)
    base = np.arange(columns.count, dtype=np.int64)[:, None] * span
    first = np.searchsorted(keys, (base + (instants - window_ms - origin)).ravel(), side="left")
    after = np.searchsorted(keys, (base + (instants - origin)).ravel(), side="right")
    return first, after


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Window:
    """Sample ranges [first, after) with enough samples, the instants (ms) they end at, and their width in ms."""

    columns: Columns
    first: Places
    after: Places
    instant: Times
    width: int


def _newest(window: _Window) -> Values:
    return window.columns.value[window.after - 1]


def _extrapolated(window: _Window, *, is_counter: bool, is_rate: bool) -> Values:
    """Prometheus' extrapolatedRate: the change between first and last sample, stretched towards the range's ends."""
    value, time = window.columns.value, window.columns.time
    first_value = value[window.first]
    change = value[window.after - 1] - first_value
    if is_counter:
        change = _add_lost_in_resets(change, window)
    sampled = (time[window.after - 1] - time[window.first]) / 1000.0
    average = sampled / (window.after - window.first - 1)
    to_start = (time[window.first] - (window.instant - window.width)) / 1000.0
    to_end = (window.instant - time[window.after - 1]) / 1000.0
    if is_counter:
        # A counter cannot have been negative: do not stretch further back than to where it would have been zero.
        grows = (change > 0) & (first_value >= 0)
        to_zero = np.where(grows, sampled * (first_value / np.where(grows, change, 1.0)), np.inf)
        to_start = np.minimum(to_start, to_zero)
    threshold = average * 1.1
    covered = sampled + np.where(to_start < threshold, to_start, average / 2)
    covered = covered + np.where(to_end < threshold, to_end, average / 2)
    factor = covered / sampled
    if is_rate:
        factor = factor / (window.width / 1000.0)
    return np.asarray(change * factor)


def _add_lost_in_resets(change: Values, window: _Window) -> Values:
    """
    Add what each range's counter had reached before every reset in it.

    One reset after the other, as Prometheus adds them: the sum of two large numbers first would round away the small
    growth after a large counter's reset. Ranges hold few resets, so this is also quick.
    """
    value = window.columns.value
    resets = np.flatnonzero(value[1:] < value[:-1]) + 1
    begin, end = np.searchsorted(resets, window.first + 1), np.searchsorted(resets, window.after)
    reset = begin
    while (left := np.flatnonzero(reset < end)).size:
        change[left] += value[resets[reset[left]] - 1]
        reset = reset + 1
    return change


def _changes(window: _Window) -> Values:
    value = window.columns.value
    differs = np.zeros(len(value))
    differs[1:] = (value[1:] != value[:-1]) & ~(np.isnan(value[1:]) & np.isnan(value[:-1]))
    # From the range's first sample on, whose own difference is to a sample outside and taken off again.
    return _reduce(np.add, differs, window.first, window.after) - differs[window.first]


def _max(window: _Window) -> Values:
    return _reduce(np.fmax, window.columns.value, window.first, window.after)


def _avg(window: _Window) -> Values:
    return _reduce(np.add, window.columns.value, window.first, window.after) / (window.after - window.first)


def _reduce(ufunc: np.ufunc, values: Values, first: Places, after: Places) -> Values:
    """Reduce each [first, after); every range has a sample."""
    padded = np.append(values, 0.0)  # reduceat wants every bound to be an index
    bounds = np.column_stack([first, after]).ravel()
    return np.asarray(ufunc.reduceat(padded, bounds)[::2])


_FUNCTIONS: dict[Function, Callable[[_Window], Values]] = {
    Function.VALUE: _newest,
    Function.RATE: partial(_extrapolated, is_counter=True, is_rate=True),
    Function.INCREASE: partial(_extrapolated, is_counter=True, is_rate=False),
    Function.DELTA: partial(_extrapolated, is_counter=False, is_rate=False),
    Function.CHANGES: _changes,
    Function.MAX_OVER_TIME: _max,
    Function.AVG_OVER_TIME: _avg,
}

_NEEDED = dict.fromkeys(Function, 1) | dict.fromkeys((Function.RATE, Function.INCREASE, Function.DELTA), 2)


def aggregate(aggregation: Aggregation, grid: Grid, mask: Mask, starts: Places) -> tuple[Grid, Mask]:
    """One number per group and instant; the series of a group stand together, group i beginning at starts[i]."""
    counts = np.add.reduceat(mask.astype(np.float64), starts, axis=0)
    present = counts > 0
    if aggregation is Aggregation.COUNT:
        return counts, present
    if aggregation is Aggregation.MAX:
        return np.fmax.reduceat(np.where(mask, grid, np.nan), starts, axis=0), present
    if aggregation is Aggregation.MIN:
        return np.fmin.reduceat(np.where(mask, grid, np.nan), starts, axis=0), present
    with np.errstate(all="ignore"):
        sums = np.add.reduceat(np.where(mask, grid, 0.0), starts, axis=0)
    if aggregation is Aggregation.AVG:
        sums = sums / np.where(present, counts, 1.0)
    return sums, present


def quantile_of_buckets(quantile: float, bounds: Values, counts: Grid, mask: Mask) -> Values:
    """
    Prometheus' bucketQuantile at every instant (NaN where it has none).

    `bounds` are the upper bounds, ascending, without repetition; `counts[i]` the rates of bucket i, where `mask`.
    Interpolates within the bucket that holds the rank; the last bucket answers the bound before it.
    """
    instants = counts.shape[1]
    if not 0 <= quantile <= 1:
        return np.full(instants, np.inf if quantile > 1 else -np.inf)
    if len(bounds) < 2 or not np.isposinf(bounds[-1]):
        return np.full(instants, np.nan)
    # Scrapes are not atomic, so a bucket may seem to hold less than the one below it.
    monotonic = np.fmax.accumulate(np.where(mask, counts, -np.inf), axis=0)
    total = counts[-1]
    place = np.where(mask, np.arange(len(bounds))[:, None], -1)
    before = np.vstack([np.full((1, instants), -1), np.maximum.accumulate(place, axis=0)[:-1]])
    answerable = mask[-1] & (before[-1] >= 0) & (monotonic[-1] > 0) & ~np.isnan(total)

    rank = quantile * np.where(answerable, monotonic[-1], 0.0)
    bucket = np.argmax(monotonic >= rank, axis=0)
    now = np.arange(instants)
    below = before[bucket, now]
    lower = np.where(below >= 0, bounds[below], 0.0)
    under = np.where(below >= 0, monotonic[below, now], 0.0)
    upper = bounds[bucket]
    held = monotonic[bucket, now] - under
    inside = lower + (upper - lower) * ((rank - under) / np.where(held > 0, held, np.nan))
    inside = np.where((below < 0) & (upper <= 0), upper, inside)
    answer = np.where(bucket == len(bounds) - 1, bounds[before[-1]], inside)
    return np.where(answerable, answer, np.nan)
