"""Which of Slack's events, clicks and commands were handled: Slack may deliver each of them several times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.tables import slack_event

FORSAKEN_AFTER = timedelta(seconds=10)
"""Slack's patience is three seconds; who claimed an event and is silent for longer than this has died with it."""

KEPT = timedelta(days=30)


class Claim(StrEnum):
    """What a delivery is: the first of its event, one beside another that is being handled, or a repetition."""

    MINE = "mine"
    UNDER_WAY = "under_way"
    DONE = "done"


class SlackEvents:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, key: str, *, now: datetime) -> Claim:
        """Take it, unless another has it. Whoever gets MINE says `done` or `release` in the end."""
        is_this = slack_event.c.event_id == key
        async with self._database.write() as connection:
            if await insert_new(connection, slack_event, {"event_id": key, "received_at": now}):
                return Claim.MINE
            forsaken = sa.and_(slack_event.c.done_at.is_(None), slack_event.c.received_at < now - FORSAKEN_AFTER)
            taken = await connection.execute(slack_event.update().where(is_this, forsaken).values(received_at=now))
            if taken.rowcount:
                return Claim.MINE
            done = (await connection.execute(sa.select(slack_event.c.done_at).where(is_this))).scalar_one_or_none()
        return Claim.UNDER_WAY if done is None else Claim.DONE

    async def done(self, key: str, *, now: datetime) -> None:
        """It was handled to its end, and whatever it asked for is committed."""
        statement = slack_event.update().where(slack_event.c.event_id == key).values(done_at=now)
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def release(self, key: str) -> None:
        """It broke off: when it comes again it is handled again."""
        statement = slack_event.delete().where(slack_event.c.event_id == key, slack_event.c.done_at.is_(None))
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def sweep(self) -> int:
        """Forget what Slack cannot send again any more; the number of rows."""
        statement = slack_event.delete().where(slack_event.c.received_at < datetime.now(UTC) - KEPT)
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount
