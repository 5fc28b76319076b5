"""What Slack delivers again, answers that find another way, mentions and other events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bot import narrate
from bot.incidents import StoreUnavailableError
from bot.slack.listeners import CLICKS
from tests.slack_counter import MALLORY, Workspace, open_workspace
from tests.slack_server import TEAM

pytestmark = pytest.mark.integration  # real HTTP


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    async with open_workspace() as place:
        yield place


async def test_a_repeated_delivery_is_acknowledged_and_not_handled_again(workspace: Workspace) -> None:
    """Slack retries what it did not hear the end of; the person is told once, and a new click is a new deed."""
    for _ in range(3):
        assert (await workspace.click("approve")).status_code == 200
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]
    assert len(workspace.slack.asked("chat.postEphemeral")) == 1

    await workspace.click("approve", trigger_id="1.2.4")
    assert workspace.desk.deeds == [("approve", "p-1", "bob")] * 2


async def test_deliveries_at_once_are_one(workspace: Workspace) -> None:
    """The second waits for the first's end before it is acknowledged: until then nothing is certain."""
    workspace.desk.gate.clear()
    clicks = [asyncio.ensure_future(workspace.send(CLICK)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert not any(click.done() for click in clicks)
    workspace.desk.gate.set()

    assert [(await click).status_code for click in clicks] == [200] * 5
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]


CLICK = {
    "payload": json.dumps(
        {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": "U0BOB", "team_id": TEAM},
            "trigger_id": "1.2.3",
            "actions": [{"type": "button", "action_id": "approve", "block_id": "fix", "value": "p-1"}],
        }
    )
}


async def test_a_repeated_command_is_answered_once(workspace: Workspace) -> None:
    """The second answer is an empty acknowledgement."""
    first, second = await workspace.command("status"), await workspace.command("status")

    assert "LLMHighTTFT" in first.text
    assert (second.status_code, second.text) == (200, "")
    assert workspace.desk.deeds == [("status",)]


async def test_what_broke_off_is_handled_when_it_comes_again(workspace: Workspace) -> None:
    """It was not acknowledged, so Slack may send it again."""
    workspace.desk.fault = RuntimeError("a bug")
    assert (await workspace.click("approve")).status_code >= 500
    workspace.desk.fault = None
    await workspace.click("approve")

    assert workspace.desk.deeds == [("approve", "p-1", "bob")]


async def test_without_a_memory_deeds_are_done_all_the_same(workspace: Workspace) -> None:
    """They are idempotent, and say by themselves what the database does not take."""
    workspace.claims.fault = StoreUnavailableError("the database is locked")
    await workspace.click("approve")

    assert workspace.desk.deeds == [("approve", "p-1", "bob")]


@pytest.mark.parametrize(
    "refusal",
    [
        (200, {}, '{"ok": false, "error": "user_not_in_channel"}'),
        (429, {"Retry-After": "30"}, '{"ok": false, "error": "ratelimited"}'),
        (500, {}, ""),
    ],
    ids=["outside", "limited", "broken"],
)
async def test_an_answer_finds_another_way(workspace: Workspace, refusal: tuple[int, dict[str, str], str]) -> None:
    """Who is not in the channel, or clicks while Slack limits private answers, is told by the response_url."""
    workspace.slack.faults["chat.postEphemeral"] = [refusal]
    await workspace.click("approve")
    await workspace.stragglers.finish()

    [answer] = workspace.slack.asked("response_url")
    assert answer["text"] == CLICKS["approve"].done
    assert (answer["response_type"], answer["replace_original"]) == ("ephemeral", False)


@pytest.mark.parametrize("url", [None, "", "https://evil.example/", "http://hooks.slack.com/x", "http://[", 7], ids=str)
async def test_an_answer_goes_to_slack_alone(workspace: Workspace, url: Any) -> None:
    """No address of a payload makes us send anything anywhere else."""
    workspace.slack.faults["chat.postEphemeral"] = [(500, {}, "")]
    answer = await workspace.click("approve", response_url=url)

    assert answer.status_code in (200, 400)
    assert workspace.slack.asked("response_url") == []


async def mention(workspace: Workspace, text: str, user: str = "U0BOB", **more: Any) -> httpx.Response:
    event = {"type": "app_mention", "user": user, "text": text, "channel": "C0INCIDENT", "ts": "1.3", **more}
    body = {"type": "event_callback", "event_id": "Ev1", "team_id": TEAM, "event": event}
    answer = await workspace.send(body, as_json=True)
    await workspace.stragglers.finish()
    return answer


@pytest.mark.parametrize("times", [1, 3])
async def test_a_mention_is_answered_like_a_command(workspace: Workspace, times: int) -> None:
    """To whoever wrote it, in the thread where they wrote it; an event that comes three times is answered once."""
    for _ in range(times):
        assert (await mention(workspace, "<@U0BOT00001> status", thread_ts="1.2")).status_code == 200

    [answer] = workspace.slack.asked("chat.postEphemeral")
    assert (answer["user"], answer["channel"], answer["thread_ts"]) == ("U0BOB", "C0INCIDENT", "1.2")
    assert "LLMHighTTFT" in json.dumps(answer["blocks"])


async def test_a_strangers_mention_is_refused(workspace: Workspace) -> None:
    """Recorded like every refusal."""
    await mention(workspace, "<@U0BOT00001> status", user=MALLORY)

    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 1
    assert workspace.told() == narrate.NOT_A_MEMBER


@pytest.mark.parametrize("kind", ["message", "reaction_added", "app_uninstalled", "something_new"])
async def test_other_events_are_acknowledged(workspace: Workspace, kind: str) -> None:
    """Slack switches off a subscription whose events nobody acknowledges; nothing is done with them."""
    body = {"type": "event_callback", "event_id": "Ev1", "team_id": TEAM, "event": {"type": kind, "user": "U0BOB"}}

    assert (await workspace.send(body, as_json=True)).status_code == 200
    assert workspace.claims.claims == {}
    assert workspace.slack.asked("chat.postEphemeral") == []
