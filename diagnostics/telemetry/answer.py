"""From a query and recorded samples to groups and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diagnostics.telemetry.evaluate import (
    Columns,
    Grid,
    Mask,
    Places,
    aggregate,
    evaluate,
    gather,
    quantile_of_buckets,
    without_stale,
)
from diagnostics.telemetry.matchers import matches, read_matchers
from diagnostics.telemetry.model import Aggregation, Function, Key, Query
from diagnostics.telemetry.samples import Row, Samples, Series, Times, Values


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """
    The series a query asks for, as columns sorted by group (and upper bound), and where each group begins.

    A cell is what is aggregated: a group, or for quantiles one bucket of a group, whose bound is in `bounds`.
    """

    metric: int
    column_of: NDArray[np.int32]
    count: int
    keys: tuple[Key, ...]
    cells: Places
    cells_of_key: Places
    bounds: Values


def select(samples: Samples, query: Query) -> Selection | None:
    """Choose and group the query's series; None when there are none. Raises TelemetryError for a bad regex."""
    buckets = query.function is Function.QUANTILE
    metric = samples.metric(f"{query.metric}_bucket" if buckets else query.metric)
    if metric is None:
        return None
    matchers = read_matchers(query.where)
    found = []
    for number in samples.members(metric):
        series = samples.series[number]
        if matches(matchers, series.labels):
            bound = _bound(series) if buckets else 0.0
            if bound is not None:
                found.append((tuple(series.labels.get(label, "") for label in query.by), bound, number))
    if not found:
        return None
    found.sort()
    column_of = np.full(len(samples.series), -1, dtype=np.int32)
    column_of[[number for _, _, number in found]] = np.arange(len(found))
    cells = [at for at, entry in enumerate(found) if at == 0 or entry[:2] != found[at - 1][:2]]
    heads = [at for at, cell in enumerate(cells) if at == 0 or found[cell][0] != found[cells[at - 1]][0]]
    return Selection(
        metric=metric,
        column_of=column_of,
        count=len(found),
        keys=tuple(found[cells[head]][0] for head in heads),
        cells=np.array(cells),
        cells_of_key=np.array([*heads, len(cells)]),
        bounds=np.array([found[cell][1] for cell in cells]),
    )


def _bound(series: Series) -> float | None:
    """The upper bound of a bucket; None for a series that is no bucket."""
    try:
        return float(series.labels["le"])
    except (KeyError, ValueError):
        return None


def answer(query: Query, selection: Selection, rows: list[Row], instants: Times) -> Mapping[Key, tuple[Values, Mask]]:
    """
    The numbers of every group at the instants (ms), and where there is one; NaN and infinity are no numbers here.

    `rows` need to reach back to the window (or lookback) before the first instant.
    """
    columns = gather(rows, selection.metric, selection.column_of, selection.count)
    window_ms = 0 if query.window is None else round(query.window.total_seconds() * 1000)
    if query.function is Function.QUANTILE:
        groups = _quantiles(query, selection, columns, instants, window_ms)
    else:
        grid, mask = evaluate(query.function, columns, instants, window_ms)
        grid, mask = aggregate(query.aggregation, grid, mask, selection.cells)
        groups = {key: (grid[at], mask[at]) for at, key in enumerate(selection.keys)}
    finite = {key: (values, mask & np.isfinite(values)) for key, (values, mask) in groups.items()}
    return {key: (values, mask) for key, (values, mask) in finite.items() if mask.any()}


def _quantiles(
    query: Query, selection: Selection, columns: Columns, instants: Times, window_ms: int
) -> dict[Key, tuple[Grid, Mask]]:
    rates, mask = evaluate(Function.RATE, columns, instants, window_ms)
    counts, mask = aggregate(Aggregation.SUM, rates, mask, selection.cells)
    groups = {}
    for at, key in enumerate(selection.keys):
        part = slice(selection.cells_of_key[at], selection.cells_of_key[at + 1])
        quantile = query.quantile if query.quantile is not None else np.nan
        values = quantile_of_buckets(quantile, selection.bounds[part], counts[part], mask[part])
        groups[key] = (values, ~np.isnan(values))
    return groups


def has_sample(selection: Selection, rows: list[Row]) -> bool:
    """Whether any of the selected series has a sample in these rows that is not a stale marker."""
    return bool(len(without_stale(gather(rows, selection.metric, selection.column_of, selection.count)).time))
