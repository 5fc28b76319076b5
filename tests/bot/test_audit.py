"""The record cannot be changed quietly."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from bot.store import audit, tables
from bot.store.audit import AuditLog
from tests.kit import NOW, Store


async def _fill(store: Store, count: int) -> None:
    for number in range(count):
        async with store.database.write() as connection:
            await audit.append(connection, at=NOW, actor="alice", action="test", subject="s", number=number)


async def _disarm(store: Store) -> None:
    """What somebody with the rights of the database's owner could do."""
    async with store.database.write() as connection:
        if connection.dialect.name == "sqlite":
            await connection.execute(sa.text("DROP TRIGGER audit_no_update"))
            await connection.execute(sa.text("DROP TRIGGER audit_no_delete"))
        else:
            await connection.execute(sa.text("DROP TRIGGER audit_append_only ON audit"))


async def test_an_untouched_record_is_whole(store: Store) -> None:
    """And its head is the newest row's hash."""
    await _fill(store, 5)

    report = await AuditLog(store.database).verify()

    rows = await AuditLog(store.database).about("s")
    assert (report.rows, report.broken_at, report.head) == (5, None, rows[-1].hash)


async def test_links_written_at_the_same_time_do_not_fork_the_chain(store: Store) -> None:
    """Twenty writers, one chain."""
    await asyncio.gather(*(_fill(store, 1) for _ in range(20)))

    report = await AuditLog(store.database).verify()
    assert (report.rows, report.broken_at) == (20, None)


@pytest.mark.parametrize("statement", [tables.audit.delete(), tables.audit.update().values(actor="mallory")])
async def test_the_database_itself_refuses_to_rewrite(store: Store, statement: sa.Delete | sa.Update) -> None:
    """Triggers stand behind the code that never tries."""
    await _fill(store, 2)

    with pytest.raises(DBAPIError, match="append-only"):
        async with store.database.write() as connection:
            await connection.execute(statement)


@pytest.mark.parametrize(
    ("tamper", "broken_at"),
    [
        (tables.audit.update().where(tables.audit.c.seq == 3).values(actor="mallory"), 3),
        (tables.audit.update().where(tables.audit.c.seq == 3).values(details={"number": 9}), 3),
        (tables.audit.delete().where(tables.audit.c.seq == 2), 2),
        (tables.audit.update().where(tables.audit.c.seq == 4).values(hash="0" * 64), 4),
    ],
)
async def test_whoever_removes_the_triggers_is_found_out(
    store: Store, tamper: sa.Delete | sa.Update, broken_at: int
) -> None:
    """An edit, an edit of the details, a dropped row, a forged hash: each is found at its row."""
    await _fill(store, 5)
    await _disarm(store)
    async with store.database.write() as connection:
        await connection.execute(tamper)

    assert (await AuditLog(store.database).verify()).broken_at == broken_at
