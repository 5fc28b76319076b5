"""Bursts: incidents that came together, faster than Slack takes cards, and the one card that speaks for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import IncidentState
from bot.store.database import Database
from bot.store.tables import burst, burst_member, incident
from bot.store.workers import free

LEAST = 4
"""So many cards that wait are a burst; fewer go out at once."""

JOINS_WITHIN = timedelta(minutes=1)
"""After so long without another incident, and with all cards posted, a burst is over."""

_PAUSE = timedelta(seconds=2)
_LOCK = 7_303_014_921


@dataclass(frozen=True, kw_only=True)
class BurstPlace:
    """A burst whose card is to be drawn; with `is_begun` and no `card_ts` it may have been posted: look first."""

    burst_id: int
    opened_at: datetime
    joined_at: datetime
    is_begun: bool
    channel: str | None
    card_ts: str | None
    shown: str | None


@dataclass(frozen=True, kw_only=True)
class BurstMember:
    """One incident of a burst, and where its card stands, if it does."""

    incident_id: str
    number: int | None
    title: str
    service: str
    is_resolved: bool
    channel: str | None
    card_ts: str | None


class Bursts:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def gather(self, *, now: datetime) -> None:
        """Let the incidents whose card waits join the open burst, or open one when they are many."""
        async with self._database.read() as connection:
            if not await _joining(connection):
                return
        async with self._database.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            joining = await _joining(connection)
            if not joining:
                return
            burst_id = await _open(connection)
            if burst_id is None:
                born = {"opened_at": now, "joined_at": now, "due_at": now, "is_begun": False}
                burst_id = (
                    await connection.execute(burst.insert().values(born).returning(burst.c.burst_id))
                ).scalar_one()
            rows = [{"incident_id": each, "burst_id": burst_id} for each in joining]
            await connection.execute(burst_member.insert(), rows)
            await connection.execute(burst.update().where(burst.c.burst_id == burst_id).values(joined_at=now))

    async def is_announced(self) -> bool:
        """Is there a burst, and does its card stand?"""
        query = sa.select(sa.func.count()).where(burst.c.closed_at.is_(None), burst.c.card_ts.is_not(None))
        async with self._database.read() as connection:
            return bool((await connection.execute(query)).scalar_one())

    async def take(self, *, now: datetime, me: str) -> list[BurstPlace]:
        """The bursts whose card this process draws now; it says `drawn` or `later` in the end."""
        due = sa.and_(burst.c.closed_at.is_(None), burst.c.due_at <= now, free(burst.c.owner, me))
        async with self._database.read() as connection:
            waiting = (await connection.execute(sa.select(burst.c.burst_id).where(due))).scalars().all()
        if not waiting:
            return []
        statement = burst.update().where(burst.c.burst_id.in_(waiting), due).values(owner=me).returning(burst)
        async with self._database.write() as connection:
            rows = (await connection.execute(statement)).all()
        return [
            BurstPlace(
                burst_id=row.burst_id,
                opened_at=row.opened_at,
                joined_at=row.joined_at,
                is_begun=row.is_begun,
                channel=row.channel,
                card_ts=row.card_ts,
                shown=row.shown,
            )
            for row in rows
        ]

    async def members(self, burst_id: int) -> list[BurstMember]:
        """Its incidents, the oldest first."""
        query = (
            sa.select(incident)
            .join(burst_member, burst_member.c.incident_id == incident.c.incident_id)
            .where(burst_member.c.burst_id == burst_id)
            .order_by(incident.c.created_at, incident.c.number)
        )
        async with self._database.read() as connection:
            return [
                BurstMember(
                    incident_id=row.incident_id,
                    number=row.number,
                    title=row.title,
                    service=row.service or row.service_name,
                    is_resolved=row.state == IncidentState.RESOLVED.value,
                    channel=row.channel,
                    card_ts=row.card_ts,
                )
                for row in await connection.execute(query)
            ]

    async def begun(self, burst_id: int) -> None:
        """The first post is about to be sent."""
        await self._update(burst_id, is_begun=True)

    async def drawn(self, burst_id: int, channel: str, ts: str, shown: str, *, now: datetime, is_over: bool) -> None:
        """Slack shows this; the next look is a little later, or never."""
        over = {"closed_at": now} if is_over else {}
        where = {"channel": channel, "card_ts": ts, "shown": shown}
        await self._update(burst_id, **where, due_at=now + _PAUSE, owner=None, **over)

    async def over(self, burst_id: int, *, now: datetime) -> None:
        """Somebody deleted the card, or Slack will never take it: the incidents have cards of their own."""
        await self._update(burst_id, closed_at=now)

    async def later(self, burst_id: int, due: datetime) -> None:
        await self._update(burst_id, due_at=due, owner=None)

    async def _update(self, burst_id: int, **values: Any) -> None:
        async with self._database.write() as connection:
            await connection.execute(burst.update().where(burst.c.burst_id == burst_id).values(values))


async def _open(connection: AsyncConnection) -> int | None:
    query = sa.select(burst.c.burst_id).where(burst.c.closed_at.is_(None)).order_by(burst.c.burst_id.desc()).limit(1)
    found: int | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def _joining(connection: AsyncConnection) -> list[str]:
    """Incidents without a card that no burst speaks for, if there is an open burst or they are enough for one."""
    query = (
        sa.select(incident.c.incident_id)
        .where(
            incident.c.card_ts.is_(None),
            incident.c.revision > incident.c.shown,
            sa.not_(sa.exists().where(burst_member.c.incident_id == incident.c.incident_id)),
        )
        .order_by(incident.c.created_at)
    )
    waiting = list((await connection.execute(query)).scalars())
    enough = len(waiting) >= LEAST or (waiting and await _open(connection) is not None)
    return waiting if enough else []
