"""
The recorder's own SQLite file: what was scraped survives kill -9 and is back in memory in about a second.

One process writes it, the others on this machine follow: a lock on the file beside it says who. One transaction per
scrape. The write-ahead log with synchronous=NORMAL keeps every committed scrape through the death
of the process; a power cut may cost the last ones, which is as much as a missed scrape costs.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from diagnostics.telemetry.model import TelemetryError
from diagnostics.telemetry.samples import Ids, Layout, Row, Samples, Series, Values

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


@dataclass(frozen=True, kw_only=True)
class News:
    """What a reader has not seen yet: series and layouts in the order of their numbers, rows by time."""

    series: list[tuple[str, Mapping[str, str]]]
    layouts: list[Ids]
    rows: list[tuple[int, int, Values]]

    def add_to(self, samples: Samples) -> None:
        """Raises ValueError or IndexError when a row does not fit its layout."""
        for name, labels in self.series:
            samples.number(name, labels)
        for ids in self.layouts:
            samples.add_layout(ids)
        for time, layout, values in self.rows:
            row = Row(time=time, layout=samples.layouts[layout], values=values)
            if len(row.values) != len(row.layout.ids):
                raise ValueError(f"its row at {time} does not fit its layout")
            if samples.is_news(row):  # not so when two recorders wrote one file
                samples.insert(row)


class SampleFile:
    """
    One file, one writer at a time. Every method blocks; call them in a thread, one after the other.

    Raises TelemetryError, naming the file, when it cannot be read or written or belongs to something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._series_kept = 0
        self._layouts_kept = 0
        self._last_row = 0
        self._edition = 0
        self._connection: sqlite3.Connection | None = None
        self._lock: IO[str] | None = None

    def claim(self) -> bool:
        """Become the one who writes; False while another process is. The claim ends with `close`, or with us."""
        if self._lock is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                lock = self._path.with_name(f"{self._path.name}.lock").open("w", encoding="ascii")
            except OSError as error:
                raise TelemetryError(f"the recorder's file {self._path} cannot be claimed: {error}") from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    def open(self) -> Samples:
        """Open the file and read what it holds; it is made, if need be, by who has claimed it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            self._connection = connection
            if self._lock is not None:
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

    @property
    def name(self) -> str:
        return str(self._path)

    def read_anew(self) -> Samples:
        """Everything, again. Raises as `open` does."""
        connection = self._connection
        if connection is None:
            raise TelemetryError(f"the recorder's file {self._path} is not open")
        try:
            return self._read(connection)
        except (sqlite3.Error, ValueError, zlib.error, IndexError) as error:
            raise TelemetryError(f"the recorder's file {self._path} cannot be read: {error}") from error

    def news(self) -> News | None:
        """What the writer has added since we read, for who follows; None when it wrote everything anew: open again."""
        connection = self._connection
        if connection is None:
            raise TelemetryError(f"the recorder's file {self._path} is not open")
        try:
            with _one_look(connection):
                return self._read_news(connection) if _edition(connection) == self._edition else None
        except (sqlite3.Error, ValueError, zlib.error) as error:
            raise TelemetryError(f"the recorder's file {self._path} cannot be read: {error}") from error

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
                connection.execute(f"PRAGMA application_id={_edition(connection) + 1:d}")
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
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_format(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version not in {0, _FORMAT} or (version == 0 and tables):
            raise ValueError(f"it is not a recorder's file of format {_FORMAT}")
        connection.execute(f"PRAGMA user_version={_FORMAT:d}")

    def _read(self, connection: sqlite3.Connection) -> Samples:
        self._series_kept = self._layouts_kept = self._last_row = 0
        samples = Samples()
        with _one_look(connection):
            self._edition = _edition(connection)
            news = self._read_news(connection)
        news.add_to(samples)
        return samples

    def _read_news(self, connection: sqlite3.Connection) -> News:
        """What stands in the file beyond what was read or written here."""
        series = connection.execute(
            "SELECT name, labels FROM series WHERE number >= ? ORDER BY number", (self._series_kept,)
        )
        layouts = connection.execute("SELECT ids FROM layout WHERE number >= ? ORDER BY number", (self._layouts_kept,))
        rows = connection.execute(
            "SELECT time, layout, samples, rowid FROM sample_row WHERE rowid > ? ORDER BY time", (self._last_row,)
        ).fetchall()
        news = News(
            series=[(name, json.loads(labels)) for name, labels in series],
            layouts=[np.frombuffer(ids, dtype=np.int32) for (ids,) in layouts],
            rows=[(time, layout, np.frombuffer(zlib.decompress(blob))) for time, layout, blob, _ in rows],
        )
        self._series_kept += len(news.series)
        self._layouts_kept += len(news.layouts)
        self._last_row = max((row for *_, row in rows), default=self._last_row)
        return news


@contextmanager
def _one_look(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read within is of one moment, whatever the writer commits meanwhile: rows need their layouts."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _edition(connection: sqlite3.Connection) -> int:
    """How often everything was written anew: series and layouts have other numbers then."""
    (edition,) = connection.execute("PRAGMA application_id").fetchone()
    return int(edition)
