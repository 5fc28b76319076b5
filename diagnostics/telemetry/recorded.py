"""Recorded samples that answer queries as Prometheus 2.42 would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from diagnostics.compute_thread import in_compute_thread
from diagnostics.telemetry.answer import Selection, answer, has_sample, select
from diagnostics.telemetry.evaluate import LOOKBACK_MS
from diagnostics.telemetry.history import read_history, take_over
from diagnostics.telemetry.instants import MILLISECOND, instants_between, to_datetime, to_milliseconds
from diagnostics.telemetry.model import Function, Matrix, Query, TelemetryError, Vector
from diagnostics.telemetry.samples import Row, Samples, Times

EXPORTED_WITHIN = timedelta(hours=1)
_MOST_SELECTIONS = 1000


class Recorded:
    """
    Telemetry over samples in memory; its clock is the newest sample.

    Counting runs in a thread, on rows that never change, so scraping goes on meanwhile.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._selections: dict[tuple[object, ...], tuple[int, Selection | None]] = {}

    async def now(self) -> datetime:
        if self._samples.newest is None:
            raise TelemetryError("no sample was recorded yet, so the samples tell no time")
        return to_datetime(self._samples.newest)

    async def vector(self, query: Query, at: datetime) -> Vector:
        instants = np.array([to_milliseconds(at)], dtype=np.int64)
        selection = self._select(query)
        if selection is None:
            return {}
        answers = await in_compute_thread(answer, query, selection, self._rows(query, instants), instants)
        return {key: float(values[0]) for key, (values, _) in answers.items()}

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        instants = np.array(instants_between(start, end, step), dtype=np.int64)
        selection = self._select(query)
        if selection is None or not len(instants):
            return {}
        return await in_compute_thread(_matrix, query, selection, self._rows(query, instants), instants)

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        selection = self._select(Query(metric=metric, where=where or {}))
        if selection is None:
            return False
        rows = self._samples.between(to_milliseconds(at - EXPORTED_WITHIN), to_milliseconds(at))
        return await in_compute_thread(has_sample, selection, rows)

    def _select(self, query: Query) -> Selection | None:
        """The chosen series, remembered until there are new ones: matching labels costs more than counting."""
        question = (query.metric, tuple(sorted(query.where.items())), query.by, query.function is Function.QUANTILE)
        known = self._selections.get(question)
        if known is not None and known[0] == len(self._samples.series):
            return known[1]
        if len(self._selections) >= _MOST_SELECTIONS:
            self._selections.clear()
        selection = select(self._samples, query)
        self._selections[question] = (len(self._samples.series), selection)
        return selection

    def _rows(self, query: Query, instants: Times) -> list[Row]:
        reach = LOOKBACK_MS if query.window is None else query.window // MILLISECOND
        return self._samples.between(int(instants[0]) - reach, int(instants[-1]))


def _matrix(query: Query, selection: Selection, rows: list[Row], instants: Times) -> Matrix:
    answers = answer(query, selection, rows, instants)
    times = np.array([to_datetime(instant) for instant in instants.tolist()], dtype=object)
    return {
        key: list(zip(times[mask].tolist(), values[mask].tolist(), strict=True))
        for key, (values, mask) in answers.items()
    }


def load_openmetrics(source: Path | str) -> Recorded:
    """
    A case's telemetry from OpenMetrics text with timestamps: a file (also .gz), or the text itself.

    Blocks for seconds with millions of samples. Raises TelemetryError naming the file and line.
    """
    samples = Samples()
    take_over(read_history(source, {}), samples)
    return Recorded(samples)
