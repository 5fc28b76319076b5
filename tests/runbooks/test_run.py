"""The next move of a plan: every turn of the story, and what holds for every journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runbooks.engine.declared import CheckSays
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
    Settled,
    Verified,
    Verify,
    record_from_json,
    record_json,
)
from runbooks.engine.run import MAX_CALLS, changed_steps, decide, told_by_both
from runbooks.engine.values import Happened, Plan, PlannedStep, Tier

NOW = datetime(2026, 11, 22, tzinfo=UTC)
Answer = Literal["ran", "did_not_run", "stop"]


def step(
    index: int,
    action: str = "langfuse.move_label",
    verify: tuple[str, ...] = ("queue",),
    check: CheckSays | None = None,
) -> PlannedStep:
    return PlannedStep(
        index=index,
        title=f"Step {index}",
        action=action,
        tier=Tier.R1,
        target=f"t/{index}",
        params={},
        before={},
        effect="It changes.",
        undo=None,
        verify=verify,
        settle_s=60,
        check=check,
    )


def plan_of(*steps: PlannedStep) -> Plan:
    return Plan(
        plan_id="p",
        incident_id="Q1",
        service="chat",
        environment="prod",
        runbook_id="r",
        runbook_revision="0",
        title="T",
        steps=steps,
        policy_version="1",
        nonce="n",
        made_at=NOW,
        expires_at=NOW,
    )


ONE = plan_of(step(0))
INTENT = Intent(step=0, token="a")
RAN = Outcome(step=0, ok=True)
REFUSED = Outcome(step=0, ok=False, detail="HTTP 403")
YES, NO, UNSURE = (Probed(step=0, happened=happened) for happened in Happened)
SIGN = CheckSays.model_validate({"check": "queue"})
GOOD = Verified(step=0, status="ok")
ALREADY = Probed(step=0, happened=Happened.YES, already=True)


def said(answer: Answer, index: int = 0) -> Settled:
    return Settled(step=index, answer=answer, person="alice")


@pytest.mark.parametrize(
    ("journal", "move"),
    [
        ([], Act(step=0)),
        ([INTENT], Probe(step=0)),
        ([INTENT, RAN], Verify(step=0)),
        ([INTENT, RAN, GOOD], Finish(result="done")),
        ([INTENT, REFUSED], Finish(result="failed", step=0, reason="HTTP 403")),
        ([REFUSED], Finish(result="failed", step=0, reason="HTTP 403")),
        ([INTENT, NO, REFUSED], Finish(result="failed", step=0, reason="HTTP 403")),
        ([INTENT, YES], Verify(step=0)),
        ([INTENT, NO], Act(step=0)),
        ([INTENT, UNSURE], AskPerson(step=0, why="in_doubt")),
        ([INTENT, UNSURE, said("ran")], Verify(step=0)),
        ([INTENT, UNSURE, said("did_not_run")], Act(step=0)),
        ([INTENT, UNSURE, Probed(step=0, happened=Happened.YES)], Verify(step=0)),
        ([INTENT, UNSURE, RAN], Verify(step=0)),
        ([INTENT, NO, RAN], Verify(step=0)),
        ([ALREADY], Verify(step=0)),
        ([ALREADY, GOOD], Finish(result="done")),
        ([INTENT, NO, ALREADY], Verify(step=0)),
        ([said("stop")], Finish(result="stopped", step=0, reason="stopped by alice")),
    ],
)
def test_one_step(journal: list[Record], move: Move) -> None:
    """Each turn that a step can take, late answers among them."""
    assert decide(ONE, journal) == move


@pytest.mark.parametrize("status", ["bad", "unknown"])
def test_unknown_is_not_verified(status: Literal["bad", "unknown"]) -> None:
    """A check that cannot tell never counts as fine."""
    end = decide(ONE, [INTENT, RAN, Verified(step=0, status=status, summary="no data")])
    assert end == Finish(result="not_verified", step=0, reason="no data")


def test_stopping_an_open_step_says_that_it_may_have_happened() -> None:
    """A stop is no proof: whoever reads the record must know that the step may have taken place."""
    end = decide(ONE, [INTENT, said("stop")])
    assert isinstance(end, Finish)
    assert (end.result, "not known" in end.reason) == ("stopped", True)


def test_it_does_not_try_for_ever() -> None:
    """Three calls that demonstrably did not happen are a failure, not a loop."""
    journal: list[Record] = []
    for turn in range(MAX_CALLS):
        assert decide(ONE, journal) == Act(step=0)
        journal += [Intent(step=0, token=str(turn)), NO]
    end = decide(ONE, journal)
    assert isinstance(end, Finish)
    assert end.result == "failed"


def test_a_manual_step_waits_for_a_person() -> None:
    """Watchkeeper never acts on it; done leads to the checks, not done ends the plan."""
    plan = plan_of(step(0, action="manual"))
    assert decide(plan, []) == AskPerson(step=0, why="manual")
    assert decide(plan, [said("ran")]) == Verify(step=0)
    end = decide(plan, [said("did_not_run")])
    assert isinstance(end, Finish)
    assert end.result == "stopped"


def test_steps_run_in_order_and_changes_are_known() -> None:
    """The second starts when the first is done; without checks, done is done. What changed is known for the undo."""
    plan = plan_of(step(0), step(1, verify=()))
    assert decide(plan, [INTENT, RAN]) == Verify(step=0)
    assert decide(plan, [INTENT, RAN, GOOD]) == Act(step=1)

    journal: list[Record] = [INTENT, RAN, GOOD, Intent(step=1, token="b"), Outcome(step=1, ok=True)]
    assert decide(plan, journal) == Finish(result="done")
    assert changed_steps(plan, journal) == (0, 1)
    assert changed_steps(plan, [INTENT, REFUSED]) == ()
    assert changed_steps(plan, [INTENT, RAN, Verified(step=0, status="bad")]) == (0,)


@pytest.mark.parametrize(
    "journal",
    [
        [INTENT, Intent(step=0, token="b")],
        [INTENT, RAN, Intent(step=0, token="b")],
        [INTENT, REFUSED, Intent(step=0, token="b")],
        [RAN],
        [YES],
        [GOOD],
        [said("ran")],
        [INTENT, GOOD],
        [Intent(step=1, token="b")],
        [Intent(step=7, token="b")],
        [INTENT, RAN, REFUSED],
        [INTENT, ALREADY],
        [INTENT, UNSURE, ALREADY],
        [ALREADY, INTENT],
        [Probed(step=0, happened=Happened.NO, already=True)],
        [Probed(step=0, happened=Happened.CANNOT_TELL, already=True)],
    ],
)
def test_a_journal_that_contradicts_itself_ends_in_doubt(journal: list[Record]) -> None:
    """Nobody acts on a story that cannot have happened."""
    end = decide(plan_of(step(0), step(1)), journal)
    assert isinstance(end, Finish)
    assert end.result == "in_doubt"


def test_what_had_happened_already_is_not_this_plans_to_take_back() -> None:
    """Nobody called, so an undo would take back somebody else's change; after a call of ours it is ours, and late."""
    assert changed_steps(ONE, [ALREADY, GOOD]) == ()
    assert changed_steps(ONE, [INTENT, NO, ALREADY, GOOD]) == (0,)


@pytest.mark.parametrize("action", Happened)
@pytest.mark.parametrize("check", Happened)
@pytest.mark.parametrize("tier", Tier)
def test_the_probe_and_the_check_must_not_contradict(action: Happened, check: Happened, tier: Tier) -> None:
    """One that can tell is enough, two must agree; what cannot be taken back is not repeated on the check's word."""
    told = told_by_both(action, check, tier)
    is_word_alone = (action, check) == (Happened.CANNOT_TELL, Happened.NO) and tier > Tier.R1
    if {action, check} == {Happened.YES, Happened.NO} or action is check is Happened.CANNOT_TELL or is_word_alone:
        assert told is Happened.CANNOT_TELL
    else:
        assert told in {action, check} - {Happened.CANNOT_TELL}


def test_an_old_record_is_read_as_ever() -> None:
    """Journals from before steps had a check."""
    assert record_from_json({"kind": "probed", "step": 0, "happened": "no"}) == NO


@pytest.mark.parametrize("record", [ALREADY, INTENT, RAN, REFUSED, YES, NO, UNSURE, GOOD, said("stop")])
def test_records_travel_as_json(record: Record) -> None:
    """What the database keeps is what was written."""
    assert record_from_json(record_json(record)) == record


def records(steps: int) -> st.SearchStrategy[list[Record]]:
    index = st.integers(0, steps - 1)
    one: st.SearchStrategy[Record] = st.one_of(
        st.builds(Intent, step=index, token=st.just("t")),
        st.builds(Outcome, step=index, ok=st.booleans()),
        st.builds(Probed, step=index, happened=st.sampled_from(Happened), already=st.booleans()),
        st.builds(Verified, step=index, status=st.sampled_from(["ok", "bad", "unknown"])),
        st.builds(Settled, step=index, answer=st.sampled_from(["ran", "did_not_run", "stop"]), person=st.just("a")),
    )
    return st.lists(one, max_size=14)


def has_open_call(journal: Sequence[Record], index: int) -> bool:
    """An independent reading: since the last intent of this step, has nobody said that it did not happen?"""
    is_open = False
    for record in journal:
        if record.step != index:
            continue
        if isinstance(record, Intent):
            is_open = True
        if isinstance(record, Probed) and record.happened is Happened.NO and not record.already:
            is_open = False
        if isinstance(record, Settled) and record.answer == "did_not_run":
            is_open = False
    return is_open


@settings(max_examples=400, deadline=None)
@given(records(2))
def test_no_journal_leads_to_a_second_call_without_a_no(journal: list[Record]) -> None:
    """Whatever is written down, in whatever order: an open call is never called again."""
    move = decide(plan_of(step(0), step(1)), journal)
    if isinstance(move, Act):
        assert not has_open_call(journal, move.step)
        assert sum(isinstance(r, Intent) and r.step == move.step for r in journal) < MAX_CALLS


class Driver(RuleBasedStateMachine):
    """
    A driver that obeys `decide`, in a world that loses answers, crashes between any two records, and has a truth.

    `done` counts how often each step really took place. Its last step has a check, and somebody else may do that one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan = plan_of(step(0), step(1, action="manual"), step(2, verify=(), check=SIGN))
        self.journal: list[Record] = []
        self.done = [0, 0, 0]
        self.moves = 0

    def next(self) -> Move:
        return decide(self.plan, self.journal)

    @precondition(lambda self: isinstance(self.next(), Act))
    @rule(took_place=st.booleans(), fate=st.sampled_from(["answered", "lost"]))
    def act(self, *, took_place: bool, fate: str) -> None:
        index = self._step()
        if self.plan.steps[index].check is not None and self.done[index]:
            self.journal.append(Probed(step=index, happened=Happened.YES, already=True))
            return
        self.journal.append(Intent(step=index, token=str(len(self.journal))))
        self.done[index] += took_place
        if fate == "answered":
            self.journal.append(Outcome(step=index, ok=took_place))

    @precondition(lambda self: isinstance(self.next(), Act))
    @rule()
    def crash_before_the_call(self) -> None:
        self.journal.append(Intent(step=self._step(), token=str(len(self.journal))))

    @precondition(lambda self: isinstance(self.next(), Probe))
    @rule(action_tells=st.booleans(), check_tells=st.booleans())
    def probe(self, *, action_tells: bool, check_tells: bool) -> None:
        index = self._step()
        truth = Happened.YES if self.done[index] else Happened.NO
        action = truth if action_tells else Happened.CANNOT_TELL
        check = truth if check_tells and self.plan.steps[index].check is not None else Happened.CANNOT_TELL
        self.journal.append(Probed(step=index, happened=told_by_both(action, check, self.plan.steps[index].tier)))

    @precondition(lambda self: self.done[2] == 0)
    @rule()
    def somebody_else_does_it(self) -> None:
        self.done[2] = 1

    @precondition(lambda self: isinstance(self.next(), AskPerson))
    @rule(stop=st.booleans(), does_it=st.booleans())
    def person_answers(self, *, stop: bool, does_it: bool) -> None:
        move = self.next()
        assert isinstance(move, AskPerson)
        if move.why == "manual":
            self.done[move.step] += does_it
        truth: Answer = "ran" if self.done[move.step] else "did_not_run"
        self.journal.append(said("stop" if stop else truth, move.step))

    @precondition(lambda self: isinstance(self.next(), Verify))
    @rule(status=st.sampled_from(["ok", "bad", "unknown"]))
    def verify(self, status: Literal["ok", "bad", "unknown"]) -> None:
        self.journal.append(Verified(step=self._step(), status=status))

    @invariant()
    def nothing_takes_place_twice(self) -> None:
        assert max(self.done) <= 1

    @invariant()
    def done_means_that_all_took_place(self) -> None:
        move = self.next()
        if isinstance(move, Finish) and move.result == "done":
            assert self.done == [1, 1, 1]

    @invariant()
    def it_ends(self) -> None:
        """Three calls, each with a probe and a person, and one verification per step bound the journal's length."""
        assert len(self.journal) <= 3 * (3 * MAX_CALLS + 1)
        assert not (isinstance(self.next(), Finish) and self._is_doubtful())

    @precondition(lambda self: isinstance(self.next(), Finish))
    @rule()
    def rest(self) -> None:
        """A finished plan asks for nothing more."""

    def _is_doubtful(self) -> bool:
        """A driver that obeys never writes a journal that contradicts itself."""
        move = self.next()
        return isinstance(move, Finish) and move.result == "in_doubt"

    def _step(self) -> int:
        move = self.next()
        assert not isinstance(move, Finish)
        return move.step


Driver.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestDriver = Driver.TestCase
