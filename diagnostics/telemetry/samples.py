"""
The recorder's memory: series by name and labels, and one row of values per scrape.

Scrapes of one target bring the same series each time, so a row is an array of values beside a layout (which series,
in which order) that it shares with the rows before it: eight bytes a sample, and a query reads one slice per row.
Times are integer milliseconds since 1970 UTC, as in Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Times = NDArray[np.int64]
Values = NDArray[np.float64]
_Identity = tuple[str, tuple[tuple[str, str], ...]]

_MOST_LAYOUTS_AT_HAND = 512
_STALE_BITS = np.int64(0x7FF0000000000002)  # Prometheus' own marker, model/value/value.go
STALE: np.float64 = np.array([_STALE_BITS]).view(np.float64)[0]


def is_stale(values: Values) -> NDArray[np.bool_]:
    """Which values are stale markers; an ordinary NaN is none."""
    marked: NDArray[np.bool_] = values.view(np.int64) == _STALE_BITS
    return marked


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One series; `metric` numbers its name."""

    name: str
    labels: Mapping[str, str]
    metric: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """Which series a row holds: ids sorted by metric and id, so that one metric is one slice."""

    number: int
    ids: Ids
    metrics: Ids
    ends: Ids

    def slice_of(self, metric: int) -> slice | None:
        """Where a row of this layout holds a metric."""
        at = int(self.metrics.searchsorted(metric))  # the function costs six times the method, and this is asked often
        if at == len(self.metrics) or self.metrics[at] != metric:
            return None
        return slice(int(self.ends[at - 1]) if at else 0, int(self.ends[at]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """All samples of one moment from one scrape."""

    time: int
    layout: Layout
    values: Values


class Samples:
    """
    Series and rows, oldest row first.

    Per series time only goes forward: a sample that is not newer than the series' newest is dropped, the first of
    two samples of one series in one row wins (both as in Prometheus).
    """

    def __init__(self) -> None:
        self.series: list[Series] = []
        self.layouts: list[Layout] = []
        self.rows: list[Row] = []
        self._times: list[int] = []
        self._numbers: dict[_Identity, int] = {}
        self._metrics: dict[str, int] = {}
        self._members: list[list[int]] = []  # by metric: its series
        self._metric_of = np.zeros(1024, dtype=np.int32)
        self._newest = np.full(1024, np.iinfo(np.int64).min, dtype=np.int64)
        self._layouts_by_ids: dict[bytes, tuple[Layout, NDArray[np.intp]]] = {}

    @property
    def newest(self) -> int | None:
        """The time of the newest row."""
        return self._times[-1] if self._times else None

    def number(self, name: str, labels: Mapping[str, str]) -> int:
        """The id of a series, made on first sight. An empty label is no label, as in Prometheus."""
        identity = _identity(name, labels)
        known = self._numbers.get(identity)
        if known is not None:
            return known
        metric = self._metrics.setdefault(name, len(self._metrics))
        if metric == len(self._members):
            self._members.append([])
        fresh = len(self.series)
        self.series.append(Series(name=name, labels=dict(identity[1]), metric=metric))
        self._members[metric].append(fresh)
        self._numbers[identity] = fresh
        self._make_room(fresh)
        self._metric_of[fresh] = metric
        return fresh

    def knows(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the series was seen before."""
        return _identity(name, labels) in self._numbers

    def metric(self, name: str) -> int | None:
        """The number of a metric's name, or None if no series ever had it."""
        return self._metrics.get(name)

    def members(self, metric: int) -> Sequence[int]:
        """The ids of a metric's series."""
        return self._members[metric]

    def living(self, since: int) -> int:
        """How many series had a sample at or after a time."""
        return int(np.count_nonzero(self._newest[: len(self.series)] >= since))

    def append(self, time: int, ids: Ids, values: Values) -> Row | None:
        """Keep the samples of one moment; None when none of them was news."""
        fresh = self._newest[ids] < time
        if not fresh.all():
            ids, values = ids[fresh], values[fresh]
        if not len(ids):
            return None
        layout, order = self._layout(ids)
        return self.insert(Row(time=time, layout=layout, values=values[order]))

    def is_news(self, row: Row) -> bool:
        """Whether every sample of the row is newer than what its series has."""
        return bool((self._newest[row.layout.ids] < row.time).all())

    def insert(self, row: Row) -> Row:
        """Put a row whose layout is ours in its place."""
        self._newest[row.layout.ids] = np.maximum(self._newest[row.layout.ids], row.time)
        if not self._times or row.time >= self._times[-1]:
            self._times.append(row.time)
            self.rows.append(row)
        else:
            place = bisect_right(self._times, row.time)
            self._times.insert(place, row.time)
            self.rows.insert(place, row)
        return row

    def between(self, start: int, end: int) -> list[Row]:
        """The rows of a closed interval, oldest first."""
        return self.rows[bisect_left(self._times, start) : bisect_right(self._times, end)]

    def forget_before(self, time: int) -> None:
        """Let go of the rows before a time."""
        gone = bisect_left(self._times, time)
        del self._times[:gone]
        del self.rows[:gone]

    def survivors(self) -> Samples:
        """A copy with only the series that still have rows, numbered anew; rows keep their values."""
        layouts = {row.layout.number: row.layout for row in self.rows}
        alive = np.unique(np.concatenate([np.empty(0, np.int32), *(layout.ids for layout in layouts.values())]))
        alive = alive[np.lexsort((alive, self._metric_of[alive]))]  # in the order of layouts, so that they stay sorted
        copy = Samples()
        renumbered = np.full(len(self.series), -1, dtype=np.int32)
        for number in alive.tolist():
            one = self.series[number]
            renumbered[number] = copy.number(one.name, one.labels)
        copies = {number: copy.add_layout(renumbered[layout.ids]) for number, layout in layouts.items()}
        for row in self.rows:
            copy.insert(Row(time=row.time, layout=copies[row.layout.number], values=row.values))
        return copy

    def add_layout(self, ids: Ids) -> Layout:
        """A layout for ids that are already in order and without repetition."""
        metrics = self._metric_of[ids]
        last = np.append(np.flatnonzero(np.diff(metrics)), len(ids) - 1)
        layout = Layout(number=len(self.layouts), ids=ids, metrics=metrics[last], ends=(last + 1).astype(np.int32))
        self.layouts.append(layout)
        return layout

    def _layout(self, ids: Ids) -> tuple[Layout, NDArray[np.intp]]:
        """The layout of ids as they came, and the order that brings them there."""
        raw = ids.tobytes()
        known = self._layouts_by_ids.get(raw)
        if known is not None:
            return known
        if len(self._layouts_by_ids) >= _MOST_LAYOUTS_AT_HAND:
            self._layouts_by_ids.clear()  # forgetting one only costs its being made again
        _, firsts = np.unique(ids, return_index=True)
        order = firsts[np.lexsort((ids[firsts], self._metric_of[ids[firsts]]))]
        ordered = np.ascontiguousarray(ids[order])
        twin = self._layouts_by_ids.get(ordered.tobytes())
        layout = twin[0] if twin else self.add_layout(ordered)
        self._layouts_by_ids[ordered.tobytes()] = (layout, np.arange(len(ordered)))
        self._layouts_by_ids[raw] = (layout, order)
        return layout, order

    def _make_room(self, number: int) -> None:
        if number < len(self._metric_of):
            return
        more = len(self._metric_of)
        self._metric_of = np.concatenate([self._metric_of, np.zeros(more, dtype=np.int32)])
        self._newest = np.concatenate([self._newest, np.full(more, np.iinfo(np.int64).min, dtype=np.int64)])


def _identity(name: str, labels: Mapping[str, str]) -> _Identity:
    return name, tuple(sorted((label, value) for label, value in labels.items() if value))
