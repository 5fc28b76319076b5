"""Our own memory of prompt labels, since prompt stores keep none: which version a label was seen on, and when first."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.tables import label_sighting
from diagnostics.changes.labels import LabelSeen


class LabelSightings:
    """Implements the journal that the Langfuse change source asks for, for one source."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self._source = source

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        """Remember a sighting if the label was on another version before."""
        async with self._database.write() as connection:
            newest = (
                sa.select(label_sighting.c.version)
                .where(
                    label_sighting.c.source == self._source,
                    label_sighting.c.prompt == prompt,
                    label_sighting.c.label == label,
                )
                .order_by(label_sighting.c.seen_at.desc())
                .limit(1)
            )
            if (await connection.execute(newest)).scalar_one_or_none() == version:
                return
            row = {"source": self._source, "prompt": prompt, "label": label, "seen_at": at, "version": version}
            await insert_new(connection, label_sighting, row)

    async def history(self, prompt: str, label: str) -> list[LabelSeen]:
        """The first sighting of each stretch of one version, oldest first."""
        query = (
            sa.select(label_sighting.c.seen_at, label_sighting.c.version)
            .where(
                label_sighting.c.source == self._source,
                label_sighting.c.prompt == prompt,
                label_sighting.c.label == label,
            )
            .order_by(label_sighting.c.seen_at)
        )
        async with self._database.read() as connection:
            return [LabelSeen(version=row.version, at=row.seen_at) for row in await connection.execute(query)]
