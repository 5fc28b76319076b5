"""
The story of one remediation: begin -> (act -> outcome -> verify) per step -> verified, or taken back.

`runbooks.engine.run.decide` says what comes next, from the plan and its journal alone; this file does it and writes
it down. Each move is one durable step. A crash in the middle of one repeats the move, and the journal then shows an
intent without an outcome: the move that follows is a probe, never a second act.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from dbos import DBOS, DBOSConfiguredInstance
from pydantic import BaseModel

from bot.approvals import Approvals
from bot.incidents import PlanState, StaleError, StoppedError
from bot.kill_switch import StopFile
from bot.pulse import Pulse
from bot.redact import safe_text, safe_values
from bot.store.journal import Journal, JournalEntry
from bot.store.plan_rows import PlanRow
from bot.store.plans import Plans
from bot.stories import Checkpoint, Stories
from bot.verify import Verifier
from bot.wait import wait_out
from runbooks.engine.actions.wait import WaitParams
from runbooks.engine.plan import fresh
from runbooks.engine.records import (
    Act,
    AskPerson,
    Finish,
    Intent,
    Move,
    Outcome,
    Probe,
    Probed,
    Record,
    Verified,
    Verify,
    Wait,
    record_from_json,
    record_json,
)
from runbooks.engine.run import WAIT, decide, told_by_both
from runbooks.engine.values import (
    Action,
    ActionError,
    Happened,
    OutcomeUnknownError,
    PatientAction,
    PlannedStep,
)

log = structlog.get_logger()

ACT_TIMEOUT_S = 30.0
"""A call that has not ended by then has an unknown outcome; it is probed, never repeated."""

MOST_MOVES = 200
_ENDS = {
    "failed": PlanState.FAILED,
    "not_verified": PlanState.NOT_VERIFIED,
    "in_doubt": PlanState.IN_DOUBT,
    "stopped": PlanState.FAILED,
}
LATE_AFTER_S = 10.0
"""A call whose answer was lost may still take effect; a probe's "no" counts when it stands for this long."""

_TOLD = (("slack", "outcome"), ("pagerduty", "outcome"))
_NOT_PROVEN = (
    "Nothing that this fix mends was measured as wrong before it, so the telemetry cannot show that it helped."
)
_WAITS_FOR = {"manual": "step {} is for a person to do", "in_doubt": "nobody can prove whether step {} ran"}


class Remediate:
    """The moves as plain functions over our own store; `tell` repeats them until the plan is over."""

    def __init__(
        self,
        *,
        plans: Plans,
        journal: Journal,
        approvals: Approvals,
        verifier: Verifier,
        actions: Mapping[str, Action],
        pulse: Pulse,
        stop_file: StopFile | None = None,
        late_after_s: float = LATE_AFTER_S,
    ) -> None:
        self._pulse = pulse
        self._stop_file = stop_file or StopFile(None)
        self._late_after_s = late_after_s
        self._plans = plans
        self._journal = journal
        self._approvals = approvals
        self._verifier = verifier
        self._actions = actions

    async def tell(self, plan_id: str, chapter: int, step: Checkpoint) -> None:
        """Carry the plan on until it ends or needs a person; a person's answer begins the next chapter."""
        if not await step("begin", self.begin, plan_id, chapter):
            return
        for number in range(MOST_MOVES):
            if await step(f"move {number}", self.move_on, plan_id):
                return

    async def begin(self, plan_id: str, chapter: int) -> bool:
        """Check again all that the approval rested on, and take the plan's targets; False when it must not start."""
        row = await self._plans.get(plan_id)
        if chapter > 1 or row.state is PlanState.RUNNING:
            return row.state is PlanState.RUNNING
        now = datetime.now(UTC)
        try:
            await self._approvals.still_hold(row, now=now)
            await self._approvals.refuse_lost(row, now=now)
            await self._refuse_moved_world(row)
            self._stop_file.refuse_if_there()
            await self._approvals.begin(row, now=datetime.now(UTC))  # Slack and the world may have answered slowly
        except StoppedError as refusal:
            await self._not_started(row, PlanState.STOPPED, f"Not started. {refusal}")
            return False
        except StaleError as refusal:
            await self._not_started(row, PlanState.STALE, f"Not started: {refusal}.")
            return False
        return True

    async def _not_started(self, row: PlanRow, state: PlanState, why: str) -> None:
        expected = [PlanState.APPROVED]
        await self._plans.end(row.plan, state, why, now=datetime.now(UTC), expected=expected, told=_TOLD)

    async def _refuse_moved_world(self, row: PlanRow) -> None:
        if moved := await fresh(row.plan, self._actions):
            raise StaleError(safe_text("; ".join(moved)))

    async def move_on(self, plan_id: str) -> bool:
        """Make the next move; True when the plan is over or waits for a person."""
        row = await self._plans.get(plan_id)
        if row.state is not PlanState.RUNNING:
            return True
        entries = await self._journal.read(plan_id)
        move = decide(row.plan, [record_from_json(entry.record) for entry in entries])
        log.info("move", plan=plan_id, move=type(move).__name__)
        return await self._make(move, row, entries)

    async def _make(self, move: Move, row: PlanRow, entries: Sequence[JournalEntry]) -> bool:
        try:
            match move:
                case Act(step=index):
                    await self._act(row, row.plan.steps[index], entries)
                case Probe(step=index):
                    await self._probe(row, row.plan.steps[index], entries)
                case Wait(step=index):
                    await self._wait(row, row.plan.steps[index], entries)
                case Verify(step=index):
                    await self._verify(row, row.plan.steps[index], entries)
                case AskPerson(step=index, why="manual") if await self._had_happened(
                    row, row.plan.steps[index], entries
                ):
                    return False
                case AskPerson(step=index, why=why):
                    state = PlanState.WAITING if why == "manual" else PlanState.IN_DOUBT
                    await self._end(row, state, _WAITS_FOR[why].format(index + 1))
                    return True
                case Finish(result="done"):
                    verified = any(entry.kind == "verified" for entry in entries)
                    proven = verified and row.plan.mends != ()
                    told = _NOT_PROVEN if verified and not proven else ""
                    await self._end(row, PlanState.VERIFIED if proven else PlanState.DONE, told)
                    return True
                case Finish(result=result, reason=reason):
                    await self._end(row, _ENDS[result], reason)
                    return True
        except StaleError as late:
            # A process that was taken over from wrote what it knew (an outcome, never an intent). It is cut off at its
            # next checkpoint, so the story must go on here, with what the journal says now.
            log.warning("overtaken", plan=row.plan.plan_id, why=str(late))
        return False

    async def _act(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry]) -> None:
        """Re-check the approval and the world, write the intent, act, write the outcome if there is one."""
        if await self._had_happened(row, step, entries):  # first, since looking takes a while
            return
        if refusal := await self._not_carried(row, entries) or await self._lost(row):
            await self._write(row, entries, Outcome(step=step.index, ok=False, detail=f"not started: {refusal}"))
            return
        if moved := await fresh(row.plan, self._actions, [step.index]):
            await self._step_aside(row, step, entries, safe_text("; ".join(moved)))
            return
        token = secrets.token_hex(16)
        action = self._actions[step.action]
        params = action.params.model_validate(dict(step.params))
        try:
            async with self._pulse.guard():  # what cuts this off is passed on: the move is made again, as a probe
                self._stop_file.refuse_if_there()
                await self._write(row, entries, Intent(step=step.index, token=token), starts=True)
                async with asyncio.timeout(step.timeout_s or _patience_s(action, params)):
                    answer = await action.act(params, step.before, token)
        except StoppedError as refusal:
            await self._end(row, PlanState.STOPPED, f"Step {step.index + 1} did not start. {refusal}")
        except ActionError as error:
            await self._write(row, entries, Outcome(step=step.index, ok=False, detail=str(error)), after=1)
        except (OutcomeUnknownError, TimeoutError) as error:
            log.warning("outcome unknown", plan=row.plan.plan_id, step=step.index, why=str(error))
        else:
            await self._write(row, entries, Outcome(step=step.index, ok=True, detail=_short(answer)), after=1)

    async def _had_happened(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry]) -> bool:
        """The step's own check shows that it has happened: that is written down, and nobody acts."""
        if not await self._verifier.had_happened(row.plan, step):
            return False
        await self._write(row, entries, Probed(step=step.index, happened=Happened.YES, already=True))
        return True

    async def _not_carried(self, row: PlanRow, entries: Sequence[JournalEntry]) -> str:
        """Why the approval no longer carries an act, "" when it does: a plan may run for long, and wait for people."""
        said_at = next((entry.at for entry in reversed(entries) if entry.kind == "settled"), None)
        try:
            await self._approvals.still_hold(row, said_at=said_at, now=datetime.now(UTC))
        except StaleError as refusal:
            return str(refusal)
        return ""

    async def _lost(self, row: PlanRow) -> str:
        """Who approved it and would not be let near a button of Slack's any more, "" when nobody."""
        try:
            await self._approvals.refuse_lost(row, now=datetime.now(UTC))
        except StaleError as refusal:
            return str(refusal)
        return ""

    async def _step_aside(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry], moved: str) -> None:
        """The target is not as it was: by our own late call, by somebody else, or nobody can say."""
        earlier = _last_intent(step, entries)
        if earlier is None:
            await self._write(row, entries, Outcome(step=step.index, ok=False, detail=f"not started: {moved}"))
            return
        happened = await self._happened(step, earlier)
        if happened is Happened.YES:
            await self._write(row, entries, Outcome(step=step.index, ok=True, detail="it took effect late"))
        else:
            await self._write(row, entries, Intent(step=step.index, token=earlier.record["token"]))
            await self._write(row, entries, Probed(step=step.index, happened=Happened.CANNOT_TELL), after=1)

    async def _probe(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry]) -> None:
        intent = _last_intent(step, entries)
        happened = await self._happened(step, intent) if intent else Happened.CANNOT_TELL
        if intent and happened is Happened.NO:  # an act makes several calls, and the last may have just been sent
            await asyncio.sleep(self._late_after_s)
            happened = await self._happened(step, intent)
        if intent and step.check is not None:
            happened = told_by_both(happened, await self._verifier.settled(row.plan, step), step.tier)
        await self._write(row, entries, Probed(step=step.index, happened=happened))

    async def _happened(self, step: PlannedStep, intent: JournalEntry) -> Happened:
        action = self._actions[step.action]
        params = action.params.model_validate(dict(step.params))
        try:
            async with asyncio.timeout(ACT_TIMEOUT_S):
                return await action.happened(params, step.before, intent.record["token"])
        except (ActionError, OutcomeUnknownError, TimeoutError):
            return Happened.CANNOT_TELL

    async def _wait(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry]) -> None:
        """Write down that it begins; then wait for what is left of it since, however often we were restarted."""
        began = _last_intent(step, entries)
        if began is None:
            await self._write(row, entries, Intent(step=step.index, token=secrets.token_hex(16)))
            return

        async def cut_short() -> str:
            self._stop_file.refuse_if_there()
            await self._journal.refuse_if_stopped(row.plan.plan_id)
            return await self._not_carried(await self._plans.get(row.plan.plan_id), entries)

        params = WaitParams.model_validate(dict(step.params))
        try:
            why = await wait_out(self._verifier, row.plan.service, began, params.seconds, cut_short)
        except StoppedError as refusal:
            await self._end(row, PlanState.STOPPED, f"Step {step.index + 1} was ended early. {refusal}")
            return
        detail = f"ended early: {why}" if why else f"waited {params.duration}"
        await self._write(row, entries, Outcome(step=step.index, ok=not why, detail=detail))

    async def _verify(self, row: PlanRow, step: PlannedStep, entries: Sequence[JournalEntry]) -> None:
        own = [entry for entry in entries if entry.step == step.index]
        if own[-1].kind == "settled":  # a person says that it took place, and not when: only the time from now counts
            changed_at = await self._verifier.now(row.plan.service)
        else:
            changed_at = next((entry.telemetry_at for entry in reversed(own) if entry.telemetry_at), None)
        status, summary = await self._verifier.watch(row.plan, step, changed_at)
        await self._write(row, entries, Verified(step=step.index, status=status.value, summary=summary))

    async def _write(
        self,
        row: PlanRow,
        entries: Sequence[JournalEntry],
        record: Record,
        *,
        after: int = 0,
        starts: bool = False,
    ) -> None:
        """Append a record; `after` counts records written since `entries` was read, an act `starts` with this one."""
        changed = isinstance(record, Outcome | Probed) or row.plan.steps[record.step].action == WAIT
        await self._journal.append(
            row.plan,
            position=len(entries) + 1 + after,
            step=record.step,
            kind=record.kind,
            record=safe_values(record_json(record)),
            now=datetime.now(UTC),
            unless_dead=self._pulse.me if isinstance(record, Intent) else None,
            unless_stopped=starts,
            telemetry_at=await self._verifier.now(row.plan.service) if changed else None,
        )

    async def broke_off(self, plan_id: str, why: str) -> None:
        """A defect of ours ended it: in doubt where a call is open, else failed; a person takes it from here."""
        row = await self._plans.get(plan_id)
        entries = await self._journal.read(plan_id)
        state = PlanState.FAILED
        if entries and entries[-1].kind == "intent":
            state = PlanState.IN_DOUBT
            await self._write(row, entries, Probed(step=entries[-1].step, happened=Happened.CANNOT_TELL))
        expected = [PlanState.APPROVED, PlanState.RUNNING]
        words = f"Watchkeeper broke off ({why}, see its log)."
        await self._plans.end(row.plan, state, words, now=datetime.now(UTC), expected=expected, told=_TOLD)

    async def _end(self, row: PlanRow, state: PlanState, why: str) -> None:
        """The thread and PagerDuty are told in the same transaction; a verified fix resolves the incident."""
        resolves = state is PlanState.VERIFIED and row.plan.undoes is None
        told = (*_TOLD, ("pagerduty", "resolve")) if resolves else _TOLD
        taken_back = state is PlanState.NOT_VERIFIED and row.plan.undoes_itself
        await self._plans.end(
            row.plan,
            state,
            why,
            now=datetime.now(UTC),
            expected=[PlanState.RUNNING],
            told=told,
            errand="undo" if taken_back else None,
        )


def _patience_s(action: Action, params: BaseModel) -> float:
    return max(ACT_TIMEOUT_S, action.patience_s(params)) if isinstance(action, PatientAction) else ACT_TIMEOUT_S


def _last_intent(step: PlannedStep, entries: Sequence[JournalEntry]) -> JournalEntry | None:
    return next((e for e in reversed(entries) if e.kind == "intent" and e.step == step.index), None)


def _short(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in answer.items())[:500]


@DBOS.dbos_class()
class RemediateWorkflow(DBOSConfiguredInstance):
    """The durable wrapper: its id is "<plan>:<chapter>"."""

    def __init__(self, story: Remediate, stories: Stories) -> None:
        super().__init__("remediate")
        self._story = story
        self._stories = stories

    @DBOS.workflow()
    async def run(self, plan_id: str, chapter: int) -> None:
        """Tell the story; after a crash the moves that ended are not repeated."""
        await self._stories.tell(
            self._story.tell(plan_id, chapter, self._stories.step),
            lambda why: self._story.broke_off(plan_id, why),
        )
