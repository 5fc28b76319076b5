"""The record of who did what: append-only, hash-chained, written in the transaction of the change it records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.redact import safe_values
from bot.store.database import Database
from bot.store.tables import audit

GENESIS = "0" * 64
_CHAIN_LOCK = 7_303_014_919  # on PostgreSQL one transaction at a time may lengthen the chain; SQLite has one writer


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """One link of the chain; `actor` is a person's id, `watchkeeper`, or what a refused stranger called themselves."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]
    previous_hash: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class ChainReport:
    """The result of a verification: how many rows hold, the head's hash, and the first row that does not hold."""

    rows: int
    head: str
    broken_at: int | None = None
    why: str = ""


def link_hash(seq: int, at: datetime, actor: str, action: str, subject: str, details: Any, previous: str) -> str:
    """SHA-256 (hex) over the canonical JSON of everything that the row says and the hash before it."""
    content = json.dumps(
        [seq, at.isoformat(), actor, action, subject, details, previous],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What goes on record: a link of the chain before it has its place."""

    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


async def append(
    connection: AsyncConnection, *, at: datetime, actor: str, action: str, subject: str, **details: Any
) -> None:
    """Lengthen the chain inside the caller's transaction, so that a change and its record stand or fall together."""
    entry = Entry(actor=actor, action=action, subject=subject, details=details)
    await connection.run_sync(append_all, [entry], at=at)


def append_all(connection: sa.Connection, entries: Sequence[Entry], *, at: datetime) -> None:
    """Lengthen the chain by all of these, in their order."""
    if not entries:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CHAIN_LOCK)))
    newest = sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    seq, previous = (last.seq, last.hash) if last else (0, GENESIS)
    rows = []
    for entry in entries:
        details = safe_values(entry.details)  # nothing is ever taken out of here again
        said = {"actor": entry.actor, "action": entry.action, "subject": entry.subject, "details": details}
        seq += 1
        link = link_hash(seq, at, entry.actor, entry.action, entry.subject, details, previous)
        rows.append({"seq": seq, "at": at, **said, "previous_hash": previous, "hash": link})
        previous = link
    connection.execute(audit.insert(), rows)


class AuditLog:
    """Reads the record and proves that nobody changed it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def about(self, subject: str) -> list[AuditRow]:
        """Every row whose subject is this incident or plan, oldest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(audit).where(audit.c.subject == subject).order_by(audit.c.seq))
            return [AuditRow(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name

    async def newest(self, *, subject: str, actor: str, before: int | None, limit: int) -> list[AuditRow]:
        """Rows about this subject and of this actor (empty ones take all), newest first, older than `before`."""
        query = sa.select(audit).order_by(audit.c.seq.desc()).limit(limit)
        if subject:
            query = query.where(audit.c.subject == subject)
        if actor:
            query = query.where(audit.c.actor == actor)
        if before is not None:
            query = query.where(audit.c.seq < before)
        async with self._database.read() as connection:
            return [AuditRow(**row._mapping) for row in await connection.execute(query)]  # noqa: SLF001 - as above

    async def verify(self) -> ChainReport:
        """Recompute every hash. Cutting off the newest rows is the one thing that only an outside checkpoint shows."""
        previous, count = GENESIS, 0
        async with self._database.read() as connection:
            async for row in await connection.stream(sa.select(audit).order_by(audit.c.seq)):
                expected = link_hash(row.seq, row.at, row.actor, row.action, row.subject, row.details, previous)
                if row.seq != count + 1:
                    return ChainReport(rows=count, head=previous, broken_at=count + 1, why="a row is missing")
                if row.previous_hash != previous or row.hash != expected:
                    return ChainReport(rows=count, head=previous, broken_at=row.seq, why="the row was changed")
                previous, count = row.hash, count + 1
        return ChainReport(rows=count, head=previous)
