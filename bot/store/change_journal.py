"""The change journal: what sources told and pipelines reported, since most of them forget."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.tables import change
from diagnostics.changes.change import Change

_MOST = 500
"""Of one answer; a service with more changes in hours tells of no single one."""


class ChangeJournal:
    """Texts come redacted (bot/discretion.py). Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, changes: Sequence[Change], *, now: datetime) -> int:
        """Write down what polling found and the journal lacks; returns how many. Known ones cost a look only."""
        missing = await self._missing(changes)
        if not missing:
            return 0
        async with self._database.write() as connection:
            return sum([await insert_new(connection, change, _row(each, now)) for each in missing])

    async def record(self, item: Change, *, actor: str, now: datetime) -> bool:
        """
        Write down what somebody reported, and who did; False when this id was reported before, which changes nothing.

        On record goes that it was, never what it says: nothing is ever taken out of there again.
        """
        async with self._database.write() as connection:
            if not await insert_new(connection, change, _row(item, now)):
                return False
            said = {"id": item.id, "kind": item.kind, "source": item.source, "service": item.service}
            await chain.append(
                connection, at=now, actor=actor, action="change.recorded", subject=f"service:{item.service}", **said
            )
            return True

    async def between(self, service: str, since: datetime, until: datetime) -> list[Change]:
        """The service's changes in this time, oldest first; of too many the newest."""
        query = (
            sa.select(change)
            .where(change.c.service == service, change.c.at >= since, change.c.at <= until)
            .order_by(change.c.at.desc())
            .limit(_MOST)
        )
        async with self._database.read() as connection:
            return [_change(row) for row in await connection.execute(query)][::-1]

    async def _missing(self, changes: Sequence[Change]) -> list[Change]:
        if not changes:
            return []
        keys = sa.select(change.c.service, change.c.source, change.c.change_id).where(
            change.c.service.in_({each.service for each in changes}), change.c.at >= min(each.at for each in changes)
        )
        async with self._database.read() as connection:
            known = {tuple(row) for row in await connection.execute(keys)}
        return [each for each in changes if (each.service, each.source, each.id) not in known]


def _row(item: Change, now: datetime) -> dict[str, Any]:
    return {
        "service": item.service,
        "source": item.source,
        "change_id": item.id,
        "at": item.at,
        "kind": item.kind,
        "summary": item.summary,
        "author": item.author,
        "scope": {name: list(values) for name, values in item.scope.items()},
        "before": item.before,
        "after": item.after,
        "url": item.url,
        "undo": dict(item.undo),
        "is_symptom": item.is_symptom,
        "recorded_at": now,
    }


def _change(row: Any) -> Change:
    return Change(
        id=row.change_id,
        at=row.at,
        kind=row.kind,
        service=row.service,
        source=row.source,
        summary=row.summary,
        author=row.author,
        scope={name: tuple(values) for name, values in row.scope.items()},
        before=row.before,
        after=row.after,
        url=row.url,
        undo=row.undo,
        is_symptom=row.is_symptom,
    )
