"""The database: there, at our schema, writable, with a clock that agrees with ours, and with a live process on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from bot import narrate
from bot.config import Config
from bot.doctor.advice import Advice
from bot.incidents import StoreUnavailableError
from bot.settings import Settings
from bot.store import schema
from bot.store.audit import AuditLog
from bot.store.break_glass import BrokenGlass
from bot.store.database import Database
from bot.store.kill_switch import KillSwitch
from bot.store.workers import DEAD_AFTER_S, Workers, clock

CLOCKS_MAY_DIFFER = timedelta(seconds=2)
"""Approvals expire and workers are declared dead by the database's clock; seconds matter, minutes are an outage."""


async def examine(settings: Settings, config: Config) -> list[Advice]:  # noqa: ARG001 - every examiner is given both
    url = settings.database_url.get_secret_value()
    try:
        revision = await asyncio.to_thread(schema.current, url)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        return [Advice.bad("database", f"cannot be used: {reason}", "correct DATABASE_URL, or start the database")]
    if revision != schema.head():
        found = f"is at schema {revision}" if revision else "has no tables of ours"
        return [Advice.bad("database", f"{found}; this program needs {schema.head()}", "run `watchkeeper migrate`")]
    database = Database(url)
    try:
        seen = [*await _clock(database), await _processes(database), await _record(database)]
        return [*seen, await _switch(database), *await _reviews(database)]
    except StoreUnavailableError as error:
        return [Advice.bad("database", str(error), "see why it does not take writes: disk full, read-only, locked")]
    finally:
        await database.close()


async def _clock(database: Database) -> list[Advice]:
    async with database.write() as connection:  # also the proof that it takes writes
        before = datetime.now(UTC)
        theirs = await clock(connection)
        after = datetime.now(UTC)
    kind = "SQLite: one host" if database.is_sqlite else "PostgreSQL: any number of hosts"
    found = [Advice.ok("database", f"at schema {schema.head()}, takes writes; {kind}")]
    if database.is_sqlite:
        return found  # it has no clock but this machine's
    apart = max(before - theirs, theirs - after, timedelta(0))
    if apart > CLOCKS_MAY_DIFFER:
        says = f"the database's clock is at least {apart.total_seconds():.1f} s from this machine's"
        return [*found, Advice.bad("clock", says, "let NTP or chrony set both")]
    return [*found, Advice.ok("clock", "this machine and the database agree")]


async def _processes(database: Database) -> Advice:
    living = await Workers(database).living()
    lately = datetime.now(UTC) - timedelta(seconds=3 * DEAD_AFTER_S)
    alive = [each for each in living if each.beat_at > lately]
    working = [each for each in alive if each.role in ("serve", "worker")]
    if not working:
        return Advice.unknown(
            "processes", "nobody works on this database at the moment", "start `watchkeeper serve`, or a `worker`"
        )
    return Advice.ok("processes", f"{len(alive)} alive, {len(working)} of them do the work")


async def _switch(database: Database) -> Advice:
    state = await KillSwitch(database).read()
    if state.is_stopped:
        says = narrate.stopped(state.who, state.reason, state.at, datetime.now(UTC))
        return Advice.bad("kill switch", says, "when it is not needed any more: `/oncall go`, or `watchkeeper go`")
    return Advice.ok("kill switch", "nothing is stopped")


async def _reviews(database: Database) -> list[Advice]:
    """Nothing is said where nobody owes one."""
    now = datetime.now(UTC)
    owed = await BrokenGlass(database).reviews(open_only=True)
    late = [each for each in owed if now > each.due_at]
    remedy = "somebody else than who broke the glass: `watchkeeper audit reviews`, then `watchkeeper audit review ID`"
    if late:
        oldest = min(late, key=lambda each: each.at)
        about = f"{oldest.plan_id}, which {oldest.person_id} started alone"
        says = f"{len(late)} overdue, the oldest since {oldest.due_at:%d %b %H:%M} UTC: {about}"
        return [Advice.bad("reviews", says, remedy)]
    return [Advice.unknown("reviews", f"{len(owed)} open, none of them overdue", remedy)] if owed else []


async def _record(database: Database) -> Advice:
    told = await AuditLog(database).verify()
    if told.broken_at is not None:
        return Advice.bad(
            "audit",
            f"the chain is broken at row {told.broken_at}: {told.why}",
            "keep a copy, and find out who wrote it",
        )
    return Advice.ok("audit", f"{told.rows} rows, unbroken")
