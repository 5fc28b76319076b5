"""Statements that several facts share; each runs inside its caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.tables import incident, run


async def insert_new(connection: AsyncConnection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """INSERT unless one of the table's keys is taken; True when the row is new. Decides races, as no SELECT could."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    key = next(iter(table.primary_key.columns))
    statement = dialect.insert(table).values(row).on_conflict_do_nothing().returning(key)
    return (await connection.execute(statement)).first() is not None


async def touch(connection: AsyncConnection, incident_id: str) -> None:
    """Say that the card of this incident is out of date; part of every transaction that changes what it shows."""
    await connection.execute(
        incident.update().where(incident.c.incident_id == incident_id).values(revision=incident.c.revision + 1)
    )


async def new_run(
    connection: AsyncConnection, incident_id: str, number: int, *, reason: str, by: str | None, now: datetime
) -> None:
    """Queue a diagnosis under the number that the caller took in this transaction."""
    await connection.execute(
        run.insert().values(
            incident_id=incident_id, number=number, reason=reason, requested_by=by, state="new", created_at=now
        )
    )
