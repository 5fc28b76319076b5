"""Incidents that are over, with what they turned out to be; and for which open ones they were looked through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import IncidentState, PlanState
from bot.past import Fix, Look, PastIncident, past_of
from bot.store.database import Database
from bot.store.incidents import to_incident
from bot.store.statements import touch
from bot.store.tables import burst_member, incident, plan, run, step_record

ASKED_WITHIN = timedelta(days=1)
"""An older diagnosis is not compared any more: nobody waits for it."""

_MOST_AT_ONCE = 20
_OVER = sa.and_(incident.c.state == IncidentState.RESOLVED.value, incident.c.merged_into.is_(None))


class PastIncidents:
    """Every method is one transaction. `treats` gives a runbook's causes. Raises StoreUnavailableError."""

    def __init__(self, database: Database, treats: Callable[[str], Collection[str]]) -> None:
        self._database = database
        self._treats = treats

    async def revisions(self, *, most: int) -> dict[str, int]:
        """The latest incidents that are over and were not merged, with what changes whenever anything of them does."""
        query = sa.select(incident.c.incident_id, incident.c.revision).where(_OVER)
        query = query.order_by(incident.c.created_at.desc(), incident.c.incident_id).limit(most)
        async with self._database.read() as connection:
            return {row.incident_id: row.revision for row in await connection.execute(query)}

    async def load(self, incident_ids: Collection[str]) -> list[PastIncident]:
        """Those of these that are over; some dozens at a time, since their diagnoses are read."""
        wanted = list(incident_ids)
        query = sa.select(incident).where(incident.c.incident_id.in_(wanted), _OVER)
        async with self._database.read() as connection:
            rows = [to_incident(row) for row in await connection.execute(query)]
            looks = await _looks(connection, wanted)
            fixes = await _fixes(connection, wanted)
            bursts = await _bursts(connection, wanted)
        return [
            past_of(
                each,
                looks[each.incident_id],
                fixes[each.incident_id],
                burst=bursts.get(each.incident_id),
                treats=self._treats,
            )
            for each in rows
        ]

    async def burst_of(self, incident_id: str) -> int | None:
        """The burst that it came with."""
        async with self._database.read() as connection:
            return (await _bursts(connection, [incident_id])).get(incident_id)

    async def look(self, incident_id: str, number: int) -> Look | None:
        """One diagnosis with its alerts."""
        async with self._database.read() as connection:
            looks = (await _looks(connection, [incident_id]))[incident_id]
        return next((look for look in looks if look.number == number), None)

    async def waiting(self, *, now: datetime) -> list[tuple[str, int]]:
        """Latest diagnoses that stand since yesterday at most, and that nobody compared with the past; oldest first."""
        query = (
            sa.select(run.c.incident_id, run.c.number)
            .join(incident, sa.and_(incident.c.incident_id == run.c.incident_id, incident.c.run == run.c.number))
            .where(run.c.finished_at > now - ASKED_WITHIN, run.c.similar.is_(None))
            .order_by(run.c.finished_at)
            .limit(_MOST_AT_ONCE)
        )
        async with self._database.read() as connection:
            return [(row.incident_id, row.number) for row in await connection.execute(query)]

    async def compared(self, incident_id: str, number: int, similar: Sequence[Mapping[str, Any]]) -> None:
        """Write down which past ones resemble it; none is an answer, and no reason to draw the card again."""
        of_run = sa.and_(run.c.incident_id == incident_id, run.c.number == number)
        async with self._database.write() as connection:
            if similar:
                await touch(connection, incident_id)
            await connection.execute(run.update().where(of_run).values(similar=list(similar)))


async def _looks(connection: AsyncConnection, wanted: Sequence[str]) -> dict[str, list[Look]]:
    query = sa.select(run.c.incident_id, run.c.number, run.c.alerts, run.c.diagnosis)
    found: dict[str, list[Look]] = defaultdict(list)
    for row in await connection.execute(query.where(run.c.incident_id.in_(wanted)).order_by(run.c.number)):
        found[row.incident_id].append(Look(number=row.number, alerts=row.alerts, diagnosis=row.diagnosis))
    return found


async def _fixes(connection: AsyncConnection, wanted: Sequence[str]) -> dict[str, list[Fix]]:
    """Plans that were offered and not taken say nothing, so only those in the journal are read."""
    ran = sa.exists().where(step_record.c.plan_id == plan.c.plan_id)
    query = sa.select(plan).where(plan.c.incident_id.in_(wanted), ran).order_by(plan.c.state_at)
    found: dict[str, list[Fix]] = defaultdict(list)
    for row in await connection.execute(query):
        steps = row.frozen["steps"]
        fix = Fix(
            plan_id=row.plan_id,
            run=row.run,
            state=PlanState(row.state),
            ended=row.state_at,
            runbook=row.frozen["runbook_id"],
            titles=tuple(step["title"] for step in steps),
            actions=tuple(step["action"] for step in steps),
            undoes=row.undoes,
        )
        found[row.incident_id].append(fix)
    return found


async def _bursts(connection: AsyncConnection, wanted: Sequence[str]) -> dict[str, int]:
    query = sa.select(burst_member).where(burst_member.c.incident_id.in_(wanted))
    return {row.incident_id: row.burst_id for row in await connection.execute(query)}
