"""The record and the cards, counted as they grow: what happened since the last look, for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.store.database import Database
from bot.store.tables import audit, delivery, incident, plan, run

BATCH = 5000
"""Rows of the record in one look; a long history is caught up with over several."""

_DECISIONS = ("plan.approve", "plan.deny", "refused")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One diagnosis that stands; `waited_s` is from the page (or the question) to the verdict."""

    at: datetime
    cause: str
    waited_s: float | None
    took_s: float | None


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the rows from one number to another say; `decisions` by (decision, channel), `acts` by (action, result)."""

    upto: int
    rows: Counter[str]
    decisions: Counter[tuple[str, str]]
    acts: Counter[tuple[str, str]]
    verdicts: Sequence[Verdict]


async def hear(database: Database, *, after: int) -> Heard:
    """Rows of the record after this one, at most BATCH. Raises StoreUnavailableError."""
    async with database.read() as connection:
        newest = (await connection.execute(sa.select(sa.func.max(audit.c.seq)))).scalar_one() or 0
        upto = min(newest, after + BATCH)
        fresh = sa.and_(audit.c.seq > after, audit.c.seq <= upto)
        grouped = sa.select(audit.c.action, sa.func.count().label("rows")).where(fresh).group_by(audit.c.action)
        rows: Counter[str] = Counter({row.action: row.rows for row in await connection.execute(grouped)})
        return Heard(
            upto=upto,
            rows=rows,
            decisions=await _decisions(connection, fresh),
            acts=await _acts(connection, fresh) if rows["step.outcome"] else Counter(),
            verdicts=await _verdicts(connection, fresh) if rows["diagnosis.made"] else (),
        )


async def _decisions(connection: AsyncConnection, fresh: sa.ColumnElement[bool]) -> Counter[tuple[str, str]]:
    query = sa.select(audit.c.action, audit.c.details).where(fresh, audit.c.action.in_(_DECISIONS))
    return Counter(
        (row.action.removeprefix("plan."), str(row.details.get("channel", "slack")))
        for row in await connection.execute(query)
    )


async def _acts(connection: AsyncConnection, fresh: sa.ColumnElement[bool]) -> Counter[tuple[str, str]]:
    query = sa.select(audit.c.details).where(fresh, audit.c.action == "step.outcome")
    outcomes = [details for details in (await connection.execute(query)).scalars() if "plan" in details]
    wanted = sa.select(plan.c.plan_id, plan.c.frozen).where(plan.c.plan_id.in_({each["plan"] for each in outcomes}))
    frozen = {row.plan_id: row.frozen for row in await connection.execute(wanted)}
    return Counter(
        (_action_of(frozen.get(each["plan"]), each["record"]), "ok" if each["record"].get("ok") else "refused")
        for each in outcomes
    )


def _action_of(frozen: Any, record: Any) -> str:
    steps = frozen["steps"] if frozen else ()
    return next((str(step["action"]) for step in steps if step["index"] == record.get("step")), "unknown")


async def _verdicts(connection: AsyncConnection, fresh: sa.ColumnElement[bool]) -> list[Verdict]:
    query = sa.select(audit.c.at, audit.c.subject, audit.c.details).where(fresh, audit.c.action == "diagnosis.made")
    made = (await connection.execute(query)).all()
    runs = sa.select(run.c.incident_id, run.c.number, run.c.created_at, run.c.finished_at, run.c.diagnosis).where(
        run.c.incident_id.in_({row.subject for row in made})
    )
    known = {(row.incident_id, row.number): row for row in await connection.execute(runs)}
    return [_verdict(row, known.get((row.subject, row.details.get("run")))) for row in made]


def _verdict(row: Any, known: Any) -> Verdict:
    finished = known is not None and known.finished_at is not None
    return Verdict(
        at=row.at,
        cause=str(row.details.get("cause", "unknown")),
        waited_s=max(0.0, (known.finished_at - known.created_at).total_seconds()) if finished else None,
        took_s=(known.diagnosis or {}).get("seconds") if known is not None else None,
    )


async def first_cards(database: Database, *, after: datetime) -> list[tuple[datetime, float]]:
    """
    Incidents whose first card stood after this time: when, and how long after their first event had come.

    Raises StoreUnavailableError.
    """
    query = (
        sa.select(incident.c.carded_at, sa.func.min(delivery.c.received_at).label("received_at"))
        .join(delivery, delivery.c.incident_id == incident.c.incident_id)
        .where(incident.c.carded_at > after)
        .group_by(incident.c.incident_id, incident.c.carded_at)
        .order_by(incident.c.carded_at)
    )
    async with database.read() as connection:
        return [
            (row.carded_at, max(0.0, (row.carded_at - row.received_at).total_seconds()))
            for row in await connection.execute(query)
        ]
