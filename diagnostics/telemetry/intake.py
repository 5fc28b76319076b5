"""
From one scrape to samples: `up`, timestamps, and stale markers for what vanished.

As Prometheus does it, except that in a drill the samples' own timestamps are the time: then `up` and stale markers
take it from them, and series with timestamps are ended too (Prometheus' `track_timestamps_staleness: true`).
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from diagnostics.telemetry.exposition import NO_TIME, ExpositionError, Read, SeriesIds
from diagnostics.telemetry.instants import MILLISECOND
from diagnostics.telemetry.samples import STALE, Ids, Row, Samples, Times, Values
from diagnostics.telemetry.scrape import ScrapeTarget

MOST_AHEAD = timedelta(minutes=10)
"""Prometheus drops samples whose timestamp is further in the future than this."""


class Intake:
    """What the recorder remembers of one target between scrapes."""

    def __init__(self, target: ScrapeTarget, samples: Samples, *, by_samples: bool) -> None:
        self.target = target
        self.ids = SeriesIds(self._number)
        self._room = 0  # how many new series the next scrape may bring
        self._samples = samples
        self._by_samples = by_samples
        self._up = samples.number("up", target.labels)
        self._present: Ids = np.empty(0, dtype=np.int32)  # the series whose absence from the next scrape ends them

    def make_room(self, most: int, oldest: int) -> None:
        """Before a scrape: how many new series it may bring until `most` were seen since `oldest` (ms)."""
        self._room = most - self._samples.living(oldest)
        if len(self.ids) > most:
            self.ids.clear()  # most are texts of series that are gone

    def move_to(self, samples: Samples) -> None:
        """Go on with a copy of the samples in which the series have other numbers."""
        present = [self._samples.series[number] for number in self._present.tolist()]
        self._samples = samples
        self.ids.clear()
        self._up = samples.number("up", self.target.labels)
        self._present = np.array([samples.number(one.name, one.labels) for one in present], dtype=np.int32)
        self._present.sort()

    def _number(self, name: str, labels: dict[str, str]) -> int:
        labels = {**self.target.labels, **labels}
        known = len(self._samples.series)
        if self._room <= 0 and not self._samples.knows(name, labels):
            raise ExpositionError(f"{name} would be a series more than the recorder keeps")
        number = self._samples.number(name, labels)
        self._room -= len(self._samples.series) - known
        return number

    def record(self, read: Read, started: int) -> tuple[int, list[Row]]:
        """Keep a scrape that began at `started` (ms, wall clock); its time and its rows."""
        ids, values = np.array(read.ids, dtype=np.int32), np.array(read.values, dtype=np.float64)
        times = np.array(read.times, dtype=np.int64)
        own = times != NO_TIME
        if self._by_samples:
            stamp = int(times.max()) if own.any() else self._after_newest(started)
            tracked = ids
        else:
            stamp = started
            tracked = ids[~own]  # who sets timestamps is trusted to say when a series ends
            kept = times <= stamp + MOST_AHEAD // MILLISECOND
            ids, values, times = ids[kept], values[kept], times[kept]
        rows = self._append(ids, values, np.where(times == NO_TIME, stamp, times))
        vanished = np.setdiff1d(self._present, tracked)
        self._present = np.unique(tracked)
        return stamp, rows + self._close(stamp, vanished, up=1.0)

    def record_failure(self, started: int) -> tuple[int, list[Row]]:
        """Keep that the target is down: all its series end."""
        stamp = self._after_newest(started) if self._by_samples else started
        vanished, self._present = self._present, np.empty(0, dtype=np.int32)
        return stamp, self._close(stamp, vanished, up=0.0)

    def _append(self, ids: Ids, values: Values, times: Times) -> list[Row]:
        moments = np.unique(times).tolist()
        parts = [(moment, times == moment) for moment in moments]
        rows = [self._samples.append(moment, ids[part], values[part]) for moment, part in parts]
        return [row for row in rows if row is not None]

    def _close(self, stamp: int, vanished: Ids, *, up: float) -> list[Row]:
        rows = (
            self._samples.append(stamp, vanished, np.full(len(vanished), STALE)),
            self._samples.append(stamp, np.array([self._up], dtype=np.int32), np.array([up])),
        )
        return [row for row in rows if row is not None]

    def _after_newest(self, started: int) -> int:
        """The next millisecond of a clock that only samples move; the wall's time if there is none yet."""
        return started if self._samples.newest is None else self._samples.newest + 1
