"""The journal of a remediation: every intent, outcome, probe, verification and answer, in order and for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.incidents import ASKS_A_PERSON, AlreadyDecidedError, PlanState, StaleError
from bot.store.database import Database
from bot.store.kill_switch import refuse_if_stopped
from bot.store.plans import note
from bot.store.statements import insert_new, touch
from bot.store.tables import plan, step_record
from bot.store.workers import refuse_the_dead
from runbooks.engine.values import Plan


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One record of a remediation's journal, as JSON, with the time by the telemetry's clock where it matters."""

    position: int
    step: int
    kind: str
    at: datetime
    record: Mapping[str, Any]
    telemetry_at: datetime | None


class Journal:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, plan_id: str) -> list[JournalEntry]:
        """The records of a plan in order."""
        query = sa.select(step_record).where(step_record.c.plan_id == plan_id).order_by(step_record.c.position)
        async with self._database.read() as connection:
            return [
                JournalEntry(
                    position=row.position,
                    step=row.step,
                    kind=row.kind,
                    at=row.at,
                    record=row.record,
                    telemetry_at=row.telemetry_at,
                )
                for row in await connection.execute(query)
            ]

    async def append(
        self,
        item: Plan,
        *,
        position: int,
        step: int,
        kind: str,
        record: Mapping[str, Any],
        now: datetime,
        telemetry_at: datetime | None = None,
        actor: str = "watchkeeper",
        unless_dead: str | None = None,
        unless_stopped: bool = False,
    ) -> None:
        """
        Write the next record. The key (plan, position) is the fence: whoever wakes up late finds its place taken.

        Raises StaleError then; LifelessError when the process `unless_dead` was declared dead, so that an intent of
        the dead never stands; and with `unless_stopped` StoppedError when the kill switch says so.
        """
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            if unless_dead is not None:
                await refuse_the_dead(connection, unless_dead)
            if unless_stopped:
                await refuse_if_stopped(connection, item.plan_id)
            row = {
                "plan_id": item.plan_id,
                "position": position,
                "step": step,
                "kind": kind,
                "at": now,
                "record": dict(record),
                "telemetry_at": telemetry_at,
            }
            if not await insert_new(connection, step_record, row):
                raise StaleError("somebody else carries this plan on")
            await note(connection, item, f"step.{kind}", actor=actor, now=now, position=position, record=dict(record))

    async def refuse_if_stopped(self, plan_id: str) -> None:
        """For what waits and writes nothing meanwhile. Raises StoppedError when the kill switch says so."""
        async with self._database.write() as connection:
            await refuse_if_stopped(connection, plan_id)

    async def settle(
        self,
        item: Plan,
        *,
        position: int,
        step: int,
        record: Mapping[str, Any],
        by: str,
        now: datetime,
    ) -> None:
        """A person says what a step in doubt did: answer and next chapter together. Raises AlreadyDecidedError."""
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            statement = (
                plan.update()
                .where(plan.c.plan_id == item.plan_id, plan.c.state.in_([state.value for state in ASKS_A_PERSON]))
                .values(state=PlanState.RUNNING.value, state_at=now, chapter=plan.c.chapter + 1)
            )
            if not (await connection.execute(statement)).rowcount:
                raise AlreadyDecidedError("This doubt is settled already.")
            row = {
                "plan_id": item.plan_id,
                "position": position,
                "step": step,
                "kind": "settled",
                "at": now,
                "record": dict(record),
            }
            if not await insert_new(connection, step_record, row):
                raise AlreadyDecidedError("This doubt is settled already.")
            await note(connection, item, "step.settled", actor=by, now=now, position=position, record=dict(record))
