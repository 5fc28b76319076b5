"""Plans: proposed, decided once, begun once, ended once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import AlreadyDecidedError, NotFoundError, PlanState, StaleError
from bot.store import audit as chain
from bot.store.database import Database
from bot.store.statements import insert_new, touch
from bot.store.tables import approval, plan
from runbooks.engine.values import Plan, plan_from_json, plan_json

_ON_THE_TABLE = (PlanState.PROPOSED.value, PlanState.ALTERNATIVE.value)
_UNDER_WAY = (PlanState.RUNNING.value, PlanState.IN_DOUBT.value)


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One person's decision on one plan, with the role in which they decided."""

    person_id: str
    decision: str
    role: str
    digest: str
    at: datetime


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


class Plans:
    """Every method is one transaction. Raises StoreUnavailableError, and NotFoundError for an unknown plan."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, item: Plan, *, run: int, rank: int | None, state: PlanState, now: datetime) -> None:
        """
        Keep a plan; a second one for the same diagnosis and rank changes nothing (a repeated step plans anew).
        Without a rank it takes the next free one.

        A newly proposed plan takes the place of what is still on the table from earlier diagnoses.
        """
        async with self._database.write() as connection:
            if rank is None:
                last = sa.select(sa.func.max(plan.c.rank)).where(
                    plan.c.incident_id == item.incident_id, plan.c.run == run
                )
                rank = ((await connection.execute(last)).scalar_one() or 0) + 1
            row = _row(item, run=run, rank=rank, state=state, now=now)
            if not await insert_new(connection, plan, row):
                return
            older = (
                plan.update()
                .where(plan.c.incident_id == item.incident_id, plan.c.run < run, plan.c.state.in_(_ON_THE_TABLE))
                .values(state=PlanState.SUPERSEDED.value, state_at=now)
            )
            await connection.execute(older)
            await chain.append(
                connection,
                at=now,
                actor=item.requester or "watchkeeper",
                action=f"plan.{state.value}",
                subject=item.incident_id,
                plan=item.plan_id,
                digest=item.digest,
                runbook=item.runbook_id,
                effects=[step.effect for step in item.steps],
            )
            await touch(connection, item.incident_id)

    async def get(self, plan_id: str) -> PlanRow:
        """One plan with its approvals. Raises NotFoundError."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(plan).where(plan.c.plan_id == plan_id))).one_or_none()
            if row is None:
                raise NotFoundError(f"plan {plan_id} is not known here")
            return _plan_row(row, await _approvals(connection, [plan_id]))

    async def of_incident(self, incident_id: str) -> list[PlanRow]:
        """Every plan of an incident, newest diagnosis first, best plan first."""
        query = (
            sa.select(plan)
            .where(plan.c.incident_id == incident_id)
            .order_by(plan.c.run.desc(), plan.c.rank, plan.c.created_at)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            decisions = await _approvals(connection, [row.plan_id for row in rows])
            return [_plan_row(row, decisions) for row in rows]

    async def request(self, item: Plan, *, by: str, now: datetime) -> None:
        """
        Put an alternative on the table instead of what is proposed; `item` carries the requester and a new nonce.

        Raises AlreadyDecidedError when the alternative is not one any more, or another plan is decided or running.
        """
        async with self._database.write() as connection:
            busy = sa.select(sa.func.count()).where(
                plan.c.incident_id == item.incident_id,
                plan.c.state.in_((PlanState.APPROVED.value, *_UNDER_WAY)),
            )
            if (await connection.execute(busy)).scalar_one():
                raise AlreadyDecidedError("Another fix is approved or running; let it end first.")
            values = {
                "state": PlanState.PROPOSED.value,
                "state_at": now,
                "requester": by,
                "digest": item.digest,
                "frozen": plan_json(item),
                "expires_at": item.expires_at,
            }
            statement = (
                plan.update()
                .where(plan.c.plan_id == item.plan_id, plan.c.state == PlanState.ALTERNATIVE.value)
                .values(values)
            )
            if not (await connection.execute(statement)).rowcount:
                raise AlreadyDecidedError("This fix is not on offer any more.")
            others = (
                plan.update()
                .where(
                    plan.c.incident_id == item.incident_id,
                    plan.c.plan_id != item.plan_id,
                    plan.c.state == PlanState.PROPOSED.value,
                )
                .values(state=PlanState.SUPERSEDED.value, state_at=now)
            )
            await connection.execute(others)
            await note(connection, item, "plan.requested", actor=by, now=now, digest=item.digest)

    async def decide(
        self, item: PlanRow, decision: str, *, by: str, role: str, needed: int, start_by: datetime, now: datetime
    ) -> bool:
        """
        Write down that this person approves or denies this plan; True when that settles it.

        The key (plan, person) and a conditional update decide, not an earlier SELECT, so any number of quick clicks
        starts the plan once. Raises AlreadyDecidedError for everyone after that.
        """
        plan_id = item.plan.plan_id
        async with self._database.write() as connection:
            await self._lock(connection, item)
            entry = {
                "plan_id": plan_id,
                "person_id": by,
                "decision": decision,
                "role": role,
                "digest": item.digest,
                "at": now,
            }
            if not await insert_new(connection, approval, entry):
                raise AlreadyDecidedError("You have decided on this fix already.")
            count = sa.select(sa.func.count()).where(
                approval.c.plan_id == plan_id,
                approval.c.decision == "approve",
                approval.c.digest == item.digest,
            )
            settles = decision == "deny" or (await connection.execute(count)).scalar_one() >= needed
            if settles:
                state = PlanState.DENIED if decision == "deny" else PlanState.APPROVED
                await connection.execute(
                    plan.update()
                    .where(plan.c.plan_id == plan_id)
                    .values(state=state.value, state_at=now, start_by=start_by)
                )
            await note(connection, item.plan, f"plan.{decision}", actor=by, now=now, role=role, digest=item.digest)
            return settles

    async def _lock(self, connection: AsyncConnection, item: PlanRow) -> None:
        """Hold the proposed plan's row to the end of the transaction, or refuse."""
        statement = (
            plan.update()
            .where(
                plan.c.plan_id == item.plan.plan_id,
                plan.c.state == PlanState.PROPOSED.value,
                plan.c.digest == item.digest,
            )
            .values(state=PlanState.PROPOSED.value)
        )
        if not (await connection.execute(statement)).rowcount:
            raise AlreadyDecidedError("Somebody decided first; see the card.")

    async def to_start(self) -> list[tuple[str, int]]:
        """Approved plans, and plans whose doubt a person settled, whose next chapter nobody has started."""
        query = sa.select(plan.c.plan_id, plan.c.chapter).where(
            plan.c.state.in_((PlanState.APPROVED.value, PlanState.RUNNING.value)),
            plan.c.started_chapter < plan.c.chapter,
        )
        async with self._database.read() as connection:
            return [(row.plan_id, row.chapter) for row in await connection.execute(query)]

    async def mark_started(self, plan_id: str, chapter: int) -> None:
        """The workflow of this chapter exists."""
        statement = (
            plan.update()
            .where(plan.c.plan_id == plan_id, plan.c.started_chapter < chapter)
            .values(started_chapter=chapter)
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def begin(self, item: PlanRow, *, now: datetime) -> bool:
        """
        Approved becomes running, once; False when it is running already (a repeated workflow step).

        Raises StaleError when its time to start is over or another plan holds one of its targets.
        """
        async with self._database.write() as connection:
            row = (await connection.execute(sa.select(plan).where(plan.c.plan_id == item.plan.plan_id))).one()
            if row.state in _UNDER_WAY:
                return False
            if row.state != PlanState.APPROVED.value:
                raise StaleError(f"the plan is {row.state}")
            if row.start_by is None or now > row.start_by:
                raise StaleError("it was approved too long ago to start now")
            running = await connection.execute(sa.select(plan.c.frozen).where(plan.c.state.in_(_UNDER_WAY)))
            mine = {step.target for step in item.plan.steps}
            for frozen in running.scalars():
                held = mine & {step["target"] for step in frozen["steps"]}
                if held:
                    raise StaleError(f"another plan is working on {min(held)}")
            await connection.execute(
                plan.update()
                .where(plan.c.plan_id == item.plan.plan_id, plan.c.state == PlanState.APPROVED.value)
                .values(state=PlanState.RUNNING.value, state_at=now)
            )
            await note(connection, item.plan, "plan.started", actor="watchkeeper", now=now, digest=item.digest)
            return True

    async def end(
        self, item: Plan, state: PlanState, why: str, *, now: datetime, expected: Sequence[PlanState]
    ) -> bool:
        """Move to an end (or to in_doubt) from one of the expected states; False when it is elsewhere already."""
        async with self._database.write() as connection:
            statement = (
                plan.update()
                .where(plan.c.plan_id == item.plan_id, plan.c.state.in_([each.value for each in expected]))
                .values(state=state.value, state_why=why, state_at=now)
            )
            if not (await connection.execute(statement)).rowcount:
                return False
            await note(connection, item, f"plan.{state.value}", actor="watchkeeper", now=now, why=why)
            return True

    async def overdue(self, *, now: datetime) -> list[PlanRow]:
        """Plans that nobody decided in time, and approved ones that nobody could start in time."""
        query = sa.select(plan).where(
            sa.or_(
                sa.and_(plan.c.state.in_(_ON_THE_TABLE), plan.c.expires_at < now),
                sa.and_(
                    plan.c.state == PlanState.APPROVED.value,
                    plan.c.start_by < now,
                    plan.c.started_chapter < plan.c.chapter,
                ),
            )
        )
        async with self._database.read() as connection:
            return [_plan_row(row, {}) for row in await connection.execute(query)]


async def note(
    connection: AsyncConnection, item: Plan, action: str, *, actor: str, now: datetime, **details: Any
) -> None:
    """Put a deed on record and refresh the card, inside the caller's transaction."""
    await chain.append(
        connection, at=now, actor=actor, action=action, subject=item.incident_id, plan=item.plan_id, **details
    )
    await touch(connection, item.incident_id)


async def _approvals(connection: AsyncConnection, plan_ids: Sequence[str]) -> dict[str, tuple[Approval, ...]]:
    found: dict[str, tuple[Approval, ...]] = {}
    query = sa.select(approval).where(approval.c.plan_id.in_(plan_ids)).order_by(approval.c.at)
    for row in await connection.execute(query):
        values = row._asdict()
        plan_id = values.pop("plan_id")
        found[plan_id] = (*found.get(plan_id, ()), Approval(**values))
    return found


def _row(item: Plan, *, run: int, rank: int, state: PlanState, now: datetime) -> dict[str, Any]:
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


def _plan_row(row: Any, approvals: Mapping[str, tuple[Approval, ...]]) -> PlanRow:
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
