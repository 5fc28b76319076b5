"""The record cannot be changed quietly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DBAPIError

from bot.proof import Known, header_line, row_line, verify_export
from bot.store import audit, tables
from bot.store.audit import AuditLog
from bot.vitals import ChainWatch
from tests.kit import NOW, Store

MINUTE = timedelta(minutes=1)


async def _fill(store: Store, count: int) -> None:
    for number in range(count):
        async with store.database.write() as connection:
            await audit.append(connection, at=NOW, actor="alice", action="test", subject="s", number=number)


async def disarm(store: Store) -> None:
    """What somebody with the rights of the database's owner could do."""
    async with store.database.write() as connection:
        if connection.dialect.name == "sqlite":
            await connection.execute(sa.text("DROP TRIGGER audit_no_update"))
            await connection.execute(sa.text("DROP TRIGGER audit_no_delete"))
            await connection.execute(sa.text("DROP TRIGGER audit_no_replace"))
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


async def test_no_row_takes_the_place_of_another(store: Store) -> None:
    """SQLite's REPLACE asks no trigger on DELETE, and PostgreSQL skips triggers for a session that is a replica."""
    await _fill(store, 2)
    [row, _] = await AuditLog(store.database).about("s")
    forged = {**asdict(row), "actor": "mallory"}

    async def replace() -> None:
        async with store.database.write() as connection:
            if connection.dialect.name == "sqlite":
                await connection.execute(tables.audit.insert().prefix_with("OR REPLACE"), forged)
            else:
                await connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
                await connection.execute(tables.audit.update().values(actor="mallory"))

    with pytest.raises(DBAPIError, match="append-only"):
        await replace()

    assert (await AuditLog(store.database).about("s"))[0] == row


async def test_what_was_cut_off_is_found_with_a_checkpoint(store: Store) -> None:
    """Alone the shorter chain is whole; the head that was kept elsewhere says that there was more."""
    await _fill(store, 5)
    log = AuditLog(store.database)
    known = Known((await log.verify()).checkpoint(NOW))
    assert (await log.verify(known)).broken_at is None
    await disarm(store)
    async with store.database.write() as connection:
        await connection.execute(tables.audit.delete().where(tables.audit.c.seq > 3))

    assert (await log.verify()).broken_at is None
    assert ((await log.verify(known)).broken_at, known.newest.sequence) == (4, 5)


async def test_a_chain_that_was_hashed_anew_is_found_with_a_checkpoint(store: Store) -> None:
    """Also by the watch of a running process, which remembers what it saw."""
    await _fill(store, 3)
    log = AuditLog(store.database)
    known, watch = Known((await log.verify()).checkpoint(NOW)), ChainWatch(log, CollectorRegistry())
    await watch.sweep()
    await disarm(store)
    async with store.database.write() as connection:
        await connection.execute(tables.audit.delete())
    for actor in ("mallory", "alice", "alice"):
        async with store.database.write() as connection:
            await audit.append(connection, at=NOW, actor=actor, action="test", subject="s")

    assert (await log.verify()).broken_at is None
    assert (await log.verify(known)).broken_at == 1
    await watch.sweep()
    assert watch.chain is not None
    assert watch.chain.broken_at == 1


async def test_an_export_has_the_rows_of_a_time_without_a_gap(store: Store) -> None:
    """Rows are numbered as they were written; one between them with another time is in it, too."""
    minutes = (0, 10, 5, 20, 30)
    for minute in minutes:
        async with store.database.write() as connection:
            await audit.append(connection, at=NOW + minute * MINUTE, actor="a", action="t", subject="s")
    log = AuditLog(store.database)

    header = await log.extent(since=NOW + 10 * MINUTE, until=NOW + 30 * MINUTE)
    lines = [header_line(header), *[row_line(row) async for row in log.rows(header)]]

    assert [json.loads(line)["seq"] for line in lines[1:]] == [2, 3, 4]
    assert verify_export(lines).rows == 3
    empty = await log.extent(since=NOW + timedelta(days=1), until=None)
    assert verify_export([header_line(empty)]).rows == 0


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
    await disarm(store)
    async with store.database.write() as connection:
        await connection.execute(tamper)

    assert (await AuditLog(store.database).verify()).broken_at == broken_at
