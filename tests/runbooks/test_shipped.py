"""The runbooks that ship: readable, clean, linked, and possible to plan."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import runbooks
from runbooks.engine.actions import build_actions
from runbooks.engine.library import load_folder
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.plan import plan
from runbooks.engine.values import Action, GuardedAction, Runbook, Tier
from tests.runbooks.test_plan import CONTEXT

FOLDER = Path(runbooks.__file__).parent
SHIPPED, PROBLEMS = load_folder(FOLDER)
# The names that the format promises; a test across rooms proves that diagnostics has them.
CHECKS = {
    "time_to_first_token", "inter_token_latency", "latency_breakdown", "queue", "kv_cache", "prefix_cache",
    "prompt_length", "output_length", "traffic", "error_ratio", "provider_errors", "replicas", "engine_progress",
    "gpu_xid", "gpu_ecc", "output_quality",
    "gpu_throttling", "gpu_missing", "token_cost", "telemetry_present", "api_server_cpu",
}  # fmt: skip
CAUSES = {
    "G01",
    "G02",
    "G04",
    "G05",
    "G08",
    "G09",
    "I01",
    "I03",
    "S01",
    "S02",
    "S03",
    "S04",
    "S05",
    "S06",
    "S08",
    "S09",
}
CAUSES |= {"Q01", "S14", "X04"}
INCIDENT = replace(
    CONTEXT,
    gateway="edge",
    scope={
        "provider": ("openai",),
        "api_key": ("key-tenant-04",),
        "node": ("gpu-2",),
        "pod": ("engine-2",),
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
    assert lint(runbook, Vocabulary(checks=CHECKS, causes=CAUSES, actions=build_actions())) == []


@each
def test_it_says_what_a_reader_needs(runbook: Runbook) -> None:
    """What is seen, how to be sure, what when it does not help or must not be done, and whom to call."""
    headings = {heading for heading, _ in runbook.sections}
    assert headings >= {"What you see", "How to be sure", "When not to do this", "Escalate"}
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
async def test_it_can_be_planned(runbook: Runbook, actions: dict[str, Action]) -> None:
    """With a service, a suspect and a cluster that answers, every step becomes literals without a brace left."""
    made = await plan(runbook, INCIDENT, actions)
    assert all("{" not in step.effect for step in made.steps)
    assert made.tier <= Tier.R2
    for step in made.steps:
        assert (step.undo is not None) == step_can_be_undone(actions[step.action]), step.title


def step_can_be_undone(action: Action) -> bool:
    return isinstance(action, GuardedAction) and action.can_undo
