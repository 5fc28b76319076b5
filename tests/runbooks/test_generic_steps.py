"""Runbook steps of the generic actions: nested parameters, the operator's tier, and what may not be planned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbooks.engine.actions import CommandAccess, HttpAccess, build_actions
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.plan import fresh, plan
from runbooks.engine.problems import RunbookError
from runbooks.engine.values import CannotPlanError, Tier
from tests.runbooks.test_plan import CONTEXT, runbook

PURGE = 'action: command.run\nwith: {command: purge, arguments: {tenant: "{service}", days: 3}}\nverify: queue'
FLAG = (
    "action: http.request\n"
    "with: {endpoint: flags, method: POST, path: /api/flags/x/off,\n"
    '       body: {service: "{service}", tags: ["{suspect.prompt}", plain], until: null, deep: {n: 1}}}\n'
    "verify: queue"
)
BODY = '{"service": "chat", "tags": ["chat-system", "plain"], "until": null, "deep": {"n": 1}}'
COMMANDS = {
    "purge": CommandAccess(
        argv=("/usr/local/bin/purge", "--tenant", "{tenant}", "{days}"),
        arguments={"tenant": "[a-z]+", "days": "[0-9]"},
        tier=Tier.R2,
    )
}
ENDPOINTS = {"flags": HttpAccess(url="https://flags.example.com", methods=("POST",), paths=("/api/.*",), tier=Tier.R1)}
ACTIONS = build_actions(commands=COMMANDS, endpoints=ENDPOINTS)


async def test_arguments_and_bodies_are_filled_to_the_last_leaf() -> None:
    """Placeholders stand in mappings and lists, too; what comes out is literal, and the sentence says all of it."""
    made = await plan(runbook(PURGE, FLAG), CONTEXT, ACTIONS)

    assert [step.effect for step in made.steps] == [
        "Runs this on Watchkeeper's machine: /usr/local/bin/purge --tenant chat 3",
        f"Sends POST https://flags.example.com/api/flags/x/off with {BODY}",
    ]
    assert made.suspect == CONTEXT.suspect


async def test_the_tier_is_the_operators() -> None:
    """Of the entry, not of the action and never of the runbook; the plan has the highest of its steps."""
    made = await plan(runbook(PURGE, FLAG), CONTEXT, ACTIONS)

    assert [step.tier for step in made.steps] == [Tier.R2, Tier.R1]
    assert made.tier is Tier.R2
    for text in (PURGE, FLAG):
        with pytest.raises(RunbookError, match="`tier` is not known here"):
            runbook(f"{text}\ntier: R0")


async def test_a_changed_entry_makes_the_plan_stale() -> None:
    """Somebody edited the configuration after the approval: the command line is another one."""
    made = await plan(runbook(PURGE), CONTEXT, ACTIONS)
    other = {"purge": replace(COMMANDS["purge"], argv=("/usr/local/bin/purge", "--all", "{tenant}", "{days}"))}

    assert await fresh(made, ACTIONS) == []
    [moved] = await fresh(made, build_actions(commands=other, endpoints=ENDPOINTS))
    assert "argv was" in moved


async def test_an_argument_that_the_diagnosis_gives_has_to_fit_like_any_other() -> None:
    """A placeholder's value is checked after it was filled in."""
    with pytest.raises(CannotPlanError, match="argument tenant does not match"):
        await plan(runbook(PURGE), replace(CONTEXT, service="Chat;rm"), ACTIONS)


async def test_nothing_is_allowed_by_default() -> None:
    """Without an entry in the configuration there is no plan."""
    for text in (PURGE, FLAG):
        with pytest.raises(CannotPlanError, match="the configuration has no"):
            await plan(runbook(text), CONTEXT, build_actions())


def test_lint_reads_nested_parameters() -> None:
    """An unknown placeholder deep in a body, a parameter that does not exist, an undo that cannot be."""
    vocabulary = Vocabulary(checks={"queue"}, causes=set(), actions=build_actions())

    def complaints(text: str) -> str:
        return " ".join(problem.message for problem in lint(runbook(text), vocabulary))

    assert "`{nobody}` is not a known placeholder" in complaints(FLAG.replace("{suspect.prompt}", "{nobody}"))
    assert "`headers`" in complaints(FLAG.replace("method: POST", "method: POST, headers: {a: b}"))
    assert "cannot be undone" in complaints(f"{PURGE}\nundo: previous")
    assert "known placeholder" not in complaints(FLAG) + complaints(PURGE)


def test_a_placeholder_without_quotes_is_still_found() -> None:
    """YAML reads it as a mapping to nothing, on any level."""
    with pytest.raises(RunbookError, match="is not plain"):
        runbook('action: command.run\nwith: {command: purge, arguments: {tenant: {service}, days: "3"}}')
