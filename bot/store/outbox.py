"""The outbox: what Slack and PagerDuty must still be told, in order per incident, through any outage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.database import Database
from bot.store.statements import insert_new, touch
from bot.store.tables import outbox


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """
    One thing to tell. `key` is unique for ever, so the same fact is told once however often it is recorded.

    `uncertain` says that an earlier attempt began and its end is unknown: look before telling again.
    """

    outbox_id: int
    key: str
    incident_id: str
    lane: str
    kind: str
    content: Mapping[str, Any]
    attempts: int
    uncertain: bool


async def post(
    connection: AsyncConnection, *, key: str, incident_id: str, lane: str, kind: str, now: datetime, **content: Any
) -> bool:
    """Put something into the outbox inside the caller's transaction; False when its key is there already."""
    row = {
        "key": key,
        "incident_id": incident_id,
        "lane": lane,
        "kind": kind,
        "content": content,
        "state": "new",
        "attempts": 0,
        "due_at": now,
    }
    return await insert_new(connection, outbox, row)


class Outbox:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def post(self, *, key: str, incident_id: str, lane: str, kind: str, now: datetime, **content: Any) -> None:
        """Put one parcel into the outbox."""
        async with self._database.write() as connection:
            await post(connection, key=key, incident_id=incident_id, lane=lane, kind=kind, now=now, **content)

    async def due(self, lane: str, *, now: datetime, limit: int = 20) -> list[Parcel]:
        """The oldest undelivered parcel of each incident on this lane, if its time has come."""
        undelivered = outbox.c.state.in_(("new", "sending"))
        heads = (
            sa.select(sa.func.min(outbox.c.outbox_id))
            .where(undelivered, outbox.c.lane == lane)
            .group_by(outbox.c.incident_id)
        )
        query = (
            sa.select(outbox)
            .where(outbox.c.outbox_id.in_(heads), outbox.c.due_at <= now)
            .order_by(outbox.c.outbox_id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [
                Parcel(
                    outbox_id=row.outbox_id,
                    key=row.key,
                    incident_id=row.incident_id,
                    lane=row.lane,
                    kind=row.kind,
                    content=row.content,
                    attempts=row.attempts,
                    uncertain=row.state == "sending",
                )
                for row in await connection.execute(query)
            ]

    async def sending(self, outbox_id: int) -> None:
        """Written before the call, so that a crash in it is seen as uncertain afterwards."""
        await self._update(outbox_id, state="sending", attempts=outbox.c.attempts + 1)

    async def delivered(self, outbox_id: int) -> None:
        await self._update(outbox_id, state="done", why=None)

    async def again(self, outbox_id: int, *, due: datetime, why: str, untouched: bool) -> None:
        """
        Try later; `untouched` when nobody was called.

        Then it need not be looked up, and did not use up an attempt: a card may be hours late.
        """
        kept = {"state": "new", "attempts": outbox.c.attempts - 1} if untouched else {}
        await self._update(outbox_id, due_at=due, why=why[:500], **kept)

    async def give_up(self, outbox_id: int, *, why: str, incident_id: str) -> None:
        """The far end will never take it; the card says so, and what waits behind it goes on."""
        async with self._database.write() as connection:
            await connection.execute(
                outbox.update().where(outbox.c.outbox_id == outbox_id).values(state="dead", why=why[:500])
            )
            await touch(connection, incident_id)

    async def undeliverable(self, incident_id: str) -> list[str]:
        """What could not be told about this incident, in words for the card."""
        query = sa.select(outbox.c.lane, outbox.c.kind, outbox.c.why).where(
            outbox.c.incident_id == incident_id, outbox.c.state == "dead"
        )
        async with self._database.read() as connection:
            return [f"{row.lane} did not take {row.kind}: {row.why}" for row in await connection.execute(query)]

    async def _update(self, outbox_id: int, **values: Any) -> None:
        async with self._database.write() as connection:
            await connection.execute(outbox.update().where(outbox.c.outbox_id == outbox_id).values(values))
