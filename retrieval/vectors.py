"""
Vectors that were already computed, kept by the SHA-256 of their text and the name of the model.

On two cores MiniLM embeds about 23 sections a second, so a start or a refresh should pay for changed sections only.
SQLite with raw little-endian float32, each row sealed by an HMAC over the model, the text and the numbers: a file that
was damaged, swapped or written by others gives no vector at all, and is begun anew.
"""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import structlog

from retrieval.embedder import Vectors

log = structlog.get_logger(__name__)

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vector (model TEXT, sha256 TEXT, floats BLOB NOT NULL, PRIMARY KEY (model, sha256))"
)
_AT_ONCE = 500  # SQLite's oldest limit on parameters is 999
_SEAL = hashlib.sha256().digest_size
_NOT_ITS_FAULT = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
}  # fmt: skip
"""Primary result codes that say nothing about the bytes of the file."""

Answer = TypeVar("Answer")


class VectorCache(Protocol):
    """Where vectors are kept between refreshes; both calls block and belong in a thread."""

    def known(self, model_id: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are there, by text."""

    def keep(self, model_id: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember these rows for these texts."""


class MemoryVectors:
    """The cache of one process; what tests use, and what serves when no file was given."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Vectors] = {}

    def known(self, model_id: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are there, by text."""
        return {text: self._kept[model_id, digest(text)] for text in texts if (model_id, digest(text)) in self._kept}

    def keep(self, model_id: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember these rows for these texts."""
        self._kept.update({(model_id, digest(text)): row for text, row in zip(texts, vectors, strict=True)})


class SqliteVectors:
    """
    The cache in a file; `key` seals its rows, and rows sealed with another key do not count.

    Losing it costs time only: a file that SQLite cannot read is put aside and begun anew, and any other trouble is
    logged and passed.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key

    def known(self, model_id: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are there and whose seal holds, by text."""
        by_digest = {digest(text): text for text in texts}

        def read(connection: sqlite3.Connection) -> dict[str, Vectors]:
            found: dict[str, Vectors] = {}
            for sha256, blob in _rows(connection, model_id, list(by_digest)):
                row = self._opened(model_id, sha256, blob)
                if row is not None and sha256 in by_digest:  # a damaged index may lead to another row
                    found[by_digest[sha256]] = row
            return found

        try:
            return self._with_file(read)
        except (sqlite3.Error, OSError) as error:
            log.warning("cached vectors cannot be read", path=str(self._path), reason=str(error))
            return {}

    def keep(self, model_id: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember these rows for these texts, in one transaction."""
        self._write(model_id, texts, vectors)

    def replace(self, model_id: str, texts: Sequence[str], vectors: Vectors) -> bool:
        """Hold these rows and no others, in one transaction; False when the file cannot be written."""
        return self._write(model_id, texts, vectors, "DELETE FROM vector")

    def models(self) -> dict[str, int]:
        """How many rows there are of each model, whether or not their seals hold; empty when it cannot be read."""
        query = "SELECT model, count(*) FROM vector GROUP BY model"
        try:
            return self._with_file(lambda connection: dict(connection.execute(query).fetchall()))
        except (sqlite3.Error, OSError) as error:
            log.warning("cached vectors cannot be read", path=str(self._path), reason=str(error))
            return {}

    def _write(self, model_id: str, texts: Sequence[str], vectors: Vectors, first: str = "") -> bool:
        rows = [
            (model_id, sha256, self._sealed(model_id, sha256, row.astype("<f4").tobytes()))
            for sha256, row in zip(map(digest, texts), vectors, strict=True)
        ]

        def write(connection: sqlite3.Connection) -> None:
            with connection:
                if first:
                    connection.execute(first)
                connection.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)

        try:
            self._with_file(write)
        except (sqlite3.Error, OSError) as error:
            log.warning("vectors cannot be cached", path=str(self._path), reason=str(error))
            return False
        return True

    def _with_file(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._once(work)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes what it found, in whatever bytes
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _NOT_ITS_FAULT:
                raise
            log.warning("the file of cached vectors is begun anew", path=str(self._path), reason=str(error))
            for log_of_it in ("-journal", "-wal", "-shm"):  # SQLite would play it back into the new file
                self._path.with_name(self._path.name + log_of_it).unlink(missing_ok=True)
            self._path.replace(self._path.with_name(f"{self._path.name}.unreadable"))
            return self._once(work)

    def _once(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            connection.text_factory = _text
            connection.execute("PRAGMA synchronous = OFF")  # what a power cut damages is seen, and computed again
            connection.execute(_SCHEMA)
            return work(connection)

    def _sealed(self, model_id: str, sha256: str, floats: bytes) -> bytes:
        said = b"\0".join((model_id.encode(), sha256.encode(), floats))
        return floats + hmac.digest(self._key, said, "sha256")

    def _opened(self, model_id: str, sha256: str, blob: object) -> Vectors | None:
        """The row's numbers; None when anything of it is not as it was kept."""
        if not isinstance(blob, bytes) or len(blob) <= _SEAL:
            return None
        floats = blob[:-_SEAL]
        if not hmac.compare_digest(self._sealed(model_id, sha256, floats), blob):
            return None
        return np.frombuffer(floats, "<f4").astype(np.float32)


def digest(text: str) -> str:
    """The key of a text; lone surrogates (possible in text from outside) do not stop it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rows(connection: sqlite3.Connection, model_id: str, digests: Sequence[str]) -> Iterator[tuple[str, object]]:
    for start in range(0, len(digests), _AT_ONCE):
        some = digests[start : start + _AT_ONCE]
        marks = ",".join("?" * len(some))
        query = f"SELECT sha256, floats FROM vector WHERE model = ? AND sha256 IN ({marks})"  # noqa: S608  only "?"s
        yield from connection.execute(query, (model_id, *some))


def _text(content: bytes) -> str:
    """Damaged text is no error of its own: its row has no seal that holds."""
    return content.decode("utf-8", "replace")
