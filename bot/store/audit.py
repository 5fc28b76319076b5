"""The record of who did what: append-only, hash-chained, written in the transaction of the change it records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.proof import GENESIS, Checkpoint, Header, Known, NotProvenError, link_hash
from bot.redact import safe_values
from bot.store.database import Database
from bot.store.tables import audit

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
    """
    The result of a verification: how many rows hold, the first one's hash and the head's, and the first row that does
    not hold.
    """

    rows: int
    record: str
    head: str
    broken_at: int | None = None
    why: str = ""

    def checkpoint(self, at: datetime) -> Checkpoint:
        """What was verified, in a value to keep elsewhere."""
        return Checkpoint(record=self.record, sequence=self.rows, hash=self.head, at=at.isoformat(), count=self.rows)


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

    async def verify(self, known: Known | None = None) -> ChainReport:
        """
        Recompute every hash, and compare some with checkpoints.

        Cutting off the newest rows, or hashing all anew, is what only a checkpoint that was kept outside shows.
        """
        return await self._walk(known, start=1, record=GENESIS)

    async def verify_since(self, checkpoint: Checkpoint) -> ChainReport:
        """The same for the checkpoint's row and what came after it; nothing before is looked at."""
        start = max(1, checkpoint.sequence)
        return await self._walk(Known(checkpoint), start=start, record=checkpoint.record)

    async def _walk(self, known: Known | None, *, start: int, record: str) -> ChainReport:
        head, count = GENESIS, start - 1
        query = sa.select(audit).where(audit.c.seq >= start).order_by(audit.c.seq)

        def broken(at: int, why: str) -> ChainReport:
            return ChainReport(rows=count, record=record, head=head, broken_at=at, why=why)

        async with self._database.read() as connection:
            async for row in await connection.stream(query):
                previous = row.previous_hash if row.seq == start > 1 else head
                expected = link_hash(row.seq, row.at, row.actor, row.action, row.subject, row.details, previous)
                if row.seq != count + 1:
                    return broken(count + 1, "a row is missing")
                if row.previous_hash != previous or row.hash != expected:
                    return broken(row.seq, "the row was changed")
                if known is not None and (why := known.differs(row.seq, row.hash)):
                    return broken(row.seq, why)
                head, count = row.hash, row.seq
                record = row.hash if row.seq == 1 else record
        if known is not None and known.newest.sequence > count:
            why = f"the newest checkpoint is of row {known.newest.sequence}, so the newest rows were cut off"
            return broken(count + 1, why)
        return ChainReport(rows=count, record=record, head=head)

    async def extent(self, *, since: datetime | None, until: datetime | None) -> Header:
        """
        The part of the chain between two times (the second excluded), as the header of its export.

        From the first row of that time to the last one, without a gap: a row between them whose time lies outside is
        in it, too, since rows are numbered in the order in which they were written.
        """
        query = sa.select(sa.func.min(audit.c.seq), sa.func.max(audit.c.seq))
        if since is not None:
            query = query.where(audit.c.at >= since)
        if until is not None:
            query = query.where(audit.c.at < until)
        async with self._database.read() as connection:
            first, last = (await connection.execute(query)).one()
            if first is None:
                return Header(first=1, last=0, rows=0, previous_hash=GENESIS, head=GENESIS)
            before = sa.select(audit.c.previous_hash).where(audit.c.seq == first)
            head = sa.select(audit.c.hash).where(audit.c.seq == last)
            return Header(
                first=first,
                last=last,
                rows=last - first + 1,
                previous_hash=(await connection.execute(before)).scalar_one(),
                head=(await connection.execute(head)).scalar_one(),
            )

    async def rows(self, header: Header) -> AsyncIterator[AuditRow]:
        """The rows that a header promises, oldest first. Raises NotProvenError when there are fewer."""
        query = sa.select(audit).where(audit.c.seq.between(header.first, header.last)).order_by(audit.c.seq)
        count = 0
        async with self._database.read() as connection:
            async for row in await connection.stream(query):
                count += 1
                yield AuditRow(**row._mapping)  # noqa: SLF001 - as above
        if count != header.rows:
            raise NotProvenError(f"{header.rows - count} rows are missing: run `watchkeeper audit verify`")
