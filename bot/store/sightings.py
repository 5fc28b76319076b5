"""Our own memory of prompt labels, since prompt stores keep none: which version a label was on, from when to when."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.tables import label_sighting
from diagnostics.changes.labels import LabelSeen


class LabelSightings:
    """Implements the journal that the change sources of prompt stores ask for, for one source."""

    def __init__(self, database: Database, source: str) -> None:
        self._database = database
        self._source = source

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        """Remember a sighting: a new stretch if the label was on another version before, else a longer one."""
        async with self._database.write() as connection:
            newest = (
                sa.select(label_sighting.c.version, label_sighting.c.seen_at)
                .where(*self._is(prompt, label))
                .order_by(label_sighting.c.seen_at.desc())
                .limit(1)
            )
            last = (await connection.execute(newest)).one_or_none()
            if last is not None and last.version == version:
                await connection.execute(
                    label_sighting.update()
                    .where(*self._is(prompt, label), label_sighting.c.seen_at == last.seen_at)
                    .where(sa.func.coalesce(label_sighting.c.last_seen_at, last.seen_at) < at)
                    .values(last_seen_at=at)
                )
                return
            row = {"source": self._source, "prompt": prompt, "label": label, "version": version}
            await insert_new(connection, label_sighting, {**row, "seen_at": at, "last_seen_at": at})

    async def history(self, prompt: str, label: str) -> list[LabelSeen]:
        """The stretches of one version each, oldest first."""
        query = sa.select(label_sighting).where(*self._is(prompt, label)).order_by(label_sighting.c.seen_at)
        async with self._database.read() as connection:
            return [
                LabelSeen(version=row.version, at=row.seen_at, until=row.last_seen_at)
                for row in await connection.execute(query)
            ]

    def _is(self, prompt: str, label: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            label_sighting.c.source == self._source,
            label_sighting.c.prompt == prompt,
            label_sighting.c.label == label,
        )
