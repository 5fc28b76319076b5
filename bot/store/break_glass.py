"""Broken glass: a fix that one person started alone, and the review of it that another one owes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import AlreadyDecidedError, NotAllowedError, NotFoundError, PlanState
from bot.store import audit as chain
from bot.store.approval_seals import ApprovalSeals
from bot.store.database import Database
from bot.store.kill_switch import refuse_if_stopped
from bot.store.outbox import post
from bot.store.plan_rows import Approval, PlanRow
from bot.store.plans import hold_proposed, note, refuse_beside_another
from bot.store.statements import insert_new, lock_targets, touch
from bot.store.tables import approval, plan
from bot.store.trust_tables import break_glass

BREAK_GLASS = "break_glass"
"""The decision of an approval that stands alone."""

MOST_A_DAY = 2
REVIEW_WITHIN = timedelta(hours=24)
MOST_WORDS = 1000


@dataclass(frozen=True, kw_only=True)
class Review:
    """One time that somebody broke the glass; it is owed a look until somebody else has written one down."""

    review_id: int
    plan_id: str
    incident_id: str
    person_id: str
    role: str
    reason: str
    at: datetime
    reviewed_by: str | None
    reviewed_at: datetime | None
    says: str | None

    @property
    def due_at(self) -> datetime:
        return self.at + REVIEW_WITHIN


class BrokenGlass:
    """Every method is one transaction. Raises StoreUnavailableError."""

    def __init__(self, database: Database, seals: ApprovalSeals | None = None) -> None:
        self._database = database
        self._seals = seals or ApprovalSeals()

    async def start_alone(
        self,
        item: PlanRow,
        *,
        by: str,
        name: str,
        role: str,
        reason: str,
        step_up: str,
        channel: str,
        start_by: datetime,
        now: datetime,
    ) -> int:
        """
        Let this person's word alone start the plan; opens a review and tells both channels. Returns the review's id.

        Raises AlreadyDecidedError, StoppedError, and NotAllowedError when it was done too often within a day.
        """
        plan_id, incident_id = item.plan.plan_id, item.plan.incident_id
        async with self._database.write() as connection:
            await touch(connection, incident_id)
            await lock_targets(connection)  # of two who count the last day at once, one waits for the other
            await hold_proposed(connection, item)
            await refuse_if_stopped(connection, plan_id)
            await refuse_beside_another(connection, item.plan)
            await _refuse_too_often(connection, now)
            how = {"role": role, "digest": item.digest, "channel": channel, "step_up": step_up}
            decision = self._seals.row(plan_id, Approval(person_id=by, decision=BREAK_GLASS, at=now, **how))
            if not await insert_new(connection, approval, decision):
                mine = (approval.c.plan_id == plan_id, approval.c.person_id == by, approval.c.decision == "approve")
                await connection.execute(approval.update().where(*mine).values(**decision))
            approved = {"state": PlanState.APPROVED.value, "state_at": now, "start_by": start_by}
            await connection.execute(plan.update().where(plan.c.plan_id == plan_id).values(**approved))
            row = {"plan_id": plan_id, "incident_id": incident_id, "person_id": by, "role": role}
            opened = break_glass.insert().values(**row, reason=reason, at=now).returning(break_glass.c.review_id)
            review_id = int((await connection.execute(opened)).scalar_one())
            said = {"plan": plan_id, "name": name, "reason": reason, "review": review_id}
            for lane in ("slack", "pagerduty"):
                key = f"{plan_id}:{BREAK_GLASS}:{lane}"
                await post(connection, key=key, incident_id=incident_id, lane=lane, kind=BREAK_GLASS, now=now, **said)
            await note(
                connection, item.plan, "plan.break_glass", actor=by, now=now, reason=reason, review=review_id, **how
            )
            return review_id

    async def reviews(self, *, open_only: bool = False) -> Sequence[Review]:
        """Every time that the glass was broken, what nobody has reviewed first, then the newest."""
        query = sa.select(break_glass).order_by(break_glass.c.reviewed_at.is_not(None), break_glass.c.at.desc())
        if open_only:
            query = query.where(break_glass.c.reviewed_at.is_(None))
        async with self._database.read() as connection:
            return [Review(**row._asdict()) for row in await connection.execute(query)]

    async def close(self, review_id: int, *, by: str, says: str, actor: str, now: datetime) -> Review:
        """
        Write down what somebody else thinks of it; `actor` is who stands at the database.

        Raises NotFoundError, NotAllowedError for whoever broke the glass, AlreadyDecidedError when it is closed.
        """
        async with self._database.write() as connection:
            held = sa.select(break_glass).where(break_glass.c.review_id == review_id).with_for_update()
            row = (await connection.execute(held)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no review {review_id}; `watchkeeper audit reviews` lists them")
            if row.person_id == by:
                raise NotAllowedError(f"{by} broke the glass, so somebody else has to review it")
            if row.reviewed_at is not None:
                raise AlreadyDecidedError(f"{row.reviewed_by} has reviewed it already")
            values = {"reviewed_by": by, "reviewed_at": now, "says": says}
            await connection.execute(break_glass.update().where(break_glass.c.review_id == review_id).values(**values))
            what = {"review": review_id, "plan": row.plan_id, "says": says, "written_by": actor}
            await chain.append(
                connection, at=now, actor=by, action="break_glass.reviewed", subject=row.incident_id, **what
            )
            return Review(**{**row._asdict(), **values})


async def _refuse_too_often(connection: AsyncConnection, now: datetime) -> None:
    lately = sa.select(sa.func.count()).where(break_glass.c.at > now - timedelta(days=1))
    if (await connection.execute(lately)).scalar_one() >= MOST_A_DAY:
        raise NotAllowedError(
            f"The glass was broken {MOST_A_DAY} times within the last day, and not once more: find the others."
        )
