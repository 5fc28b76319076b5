"""
What people asked for and only a process with the action credentials can do: taking a fix back, giving it other values.

Either is a plan made from the state now, and reading that state needs the credentials. So the click leaves an errand,
and whoever works runs it in the person's name. Their right is checked again then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from bot.approvals import Approvals
from bot.card import may_be_undone
from bot.config import Config
from bot.incidents import (
    ASKS_A_PERSON,
    AlreadyDecidedError,
    NotAllowedError,
    NotFoundError,
    Person,
    PlanState,
    StaleError,
    StepUpNeededError,
)
from bot.narrowing import Narrowing, WrongValuesError
from bot.policy import POLICY, Policy
from bot.respond import context_of, diagnosis_of, without_secrets
from bot.store.errands import WATCHKEEPER, Errand, Errands
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.people import PeopleTable
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from runbooks.engine.chosen import as_text
from runbooks.engine.plan import PlanContext, plan, undo_plan, without_a_click
from runbooks.engine.records import record_from_json
from runbooks.engine.run import changed_steps
from runbooks.engine.values import Action, CannotPlanError, Plan

RUN_WITHIN = timedelta(minutes=15)
"""A person's click counts for so long; whoever works later than that has to be asked again."""


_REFUSALS = (NotAllowedError, AlreadyDecidedError, StaleError, StepUpNeededError, NotFoundError, WrongValuesError)


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
        config: Config,
        narrowing: Narrowing,
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
        self._config = config
        self._narrowing = narrowing
        self._actions = actions

    async def sweep(self) -> int:
        """
        Run what waits; returns how many were looked at. Raises StoreUnavailableError, and goes on the next time.

        One that breaks is tried again until it is too old, and keeps none of the others.
        """
        waiting = await self._errands.claim(me=self._me)
        broke: list[BaseException] = []
        for errand in waiting:
            [end] = await asyncio.gather(self._answer(errand), return_exceptions=True)
            broke += [end] if end is not None else []
        for end in broke:
            raise end
        return len(waiting)

    async def _answer(self, errand: Errand) -> None:
        person = await self._people.get(errand.person_id)
        name = "Watchkeeper" if errand.person_id == WATCHKEEPER else person.name if person else errand.person_id
        try:
            await self._run(errand, person)
        except _REFUSALS as refusal:
            await self._errands.refused(errand, str(refusal), name=name, me=self._me, now=datetime.now(UTC))
        else:
            await self._errands.done(errand, me=self._me)

    async def _run(self, errand: Errand, by: Person | None) -> None:
        if errand.person_id == WATCHKEEPER:
            await self._undo_by_itself(errand)
            return
        if by is None:
            raise NotAllowedError(f"{errand.person_id} is not in the configuration any more.")
        by = replace(by, channel=errand.channel)
        if errand.kind == "narrow":
            await self._narrow(errand, by)
        else:
            await self._undo(errand, by)

    async def _narrow(self, errand: Errand, by: Person) -> None:
        """
        The same fix with other values: a plan of its own, made from the state now, which nobody has approved yet.

        Whoever chose the values is its requester. A crash after it was made finds it, and makes no second one.
        """
        made = await self._plans.of_incident(errand.incident_id)
        mine = [each.plan for each in made if each.plan.requester == by.person_id]
        if any(each.params == errand.values and each.made_at >= errand.asked_at for each in mine):
            return
        now = datetime.now(UTC)
        if now - errand.asked_at > RUN_WITHIN:
            raise StaleError("This waited too long for a worker, so nothing was changed. Ask again.")
        texts = {name: as_text(value) for name, value in errand.values.items()}
        row, values = await self._narrowing.checked(errand.subject, texts, by, digest=None, now=now)
        runbook = await self._narrowing.runbook_of(row, by, now=now)
        context = replace(await self._context(row), params=values, requester=by.person_id)
        try:
            new = self._policy.timed(without_secrets(await plan(runbook, context, self._actions)))
        except CannotPlanError as refusal:
            raise StaleError(f"No fix can be made with these values: {refusal}.") from refusal
        await self._plans.replace(row, new, now=now)

    async def _context(self, row: PlanRow) -> PlanContext:
        """As the old plan was made: the same diagnosis, the same suspect."""
        incident = await self._incidents.get(row.plan.incident_id)
        found = diagnosis_of(await self._incidents.run(incident.incident_id, row.run))
        service = self._config.service(row.plan.service)
        suspects = [each for each in found.suspects if each.change.id == row.plan.suspect] if found else []
        if service is None or found is None or (row.plan.suspect is not None and not suspects):
            raise StaleError("What this fix was made from is not known any more. Diagnose again for a fresh one.")
        suspect = suspects[0] if suspects else None
        return context_of(incident, service, found, suspect, policy_version=self._policy.version)

    async def _undo(self, errand: Errand, by: Person) -> None:
        """
        Take back what this plan did: a plan of its own, made from the state now, approved by the click.

        Where the policy asks for more than one person it stays on the card for the others.
        """
        row = await self._plans.get(errand.subject)
        self._policy.grant(by, row.plan, await self._incidents.get(row.plan.incident_id))
        if not may_be_undone(row):
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

    async def _undo_by_itself(self, errand: Errand) -> None:
        """
        What did not verify is taken back as its approval said: a plan of its own, on the same people's word.

        It starts like any other: people, policy, kill switch and the state are looked at again. What it must leave, and
        why, stands in its title.
        """
        row = await self._plans.get(errand.subject)
        if undos_of(errand.subject, await self._plans.of_incident(errand.incident_id)):
            return  # a crash came before the end of this errand, or a person was faster
        if row.plan.policy_version != self._policy.version:
            raise StaleError("The approval policy changed since the approval. Undo it on the card.")
        if not any(each.decision == "approve" and each.person_id != POLICY for each in row.approvals):
            raise StaleError("Nobody's approval covers the undo of what was started without one. Undo it on the card.")
        now = datetime.now(UTC)
        if now - errand.asked_at > RUN_WITHIN:
            raise StaleError("This waited too long for a worker, so nothing was changed. Undo it on the card.")
        steps, ends = without_a_click(row.plan, await self._changed(row))
        if ends and not steps:
            raise StaleError(f"This is not taken back by itself: {ends}.")
        undo = await self._undo_of(row, steps, now)
        if ends:
            undo = replace(undo, title=f"{undo.title} (only in part: {ends})")
        requirement = self._policy.requirement(undo)
        if requirement is None:
            raise StaleError("No policy rule lets anybody approve the undo.")
        await self._plans.save_approved(undo, by=row, start_by=now + requirement.start_within, now=now)

    async def _changed(self, row: PlanRow) -> tuple[int, ...]:
        entries = await self._journal.read(row.plan.plan_id)
        return changed_steps(row.plan, [record_from_json(entry.record) for entry in entries])

    async def _offer_undo(self, row: PlanRow) -> str:
        """Put a fresh undo of this plan on the table; returns its id."""
        now = datetime.now(UTC)
        undo = await self._undo_of(row, await self._changed(row), now)
        await self._plans.save(undo, run=row.run, rank=None, state=PlanState.PROPOSED, now=now)
        return undo.plan_id

    async def _undo_of(self, row: PlanRow, steps: Collection[int], now: datetime) -> Plan:
        try:
            undo = await undo_plan(
                row.plan,
                steps,
                self._actions,
                now=now,
                policy_version=self._policy.version,
            )
            return self._policy.timed(without_secrets(undo))
        except CannotPlanError as refusal:
            raise StaleError(f"This cannot be taken back: {refusal}.") from refusal


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
