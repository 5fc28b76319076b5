"""What Slack's user groups and PagerDuty's schedules said of who has which role, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.given_roles import Reading
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.trust_tables import role_source
from bot.store.workers import clock


async def readings(connection: AsyncConnection) -> tuple[Mapping[str, Reading], datetime]:
    """Every source's last reading by its name, and the database's time, which is what their age is measured by."""
    rows = (await connection.execute(sa.select(role_source))).all()
    found = {row.source: Reading(people=tuple(row.people), read_at=row.read_at, trouble=row.trouble) for row in rows}
    return found, await clock(connection)


class RoleSources:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, source: str, people: Sequence[str]) -> None:
        """It named these people just now; who came and who went is on record."""
        async with self._database.write() as connection:
            now = await clock(connection)
            held = sa.select(role_source.c.people).where(role_source.c.source == source).with_for_update()
            before = set((await connection.execute(held)).scalar_one_or_none() or ())
            row = {"people": sorted(people), "read_at": now, "trouble": ""}
            await _put(connection, source, row)
            came, went = sorted(set(people) - before), sorted(before - set(people))
            if came or went:
                await chain.append(
                    connection, at=now, actor="watchkeeper", action="roles.read", subject=source, came=came, went=went
                )

    async def failed(self, source: str, why: str) -> None:
        """It could not be read; what it said before grows old."""
        async with self._database.write() as connection:
            changed = role_source.update().where(role_source.c.source == source).values(trouble=why[:300])
            if not (await connection.execute(changed)).rowcount:
                await _put(connection, source, {"people": [], "read_at": None, "trouble": why[:300]})

    async def readings(self) -> tuple[Mapping[str, Reading], datetime]:
        """All of them, and the database's time."""
        async with self._database.read() as connection:
            return await readings(connection)


async def _put(connection: AsyncConnection, source: str, row: Mapping[str, object]) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(role_source).values(source=source, **row)
    await connection.execute(statement.on_conflict_do_update(index_elements=[role_source.c.source], set_=dict(row)))
