"""Plans: proposed, decided once, begun once, ended once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.incidents import AlreadyDecidedError, NotFoundError, PlanState, StaleError
from bot.limits import Act
from bot.store import audit as chain
from bot.store.acts import UNDER_WAY, recent_acts
from bot.store.approval_seals import ApprovalSeals
from bot.store.database import Database
from bot.store.errands import put_own
from bot.store.kill_switch import refuse_if_stopped, stops_so_far
from bot.store.outbox import post
from bot.store.plan_rows import Approval, PlanRow, approvals_of, to_plan_row, to_row
from bot.store.statements import insert_new, lock_targets, touch
from bot.store.tables import approval, incident, plan
from runbooks.engine.values import JsonObject, Plan, plan_json

_ON_THE_TABLE = (PlanState.PROPOSED.value, PlanState.ALTERNATIVE.value)


class Plans:
    """Every method is one transaction. Raises StoreUnavailableError, and NotFoundError for an unknown plan."""

    def __init__(self, database: Database, seals: ApprovalSeals | None = None) -> None:
        self._database = database
        self.seals = seals or ApprovalSeals()

    async def save(self, item: Plan, *, run: int, rank: int | None, state: PlanState, now: datetime) -> None:
        """
        Keep a plan; a second one for the same diagnosis and rank changes nothing (a repeated step plans anew).
        Without a rank it takes the next free one.

        One of a diagnosis that was asked for again meanwhile is not kept.
        """
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            if rank is not None and run < await _latest_run(connection, item.incident_id):
                return  # a slower diagnosis than its successor
            if rank is None:
                rank = await _next_rank(connection, item.incident_id, run)
            await _keep(connection, item, run=run, rank=rank, state=state, now=now)

    async def replace(self, old: PlanRow, new: Plan, *, now: datetime, revoked: JsonObject | None = None) -> None:
        """
        Withdraw a plan that is offered, or approved and not begun, and offer `new` in its place, approved by nobody.

        `revoked` is who took the approval back (`actor`) and how. Raises AlreadyDecidedError when `old` was decided,
        begun or replaced since it was read, and StoppedError for `revoked` when the kill switch ended it.
        """
        async with self._database.write() as connection:
            await touch(connection, new.incident_id)
            await refuse_beside_another(connection, old.plan)
            if revoked is not None:
                await refuse_if_stopped(connection, old.plan.plan_id)
            withdrawn = (
                plan.update()
                .where(plan.c.plan_id == old.plan.plan_id, plan.c.state == old.state.value, plan.c.digest == old.digest)
                .values(state=PlanState.SUPERSEDED.value, state_at=now)
            )
            if not (await connection.execute(withdrawn)).rowcount:
                raise AlreadyDecidedError("This fix was decided or replaced meanwhile; see the card.")
            rank = await _next_rank(connection, new.incident_id, old.run)
            await _keep(connection, new, run=old.run, rank=rank, state=PlanState.PROPOSED, now=now)
            if revoked is not None:
                await note(connection, old.plan, "plan.revoke", now=now, **revoked)

    async def save_approved(self, item: Plan, *, by: PlanRow, start_by: datetime, now: datetime) -> None:
        """
        Keep the undo of a plan, approved by what approved that one: whoever said yes to `by` was shown that this runs.

        It remembers as many stops as `by`: the kill switch ends it like its plan. Raises AlreadyDecidedError when
        another fix is approved or running, StaleError when an approval of `by` is none of ours.
        """
        self.seals.refuse_unsealed(by)
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            await refuse_beside_another(connection, item)
            rank = await _next_rank(connection, item.incident_id, by.run)
            await _keep(connection, item, run=by.run, rank=rank, state=PlanState.APPROVED, now=now)
            known = sa.select(plan.c.stops).where(plan.c.plan_id == by.plan.plan_id).scalar_subquery()
            await connection.execute(
                plan.update().where(plan.c.plan_id == item.plan_id).values(start_by=start_by, stops=known)
            )
            said = [each for each in by.approvals if each.decision == "approve" and each.digest == by.digest]
            for each in said:
                await insert_new(connection, approval, self.seals.row(item.plan_id, replace(each, digest=item.digest)))
            approvers = [each.person_id for each in said]
            await note(
                connection,
                item,
                "plan.approved_in_advance",
                actor="watchkeeper",
                now=now,
                digest=item.digest,
                approved=by.digest,
                approvers=approvers,
            )

    async def get(self, plan_id: str) -> PlanRow:
        """One plan with its approvals. Raises NotFoundError."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(plan).where(plan.c.plan_id == plan_id))).one_or_none()
            if row is None:
                raise NotFoundError(f"plan {plan_id} is not known here")
            return to_plan_row(row, await approvals_of(connection, [plan_id]))

    async def of_incident(self, incident_id: str) -> list[PlanRow]:
        """Every plan of an incident, newest diagnosis first, best plan first."""
        query = (
            sa.select(plan)
            .where(plan.c.incident_id == incident_id)
            .order_by(plan.c.run.desc(), plan.c.rank, plan.c.created_at)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            decisions = await approvals_of(connection, [row.plan_id for row in rows])
            return [to_plan_row(row, decisions) for row in rows]

    async def request(self, item: Plan, *, by: str, now: datetime) -> None:
        """
        Put an alternative on the table instead of what is proposed; `item` carries the requester and a new nonce.

        Raises AlreadyDecidedError when the alternative is not one any more, or another plan is decided or running.
        """
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            await refuse_beside_another(connection, item)
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
        self,
        item: PlanRow,
        decision: str,
        *,
        by: str,
        role: str,
        suffice: Callable[[Sequence[Approval]], bool],
        start_by: datetime,
        now: datetime,
        channel: str = "slack",
        step_up: str | None = None,
    ) -> bool:
        """
        Write down that this person approves or denies this plan; True when that settles it.

        `suffice` judges all approvals of exactly this plan, the new one among them, inside the transaction.
        The key (plan, person) and a conditional update decide, not an earlier SELECT, so any number of quick clicks
        starts the plan once. Raises AlreadyDecidedError for everyone after that, and StoppedError while everything is
        stopped: then only denying is left.
        """
        plan_id = item.plan.plan_id
        async with self._database.write() as connection:
            await touch(connection, item.plan.incident_id)
            await hold_proposed(connection, item)
            if decision == "approve":
                await refuse_if_stopped(connection, plan_id)
                await refuse_beside_another(connection, item.plan)
            how = {"role": role, "digest": item.digest, "channel": channel}
            word = Approval(person_id=by, decision=decision, at=now, step_up=step_up, **how)
            if not await insert_new(connection, approval, self.seals.row(plan_id, word)):
                raise AlreadyDecidedError("You have decided on this fix already.")
            said = (await approvals_of(connection, [plan_id]))[plan_id]
            of_it = [each for each in said if each.decision == "approve" and each.digest == item.digest]
            carrying = [each for each in of_it if self.seals.holds(plan_id, each)]
            settles = decision == "deny" or suffice(carrying)
            if settles:
                state = PlanState.DENIED if decision == "deny" else PlanState.APPROVED
                await connection.execute(
                    plan.update()
                    .where(plan.c.plan_id == plan_id)
                    .values(state=state.value, state_at=now, start_by=start_by)
                )
            how |= {"step_up": step_up} if step_up else {}
            await note(connection, item.plan, f"plan.{decision}", actor=by, now=now, **how)
            return settles

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

    async def recent_acts(self, *, now: datetime, but: str = "") -> Sequence[Act]:
        """What other plans than `but` started within the last hour, as limits count it."""
        async with self._database.read() as connection:
            return await recent_acts(connection, now=now, but=but)

    async def begin(self, item: PlanRow, *, now: datetime, bound: Callable[[Sequence[Act]], str]) -> bool:
        """
        Approved becomes running, once; False when it is running already (a repeated workflow step).

        `bound` says which limit it would break, after what started within the last hour: counted under the lock, so
        that two starts cannot both be the last that fits. Raises StaleError then, when its time to start is over, or
        when another plan holds one of its targets; StoppedError when everything is stopped.
        """
        async with self._database.write() as connection:
            await touch(connection, item.plan.incident_id)
            await lock_targets(connection)
            row = (await connection.execute(sa.select(plan).where(plan.c.plan_id == item.plan.plan_id))).one()
            if row.state in UNDER_WAY:
                return False
            if row.state != PlanState.APPROVED.value:
                raise StaleError(f"the plan is {row.state}")
            await refuse_if_stopped(connection, item.plan.plan_id)
            if row.start_by is None or now > row.start_by:
                raise StaleError("it was approved too long ago to start now")
            running = await connection.execute(sa.select(plan.c.frozen).where(plan.c.state.in_(UNDER_WAY)))
            mine = {step.target for step in item.plan.steps}
            for frozen in running.scalars():
                held = mine & {step["target"] for step in frozen["steps"]}
                if held:
                    raise StaleError(f"another plan is working on {min(held)}")
            if broken := bound(await recent_acts(connection, now=now, but=item.plan.plan_id)):
                raise StaleError(broken)
            await connection.execute(
                plan.update()
                .where(plan.c.plan_id == item.plan.plan_id, plan.c.state == PlanState.APPROVED.value)
                .values(state=PlanState.RUNNING.value, state_at=now)
            )
            await note(connection, item.plan, "plan.started", actor="watchkeeper", now=now, digest=item.digest)
            return True

    async def end(
        self,
        item: Plan,
        state: PlanState,
        why: str,
        *,
        now: datetime,
        expected: Sequence[PlanState],
        told: Sequence[tuple[str, str]] = (),
        actor: str = "watchkeeper",
        errand: str | None = None,
    ) -> bool:
        """
        Move to an end (or to in_doubt) from one of the expected states; False when it is elsewhere already.

        `told` are the parcels (lane, kind) that say so, committed together with it: an end that nobody hears of, or
        an incident that stays open behind a verified fix, would page people for nothing. `errand` is what a worker
        shall do next about it without being asked.
        """
        async with self._database.write() as connection:
            await touch(connection, item.incident_id)
            statement = (
                plan.update()
                .where(plan.c.plan_id == item.plan_id, plan.c.state.in_([each.value for each in expected]))
                .values(state=state.value, state_why=why, state_at=now)
                .returning(plan.c.chapter)
            )
            chapter = (await connection.execute(statement)).scalar_one_or_none()
            if chapter is None:
                return False
            for lane, kind in told:
                await post(
                    connection,
                    key=f"{item.plan_id}:{chapter}:{state.value}:{lane}:{kind}",
                    incident_id=item.incident_id,
                    lane=lane,
                    kind=kind,
                    now=now,
                    plan=item.plan_id,
                    by=actor,
                )
            if errand is not None:
                await put_own(connection, errand, item.plan_id, incident_id=item.incident_id, now=now)
            if ("pagerduty", "resolve") in told:
                await connection.execute(
                    incident.update().where(incident.c.incident_id == item.incident_id).values(resolved_by=actor)
                )
            await note(connection, item, f"plan.{state.value}", actor=actor, now=now, why=why)
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
            return [to_plan_row(row, {}) for row in await connection.execute(query)]


async def note(
    connection: AsyncConnection, item: Plan, action: str, *, actor: str, now: datetime, **details: Any
) -> None:
    """Put a deed on record, inside the caller's transaction, which has touched the incident first."""
    await chain.append(
        connection, at=now, actor=actor, action=action, subject=item.incident_id, plan=item.plan_id, **details
    )


async def _next_rank(connection: AsyncConnection, incident_id: str, run: int) -> int:
    last = sa.select(sa.func.max(plan.c.rank)).where(plan.c.incident_id == incident_id, plan.c.run == run)
    return int((await connection.execute(last)).scalar_one() or 0) + 1


async def _keep(
    connection: AsyncConnection, item: Plan, *, run: int, rank: int, state: PlanState, now: datetime
) -> None:
    row = to_row(item, run=run, rank=rank, state=state, now=now) | {"stops": await stops_so_far(connection)}
    if not await insert_new(connection, plan, row):
        return
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


async def hold_proposed(connection: AsyncConnection, item: PlanRow) -> None:
    """Hold the proposed plan's row to the end of the transaction. Raises AlreadyDecidedError when it is not that."""
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


async def _latest_run(connection: AsyncConnection, incident_id: str) -> int:
    query = sa.select(incident.c.run).where(incident.c.incident_id == incident_id)
    return int((await connection.execute(query)).scalar_one())


async def refuse_beside_another(connection: AsyncConnection, item: Plan) -> None:
    """One fix at a time for an incident. Raises AlreadyDecidedError."""
    busy = sa.select(sa.func.count()).where(
        plan.c.incident_id == item.incident_id,
        plan.c.plan_id != item.plan_id,
        plan.c.state.in_((PlanState.APPROVED.value, *UNDER_WAY)),
    )
    if (await connection.execute(busy)).scalar_one():
        raise AlreadyDecidedError("Another fix is approved or running; let it end first.")
