"""
What people may do, one method per deed. Slack's listeners call these, and nothing else changes anything for a person.

Every method checks the person's right, commits, and rings the bell; the slow part (PagerDuty, Slack, the fix itself)
is done afterwards by whoever sweeps. So a listener can commit before it acknowledges the click.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

from bot import narrate
from bot.approvals import Approvals
from bot.break_glass import BreakGlass
from bot.card import may_be_undone
from bot.errands import undo_on_the_table, undos_of
from bot.incidents import (
    ASKS_A_PERSON,
    AlreadyDecidedError,
    Choices,
    IncidentLine,
    IncidentState,
    NotAllowedError,
    NotFoundError,
    Person,
    PlanState,
    StaleError,
)
from bot.kill_switch import StopFile
from bot.narrowing import Narrowing
from bot.policy import Policy
from bot.respond import diagnosis_of
from bot.store.errands import Errands
from bot.store.incidents import Incidents
from bot.store.journal import Journal, JournalEntry
from bot.store.kill_switch import SUBJECT as SWITCH
from bot.store.kill_switch import KillSwitch
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from bot.store.votes import Ballot, Verdict, Votes
from retrieval.documents import Hit, Question
from retrieval.ranking import RunbookSearch
from runbooks.engine.records import AskPerson, Settled, record_from_json, record_json
from runbooks.engine.run import decide

_ANSWERS: Mapping[str, Literal["ran", "did_not_run", "stop"]] = {each: each for each in ("ran", "did_not_run", "stop")}


class Desk:
    """Deeds of people. Each raises NotAllowedError, AlreadyDecidedError, StaleError, NotFoundError; approving more."""

    def __init__(
        self,
        *,
        incidents: Incidents,
        plans: Plans,
        journal: Journal,
        approvals: Approvals,
        glass: BreakGlass,
        policy: Policy,
        search: RunbookSearch,
        errands: Errands,
        switch: KillSwitch,
        stop_file: StopFile,
        narrowing: Narrowing,
        votes: Votes,
        ring: Callable[[], None],
    ) -> None:
        self._incidents = incidents
        self._plans = plans
        self._journal = journal
        self._approvals = approvals
        self._glass = glass
        self._policy = policy
        self._search = search
        self._errands = errands
        self._switch = switch
        self._stop_file = stop_file
        self._narrowing = narrowing
        self._votes = votes
        self._ring = ring

    @asynccontextmanager
    async def _deed(self, what: str, subject: str, by: Person) -> AsyncIterator[None]:
        """Around every deed: a refusal goes on record, a deed rings the bell."""
        try:
            yield
        except NotAllowedError as refusal:
            await self.refused(who=by.person_id, what=what, why=str(refusal), subject=subject, channel=by.channel)
            raise
        self._ring()

    async def acknowledge(self, incident_id: str, by: Person) -> None:
        """Tell PagerDuty that this person has it; the card changes when PagerDuty says so."""
        async with self._deed("acknowledge", incident_id, by):
            await self._tell_pagerduty(incident_id, by, "acknowledge")

    async def resolve(self, incident_id: str, by: Person) -> None:
        """Tell PagerDuty that it is over."""
        async with self._deed("resolve", incident_id, by):
            await self._tell_pagerduty(incident_id, by, "resolve")

    async def _tell_pagerduty(self, incident_id: str, by: Person, kind: str) -> None:
        now = datetime.now(UTC)
        incident = await self._incidents.get(incident_id)
        self._policy.may_act(by, incident)
        if incident.state is IncidentState.RESOLVED:
            raise StaleError("This incident is resolved already.")
        await self._incidents.asked(
            incident_id, kind, key=f"{incident_id}:{kind}:{incident.state_at.isoformat()}", by=by, now=now
        )

    async def rediagnose(self, incident_id: str, by: Person) -> None:
        """Look again, under the next run number."""
        async with self._deed("rediagnose", incident_id, by):
            self._policy.may_act(by, await self._incidents.get(incident_id))
            await self._incidents.ask_again(incident_id, by=by.person_id, now=datetime.now(UTC))

    async def approve(self, plan_id: str, by: Person, *, digest: str | None = None, code: str | None = None) -> None:
        """Approve exactly this plan; with `digest` only if that is still its hash, with `code` where it needs one."""
        async with self._deed("approve", plan_id, by):
            await self._approvals.approve(plan_id, by=by, now=datetime.now(UTC), digest=digest, code=code)

    async def escalate(self, plan_id: str, by: Person) -> None:
        """Page the secondary, since more people are needed; once for a plan. It lowers no count."""
        async with self._deed("escalate", plan_id, by):
            row = await self._plans.get(plan_id)
            self._policy.may_act(by, await self._incidents.get(row.plan.incident_id))
            if row.state is not PlanState.PROPOSED or not any(each.decision == "approve" for each in row.approvals):
                raise StaleError("Nobody waits for a second person here; see the card.")
            if not await self._incidents.ask_secondary(row.plan.incident_id, plan_id, by=by, now=datetime.now(UTC)):
                raise AlreadyDecidedError("The secondary was paged for this already.")

    async def break_glass(
        self, plan_id: str, reason: str, by: Person, *, digest: str | None = None, code: str | None = None
    ) -> str:
        """Start exactly this plan alone, in an emergency. What to tell the person; without `code` where it is asked."""
        async with self._deed("break_glass", plan_id, by):
            now = datetime.now(UTC)
            review = await self._glass.start(plan_id, by=by, reason=reason, now=now, digest=digest, code=code)
        return f"{narrate.DONE['break_glass']} {narrate.BREAK_GLASS.format(review=review)}"

    async def deny(self, plan_id: str, by: Person, *, digest: str | None = None) -> None:
        """Refuse this plan for good."""
        async with self._deed("deny", plan_id, by):
            await self._approvals.deny(plan_id, by=by, now=datetime.now(UTC), digest=digest)

    async def revoke(self, plan_id: str, by: Person, *, digest: str | None = None) -> None:
        """Take the approval of a plan back that has not begun; it is offered again."""
        async with self._deed("revoke", plan_id, by):
            await self._approvals.revoke(plan_id, by=by, now=datetime.now(UTC), digest=digest)

    async def request(self, plan_id: str, by: Person) -> None:
        """Put another possible fix on the table."""
        async with self._deed("request", plan_id, by):
            await self._approvals.request(plan_id, by=by, now=datetime.now(UTC))

    async def choices(self, plan_id: str, by: Person) -> Choices:
        """What this person may choose in this plan."""
        async with self._deed("narrow", plan_id, by):
            return await self._narrowing.choices(plan_id, by, now=datetime.now(UTC))

    async def narrow(self, plan_id: str, values: Mapping[str, str], by: Person, *, digest: str | None = None) -> None:
        """
        Give a plan's parameters other values; `values` are texts by name, the others stay. Raises WrongValuesError.

        Whoever works makes the new plan, which voids this one; somebody else than this person has to approve it.
        """
        async with self._deed("narrow", plan_id, by):
            now = datetime.now(UTC)
            row, chosen = await self._narrowing.checked(plan_id, values, by, digest=digest, now=now)
            await self._errands.ask("narrow", plan_id, incident_id=row.plan.incident_id, by=by, now=now, values=chosen)

    async def undo(self, plan_id: str, by: Person) -> None:
        """
        Ask for what this plan did to be taken back. Whoever works reads the state now, makes the undo, and approves
        it in this person's name if they still may.
        """
        async with self._deed("undo", plan_id, by):
            row = await self._plans.get(plan_id)
            self._policy.grant(by, row.plan, await self._incidents.get(row.plan.incident_id))
            if not may_be_undone(row):
                raise StaleError("There is nothing to take back.")
            undo_on_the_table(undos_of(plan_id, await self._plans.of_incident(row.plan.incident_id)))
            now = datetime.now(UTC)
            await self._errands.ask("undo", plan_id, incident_id=row.plan.incident_id, by=by, now=now)

    async def settle(self, plan_id: str, step: int, answer: str, by: Person) -> None:
        """Say what a step that nobody can prove did: `ran`, `did_not_run` or `stop`."""
        if answer not in _ANSWERS:
            raise StaleError(f"{answer!r} is not an answer.")
        async with self._deed("settle", plan_id, by):
            row = await self._plans.get(plan_id)
            self._policy.grant(by, row.plan, await self._incidents.get(row.plan.incident_id))
            entries = await self._journal.read(plan_id)
            if not _asks_about(step, row, entries):
                await self._stop_for_good(row, answer, by)
                return
            record = Settled(step=step, answer=_ANSWERS[answer], person=by.person_id)
            await self._journal.settle(
                row.plan,
                position=len(entries) + 1,
                step=step,
                record=record_json(record),
                by=by.person_id,
                now=datetime.now(UTC),
            )

    async def _stop_for_good(self, row: PlanRow, answer: str, by: Person) -> None:
        """A doubt that no answer can settle (its journal contradicts itself) can still be ended, and lets go."""
        if answer != "stop":
            raise StaleError("Nobody asks about this step any more; see the card.")
        ended = await self._plans.end(
            row.plan,
            PlanState.FAILED,
            f"Stopped by {by.name}.",
            now=datetime.now(UTC),
            expected=list(ASKS_A_PERSON),
            told=[("slack", "outcome"), ("pagerduty", "outcome")],
            actor=by.person_id,
        )
        if not ended:
            raise AlreadyDecidedError("This doubt is settled already.")

    async def vote(self, incident_id: str, run: int, runbook: str, verdict: Verdict, by: Person) -> str:
        """
        Say whether a runbook that a diagnosis suggested helps; the same again takes it back. What to tell the person.

        Whoever the configuration knows may: a vote changes nothing but, after a review, an order.
        """
        async with self._deed("vote", incident_id, by):
            found = await self._incidents.run(incident_id, run)
            if found is None or runbook not in {hit["doc_id"] for hit in found.hits or ()}:
                raise NotFoundError(f"Diagnosis {run} of {incident_id} did not suggest a runbook {runbook}.")
            ballot = Ballot(
                incident_id=incident_id,
                runbook=runbook,
                person_id=by.person_id,
                verdict=verdict,
                run=run,
                at=datetime.now(UTC),
            )
            counts, tally = await self._votes.cast(ballot, channel=by.channel)
        return narrate.voted(verdict if counts else "", tally.helpful, tally.wrong)

    async def stop(self, reason: str, by: Person) -> str:
        """Stop every fix on every machine before its next step. What to tell the person."""
        async with self._deed("stop", SWITCH, by):
            self._policy.may_stop(by, await self._incidents.unresolved())
            now = datetime.now(UTC)
            is_new = await self._switch.stop(by=by.person_id, name=by.name, reason=reason, channel=by.channel, now=now)
        return narrate.DONE["stop"] if is_new else narrate.STOPPED_ALREADY

    async def go(self, by: Person) -> str:
        """End the stop. What to tell the person. Raises StoppedError while something keeps everything stopped."""
        async with self._deed("go", SWITCH, by):
            self._policy.may_release(by)
            self._stop_file.refuse_if_there()
            is_new = await self._switch.go(by=by.person_id, name=by.name, channel=by.channel, now=datetime.now(UTC))
        return narrate.DONE["go"] if is_new else narrate.NOTHING_STOPPED

    async def stopped(self) -> str:
        """That everything is stopped, since when and why, in a sentence; "" when nothing is."""
        state, now = await self._switch.read(), datetime.now(UTC)
        return narrate.stopped(state.who, state.reason, state.at, now) if state.is_stopped else ""

    async def status(self) -> list[IncidentLine]:
        """Every open incident in a line."""
        lines = []
        for incident in await self._incidents.unresolved():
            found = diagnosis_of(await self._incidents.run(incident.incident_id, incident.run))
            first = found.causes[0] if found and found.causes else None
            plans = await self._plans.of_incident(incident.incident_id)
            lines.append(
                IncidentLine(
                    incident_id=incident.incident_id,
                    title=incident.title,
                    service=incident.service or incident.pagerduty_service_name,
                    state=incident.state.value,
                    cause=f"{first.title} ({first.probability:.0%})" if first else "not known yet",
                    waiting_for=_waiting_for(plans),
                    url=incident.url,
                )
            )
        return lines

    async def search(self, text: str) -> list[Hit]:
        """Runbooks for a person's words."""
        return await self._search.search(Question(text=text))

    async def refused(self, *, who: str, what: str, why: str, subject: str, channel: str = "slack") -> None:
        """Put a refused click on record; `subject` is the incident's or the plan's id."""
        await self._incidents.refused(
            await self._incident_of(subject),
            who=who,
            what=what,
            why=why,
            about=subject,
            channel=channel,
            now=datetime.now(UTC),
        )
        self._ring()

    async def _incident_of(self, subject: str) -> str:
        """Buttons carry an incident's id or a plan's, maybe with more behind a colon."""
        thing = subject.partition(":")[0]
        try:
            return (await self._plans.get(thing)).plan.incident_id
        except NotFoundError:
            return thing


def _asks_about(step: int, row: PlanRow, entries: list[JournalEntry]) -> bool:
    """Does the journal wait for a person's word on this step? An answer to another would contradict it for good."""
    move = decide(row.plan, [record_from_json(entry.record) for entry in entries])
    return isinstance(move, AskPerson) and move.step == step


def _waiting_for(plans: list[PlanRow]) -> str:
    states = {row.state for row in plans}
    if PlanState.IN_DOUBT in states:
        return "a person's answer about a step in doubt"
    if PlanState.WAITING in states:
        return "a person to do a step"
    if PlanState.RUNNING in states or PlanState.APPROVED in states:
        return "a fix that is running"
    return "an approval" if PlanState.PROPOSED in states else "somebody to look"
