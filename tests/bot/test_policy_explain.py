"""`watchkeeper policy explain`: the reasons that it gives are the ones that a click would meet."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.config import Config
from bot.explain import Explained, Question, explain
from bot.incidents import WatchkeeperError
from bot.limits import Act
from runbooks.engine.actions import build_actions
from runbooks.engine.values import Runbook, StepTemplate
from tests.kit import CONFIG, NOW, config_in

BOOK = Runbook(
    runbook_id="slow-prompt",
    title="Slow prompt",
    revision="0" * 64,
    steps=(
        StepTemplate(title="Move the label back", action="langfuse.move_label", params={}),
        StepTemplate(title="Add replicas", action="kubernetes.drain", params={}),
    ),
)
ONE_STEP = replace(BOOK, steps=BOOK.steps[:1])
WHO = Question(user="bob", runbook="slow-prompt", step="1", service=None, environment=None, at=NOW)
LIMIT = '[[limit]]\naction = "langfuse.move_label"\nper_hour = 3\n'
ACT = Act(
    at=NOW - timedelta(minutes=5),
    tier="R1",
    environment="prod",
    service="chat",
    action="langfuse.move_label",
    target="langfuse/prompts/chat-system",
)


def ask(config: Config, question: Question = WHO, book: Runbook = ONE_STEP) -> Explained:
    return explain(config, {book.runbook_id: book}, build_actions(), question, [ACT])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_in(tmp_path, CONFIG + LIMIT)


def test_everything_that_decides_is_said(config: Config) -> None:
    """The rule, where the role comes from, how many, how long, and how often it ran."""
    found = ask(config)

    assert (found.verdict, found.why, found.mode) == ("yes", "as prompt-owner", "approve")
    assert [(each.decides, each.why) for each in found.rules] == [
        (True, "the first that matches"),
        (False, "is for R2, not R1"),
    ]
    assert [(each.role, each.source) for each in found.roles] == [
        ("prompt-owner", "[service.approvers] of chat"),
        ("on-call", "only while PagerDuty has assigned the incident to PBOB001"),
    ]
    assert (found.count, found.expires_min, found.start_within_min, found.step_up) == (1, 15, 10, False)
    assert [(each.per_hour, each.used, dict(each.used_by_target)) for each in found.limits] == [
        (3, 1, {"langfuse/prompts/chat-system": 1})
    ]
    assert "not in mode auto" in found.by_itself


@pytest.mark.parametrize(
    ("user", "changed", "verdict", "why"),
    [
        ("alice", "", "no", "This fix needs prompt-owner (Bob Brandt) or service-owner (Dana Diaz)."),
        ("Alice Ahn", '"prompt-owner", "service-owner"', "on_call", "assigned the incident to them (PALICE1)"),
        ("bob", 'mode = "approve"', "no", "mode suggest"),
    ],
)
def test_who_may_not_is_told_why(tmp_path: Path, user: str, changed: str, verdict: str, why: str) -> None:
    """In the words of the click."""
    new = {'mode = "approve"': 'mode = "suggest"'}.get(changed, '"on-call"')
    config = config_in(tmp_path, CONFIG.replace(changed, new) if changed else CONFIG)

    found = ask(config, replace(WHO, user=user))

    assert found.verdict == verdict
    assert why in found.why


def test_a_fix_is_approved_as_a_whole(config: Config) -> None:
    """A step of R1 beside one of R2 takes what R2 takes, where an environment has no rule nobody may."""
    found = ask(config, book=BOOK)

    assert (found.tier, found.plan_tier, found.count) == ("R1", "R2", 2)
    assert ask(config, replace(WHO, environment="dev")).why.startswith("No policy rule lets anybody")


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (replace(WHO, user="bobb"), "did you mean bob?"),
        (replace(WHO, user="zzz"), "there are alice, bob, dana, paul"),
        (replace(WHO, runbook="slow-promt"), "did you mean slow-prompt?"),
        (replace(WHO, step="Move the lable back"), "did you mean Move the label back?"),
        (replace(WHO, step="9"), "There are: 1 Move the label back"),
        (replace(WHO, service="chta"), "did you mean chat?"),
    ],
)
def test_a_name_that_is_none_gets_the_nearest(config: Config, question: Question, words: str) -> None:
    """Instead of an answer about somebody else."""
    with pytest.raises(WatchkeeperError) as refusal:
        ask(config, question)

    assert words in str(refusal.value)
