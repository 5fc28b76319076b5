"""The step that waits, as a runbook writes it."""

from __future__ import annotations

import pytest

from runbooks.engine.actions import build_actions
from runbooks.engine.actions.wait import WaitParams
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.plan import plan
from runbooks.engine.values import ActionError, CannotPlanError, Tier
from tests.runbooks.test_plan import CONTEXT, runbook


async def test_the_plan_says_how_long() -> None:
    """Two waits in one plan, R0, each with its length; nothing is read, and nothing to undo."""
    made = await plan(
        runbook("action: wait\nwith: {for: 5m}", "action: wait\nwith: {for: 90s}"), CONTEXT, build_actions()
    )

    assert [step.effect for step in made.steps] == ["Waits 5m, then goes on.", "Waits 90s, then goes on."]
    assert made.tier is Tier.R0
    assert made.steps[0].params == {"for": "5m", "incident": CONTEXT.incident_id}
    assert (made.steps[0].target, made.steps[0].undo) == (f"clock/wait/{CONTEXT.incident_id}", None)
    assert WaitParams.model_validate(made.steps[0].params).seconds == 300.0


@pytest.mark.parametrize("duration", ["31m", "1h", "0s", "5", "5m\n", "-5m", "5 days", "", "{service}"])
async def test_what_is_no_short_time_is_refused(duration: str) -> None:
    """The approval would run out, or nobody could say how long."""
    with pytest.raises(CannotPlanError, match="for"):
        await plan(runbook(f"action: wait\nwith: {{for: {duration!r}}}"), CONTEXT, build_actions())


def test_lint_names_the_parameter_as_runbooks_write_it() -> None:
    """`for` is a word of Python's, so it has another name inside."""
    vocabulary = Vocabulary(checks=set(), causes=set(), actions=build_actions())
    [found] = [
        each for each in lint(runbook("action: wait\nwith: {duration: 5m}"), vocabulary) if "dur" in each.message
    ]

    assert "`wait` takes for, incident" in found.remedy


async def test_it_is_the_engine_that_waits() -> None:
    """The action itself would block whoever calls it."""
    with pytest.raises(ActionError):
        await build_actions()["wait"].act(WaitParams.model_validate({"for": "5m", "incident": "Q1"}), {}, "t")
