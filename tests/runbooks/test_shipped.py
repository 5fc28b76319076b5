"""The runbooks that ship: readable, clean, linked, and possible to plan."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import runbooks
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from runbooks.engine.actions import build_actions
from runbooks.engine.library import load_folder
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.otherwise import by_hand_otherwise
from runbooks.engine.plan import plan
from runbooks.engine.values import Action, GuardedAction, Runbook, Tier
from tests.runbooks.kubernetes_server import KubernetesServer
from tests.runbooks.test_plan import CONTEXT

FOLDER = Path(runbooks.__file__).parent
SHIPPED, PROBLEMS = load_folder(FOLDER)
VOCABULARY = Vocabulary(checks=CHECKS, causes=knowledge.load().causes, actions=build_actions())
SECTIONS = {"Meaning", "Impact", "Diagnosis", "Verify", "Escalate"}
INCIDENT = replace(
    CONTEXT,
    gateway="edge",
    scope={
        "account": ("openai-prod",),
        "agent": ("support",),
        "api_key": ("key-tenant-04",),
        "data_source": ("forum",),
        "model": ("gpt-4.1-nano",),
        "node": ("gpu-2",),
        "pod": ("engine-2",),
        "policy": ("15",),
        "provider": ("openai",),
        "rack": ("rack-2",),
        "route": ("chat",),
        "tool": ("search_orders",),
    },
    suspect_undo={**CONTEXT.suspect_undo, "deployment": "chat-vllm", "revision": "2", "to_revision": "1"},
)
each = pytest.mark.parametrize("runbook", SHIPPED, ids=lambda runbook: runbook.runbook_id)


def test_all_of_them_can_be_read() -> None:
    """At least the eight that are promised, and no broken one."""
    assert PROBLEMS == ()
    assert len(SHIPPED) >= 8


@each
def test_lint_finds_nothing(runbook: Runbook) -> None:
    """Every name exists, every change is verified, no text looks like a secret."""
    assert lint(runbook, VOCABULARY) == []


@each
def test_it_says_what_a_reader_needs(runbook: Runbook) -> None:
    """What it means and whom it hurts, how to be sure, how to see that it is over, when to stop and whom to call."""
    headings = {heading for heading, _ in runbook.sections}
    assert headings >= SECTIONS
    assert runbook.steps


@each
def test_links_lead_somewhere(runbook: Runbook) -> None:
    """A runbook sends its reader on only to files that exist."""
    text = (FOLDER / f"{runbook.runbook_id}.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / target).is_file(), target


def test_the_folder_lists_them_all() -> None:
    """The index that people open first names every runbook."""
    readme = (FOLDER / "README.md").read_text()
    assert [one.runbook_id for one in SHIPPED if f"({one.runbook_id}.md)" not in readme] == []


@each
async def test_it_can_be_planned(runbook: Runbook, actions: dict[str, Action], cluster: KubernetesServer) -> None:
    """With a service, a suspect and a cluster that answers, every step becomes literals without a brace left."""
    cluster.twins = ("chat-gateway",)
    [container] = cluster.deployment["spec"]["template"]["spec"]["containers"]
    container["resources"] = {"limits": {"cpu": "12"}}
    made = await plan(await by_hand_otherwise(runbook, INCIDENT, actions), INCIDENT, actions)
    assert all("{" not in step.effect for step in made.steps)
    assert made.tier <= Tier.R2
    for step in made.steps:
        assert (step.undo is not None) == step_can_be_undone(actions[step.action]), step.title


def step_can_be_undone(action: Action) -> bool:
    return isinstance(action, GuardedAction) and action.can_undo
