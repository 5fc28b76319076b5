"""What a person is asked to do in place of a step that cannot be planned here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runbooks.engine.context import PlanContext
from runbooks.engine.plan import plan
from runbooks.engine.run import MANUAL
from runbooks.engine.values import Action, CannotPlanError, Runbook, StepTemplate


async def by_hand_otherwise(runbook: Runbook, context: PlanContext, actions: Mapping[str, Action]) -> Runbook:
    """
    The runbook with a person's work in place of each step that cannot be planned and says what to do `otherwise`.

    It is for where `plan` raised CannotPlanError. What came in place changes nothing by machine, so it has no undo.
    """
    steps = [await _possible(runbook, template, context, actions) for template in runbook.steps]
    return replace(runbook, steps=tuple(steps))


async def _possible(
    runbook: Runbook, template: StepTemplate, context: PlanContext, actions: Mapping[str, Action]
) -> StepTemplate:
    if not template.otherwise or not context.holds(template.when):
        return template
    try:
        await plan(replace(runbook, steps=(template,)), context, actions)
    except CannotPlanError:
        asked = {"instruction": template.otherwise}
        return replace(
            template, action=MANUAL, params=asked, undo="none", irreversible="", timeout_s=None, otherwise=""
        )
    return template
