"""Statements that several facts share; each runs inside its caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.tables import incident, run


def insert_or_ignore(connection: AsyncConnection, table: sa.Table) -> Any:
    """INSERT ... ON CONFLICT DO NOTHING in the dialect at hand; rowcount says whether the row is new."""
    module = postgresql if connection.dialect.name == "postgresql" else sqlite
    return module.insert(table).on_conflict_do_nothing()


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
