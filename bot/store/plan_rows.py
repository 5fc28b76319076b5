"""A plan between its row and its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import PlanState
from bot.store.tables import approval
from runbooks.engine.values import Plan, plan_from_json, plan_json


@dataclass(frozen=True, kw_only=True)
class Approval:
    """
    One person's decision on one plan, with the role in which they decided; `step_up` is how they proved it, `channel`
    the way they came by (`Person.channel`), `seal` shows that we wrote it down.
    """

    person_id: str
    decision: str  # approve | deny | break_glass
    role: str
    digest: str
    at: datetime
    step_up: str | None = None
    channel: str = "slack"
    seal: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A plan with its state. `digest` is what was stored beside it; `plan.digest` must equal it."""

    plan: Plan
    run: int
    rank: int
    state: PlanState
    why: str
    state_at: datetime
    digest: str
    start_by: datetime | None
    chapter: int
    approvals: tuple[Approval, ...] = ()


async def approvals_of(connection: AsyncConnection, plan_ids: Sequence[str]) -> dict[str, tuple[Approval, ...]]:
    found: dict[str, tuple[Approval, ...]] = {}
    query = sa.select(approval).where(approval.c.plan_id.in_(plan_ids)).order_by(approval.c.at)
    for row in await connection.execute(query):
        values = row._asdict()
        plan_id = values.pop("plan_id")
        found[plan_id] = (*found.get(plan_id, ()), Approval(**values))
    return found


def to_row(item: Plan, *, run: int, rank: int, state: PlanState, now: datetime) -> dict[str, Any]:
    return {
        "plan_id": item.plan_id,
        "incident_id": item.incident_id,
        "run": run,
        "rank": rank,
        "state": state.value,
        "state_at": now,
        "digest": item.digest,
        "frozen": plan_json(item),
        "requester": item.requester,
        "undoes": item.undoes,
        "created_at": item.made_at,
        "expires_at": item.expires_at,
        "chapter": 1,
        "started_chapter": 0,
    }


def to_plan_row(row: Any, approvals: Mapping[str, tuple[Approval, ...]]) -> PlanRow:
    return PlanRow(
        plan=plan_from_json(row.frozen),
        run=row.run,
        rank=row.rank,
        state=PlanState(row.state),
        why=row.state_why or "",
        state_at=row.state_at,
        digest=row.digest,
        start_by=row.start_by,
        chapter=row.chapter,
        approvals=approvals.get(row.plan_id, ()),
    )
