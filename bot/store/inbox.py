"""The inbox: deliveries are committed before they are answered, and folded into incidents afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import StatementError

from bot.incidents import Delivery
from bot.store.database import Database
from bot.store.folding import OvertakenError, fold_some, waiting
from bot.store.statements import insert_new
from bot.store.tables import delivery

log = structlog.get_logger(__name__)

POISON = (KeyError, TypeError, ValueError, StatementError)
"""What a row that nobody foresaw raises; a database that does not answer is none of these."""


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A delivery that could not be understood or folded, and why."""

    event_id: str
    kind: str
    received_at: datetime
    why: str


class Inbox:
    """Receives deliveries and folds them into incidents."""

    def __init__(self, database: Database, *, services: dict[str, str]) -> None:
        """`services` maps a PagerDuty service id to the name of a configured service."""
        self._database = database
        self._services = services

    async def deliver(self, item: Delivery, *, now: datetime) -> bool:
        """Commit one delivery; False when its event id is here already. Raises StoreUnavailableError."""
        async with self._database.write() as connection:
            return await insert_new(connection, delivery, to_row(item, now=now))

    async def bury(self, item: Delivery, why: str, *, now: datetime) -> bool:
        """Keep an authentic delivery that we cannot read, for people and `watchkeeper replay`."""
        async with self._database.write() as connection:
            return await insert_new(connection, delivery, to_row(item, now=now, dead_because=why))

    async def fold(self, *, now: datetime) -> int:
        """
        Fold waiting deliveries into incidents, a hundred in one transaction; returns how many were folded.

        The first sight of an incident and every re-opening take the next run number in that transaction, so a crash
        between the commit and the start of the diagnosis loses nothing.
        """
        try:
            return await self._fold(now)
        except POISON:  # one of them, so each for itself
            return await self._fold_singly(now)

    async def _fold(self, now: datetime, only: str | None = None) -> int:
        while True:
            try:
                return await self._database.write_at_once(
                    lambda connection: fold_some(connection, services=self._services, now=now, only=only)
                )
            except OvertakenError as error:
                log.info("folding again", why=str(error))

    async def _fold_singly(self, now: datetime) -> int:
        async with self._database.read() as connection:
            event_ids = await connection.run_sync(waiting)
        folded = 0
        for event_id in event_ids:
            try:
                folded += await self._fold(now, only=event_id)
            except POISON as error:  # one poisoned event, not those behind it
                await self._give_up(event_id, f"cannot be folded: {type(error).__name__}: {error}")
        return folded

    async def _give_up(self, event_id: str, why: str) -> None:
        statement = delivery.update().where(delivery.c.event_id == event_id).values(state="dead", why=why[:500])
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def dead_letters(self) -> list[DeadLetter]:
        """Everything that waits for a person, oldest first."""
        query = sa.select(delivery).where(delivery.c.state == "dead").order_by(delivery.c.received_at)
        async with self._database.read() as connection:
            return [
                DeadLetter(event_id=row.event_id, kind=row.kind, received_at=row.received_at, why=row.why or "")
                for row in await connection.execute(query)
            ]

    async def oldest_waiting(self) -> datetime | None:
        """When the event came that has waited longest to be folded; None when none waits."""
        query = sa.select(sa.func.min(delivery.c.received_at)).where(delivery.c.state == "new")
        async with self._database.read() as connection:
            oldest: datetime | None = (await connection.execute(query)).scalar_one()
        return oldest

    async def exhume(self, event_id: str) -> str | None:
        """The raw text of a dead letter, "" when it was understood but not folded; None when there is none."""
        query = sa.select(delivery.c.raw).where(delivery.c.event_id == event_id, delivery.c.state == "dead")
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none()

    async def revive(self, event_id: str, item: Delivery | None) -> bool:
        """
        A dead letter goes back into the queue, as what can be read in it now; False when it is not dead any more.

        Without `item` it is only tried again.
        """
        values: dict[str, Any] = {"state": "new", "why": None}
        if item is not None:
            values |= {
                "kind": item.kind,
                "incident_id": item.incident_id,
                "occurred_at": item.occurred_at,
                "incident": dict(item.incident),
                "raw": "",
            }
        statement = delivery.update().where(delivery.c.event_id == event_id, delivery.c.state == "dead")
        async with self._database.write() as connection:
            return bool((await connection.execute(statement.values(values))).rowcount)


def to_row(item: Delivery, *, now: datetime, dead_because: str | None = None) -> dict[str, Any]:
    """A row of `delivery`: it waits to be folded, or for a person who reads why it is dead."""
    return {
        "event_id": item.event_id,
        "source": item.source,
        "kind": item.kind,
        "incident_id": item.incident_id,
        "occurred_at": item.occurred_at,
        "received_at": now,
        "state": "new" if dead_because is None else "dead",
        "why": dead_because,
        "incident": dict(item.incident),
        "raw": item.raw,
    }
