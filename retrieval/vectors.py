"""
Vectors that were already computed, kept by the SHA-256 of their text and the name of the model.

On two cores MiniLM embeds about 23 sections a second, so a start or a refresh should pay for changed sections only.
SQLite with raw little-endian float32: a poisoned file can at worst give wrong neighbours, never run code.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from retrieval.embedder import DIMENSIONS, Vectors

log = structlog.get_logger(__name__)

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vector (model TEXT, sha256 TEXT, floats BLOB NOT NULL, PRIMARY KEY (model, sha256))"
)
_AT_ONCE = 500  # SQLite's oldest limit on parameters is 999


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
    The cache in a file.

    Losing it costs time only: a file that is no database is put aside and begun anew, and any other trouble is logged
    and passed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, model_id: str, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors that are there, by text; rows of an impossible size or with NaN count as absent."""
        by_digest = {digest(text): text for text in texts}
        keys = list(by_digest)
        found: dict[str, Vectors] = {}
        try:
            with closing(self._connect()) as connection:
                for start in range(0, len(keys), _AT_ONCE):
                    for sha256, floats in _rows(connection, model_id, keys[start : start + _AT_ONCE]):
                        row = _row(floats)
                        if row is not None:
                            found[by_digest[sha256]] = row
        except (sqlite3.Error, OSError) as error:
            log.warning("cached vectors cannot be read", path=str(self._path), reason=str(error))
        return found

    def keep(self, model_id: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Remember these rows for these texts, in one transaction."""
        rows = [(model_id, digest(text), row.astype("<f4").tobytes()) for text, row in zip(texts, vectors, strict=True)]
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR REPLACE INTO vector VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            log.warning("vectors cannot be cached", path=str(self._path), reason=str(error))

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, no space, no permission: not the file's fault
                raise
            self._path.replace(self._path.with_name(f"{self._path.name}.unreadable"))
            return self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection


def digest(text: str) -> str:
    """The key of a text; lone surrogates (possible in text from outside) do not stop it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rows(connection: sqlite3.Connection, model_id: str, digests: Sequence[str]) -> sqlite3.Cursor:
    marks = ",".join("?" * len(digests))
    query = f"SELECT sha256, floats FROM vector WHERE model = ? AND sha256 IN ({marks})"  # noqa: S608  only "?"s
    return connection.execute(query, (model_id, *digests))


def _row(floats: bytes) -> Vectors | None:
    if not isinstance(floats, bytes) or len(floats) != 4 * DIMENSIONS:
        return None
    row = np.frombuffer(floats, "<f4").astype(np.float32)
    return row if np.isfinite(row).all() and abs(float(row @ row) - 1) < 0.01 else None
