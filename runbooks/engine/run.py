"""
What to do next with a plan, decided from what is written down so far. No I/O: `bot` drives, this decides.

A step's life (a `wait` is never called or probed: its intent says since when it waits, its outcome that it is over):

    (nothing) --Probed already--> acted   (its check shows that it has happened, so nobody calls)
    (nothing) --Intent--> called --Outcome ok--> acted --Verified ok--> next step
                            |  \\--Outcome refused--> plan failed
                            +--Probed yes--> acted          (the answer was lost, but the change is there)
                            +--Probed no---> may be called again, three times in all
                            +--Probed cannot tell--> a person says: ran / did not run / stop

The one rule above all: after an intent, nobody acts again unless a probe or a person said that it did not happen. A
journal that breaks this rule, or tells of a step before its turn, is believed by nobody: the plan ends in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

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
    Wait,
)
from runbooks.engine.values import Happened, Plan, PlannedStep, Tier

MAX_CALLS = 3
MANUAL = "manual"
WAIT = "wait"


class _State(Enum):
    """Where one step stands."""

    READY = auto()  # may be called
    CALLED = auto()  # an intent without an outcome
    IN_DOUBT = auto()  # and the probe cannot tell
    ACTED = auto()
    REFUSED = auto()
    STOPPED = auto()
    VERIFIED = auto()
    NOT_VERIFIED = auto()
    BROKEN = auto()  # the journal contradicts itself


def decide(plan: Plan, journal: Sequence[Record]) -> Move:
    """The next move; the same plan and journal always give the same one."""
    if any(record.step not in {step.index for step in plan.steps} for record in journal):
        return Finish(result="in_doubt", reason="the journal tells of a step that the plan does not have")
    for position, step in enumerate(plan.steps):
        own = [record for record in journal if record.step == step.index]
        state, calls, detail = _fold(step, own)
        move = _move(step, state, calls, detail)
        if move is None:
            continue
        later = {following.index for following in plan.steps[position + 1 :]}
        if any(record.step in later for record in journal):
            return Finish(result="in_doubt", step=step.index, reason="a later step ran before this one was done")
        return move
    return Finish(result="done")


def changed_steps(plan: Plan, journal: Sequence[Record]) -> tuple[int, ...]:
    """The steps that took place by this plan, as far as anybody knows: what an undo has to take back."""
    took_place = {_State.ACTED, _State.VERIFIED, _State.NOT_VERIFIED}
    own = {step.index: [record for record in journal if record.step == step.index] for step in plan.steps}
    return tuple(
        step.index
        for step in plan.steps
        if _fold(step, own[step.index])[0] in took_place and not _was_somebody_elses(own[step.index])
    )


def told_by_both(action: Happened, check: Happened, tier: Tier) -> Happened:
    """
    What the action's probe and the step's check say together; a contradiction tells nothing.

    Above R1 the check's NO alone is none: a call that did not help looks like one that was lost, and the second one
    would not be taken back.
    """
    if action is Happened.CANNOT_TELL and check is Happened.NO and tier > Tier.R1:
        return Happened.CANNOT_TELL
    told = {action, check} - {Happened.CANNOT_TELL}
    return told.pop() if len(told) == 1 else Happened.CANNOT_TELL


def _move(step: PlannedStep, state: _State, calls: int, detail: str) -> Move | None:
    """None when the step is done and the next one has its turn."""
    index = step.index
    if step.action == WAIT and state in (_State.READY, _State.CALLED):
        return Wait(step=index)
    if state is _State.READY:
        return _start(step, calls)
    if state is _State.ACTED:
        return Verify(step=index) if step.is_verified else None
    moves: dict[_State, Move | None] = {
        _State.CALLED: Probe(step=index),
        _State.IN_DOUBT: AskPerson(step=index, why="in_doubt"),
        _State.REFUSED: Finish(result="failed", step=index, reason=detail or "the action was refused"),
        _State.STOPPED: Finish(result="stopped", step=index, reason=detail),
        _State.VERIFIED: None,
        _State.NOT_VERIFIED: Finish(result="not_verified", step=index, reason=detail),
        _State.BROKEN: Finish(result="in_doubt", step=index, reason=f"the journal contradicts itself: {detail}"),
    }
    return moves[state]


def _start(step: PlannedStep, calls: int) -> Move:
    if step.action == MANUAL:
        return AskPerson(step=step.index, why="manual")
    if calls >= MAX_CALLS:
        reason = f"called {calls} times, and each time it did not happen"
        return Finish(result="failed", step=step.index, reason=reason)
    return Act(step=step.index)


def _fold(step: PlannedStep, records: Sequence[Record]) -> tuple[_State, int, str]:
    """The step's state after its records, how often it was called, and the words for a person."""
    state, calls, detail = _State.READY, 0, ""
    for record in records:
        state, said = _after(step, state, record, calls)
        calls += isinstance(record, Intent)
        detail = said or detail
        if state is _State.BROKEN:
            break
    return state, calls, detail


def _after(step: PlannedStep, state: _State, record: Record, calls: int) -> tuple[_State, str]:
    match record:
        case Intent():
            if state is _State.READY and step.action != MANUAL:
                return _State.CALLED, ""
            return _State.BROKEN, "it was called without need"
        case Outcome():
            return _answered(state, record, calls)
        case Probed():
            return _probed(state, record)
        case Verified():
            return _verified(state, record)
        case Settled():
            return _settled(step, state, record)


def _answered(state: _State, record: Outcome, calls: int) -> tuple[_State, str]:
    """
    A refusal may come before any call: the world had moved, so nobody called.

    An answer may come late, too: after a probe, even after its NO. A late yes still means that it took place.
    """
    if state in (_State.CALLED, _State.IN_DOUBT) or (state is _State.READY and (calls or not record.ok)):
        return (_State.ACTED if record.ok else _State.REFUSED), record.detail
    if state is _State.ACTED and record.ok:
        return state, record.detail
    return _State.BROKEN, "an outcome that fits no call"


def _was_somebody_elses(records: Sequence[Record]) -> bool:
    """It had happened before anybody called: taking that back would undo what is not this plan's."""
    return not any(isinstance(record, Intent) for record in records) and any(
        isinstance(record, Probed) and record.already for record in records
    )


def _probed(state: _State, record: Probed) -> tuple[_State, str]:
    if record.already:
        if state is _State.READY and record.happened is Happened.YES:
            return _State.ACTED, "had happened already"
        return _State.BROKEN, "a step that had happened already, beside a call"
    if state not in (_State.CALLED, _State.IN_DOUBT):
        return _State.BROKEN, "a probe without an open call"
    if record.happened is Happened.YES:
        return _State.ACTED, ""
    return (_State.READY if record.happened is Happened.NO else _State.IN_DOUBT), ""


def _verified(state: _State, record: Verified) -> tuple[_State, str]:
    if state not in (_State.ACTED, _State.VERIFIED, _State.NOT_VERIFIED):
        return _State.BROKEN, "verified before it took place"
    return (_State.VERIFIED if record.status == "ok" else _State.NOT_VERIFIED), record.summary


def _settled(step: PlannedStep, state: _State, record: Settled) -> tuple[_State, str]:
    """A person may stop a step that has not taken place, and answer for one that is open or a person's own work."""
    is_open = state in (_State.CALLED, _State.IN_DOUBT) or (state is _State.READY and step.action == MANUAL)
    if record.answer == "stop" and (is_open or state is _State.READY):
        doubt = "" if state is _State.READY else "; whether it took place is not known"
        return _State.STOPPED, f"stopped by {record.person}{doubt}"
    if not is_open:
        return _State.BROKEN, "a person's answer to a question that was not open"
    if record.answer == "ran":
        return _State.ACTED, f"{record.person} says that it ran"
    if step.action == MANUAL:
        return _State.STOPPED, f"{record.person} did not do it"
    return _State.READY, ""
