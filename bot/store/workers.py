"""Who works on this database: each process beats every few seconds by the database's clock; a silent one is dead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import LifelessError
from bot.store.database import Database
from bot.store.tables import duty, worker

DEAD_AFTER_S = 10.0
"""A process that has not beaten for so long may be declared dead by another one."""

_FORGET_AFTER = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process. `place` names the boot and the process namespace, inside which `pid` is unique."""

    executor_id: str
    host: str
    place: str
    pid: int
    role: str
    started_at: datetime
    steady_since: datetime
    beat_at: datetime
    ended_at: datetime | None


def free(owner: sa.Column[str | None], me: str) -> sa.ColumnElement[bool]:
    """
    True for a row that nobody else who lives has taken.

    What is mine already counts as free: I sweep one round at a time, so it is a leftover of a round that broke off.
    """
    living = sa.select(worker.c.executor_id).where(worker.c.ended_at.is_(None))
    return sa.or_(owner.is_(None), owner == me, owner.not_in(living))


async def clock(connection: AsyncConnection) -> datetime:
    """The database's time, the one clock that all processes share; on SQLite that is this machine's."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    now: datetime = (await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one()
    return now.astimezone(UTC)


async def refuse_the_dead(connection: AsyncConnection, me: str) -> None:
    """Hold my row as it is to the end of the transaction. Raises LifelessError when somebody declared me dead."""
    mine = sa.select(worker.c.ended_at).where(worker.c.executor_id == me).with_for_update(read=True)
    if (await connection.execute(mine)).scalar_one_or_none() is not None:
        raise LifelessError("this process was declared dead")


class Workers:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, *, executor_id: str, host: str, place: str, pid: int, role: str) -> None:
        """This process lives from now on. Rows of processes that ended a week ago go."""
        async with self._database.write() as connection:
            now = await clock(connection)
            row = {"executor_id": executor_id, "host": host, "place": place, "pid": pid, "role": role}
            await connection.execute(worker.delete().where(worker.c.ended_at < now - _FORGET_AFTER))
            await connection.execute(worker.insert().values(**row, started_at=now, steady_since=now, beat_at=now))

    async def beat(self, executor_id: str) -> bool:
        """Say that this process lives; False when it was declared dead, from which there is no way back."""
        async with self._database.write() as connection:
            now = await clock(connection)
            has_a_gap = worker.c.beat_at < now - timedelta(seconds=DEAD_AFTER_S / 2)
            statement = (
                worker.update()
                .where(worker.c.executor_id == executor_id, worker.c.ended_at.is_(None))
                .values(beat_at=now, steady_since=sa.case((has_a_gap, now), else_=worker.c.steady_since))
            )
            return bool((await connection.execute(statement)).rowcount)

    async def end(self, executor_id: str) -> None:
        """This process stops; whoever lives takes over what it leaves, at once."""
        await self._end(executor_id)

    async def declare_dead(self, seen: Worker) -> bool:
        """End another's row unless it beat since it was seen; True for the one who did it."""
        return await self._end(seen.executor_id, worker.c.beat_at == seen.beat_at)

    async def _end(self, executor_id: str, *conditions: sa.ColumnElement[bool]) -> bool:
        async with self._database.write() as connection:
            statement = (
                worker.update()
                .where(worker.c.executor_id == executor_id, worker.c.ended_at.is_(None), *conditions)
                .values(ended_at=await clock(connection))
            )
            return bool((await connection.execute(statement)).rowcount)

    async def living(self) -> list[Worker]:
        """Everybody who has not ended, oldest first."""
        query = sa.select(worker).where(worker.c.ended_at.is_(None)).order_by(worker.c.started_at)
        async with self._database.read() as connection:
            return [Worker(**row._asdict()) for row in await connection.execute(query)]

    async def silent(self) -> list[Worker]:
        """
        Those of the living who have not beaten for DEAD_AFTER_S, by the database's clock, while somebody else did.

        Without such a witness it may have been the database that was away, and then nobody is dead.
        """
        witness = worker.alias()
        async with self._database.read() as connection:
            now = await clock(connection)
            late = now - timedelta(seconds=DEAD_AFTER_S)
            lately = now - timedelta(seconds=DEAD_AFTER_S / 2)
            seen = sa.exists().where(
                witness.c.ended_at.is_(None), witness.c.beat_at > lately, witness.c.steady_since < late
            )
            query = sa.select(worker).where(worker.c.ended_at.is_(None), worker.c.beat_at < late, seen)
            return [Worker(**row._asdict()) for row in await connection.execute(query)]

    async def strangers(self, executor_ids: Collection[str]) -> set[str]:
        """Those of these who are not alive: ended, declared dead, or never heard of."""
        query = sa.select(worker.c.executor_id).where(
            worker.c.executor_id.in_(executor_ids), worker.c.ended_at.is_(None)
        )
        async with self._database.read() as connection:
            return set(executor_ids) - set((await connection.execute(query)).scalars())


class Duties:
    """What one process does for all. Whoever holds a duty goes on holding it; when they stop asking, another may."""

    def __init__(self, database: Database, me: str) -> None:
        self._database = database
        self._me = me

    async def take(self, name: str, for_s: float) -> bool:
        """True when this duty is mine for so many seconds from now. Raises StoreUnavailableError."""
        async with self._database.write() as connection:
            now = await clock(connection)
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            mine = {"holder": self._me, "until": now + timedelta(seconds=for_s)}
            statement = (
                dialect.insert(duty)
                .values(name=name, **mine)
                .on_conflict_do_update(
                    index_elements=[duty.c.name],
                    set_=mine,
                    where=sa.or_(duty.c.until < now, free(duty.c.holder, self._me)),
                )
                .returning(duty.c.name)
            )
            return (await connection.execute(statement)).first() is not None

    def only_one(
        self, name: str, every_s: float, sweep: Callable[[], Awaitable[object]]
    ) -> Callable[[], Awaitable[None]]:
        """The sweep, done by one process of all: by the same one until it dies or misses two rounds."""

        async def alone() -> None:
            if await self.take(name, 3 * every_s):
                await sweep()

        return alone
