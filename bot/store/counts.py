"""What waits, in numbers: for operators, and for nobody's decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import IncidentState, PlanState
from bot.store.break_glass import REVIEW_WITHIN
from bot.store.database import Database
from bot.store.tables import audit, delivery, incident, kill_switch, outbox, plan
from bot.store.trust_tables import break_glass
from bot.store.workers import clock

COUNTS: Mapping[str, tuple[str, sa.ColumnElement[bool]]] = {
    "open_incidents": ("Incidents that are not resolved", incident.c.state != IncidentState.RESOLVED.value),
    "inbox_waiting": ("Events that are stored and not folded into incidents yet", delivery.c.state == "new"),
    "dead_letters": ("Authentic events that nobody could read; see `watchkeeper replay`", delivery.c.state == "dead"),
    "undelivered": ("Messages that Slack or PagerDuty have not taken yet", outbox.c.state.in_(("new", "sending"))),
    "undeliverable": ("Messages that Slack or PagerDuty refused for good", outbox.c.state == "dead"),
    "plans_in_doubt": ("Fixes that wait for a person's answer", plan.c.state == PlanState.IN_DOUBT.value),
    "plans_waiting": ("Fixes whose next step is for a person to do", plan.c.state == PlanState.WAITING.value),
    "plans_proposed": ("Fixes that wait for approval", plan.c.state == PlanState.PROPOSED.value),
    "reviews_open": (
        "Times that the glass was broken, and nobody reviewed it yet",
        break_glass.c.reviewed_at.is_(None),
    ),
    "cards_behind": ("Cards that Slack shows in an older state", incident.c.revision > incident.c.shown),
}
"""What is counted: a name, what it is in words, and which rows."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One lane of the outbox; `oldest_s` is the age of what has waited longest, 0 when nothing waits."""

    lane: str
    waiting: int
    dead: int
    oldest_s: float


@dataclass(frozen=True, kw_only=True)
class Stock:
    """One look at everything that waits, at the database's own time."""

    at: datetime
    counts: Mapping[str, int]
    inbox_oldest_s: float
    doubt_oldest_s: float
    stopped_s: float
    reviews_overdue: int
    lanes: tuple[Lane, ...]
    record_rows: int


async def take_stock(database: Database) -> Stock:
    """Raises StoreUnavailableError."""
    async with database.read() as connection:
        now = await clock(connection)
        counts = {
            name: (await connection.execute(sa.select(sa.func.count()).where(condition))).scalar_one()
            for name, (_, condition) in COUNTS.items()
        }
        return Stock(
            at=now,
            counts=counts,
            inbox_oldest_s=await _age(connection, delivery.c.received_at, COUNTS["inbox_waiting"][1], now),
            doubt_oldest_s=await _age(connection, plan.c.state_at, COUNTS["plans_in_doubt"][1], now),
            stopped_s=await _age(connection, kill_switch.c.at, kill_switch.c.is_stopped, now),
            reviews_overdue=(await connection.execute(_overdue(now))).scalar_one(),
            lanes=await _lanes(connection, now),
            record_rows=(await connection.execute(sa.select(sa.func.max(audit.c.seq)))).scalar_one() or 0,
        )


def _overdue(now: datetime) -> sa.Select[int]:
    late = (COUNTS["reviews_open"][1], break_glass.c.at < now - REVIEW_WITHIN)
    return sa.select(sa.func.count()).select_from(break_glass).where(*late)


async def _age(
    connection: AsyncConnection, column: sa.Column[Any], condition: sa.ColumnElement[bool], now: datetime
) -> float:
    oldest = (await connection.execute(sa.select(sa.func.min(column)).where(condition))).scalar_one()
    return max(0.0, (now - oldest).total_seconds()) if oldest else 0.0


async def _lanes(connection: AsyncConnection, now: datetime) -> tuple[Lane, ...]:
    waiting, dead = COUNTS["undelivered"][1], COUNTS["undeliverable"][1]
    query = (
        sa.select(
            outbox.c.lane,
            sa.func.count().filter(waiting).label("waiting"),
            sa.func.count().filter(dead).label("dead"),
            sa.func.min(outbox.c.created_at).filter(waiting).label("oldest"),
        )
        .where(sa.or_(waiting, dead))
        .group_by(outbox.c.lane)
        .order_by(outbox.c.lane)
    )
    return tuple(
        Lane(
            lane=row.lane,
            waiting=row.waiting,
            dead=row.dead,
            oldest_s=max(0.0, (now - row.oldest).total_seconds()) if row.oldest else 0.0,
        )
        for row in await connection.execute(query)
    )
