"""
`watchkeeper runbook preview`: the card and the thread that offer a runbook's fix, drawn by the code that draws Slack's.

Where the runbook has a fixture, its first case that can be planned stands for the incident, so that every sentence is
the one people would read; without one, the steps are shown as their blocks have them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.incidents import PlanState, WatchkeeperError
from bot.library import vocabulary
from bot.rehearsals import usable
from bot.runbook_tests import fixture_of
from bot.slack import blocks, portrait, thread
from bot.slack.view import CardState, CardView, CauseLine, Message, PlanLine, RunbookLine, StepLine
from diagnostics.causes import knowledge
from runbooks.engine.fixtures import Given, load_fixture, rehearsed
from runbooks.engine.lint import Vocabulary
from runbooks.engine.problems import RunbookError
from runbooks.engine.values import CannotPlanError, Plan, Runbook, StepTemplate, Tier

WHO = "whoever your policy says"
NO_FIXTURE = "Without a fixture that can be planned ({name}), steps are shown as their blocks have them."


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What Slack would show: the card with the offer, and the thread's messages. `note` says what was made up."""

    card: Message
    thread: tuple[Message, ...]
    note: str


async def preview(file: Path) -> Preview:
    """Raises WatchkeeperError when the file is no runbook whose steps would be offered."""
    runbook, names = usable(file), vocabulary()
    given, plan = await _planned(runbook, file, names)
    line = _of_plan(plan) if plan else _of_blocks(runbook, names)
    view = _view(runbook, given, line)
    name = fixture_of(file).name
    return Preview(
        card=blocks.card(view),
        thread=(thread.evidence(view), thread.progress(line)),
        note=f"The incident is the one of {name}." if plan else NO_FIXTURE.format(name=name),
    )


def builder(message: Message) -> dict[str, Any]:
    """What Block Kit Builder takes."""
    return {"blocks": message.blocks}


async def _planned(runbook: Runbook, file: Path, names: Vocabulary) -> tuple[Given, Plan | None]:
    fixture = fixture_of(file)
    if not fixture.exists():
        return Given(), None
    try:
        for case in load_fixture(fixture).fixture.cases:
            outcome = await rehearsed(runbook, case.given, names)
            if outcome.plan is not None:
                return case.given, outcome.plan
    except (RunbookError, CannotPlanError) as error:
        raise WatchkeeperError(str(error)) from error
    return Given(), None


def _of_plan(plan: Plan) -> PlanLine:
    return portrait.plan(plan, PlanState.PROPOSED, may_approve=(WHO,))


def _of_blocks(runbook: Runbook, names: Vocabulary) -> PlanLine:
    steps = tuple(_step(index, template) for index, template in enumerate(runbook.steps))
    tiers = [names.actions[template.action].tier for template in runbook.steps]
    return PlanLine(
        plan_id="plan-preview",
        title=runbook.title,
        state=PlanState.PROPOSED,
        tier=max(tiers, default=Tier.R0),
        steps=steps,
        may_approve=(WHO,),
        can_undo=any(step.undo for step in steps),
    )


def _step(index: int, template: StepTemplate) -> StepLine:
    values = ", ".join(f"{name}: {value}" for name, value in template.params.items())
    undo = "back to the state of before" if template.undo == "previous" else ""
    return StepLine(
        index=index, title=template.title, effect=f"{template.title}: {template.action} {values}".strip(), undo=undo
    )


def _view(runbook: Runbook, given: Given, line: PlanLine) -> CardView:
    cause = given.cause or next(iter(runbook.causes), "other")
    known = knowledge.load().causes.get(cause)
    alert = next(iter(runbook.alerts), "an alert")
    return CardView(
        incident_id="QPREVIEW",
        title=f"{alert} on {given.service.name}",
        service=given.service.name,
        state=CardState.OPEN,
        paged_at=datetime(2026, 1, 1, 3, tzinfo=UTC),
        environment=given.service.environment,
        scope="; ".join(f"{name.replace('_', ' ')}: {', '.join(values)}" for name, values in given.scope.items()),
        causes=(CauseLine(cause=cause, title=known.title if known else "the cause", probability=1.0),),
        runbook=RunbookLine(title=runbook.title, reasons=tuple(_reasons(runbook, cause))),
        plan=line,
    )


def _reasons(runbook: Runbook, cause: str) -> Iterator[str]:
    if cause in runbook.causes:
        yield f"is for the cause {cause}"
    if runbook.alerts:
        yield f"is for the alert {runbook.alerts[0]}"
