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
from bot.store.tables import incident, outbox
from bot.store.workers import free


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
        "created_at": now,
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

    async def due(self, lane: str, *, now: datetime, me: str = "", limit: int = 20) -> list[Parcel]:
        """The oldest undelivered parcel of each incident on this lane, if its time has come and nobody else has it."""
        undelivered = outbox.c.state.in_(("new", "sending"))
        heads = (
            sa.select(sa.func.min(outbox.c.outbox_id))
            .where(undelivered, outbox.c.lane == lane)
            .group_by(outbox.c.incident_id)
        )
        query = (
            sa.select(outbox)
            .where(outbox.c.outbox_id.in_(heads), outbox.c.due_at <= now, free(outbox.c.owner, me))
            .order_by(outbox.c.outbox_id)
            .limit(limit)
        )
        if lane == "slack":
            query = query.where(
                sa.exists().where(incident.c.incident_id == outbox.c.incident_id, incident.c.card_ts.is_not(None))
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

    async def claim(self, parcel: Parcel, *, now: datetime, me: str = "") -> bool:
        """
        Take it for delivery; False when somebody else was faster.

        Written before the call, so that a crash in it is seen as uncertain afterwards. Nothing may have happened to
        it since it was seen: who saw it untouched would not look before telling again.
        """
        seen = (
            outbox.c.outbox_id == parcel.outbox_id,
            outbox.c.state == ("sending" if parcel.uncertain else "new"),
            outbox.c.attempts == parcel.attempts,
            outbox.c.due_at <= now,
            free(outbox.c.owner, me),
        )
        statement = outbox.update().where(*seen).values(state="sending", attempts=parcel.attempts + 1, owner=me)
        async with self._database.write() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def delivered(self, outbox_id: int) -> None:
        """Also from somebody whom the others think dead: it was delivered."""
        async with self._database.write() as connection:
            statement = outbox.update().where(outbox.c.outbox_id == outbox_id)
            await connection.execute(statement.values(state="done", why=None, owner=None))

    async def again(self, parcel: Parcel, *, due: datetime, why: str, untouched: bool, me: str = "") -> None:
        """
        Try later; `untouched` when nobody was called.

        That did not use up an attempt, since a card may be hours late, and it need not be looked up, unless an attempt
        before this one was uncertain: that one stays so.
        """
        kept = {"attempts": outbox.c.attempts - 1, "state": "sending" if parcel.uncertain else "new"}
        values = {"due_at": due, "why": why[:500], "owner": None, **(kept if untouched else {})}
        async with self._database.write() as connection:
            await connection.execute(_mine(parcel.outbox_id, me).values(values))

    async def give_up(self, outbox_id: int, *, why: str, incident_id: str, me: str = "") -> None:
        """The far end will never take it; the card says so, and what waits behind it goes on."""
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            await connection.execute(_mine(outbox_id, me).values(state="dead", why=why[:500], owner=None))

    async def undeliverable(self, incident_id: str) -> list[str]:
        """What could not be told about this incident, in words for the card."""
        query = sa.select(outbox.c.lane, outbox.c.kind, outbox.c.why).where(
            outbox.c.incident_id == incident_id, outbox.c.state == "dead"
        )
        async with self._database.read() as connection:
            return [f"{row.lane} did not take {row.kind}: {row.why}" for row in await connection.execute(query)]


def _mine(outbox_id: int, me: str) -> sa.Update:
    """A parcel that another process has taken over from me is theirs to put off or to give up."""
    return outbox.update().where(outbox.c.outbox_id == outbox_id, free(outbox.c.owner, me))
