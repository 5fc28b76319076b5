"""What started within the last hour, for limits: read inside the transaction that starts the next one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import ASKS_A_PERSON, PlanState
from bot.limits import HOUR, Act, act
from bot.store.tables import plan, step_record
from runbooks.engine.values import plan_from_json

UNDER_WAY = (PlanState.RUNNING.value, *(state.value for state in ASKS_A_PERSON))


async def recent_acts(connection: AsyncConnection, *, now: datetime, but: str = "") -> Sequence[Act]:
    """
    Every step of other plans that began within the hour before `now`, and those that plans under way will begin.

    Undos are left out. A plan that ended is looked at when that was within the hour: it began nothing later.
    """
    lately = sa.or_(plan.c.state.in_(UNDER_WAY), plan.c.state_at > now - HOUR)
    query = sa.select(plan.c.plan_id, plan.c.state, plan.c.frozen).where(
        lately, plan.c.undoes.is_(None), plan.c.plan_id != but
    )
    rows = (await connection.execute(query)).all()
    intents = (
        sa.select(step_record.c.plan_id, step_record.c.step, sa.func.max(step_record.c.at).label("at"))
        .where(step_record.c.plan_id.in_([row.plan_id for row in rows]), step_record.c.kind == "intent")
        .group_by(step_record.c.plan_id, step_record.c.step)
    )
    began = {(row.plan_id, row.step): row.at for row in await connection.execute(intents)}
    found = []
    for row in rows:
        item = plan_from_json(row.frozen)
        for step in item.steps:
            at = began.get((row.plan_id, step.index), now if row.state in UNDER_WAY else None)
            if at is not None and at > now - HOUR:
                found.append(act(item, step, at))
    return found
