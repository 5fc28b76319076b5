"""A sealed vector cache that forgets: what is no longer searched leaves the file, and not only the index."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import structlog

from retrieval.vectors import SqliteVectors, digest

log = structlog.get_logger(__name__)


class ForgettingVectors(SqliteVectors):
    """
    For texts that people may want forgotten, such as incidents'; of other models it keeps nothing, either.

    The file must have no other use: whatever its owner does not name is deleted and overwritten.
    """

    def keep_only(self, model_id: str, texts: Sequence[str]) -> None:
        """Delete all vectors but those of these texts by this model. Blocks; trouble is logged and passed."""
        wanted = [(model_id, sha256) for sha256 in {digest(text) for text in texts}]

        def prune(connection: sqlite3.Connection) -> int:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("CREATE TEMP TABLE wanted (model TEXT, sha256 TEXT, PRIMARY KEY (model, sha256))")
            connection.executemany("INSERT INTO wanted VALUES (?, ?)", wanted)
            with connection:
                left_out = "DELETE FROM vector WHERE (model, sha256) NOT IN (SELECT model, sha256 FROM wanted)"
                return connection.execute(left_out).rowcount

        try:
            gone = self._with_file(prune)
        except (sqlite3.Error, OSError) as error:
            log.warning("vectors cannot be forgotten now", path=str(self._path), reason=str(error))
            return
        if gone:
            log.info("vectors forgotten", count=gone)
