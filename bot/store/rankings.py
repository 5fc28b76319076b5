"""Rankings that were learned from votes: offered under their hash, adopted by a person, taken back in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import AlreadyDecidedError, NotFoundError, StaleError
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.vote_tables import ranking, ranking_turn

SUBJECT = "ranking"
"""What the record calls it."""

_TURN_LOCK = 7_303_014_923


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A learned ranking as it is stored; `digest` is meant to be the SHA-256 (hex) of its content."""

    digest: str
    content: Mapping[str, Any]
    made_at: datetime
    made_by: str


class Rankings:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def offer(self, item: Offer) -> bool:
        """Keep it for a review; False when the same was offered before."""
        row = {"digest": item.digest, "content": item.content, "made_at": item.made_at, "made_by": item.made_by}
        async with self._database.write() as connection:
            if not await insert_new(connection, ranking, row):
                return False
            await _record(connection, "offered", by=item.made_by, channel="database", now=item.made_at, to=item.digest)
            return True

    async def get(self, digest: str) -> Offer:
        """Raises NotFoundError."""
        async with self._database.read() as connection:
            return await _offer(connection, digest)

    async def in_force(self) -> Offer | None:
        """The ranking that counts now; None while none was adopted, or after the last one was taken back."""
        newest = sa.select(sa.func.max(ranking_turn.c.turn)).scalar_subquery()
        joined = sa.select(ranking).join(ranking_turn, ranking_turn.c.digest == ranking.c.digest)
        async with self._database.read() as connection:
            row = (await connection.execute(joined.where(ranking_turn.c.turn == newest))).one_or_none()
        return Offer(**row._asdict()) if row else None

    async def adopt(self, digest: str, *, by: str, channel: str, now: datetime) -> None:
        """Let this one count from now on. Raises NotFoundError, AlreadyDecidedError when it does."""
        async with self._database.write() as connection:
            await _offer(connection, digest)
            turn, former, _ = await _newest_turn(connection)
            if former == digest:
                raise AlreadyDecidedError("This ranking is in force already.")
            row = {"turn": turn + 1, "digest": digest, "back_to": turn, "person_id": by, "at": now}
            await connection.execute(ranking_turn.insert().values(**row))
            await _record(connection, "adopted", by=by, channel=channel, now=now, to=digest, former=former)

    async def roll_back(self, *, by: str, channel: str, now: datetime) -> str | None:
        """
        Let what counted before the present one count again: its hash, None for no ranking at all.

        Done again it goes back one more. Raises StaleError when none is in force.
        """
        async with self._database.write() as connection:
            turn, former, back_to = await _newest_turn(connection)
            if former is None:
                raise StaleError("No learned ranking is in force, so there is nothing to take back.")
            query = sa.select(ranking_turn).where(ranking_turn.c.turn == back_to)
            before = (await connection.execute(query)).one_or_none()
            digest, further = (before.digest, before.back_to) if before else (None, 0)
            row = {"turn": turn + 1, "digest": digest, "back_to": further, "person_id": by, "at": now}
            await connection.execute(ranking_turn.insert().values(**row))
            await _record(connection, "rolled_back", by=by, channel=channel, now=now, to=digest, former=former)
            return digest


async def _offer(connection: AsyncConnection, digest: str) -> Offer:
    row = (await connection.execute(sa.select(ranking).where(ranking.c.digest == digest))).one_or_none()
    if row is None:
        raise NotFoundError(f"no ranking {digest} was offered; `watchkeeper retrieval learn` makes one")
    return Offer(**row._asdict())


async def _newest_turn(connection: AsyncConnection) -> tuple[int, str | None, int]:
    """Its number (0 before the first), what it put in force, and where it goes back to; one asks at a time."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN_LOCK)))
    query = sa.select(ranking_turn).order_by(ranking_turn.c.turn.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return (row.turn, row.digest, row.back_to) if row else (0, None, 0)


async def _record(
    connection: AsyncConnection, what: str, *, by: str, channel: str, now: datetime, to: str | None, **more: Any
) -> None:
    action = f"ranking.{what}"
    said = {"digest": to, "channel": channel, **more}
    await chain.append(connection, at=now, actor=by, action=action, subject=SUBJECT, **said)
