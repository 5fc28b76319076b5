"""Incidents and their diagnoses as lists that people leaf through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from bot.incidents import Incident, IncidentState
from bot.store.database import Database
from bot.store.incidents import to_incident
from bot.store.tables import incident, run


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """One diagnosis: who or what asked for it, and how long it took."""

    number: int
    reason: str
    requested_by: str | None
    state: str
    created_at: datetime
    finished_at: datetime | None


class Listing:
    """Reads only; every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def incidents(self, *, service: str, state: str, offset: int, limit: int) -> tuple[Sequence[Incident], bool]:
        """
        One page, what is open first, newest first; and whether there are more.

        `service` is our name or PagerDuty's, `state` one of PagerDuty's or `open`; empty ones take all.
        """
        is_resolved = incident.c.state == IncidentState.RESOLVED.value
        query = (
            sa.select(incident)
            .order_by(sa.case((is_resolved, 1), else_=0), incident.c.created_at.desc(), incident.c.incident_id)
            .offset(offset)
            .limit(limit + 1)
        )
        if service:
            query = query.where(sa.or_(incident.c.service == service, incident.c.service_name == service))
        if state == "open":
            query = query.where(~is_resolved)
        elif state:
            query = query.where(incident.c.state == state)
        async with self._database.read() as connection:
            found = [to_incident(row) for row in await connection.execute(query)]
        return found[:limit], len(found) > limit

    async def services(self) -> list[str]:
        """Every service that an incident was about, by the name people know it by."""
        name = sa.func.coalesce(incident.c.service, incident.c.service_name)
        async with self._database.read() as connection:
            return sorted(each for each in (await connection.execute(sa.select(name).distinct())).scalars() if each)

    async def runs(self, incident_id: str) -> list[RunLine]:
        """The diagnoses of an incident, oldest first."""
        query = sa.select(
            run.c.number, run.c.reason, run.c.requested_by, run.c.state, run.c.created_at, run.c.finished_at
        )
        query = query.where(run.c.incident_id == incident_id).order_by(run.c.number)
        async with self._database.read() as connection:
            return [RunLine(**row._mapping) for row in await connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name
