"""
What people asked for and only a process with the action credentials can do: taking a fix back.

An undo is made from the state now, and reading that state needs the credentials. So the click leaves an errand, and
whoever works runs it in the person's name. Their right is checked again then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bot.approvals import Approvals
from bot.card import MAY_BE_UNDONE
from bot.incidents import (
    ASKS_A_PERSON,
    AlreadyDecidedError,
    NotAllowedError,
    NotFoundError,
    Person,
    PlanState,
    StaleError,
)
from bot.policy import Policy
from bot.respond import without_secrets
from bot.store.errands import Errand, Errands
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.people import PeopleTable
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from runbooks.engine.plan import undo_plan
from runbooks.engine.records import record_from_json
from runbooks.engine.run import changed_steps
from runbooks.engine.values import Action, CannotPlanError

RUN_WITHIN = timedelta(minutes=15)
"""A person's click counts for so long; whoever works later than that has to be asked again."""


class ErrandRunner:
    """Runs errands one after the other; a refusal is told in the thread and put on record."""

    def __init__(
        self,
        *,
        me: str,
        errands: Errands,
        incidents: Incidents,
        plans: Plans,
        journal: Journal,
        approvals: Approvals,
        people: PeopleTable,
        policy: Policy,
        actions: Mapping[str, Action],
    ) -> None:
        self._me = me
        self._errands = errands
        self._incidents = incidents
        self._plans = plans
        self._journal = journal
        self._approvals = approvals
        self._people = people
        self._policy = policy
        self._actions = actions

    async def sweep(self) -> int:
        """Run what waits; returns how many were looked at. Raises StoreUnavailableError, and goes on the next time."""
        waiting = await self._errands.claim(me=self._me)
        for errand in waiting:
            person = await self._people.get(errand.person_id)
            name = person.name if person else errand.person_id
            try:
                await self._undo(errand, person)
            except (NotAllowedError, AlreadyDecidedError, StaleError, NotFoundError) as refusal:
                await self._errands.refused(errand, str(refusal), name=name, me=self._me, now=datetime.now(UTC))
            else:
                await self._errands.done(errand, me=self._me)
        return len(waiting)

    async def _undo(self, errand: Errand, by: Person | None) -> None:
        """
        Take back what this plan did: a plan of its own, made from the state now, approved by the click.

        Where the policy asks for more than one person it stays on the card for the others.
        """
        if by is None:
            raise NotAllowedError(f"{errand.person_id} is not in the configuration any more.")
        by = replace(by, channel=errand.channel)
        row = await self._plans.get(errand.subject)
        self._policy.grant(by, row.plan, await self._incidents.get(row.plan.incident_id))
        if row.state not in MAY_BE_UNDONE:
            raise StaleError("There is nothing to take back.")
        undos = [
            each for each in await self._plans.of_incident(errand.incident_id) if each.plan.undoes == errand.subject
        ]
        said = [each for undo in undos for each in undo.approvals if each.person_id == by.person_id]
        if any(each.at >= errand.asked_at for each in said):
            return  # a crash came between the approval and the end of this errand
        if datetime.now(UTC) - errand.asked_at > RUN_WITHIN:
            raise StaleError("This waited too long for a worker, so nothing was changed. Ask again.")
        ready = undo_on_the_table(undos) or await self._offer_undo(row)
        await self._approvals.approve(ready, by=by, now=datetime.now(UTC))

    async def _offer_undo(self, row: PlanRow) -> str:
        """Put a fresh undo of this plan on the table; returns its id."""
        now = datetime.now(UTC)
        records = [record_from_json(entry.record) for entry in await self._journal.read(row.plan.plan_id)]
        try:
            undo = await undo_plan(
                row.plan,
                changed_steps(row.plan, records),
                self._actions,
                now=now,
                policy_version=self._policy.version,
            )
            undo = self._policy.timed(without_secrets(undo))
        except CannotPlanError as refusal:
            raise StaleError(f"This cannot be taken back: {refusal}.") from refusal
        await self._plans.save(undo, run=row.run, rank=None, state=PlanState.PROPOSED, now=now)
        return undo.plan_id


def undos_of(plan_id: str, plans: Sequence[PlanRow]) -> list[PlanRow]:
    """Those of an incident's plans that take this one back."""
    return [each for each in plans if each.plan.undoes == plan_id]


def undo_on_the_table(undos: Sequence[PlanRow]) -> str | None:
    """An undo that is proposed already; raises StaleError when one ran or runs."""
    for undo in undos:
        if undo.state is PlanState.PROPOSED and undo.plan.expires_at > datetime.now(UTC):
            return undo.plan.plan_id
        if undo.state in (PlanState.APPROVED, PlanState.RUNNING, *ASKS_A_PERSON, PlanState.DONE):
            raise StaleError("This is being taken back, or was taken back already.")
    return None
