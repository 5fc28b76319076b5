"""`watchkeeper runbook preview`: what Slack would show, drawn by what draws for Slack."""

from __future__ import annotations

import json

from bot.library import FOLDER
from bot.preview import builder, preview
from bot.slack.terminal import mrkdwn
from lab.slack_blocks import faults_in
from runbooks.engine.library import load_folder
from tests.bot.test_cli import Run, run

__all__ = ["run"]

SHIPPED, _ = load_folder(FOLDER)


async def test_slack_would_take_every_card_and_thread() -> None:
    """All of ours, with the limits of Block Kit; each card has the fix and the button that approves it."""
    for book in SHIPPED:
        drawn = await preview(FOLDER / f"{book.runbook_id}.md")
        for message in (drawn.card, *drawn.thread):
            assert faults_in(builder(message)["blocks"]) == [], book.runbook_id
        assert '"action_id": "approve"' in json.dumps(drawn.card.blocks), book.runbook_id
        assert book.title[:40] in drawn.thread[-1].text


def test_with_a_fixture_every_sentence_is_the_one_people_read(run: Run) -> None:
    """The effect and the undo with the fixture's numbers; without one, the blocks as they stand, and that is said."""
    status, shown, _ = run("runbook", "preview", str(FOLDER / "queue-backlog.md"))
    _, plain, _ = run("runbook", "preview", str(FOLDER / "guardrail-slow.md"))

    assert status == 0
    assert "1. In the cluster lab, the deployment chat/chat-vllm is scaled from 4 to 6 replicas." in shown
    assert "[Approve fix]  [Deny]" in shown
    assert "The incident is the one of queue-backlog.test.yaml." in shown
    assert "Without a fixture that can be planned (guardrail-slow.test.yaml)" in plain
    assert "manual instruction: Double the replicas of the guardrail service." in plain


def test_the_json_is_what_block_kit_builder_takes(run: Run) -> None:
    """An object with `blocks`: of the card, or of the thread."""
    file = str(FOLDER / "queue-backlog.md")
    card, thread = (json.loads(run("runbook", "preview", file, "--json", *more)[1]) for more in ((), ("--thread",)))

    assert card["blocks"][0]["type"] == "header"
    assert thread["blocks"][0]["text"]["text"].startswith("Evidence for diagnosis 1")
    assert set(card) == set(thread) == {"blocks"}


def test_mrkdwn_is_shown_as_slack_shows_it() -> None:
    """Bold, italics, code and links without their marks; a name with underscores stays as it is."""
    shown = mrkdwn("*Fix*  a_b_c &lt;x&gt; _done_ <https://example.com|graph> ```- old\n+ new```")

    assert shown.plain == "Fix  a_b_c <x> done graph - old\n+ new"
    assert {str(span.style) for span in shown.spans} == {"bold", "italic", "underline", "cyan"}


def test_what_would_not_be_offered_is_not_drawn(run: Run) -> None:
    """A file that lint refuses has no card."""
    status, _, told = run("runbook", "preview", str(FOLDER / "README.md"))
    assert (status, "no front matter" in told) == (2, True)
