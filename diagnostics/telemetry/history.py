"""OpenMetrics files with timestamps as recorded samples: what a case or a drill brings along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diagnostics.telemetry.exposition import ExpositionError, Read, SeriesIds, read_openmetrics
from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.samples import Row, Samples


@dataclass(frozen=True, kw_only=True)
class History:
    """What a file says: samples whose ids number the series in the order of their appearance."""

    read: Read
    series: list[tuple[str, dict[str, str]]]


def read_history(source: Path | str, labels: Mapping[str, str]) -> History:
    """
    Read a file (also .gz) or the text itself; `labels` are attached to series that lack them.

    Blocks for seconds with millions of samples. Raises TelemetryError naming the line.
    """
    series: list[tuple[str, dict[str, str]]] = []

    def number(name: str, own: dict[str, str]) -> int:
        series.append((name, {**labels, **own}))
        return len(series) - 1

    try:
        return History(read=read_openmetrics(source, SeriesIds(number)), series=series)
    except ExpositionError as error:
        raise TelemetryError(f"the history cannot be loaded: {error}") from error


def take_over(history: History, samples: Samples) -> list[Row]:
    """The rows that a history added; samples not newer than what their series already have are passed over."""
    numbers = np.array([samples.number(name, labels) for name, labels in history.series], dtype=np.int32)
    if not len(numbers):
        return []
    times = np.array(history.read.times, dtype=np.int64)
    order = np.argsort(times, kind="stable")
    ids = numbers[np.array(history.read.ids, dtype=np.int32)][order]
    times, values = times[order], np.array(history.read.values, dtype=np.float64)[order]
    begins = np.flatnonzero(np.diff(times, prepend=-1)).tolist()
    rows = [
        samples.append(int(times[begin]), ids[begin:end], values[begin:end])
        for begin, end in zip(begins, [*begins[1:], len(times)], strict=True)
    ]
    return [row for row in rows if row is not None]
