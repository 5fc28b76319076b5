"""One-time codes: whose secret is kept, which codes were used for what, and who is locked out for guessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import AlreadyDecidedError, NotFoundError
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import insert_new
from bot.store.trust_tables import totp, totp_use

MOST_FAILURES = 5
LOCKED_FOR = timedelta(minutes=15)


class Verdict(StrEnum):
    """What became of a code."""

    RIGHT = "right"
    WRONG = "wrong"
    USED = "used"
    LOCKED = "locked"
    NOBODY = "nobody"  # this person has no secret


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One code that was offered; `locked_until` when nobody may try for this person before."""

    verdict: Verdict
    locked_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Somebody who can prove themselves, without the secret."""

    person_id: str
    created_at: datetime
    locked_until: datetime | None


class StepUpCodes:
    """Every method is one transaction, and on record. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has(self, person_id: str) -> bool:
        """Does this person have a secret?"""
        query = sa.select(totp.c.person_id).where(totp.c.person_id == person_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def holders(self) -> Sequence[Holder]:
        """Everybody who has one, by their id."""
        query = sa.select(totp.c.person_id, totp.c.created_at, totp.c.locked_until).order_by(totp.c.person_id)
        async with self._database.read() as connection:
            return [Holder(**row._asdict()) for row in await connection.execute(query)]

    async def keep(self, person_id: str, sealed: str, *, counter: int, actor: str, now: datetime) -> None:
        """Keep a new sealed secret; the code that proved it is used. Raises AlreadyDecidedError when there is one."""
        row = {"person_id": person_id, "sealed": sealed, "failures": 0, "created_at": now}
        async with self._database.write() as connection:
            if not await insert_new(connection, totp, row):
                raise AlreadyDecidedError(
                    f"{person_id} has one-time codes already; `watchkeeper operator totp remove {person_id}` ends them"
                )
            await _use(connection, person_id, counter, "", "", now)
            await _note(connection, person_id, "set_up", actor=actor, now=now)

    async def remove(self, person_id: str, *, actor: str, now: datetime) -> None:
        """Forget the secret. Raises NotFoundError when there is none."""
        async with self._database.write() as connection:
            if not (await connection.execute(totp.delete().where(totp.c.person_id == person_id))).rowcount:
                raise NotFoundError(f"{person_id} has no one-time codes")
            await _note(connection, person_id, "removed", actor=actor, now=now)

    async def attempt(
        self, person_id: str, counter_of: Callable[[str], int | None], *, plan_id: str, digest: str, now: datetime
    ) -> Attempt:
        """
        Let a code count for one plan, or count it against the person; `counter_of` opens the sealed secret and says
        which 30 seconds the code is of, None when it is of none that may still count.

        The person's row is held from the look at the lock to the new count, so that a thousand guesses at once are
        five guesses.
        """
        async with self._database.write() as connection:
            held = sa.select(totp).where(totp.c.person_id == person_id).with_for_update()
            row = (await connection.execute(held)).one_or_none()
            if row is None:
                return Attempt(verdict=Verdict.NOBODY)
            if row.locked_until is not None and now < row.locked_until:
                return Attempt(verdict=Verdict.LOCKED, locked_until=row.locked_until)
            counter = counter_of(row.sealed)
            if counter is not None and await _use(connection, person_id, counter, plan_id, digest, now):
                await _set(connection, person_id, failures=0, locked_until=None)
                said = {"plan": plan_id, "digest": digest}
                await _note(connection, person_id, "proved", actor=person_id, now=now, **said)
                return Attempt(verdict=Verdict.RIGHT)
            why = Verdict.WRONG if counter is None else Verdict.USED
            return await _failed(connection, row, why, plan_id=plan_id, now=now)


async def _failed(connection: AsyncConnection, row: Any, why: Verdict, *, plan_id: str, now: datetime) -> Attempt:
    failures = row.failures + 1
    until = now + LOCKED_FOR if failures >= MOST_FAILURES else None
    await _set(connection, row.person_id, failures=0 if until else failures, locked_until=until)
    said = {"plan": plan_id, "why": why.value}
    await _note(connection, row.person_id, "refused", actor=row.person_id, now=now, **said)
    if until is not None:
        await _note(connection, row.person_id, "locked", actor="watchkeeper", now=now, until=until.isoformat())
    return Attempt(verdict=why, locked_until=until)


async def _use(
    connection: AsyncConnection, person_id: str, counter: int, plan_id: str, digest: str, now: datetime
) -> bool:
    """True for the one who comes first with this code."""
    row = {"person_id": person_id, "counter": counter, "plan_id": plan_id, "digest": digest, "at": now}
    return await insert_new(connection, totp_use, row)


async def _set(connection: AsyncConnection, person_id: str, **values: Any) -> None:
    await connection.execute(totp.update().where(totp.c.person_id == person_id).values(**values))


async def _note(
    connection: AsyncConnection, person_id: str, what: str, *, actor: str, now: datetime, **details: Any
) -> None:
    await chain.append(
        connection, at=now, actor=actor, action=f"step_up.{what}", subject=f"operator:{person_id}", **details
    )
