"""What became of runbooks: which plans were made from them, how those ended, and which alerts paged at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from bot.incidents import PlanState
from bot.store.database import Database
from bot.store.tables import incident, plan, run


@dataclass(frozen=True, kw_only=True)
class Paged:
    """One incident as it paged: its title, and the alerts of its latest diagnosis as they were recorded."""

    title: str
    alerts: Sequence[Mapping[str, Any]]


class Usage:
    """Reads only; every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def plans(self) -> list[tuple[str, PlanState]]:
        """The runbook and the state of every plan that was put before people; undos are none of a runbook's."""
        query = sa.select(plan.c.frozen, plan.c.state).where(
            plan.c.undoes.is_(None), plan.c.state != PlanState.ALTERNATIVE.value
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [(str(row.frozen["runbook_id"]), PlanState(row.state)) for row in rows]

    async def pages(self) -> list[Paged]:
        """Every incident."""
        latest = sa.and_(run.c.incident_id == incident.c.incident_id, run.c.number == incident.c.run)
        query = sa.select(incident.c.title, run.c.alerts).select_from(incident.outerjoin(run, latest))
        async with self._database.read() as connection:
            return [Paged(title=row.title, alerts=row.alerts or ()) for row in await connection.execute(query)]
