"""
What a runbook would do for an incident, step by step, without doing any of it.

The plan is the planner's own. Where it cannot be made, each step is planned alone, so that a person sees which of them
is in the way. The actions that a rehearsal gets can read at most: `act` and the probe are taken out of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from runbooks.engine.context import PlanContext
from runbooks.engine.otherwise import by_hand_otherwise
from runbooks.engine.plan import plan
from runbooks.engine.values import (
    Action,
    ActionError,
    CannotPlanError,
    DryRun,
    JsonObject,
    Plan,
    PlannedStep,
    Runbook,
    StepTemplate,
)


@dataclass(frozen=True, kw_only=True)
class RehearsedStep:
    """
    A step of the runbook: planned, refused with a reason, or left out because its `when` does not hold.

    Planned in spite of a `refusal`: a person does what the step says `otherwise`.
    """

    template: StepTemplate
    applies: bool
    planned: PlannedStep | None = None
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """All steps in the runbook's order; `plan` is None where none can be made, and `refusal` says why."""

    steps: tuple[RehearsedStep, ...]
    plan: Plan | None = None
    refusal: str = ""


async def rehearse(runbook: Runbook, context: PlanContext, actions: Mapping[str, Action]) -> Rehearsal:
    """The plan as it would be offered. Reads through `actions`, which should be `reading` or `recorded` ones."""
    try:
        made = await plan(runbook, context, actions)
    except CannotPlanError as refusal:
        steps = [await _alone(runbook, each, context, actions) for each in runbook.steps]
        return Rehearsal(steps=tuple(steps), refusal=str(refusal))
    planned = iter(made.steps)
    rehearsed = [
        RehearsedStep(template=each, applies=True, planned=next(planned))
        if context.holds(each.when)
        else RehearsedStep(template=each, applies=False)
        for each in runbook.steps
    ]
    return Rehearsal(steps=tuple(rehearsed), plan=made)


async def first_possible(runbook: Runbook, contexts: Sequence[PlanContext], actions: Mapping[str, Action]) -> Rehearsal:
    """
    Of the first context in which a plan can be made, as for an incident with several suspects; else of the first.

    Where none can be made as it is written, steps that cannot be planned are what their `otherwise` asks of a person.
    """
    tried: list[Rehearsal] = []
    for context in contexts:
        tried.append(await rehearse(runbook, context, actions))
        if tried[-1].plan is not None:
            return tried[-1]
    for context, strict in zip(contexts, tried, strict=True):
        otherwise = await rehearse(await by_hand_otherwise(runbook, context, actions), context, actions)
        if otherwise.plan is not None:
            steps = zip(otherwise.steps, strict.steps, strict=True)
            return replace(otherwise, steps=tuple(replace(each, refusal=alone.refusal) for each, alone in steps))
    return tried[0]


async def _alone(
    runbook: Runbook, template: StepTemplate, context: PlanContext, actions: Mapping[str, Action]
) -> RehearsedStep:
    if not context.holds(template.when):
        return RehearsedStep(template=template, applies=False)
    try:
        made = await plan(replace(runbook, steps=(template,)), context, actions)
    except CannotPlanError as refusal:
        return RehearsedStep(template=template, applies=True, refusal=str(refusal))
    return RehearsedStep(template=template, applies=True, planned=made.steps[0])


def reading(actions: Mapping[str, Action]) -> dict[str, Action]:
    """The same actions, able to read and to nothing else."""
    return {name: _without_hands(action) for name, action in actions.items()}


def recorded(actions: Mapping[str, Action], states: Mapping[str, JsonObject]) -> dict[str, Action]:
    """The same actions, answered by `states` (by target) in place of their far ends; nothing outside is asked."""
    return {name: _without_far_end(action, states) for name, action in actions.items()}


def _without_hands(action: Action) -> Action:
    """A twin, not a wrapper: the planner asks by `isinstance` what an action offers beyond `Action`."""

    async def refuse(*_: Any) -> NoReturn:
        raise ActionError(f"a rehearsal changes nothing, and {action.name} would")

    twin = copy(action)
    vars(twin).update(act=refuse, happened=refuse)
    return twin


def _without_far_end(action: Action, states: Mapping[str, JsonObject]) -> Action:
    async def read(params: Any) -> JsonObject:
        target = action.target(params)
        if target in states:
            return dict(states[target])
        if action.dry_run is DryRun.NOTHING_TO_READ:
            return await action.read(params)
        raise ActionError(f"no recorded state of {target}")

    twin = _without_hands(action)
    vars(twin).update(read=read)
    return twin
