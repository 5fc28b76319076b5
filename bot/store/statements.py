"""Statements that several facts share; each runs inside its caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import PlanState
from bot.store.tables import incident, plan, run

_TARGETS_LOCK = 7_303_014_920


async def insert_new(connection: AsyncConnection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """INSERT unless one of the table's keys is taken; True when the row is new. Decides races, as no SELECT could."""
    return bool(await connection.run_sync(insert_all_new, table, [row]))


def insert_all_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> frozenset[Any]:
    """
    INSERT these rows, of the same columns, except where one of the table's keys is taken; returns the new ones' keys.

    One statement for hundreds of rows.
    """
    if not rows:
        return frozenset()
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    key = next(iter(table.primary_key.columns))
    statement = dialect.insert(table).on_conflict_do_nothing().returning(key)
    return frozenset(connection.execute(statement, list(rows)).scalars())


async def touch(connection: AsyncConnection, incident_id: str) -> None:
    """
    Say that the card of this incident is out of date; the first statement of every transaction that changes it.

    First, because it locks the incident's row: whoever changes anything about an incident does so one after the
    other, and nobody who holds the audit's lock waits for a row.
    """
    await connection.execute(
        incident.update().where(incident.c.incident_id == incident_id).values(revision=incident.c.revision + 1)
    )


def new_run(
    connection: sa.Connection, incident_id: str, number: int, *, reason: str, by: str | None, now: datetime
) -> None:
    """
    Queue a diagnosis under the number that the caller took in this transaction.

    What older diagnoses put on the table is withdrawn: the world is being looked at again.
    """
    connection.execute(
        plan.update()
        .where(
            plan.c.incident_id == incident_id,
            plan.c.run < number,
            plan.c.undoes.is_(None),
            plan.c.state.in_((PlanState.PROPOSED.value, PlanState.ALTERNATIVE.value)),
        )
        .values(state=PlanState.SUPERSEDED.value, state_at=now)
    )
    connection.execute(
        run.insert().values(
            incident_id=incident_id, number=number, reason=reason, requested_by=by, state="new", created_at=now
        )
    )


def queue_runs(connection: sa.Connection, runs: Sequence[tuple[str, int, str]], *, now: datetime) -> None:
    """Queue diagnoses that events ask for: incident, number, reason. A first one has nothing to withdraw."""
    first = [each for each in runs if each[1] == 1]
    columns = ("incident_id", "number", "reason")
    if first:
        rows = [{**dict(zip(columns, each, strict=True)), "state": "new", "created_at": now} for each in first]
        connection.execute(run.insert(), rows)
    for incident_id, number, reason in runs:
        if number > 1:
            new_run(connection, incident_id, number, reason=reason, by=None, now=now)


async def lock_targets(connection: AsyncConnection) -> None:
    """Let one transaction at a time decide which plan works on which target; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TARGETS_LOCK)))
