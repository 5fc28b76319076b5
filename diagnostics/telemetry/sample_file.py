"""
The recorder's own SQLite file: what was scraped survives kill -9 and is back in memory in about a second.

One transaction per scrape. The write-ahead log with synchronous=NORMAL keeps every committed scrape through the death
of the process; a power cut may cost the last ones, which is as much as a missed scrape costs.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.samples import Layout, Row, Samples, Series

_FORMAT = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS layout (number INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sample_row (time INTEGER NOT NULL, layout INTEGER NOT NULL, samples BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS sample_row_time ON sample_row (time);
"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One transaction's worth: series with their numbers, layouts, and rows; `afresh` empties the file before."""

    afresh: bool
    series: list[tuple[int, Series]]
    layouts: list[Layout]
    rows: list[Row]


class SampleFile:
    """
    One file, one owner at a time. Every method blocks; call them in a thread, one after the other.

    Raises TelemetryError, naming the file, when it cannot be read or written or belongs to something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._series_kept = 0
        self._layouts_kept = 0
        self._connection: sqlite3.Connection | None = None

    def open(self) -> Samples:
        """Open the file, made if need be, and read what it holds."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            self._connection = connection
            self._check_format(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_TABLES)
            return self._read(connection)
        except (sqlite3.Error, OSError, ValueError, zlib.error, IndexError) as error:
            self.close()
            raise TelemetryError(
                f"the recorder's file {self._path} cannot be read: {error}; move it away to start with an empty one"
            ) from error

    def batch(self, samples: Samples, rows: Sequence[Row]) -> Batch:
        """What to write for these rows: also the series and layouts that are new since the last write."""
        return Batch(
            afresh=False,
            series=list(enumerate(samples.series[self._series_kept :], start=self._series_kept)),
            layouts=samples.layouts[self._layouts_kept :],
            rows=list(rows),
        )

    def whole(self, samples: Samples) -> Batch:
        """All there is, to be written instead of what the file holds."""
        return Batch(
            afresh=True, series=list(enumerate(samples.series)), layouts=list(samples.layouts), rows=list(samples.rows)
        )

    def write(self, batch: Batch, oldest: int) -> None:
        """Write a batch and let go of rows before `oldest` (ms), in one transaction."""
        connection = self._connection
        if connection is None:
            raise TelemetryError(f"the recorder's file {self._path} is not open")
        series = [(number, one.name, json.dumps(one.labels)) for number, one in batch.series]
        layouts = [(one.number, one.ids.tobytes()) for one in batch.layouts]
        rows = [(row.time, row.layout.number, zlib.compress(row.values.tobytes(), 1)) for row in batch.rows]
        try:
            connection.execute("BEGIN IMMEDIATE")
            if batch.afresh:
                for table in ("series", "layout", "sample_row"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608  # three names of our own
            connection.executemany("INSERT INTO series VALUES (?, ?, ?)", series)
            connection.executemany("INSERT INTO layout VALUES (?, ?)", layouts)
            connection.executemany("INSERT INTO sample_row VALUES (?, ?, ?)", rows)
            connection.execute("DELETE FROM sample_row WHERE time < ?", (oldest,))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise TelemetryError(f"the recorder's file {self._path} cannot be written: {error}") from error
        self._series_kept = len(series) + (0 if batch.afresh else self._series_kept)
        self._layouts_kept = len(layouts) + (0 if batch.afresh else self._layouts_kept)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_format(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version not in {0, _FORMAT} or (version == 0 and tables):
            raise ValueError(f"it is not a recorder's file of format {_FORMAT}")
        connection.execute(f"PRAGMA user_version={_FORMAT:d}")

    def _read(self, connection: sqlite3.Connection) -> Samples:
        samples = Samples()
        for name, labels in connection.execute("SELECT name, labels FROM series ORDER BY number"):
            samples.number(name, json.loads(labels))
        for (ids,) in connection.execute("SELECT ids FROM layout ORDER BY number"):
            samples.add_layout(np.frombuffer(ids, dtype=np.int32))
        for time, layout, blob in connection.execute("SELECT time, layout, samples FROM sample_row ORDER BY time"):
            row = Row(time=time, layout=samples.layouts[layout], values=np.frombuffer(zlib.decompress(blob)))
            if len(row.values) != len(row.layout.ids):
                raise ValueError(f"its row at {time} does not fit its layout")
            if samples.is_news(row):  # not so when two recorders wrote one file
                samples.insert(row)
        self._series_kept, self._layouts_kept = len(samples.series), len(samples.layouts)
        return samples
