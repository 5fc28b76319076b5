"""
From a runbook to a plan: every placeholder becomes a literal, every step reads the state it would change.

What comes out holds nothing left to decide, so a person who approves it approves exactly that. Planning only reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ValidationError

from runbooks.engine.context import CONTEXT_DEFAULTS, PlanContext, filled, parsed
from runbooks.engine.declared import Range, Sign, settled
from runbooks.engine.placeholders import placeholders, texts_in
from runbooks.engine.values import (
    Action,
    ActionError,
    CannotPlanError,
    GuardedAction,
    Happened,
    JsonObject,
    Plan,
    PlannedStep,
    Runbook,
    StepTemplate,
    Tier,
    TieredAction,
    UndoneByAnother,
)

__all__ = ["PlanContext", "fresh", "plan", "undo_plan", "without_a_click"]


async def plan(runbook: Runbook, context: PlanContext, actions: Mapping[str, Action]) -> Plan:
    """
    The runbook's steps for this incident, frozen.

    Raises CannotPlanError with what is missing: a name that the diagnosis did not give, a parameter that the action
    refuses, a state that cannot be read or that must not be changed from here.
    """
    if not runbook.steps:
        raise CannotPlanError(f"{runbook.runbook_id} has no step that can be planned; follow its text by hand")
    if runbook.services and context.service not in runbook.services:
        raise CannotPlanError(f"{runbook.runbook_id} is not for {context.service}")
    context = _with_params(runbook, context)
    templates = _applying(runbook, context)
    steps: list[PlannedStep] = []
    for index, template in enumerate(templates):
        action = _action(actions, template.action, template.title)
        steps.append(await _planned(index, template, action, context))
    _refuse_same_target(steps)
    uses_suspect = any(_leans_on_suspect(template.params, context) for template in templates)
    return Plan(
        plan_id=f"plan-{secrets.token_hex(8)}",
        incident_id=context.incident_id,
        service=context.service,
        environment=context.environment,
        runbook_id=runbook.runbook_id,
        runbook_revision=runbook.revision,
        title=runbook.title,
        steps=tuple(steps),
        policy_version=context.policy_version,
        nonce=secrets.token_hex(16),
        made_at=context.now,
        expires_at=context.now + context.expiry,
        suspect=context.suspect if uses_suspect else None,
        requester=context.requester,
        frame=context.frame,
        params=context.params,
        undoes_itself=context.undoes_itself and any(step.undo is not None for step in steps),
        mends=_mends(steps, context),
    )


def _mends(steps: Sequence[PlannedStep], context: PlanContext) -> tuple[str, ...] | None:
    """
    The checks that it verifies and that were bad: good at the end of a fix that helped.

    Where that is nothing, the verification can show that no harm was done, and not that the fix helped. None where
    nobody can say so: nobody looked, nothing is verified, or only queries are, which nobody asked before.
    """
    if not context.answers or not any(step.is_verified for step in steps):
        return None
    watched = {check for step in steps for check in step.verify}
    bad = tuple(sorted(check for check in watched if context.answers.get(check) == "bad"))
    return None if not bad and any(step.verify_ranges for step in steps) else bad


def _with_params(runbook: Runbook, context: PlanContext) -> PlanContext:
    try:
        return replace(context, params=settled(runbook.params, context.params))
    except ValueError as error:
        raise CannotPlanError(f"{runbook.runbook_id}: {error}") from error


def _applying(runbook: Runbook, context: PlanContext) -> list[StepTemplate]:
    """The steps whose condition the diagnosis meets; the others are not in the plan, so nobody approves them."""
    found = [template for template in runbook.steps if context.holds(template.when)]
    if not found:
        titles = ", ".join(template.title for template in runbook.steps)
        raise CannotPlanError(f"{runbook.runbook_id}: by the diagnosis none of its steps applies ({titles})")
    return found


async def undo_plan(
    done: Plan,
    done_steps: Collection[int],
    actions: Mapping[str, Action],
    *,
    now: datetime,
    policy_version: str,
    expiry: timedelta = timedelta(minutes=15),
    requester: str | None = None,
) -> Plan:
    """
    A plan that takes back these steps of `done`, the last one first.

    It reads the state anew and refuses when somebody changed it since the step ran. Its steps verify nothing against
    the telemetry: the trouble was there before the fix, so the checks cannot tell whether the undo worked; that is
    read back from the system itself. Raises CannotPlanError.
    """
    steps: list[PlannedStep] = []
    for step in sorted((step for step in done.steps if step.index in done_steps), key=lambda step: -step.index):
        if step.undo is not None:
            steps.append(await _undone(len(steps), step, actions))
    if not steps:
        raise CannotPlanError("none of the steps that ran can be undone")
    return Plan(
        plan_id=f"plan-{secrets.token_hex(8)}",
        incident_id=done.incident_id,
        service=done.service,
        environment=done.environment,
        runbook_id=done.runbook_id,
        runbook_revision=done.runbook_revision,
        title=f"Undo: {done.title}",
        steps=tuple(steps),
        policy_version=policy_version,
        nonce=secrets.token_hex(16),
        made_at=now,
        expires_at=now + expiry,
        suspect=done.suspect,
        requester=requester,
        undoes=done.plan_id,
        frame=done.frame,
    )


def without_a_click(done: Plan, done_steps: Collection[int]) -> tuple[tuple[int, ...], str]:
    """
    Which of these steps may be taken back by themselves, the last one first, and what ends that ("" when nothing does).

    It stops at the first step that changed something and has no undo: what lies before it was the ground it stood on.
    """
    back: list[int] = []
    for step in sorted((step for step in done.steps if step.index in done_steps), key=lambda step: -step.index):
        if step.undo is not None:
            back.append(step.index)
        elif _lasts(step):
            return tuple(back), f"step {step.index + 1}, {step.title}, cannot be undone"
    return tuple(back), ""


def lasting_steps(made: Plan) -> tuple[int, ...]:
    """The steps that change something for good; taking back without a click ends at one of these that has run."""
    return tuple(step.index for step in made.steps if _lasts(step))


def _lasts(step: PlannedStep) -> bool:
    return step.undo is None and step.tier > Tier.R0


async def fresh(made: Plan, actions: Mapping[str, Action], steps: Iterable[int] | None = None) -> list[str]:
    """
    What moved since the plan was made, one sentence each; empty when the plan still fits the world.

    Asked at approval and before each step starts (then with the steps still to come). A state that cannot be read
    counts as moved: nobody may act on what he cannot see.
    """
    chosen = None if steps is None else set(steps)
    moved: list[str] = []
    for step in made.steps:
        if chosen is not None and step.index not in chosen:
            continue
        moved += await _moved(step, actions)
    return moved


async def _moved(step: PlannedStep, actions: Mapping[str, Action]) -> list[str]:
    action = actions.get(step.action)
    if action is None:
        return [f"{step.title}: the action {step.action} is not available here"]
    try:
        params = _validated(action.params, step.params, step.title)
        state = dict(await action.read(params))
    except (ActionError, CannotPlanError) as error:
        return [f"{step.title}: {error}"]
    names = sorted(set(state) | set(step.before))
    return [
        f"{step.title}: {name} was {step.before.get(name)!r} and is {state.get(name)!r} now"
        for name in names
        if state.get(name) != step.before.get(name)
    ]


async def _planned(index: int, template: StepTemplate, action: Action, context: PlanContext) -> PlannedStep:
    title = template.title
    raw = _with_defaults(template.params, action)
    waiting = {name for name, value in raw.items() if any(used.from_state for used in parsed(title, name, value))}
    known = {name: filled(title, name, value, context) for name, value in raw.items() if name not in waiting}
    if waiting:
        state = await _state(action, known, title)
        known |= {name: filled(title, name, raw[name], context, state) for name in waiting}
    _stay_at_home(title, known, context)
    _is_of_the_suspect(title, raw, known, context)
    params = _validated(action.params, known, title)
    before = await _read(action, params, title)
    return _step(
        index,
        title,
        action,
        params,
        before,
        undo=template.undo == "previous",
        irreversible=template.irreversible,
        verify=template.verify,
        verify_ranges=tuple(_filled_range(title, each, context) for each in template.verify_ranges),
        check=_filled_range(title, template.check, context, "check")
        if isinstance(template.check, Range)
        else template.check,
        settle_s=template.settle_s,
        timeout_s=template.timeout_s,
    )


def _filled_range(title: str, asked: Range, context: PlanContext, key: str = "verify") -> Range:
    """With literal labels. A name that would turn a plain matcher into another kind is refused."""
    where = dict(asked.query.where)
    for label, matcher in where.items():
        if not asked.query.is_expression(matcher):
            where[label] = str(filled(title, f"{key}.{label}", matcher, context))
            if where[label][:1] in ("!", "~") and matcher[:1] != where[label][:1]:
                raise CannotPlanError(f"{title}: {key}: {label} {where[label]!r} would be read as a matcher")
    return asked.model_copy(update={"query": asked.query.model_copy(update={"where": where})})


def _stay_at_home(title: str, params: JsonObject, context: PlanContext) -> None:
    """
    Who may approve is decided by the incident's service, so a runbook that names another's place, another service or
    another incident is refused.

    Otherwise whoever writes runbooks could let the owners of one service change another.
    """
    for name in CONTEXT_DEFAULTS:
        own = getattr(context, name)
        if name in ("service", "incident") and params.get(name, own) != own:
            raise CannotPlanError(f"{title}: the {name} {params[name]} is not this plan's own, which is {own}")
        if name in params and params[name] != own:
            whose = f"{context.service}'s own is {own}" if own else f"{context.service} has none in the configuration"
            raise CannotPlanError(f"{title}: {name} {params[name]} is not this service's: {whose}")


def _is_of_the_suspect(title: str, raw: JsonObject, params: JsonObject, context: PlanContext) -> None:
    """A revision counts for its own deployment only: 2 of a guardrail's rollout is another one's 2 by chance."""
    used = {each.name for name, value in raw.items() for each in parsed(title, name, value)}
    rolled_out = context.suspect_undo.get("deployment")
    if used & {"suspect.revision", "suspect.to_revision"} and params.get("deployment", rolled_out) != rolled_out:
        raise CannotPlanError(
            f"{title}: the suspected change {context.suspect} is of {rolled_out}, not of {params['deployment']}"
        )


async def _undone(index: int, step: PlannedStep, actions: Mapping[str, Action]) -> PlannedStep:
    """Only what is still as the step left it: taking back somebody else's change is no undo."""
    action = _action(actions, step.action, step.title)
    done = _validated(action.params, step.params, step.title)
    found = await action.happened(done, step.before, "")
    if found is Happened.NO:
        raise CannotPlanError(f"{step.title}: all is as it was before, there is nothing to take back")
    if found is Happened.CANNOT_TELL:
        raise CannotPlanError(f"{step.title}: somebody changed it since, or it cannot be read: undo it by hand")
    inverse = _action(actions, step.undo_action, step.title)
    params = _validated(inverse.params, step.undo or {}, step.title)
    before = await _read(inverse, params, step.title)
    title = step.title.removeprefix("Undo: ") if step.title.startswith("Undo: ") else f"Undo: {step.title}"
    return _step(index, title, inverse, params, before, undo=True, settle_s=step.settle_s, timeout_s=step.timeout_s)


def _step(
    index: int,
    title: str,
    action: Action,
    params: BaseModel,
    before: JsonObject,
    *,
    undo: bool,
    verify: tuple[str, ...] = (),
    verify_ranges: tuple[Range, ...] = (),
    check: Sign | None = None,
    irreversible: str = "",
    settle_s: float,
    timeout_s: float | None = None,
) -> PlannedStep:
    reason = action.refusal(params, before) if isinstance(action, GuardedAction) else None
    if reason is not None:
        raise CannotPlanError(f"{title}: {reason}")
    effect = action.effect(params, before)
    return PlannedStep(
        index=index,
        title=title,
        action=action.name,
        tier=Tier(action.tier_of(params) if isinstance(action, TieredAction) else action.tier),
        target=action.target(params),
        params=params.model_dump(mode="json"),
        before=dict(before),
        effect=f"Cannot be undone ({irreversible}). {effect}" if irreversible else effect,
        undo=action.undo(params, before) if undo else None,
        verify=verify,
        verify_ranges=verify_ranges,
        check=check,
        settle_s=settle_s,
        timeout_s=timeout_s,
        undone_by=action.undone_by if isinstance(action, UndoneByAnother) else "",
    )


def _with_defaults(params: JsonObject, action: Action) -> JsonObject:
    given = {name: f"{{{name}}}" for name in CONTEXT_DEFAULTS if name in action.params.model_fields}
    return {**given, **params}


async def _state(action: Action, known: JsonObject, title: str) -> JsonObject:
    """The present state of what the known parameters name, for those that are computed from it."""
    if not isinstance(action, GuardedAction):
        raise CannotPlanError(f"{title}: {action.name} reads no state that a parameter could be computed from")
    named = {name: value for name, value in known.items() if name in action.subject.model_fields}
    return await _read(action, _validated(action.subject, named, title), title)


async def _read(action: Action, params: BaseModel, title: str) -> JsonObject:
    try:
        return await action.read(params)
    except ActionError as error:
        raise CannotPlanError(f"{title}: {error}") from error


def _validated(model: type[BaseModel], values: JsonObject, title: str) -> BaseModel:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in fault["loc"]) or "parameters"
        raise CannotPlanError(f"{title}: {name}: {fault['msg']}") from error


def _action(actions: Mapping[str, Action], name: str, title: str) -> Action:
    action = actions.get(name)
    if action is None:
        raise CannotPlanError(f"{title}: the action `{name}` does not exist")
    return action


def _refuse_same_target(steps: list[PlannedStep]) -> None:
    """The second step's `before` would be the first one's doing, unknown when the plan is made."""
    targets = [step.target for step in steps if step.tier > Tier.R0]
    for target in targets:
        if targets.count(target) > 1:
            raise CannotPlanError(f"two steps change {target}: make them two runbooks")


def _leans_on_suspect(params: JsonObject, context: PlanContext) -> bool:
    """Is anything in it what the suspected change says? Of several engine deployments it names the one."""
    names = {used.name for value in params.values() for text in texts_in(value) for used in placeholders(text)}
    return any(name.startswith("suspect.") for name in names) or (
        "deployment" in names and len(context.deployments) > 1
    )
