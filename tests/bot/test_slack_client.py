"""Our face over Slack's Web API: quiet messages, keys that find them again, and errors that say whether to retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.slack.client import SlackClient, SlackError, web_client
from bot.slack.pace import Rank
from bot.slack.view import Message
from tests.slack_server import SlackServer, account

pytestmark = pytest.mark.integration  # real HTTP

HELLO = Message(text="hello", blocks=[{"type": "section", "text": {"type": "mrkdwn", "text": "hello"}}])


@pytest.fixture
async def server() -> AsyncIterator[SlackServer]:
    slack = SlackServer(accounts={"U0BOB": account("U0BOB")})
    runner = await slack.start()
    yield slack
    await runner.cleanup()


def client(server: SlackServer, **more: Any) -> SlackClient:
    return SlackClient(web_client("xoxb-test", f"{server.url}/api/", timeout_s=2), **more)


async def test_a_message_is_quiet_and_carries_its_key(server: SlackServer) -> None:
    """No unfurling, no parsing, no linking of names; the key stands in the metadata."""
    ts = await client(server).post("C0", HELLO, key="card:Q1", thread_ts="1.2")

    [sent] = server.asked("chat.postMessage")
    assert ts == "1700000000.000100"
    assert sent["metadata"] == {"event_type": "watchkeeper", "event_payload": {"key": "card:Q1"}}
    assert (sent["unfurl_links"], sent["unfurl_media"], sent["parse"], sent["link_names"]) == (
        False,
        False,
        "none",
        False,
    )
    assert (sent["thread_ts"], sent["text"]) == ("1.2", "hello")


async def test_an_update_keeps_blocks_and_key(server: SlackServer) -> None:
    """Text without blocks would remove the blocks."""
    await client(server).update("C0", "1.2", HELLO, key="card:Q1")

    [sent] = server.asked("chat.update")
    assert sent["blocks"] == HELLO.blocks
    assert sent["metadata"]["event_payload"] == {"key": "card:Q1"}


async def test_a_message_is_found_by_its_key(server: SlackServer) -> None:
    """Beyond the first page, past foreign and odd metadata, in the channel and in a thread."""
    ours = {"ts": "7.7", "metadata": {"event_type": "watchkeeper", "event_payload": {"key": "card:Q1"}}}
    foreign = {"ts": "6.6", "metadata": {"event_type": "other", "event_payload": {"key": "card:Q1"}}}
    server.messages = [foreign, {"ts": "1"}, {"metadata": None}, *[{"ts": str(n)} for n in range(120)], ours]
    slack = client(server)

    assert await slack.find_posted("C0", "card:Q1", since=datetime(2026, 11, 22, tzinfo=UTC)) == "7.7"
    assert await slack.find_posted("C0", "card:Q1", thread_ts="1.2") == "7.7"
    assert await slack.find_posted("C0", "card:Q9") is None
    assert server.asked("conversations.history")[0]["oldest"] == "1795305600.000000"
    assert len(server.asked("conversations.replies")) == 2


async def test_users_are_asked_again_after_a_minute(server: SlackServer) -> None:
    """Within the minute the answer is kept; after it a deactivated account is seen."""
    now = [0.0]
    slack = client(server, clock=lambda: now[0])
    await slack.users_info("U0BOB")
    server.accounts["U0BOB"]["deleted"] = True
    now[0] = 59.0
    assert (await slack.users_info("U0BOB"))["deleted"] is False
    now[0] = 61.0
    assert (await slack.users_info("U0BOB"))["deleted"] is True


async def test_a_picture_is_uploaded(server: SlackServer) -> None:
    """The three steps of Slack's upload, into the thread, with words for those who do not see it."""
    await client(server).upload_picture("C0", b"png", filename="a.png", title="A", alt_text="a graph", thread_ts="1.2")

    assert b"png" in server.asked("upload")[0]["bytes"]
    assert server.asked("files.getUploadURLExternal")[0]["alt_txt"] == "a graph"
    assert server.asked("files.completeUploadExternal")[0]["thread_ts"] == "1.2"


@pytest.mark.parametrize(
    ("fault", "permanent"),
    [
        ((200, {}, '{"ok": false, "error": "invalid_blocks"}'), True),
        ((200, {}, '{"ok": false, "error": "msg_too_long"}'), True),
        ((200, {}, '{"ok": false, "error": "internal_error"}'), False),
        ((503, {}, "upstream"), False),
        ((200, {}, "<html>"), False),
        ((200, {}, "[]"), False),
        ((200, {}, ""), False),
    ],
    ids=range(7),
)
async def test_errors_say_whether_to_try_again(server: SlackServer, fault: Any, *, permanent: bool) -> None:
    """What Slack will always refuse is permanent; what may pass is not."""
    server.faults["chat.postMessage"] = [fault]
    with pytest.raises(SlackError) as raised:
        await client(server).post("C0", HELLO, key="k")

    assert raised.value.permanent is permanent


@pytest.mark.parametrize(
    "name",
    [
        "invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive", "missing_scope",
        "not_in_channel", "channel_not_found", "is_archived", "org_login_required", "ekm_access_denied",
    ],
)  # fmt: skip
async def test_what_a_person_can_mend_is_not_for_ever(server: SlackServer, name: str) -> None:
    """A new token, a scope, an invitation into the channel: what waited is delivered then."""
    server.faults["chat.postMessage"] = [(200, {}, f'{{"ok": false, "error": "{name}"}}')]
    with pytest.raises(SlackError, match=name) as raised:
        await client(server).post("C0", HELLO, key="k")
    await client(server).post("C0", HELLO, key="k")

    assert (raised.value.permanent, raised.value.missing, raised.value.untouched) == (False, False, False)


@pytest.mark.parametrize("name", ["message_not_found", "cant_update_message"])
async def test_a_message_that_is_gone_is_said_to_be_missing(server: SlackServer, name: str) -> None:
    """Somebody deleted the card, or another app posted it: a new one has to take its place."""
    server.faults["chat.update"] = [(200, {}, f'{{"ok": false, "error": "{name}"}}')]
    with pytest.raises(SlackError) as raised:
        await client(server).update("C0", "1.2", HELLO, key="k")

    assert (raised.value.permanent, raised.value.missing) == (True, True)


async def test_a_connection_that_breaks_is_not_tried_again(server: SlackServer) -> None:
    """Slack may have taken the post before the connection broke; slack_sdk would send it a second time."""
    server.breaks = 1
    with pytest.raises(SlackError) as raised:
        await client(server).post("C0", HELLO, key="k")

    assert (raised.value.permanent, raised.value.untouched, raised.value.unreachable) == (False, False, True)
    assert len(server.asked("chat.postMessage")) == 1


async def test_no_slack_is_no_exception_of_somebody_else() -> None:
    """A refused connection is our error, and may pass."""
    with pytest.raises(SlackError) as raised:
        await SlackClient(web_client("xoxb-test", "http://127.0.0.1:9/api/", timeout_s=1)).post("C0", HELLO, key="k")

    assert raised.value.permanent is False


async def test_a_limit_closes_the_method_for_everybody(server: SlackServer) -> None:
    """Slack limits a method, not a message: nobody asks again before it is over, and other methods go on."""
    now = [0.0]
    slack = client(server, clock=lambda: now[0])
    server.faults["chat.update"] = [(429, {"Retry-After": "30"}, '{"ok": false, "error": "ratelimited"}')]
    with pytest.raises(SlackError) as first:
        await slack.update("C0", "1.2", HELLO, key="k")
    now[0] = 10.0
    with pytest.raises(SlackError) as second:
        await slack.update("C0", "3.4", HELLO, key="l")
    await slack.post("C0", HELLO, key="m")

    assert (first.value.retry_after, first.value.untouched) == (30.0, True)
    assert (second.value.retry_after, second.value.untouched) == (20.0, True)
    assert len(server.asked("chat.update")) == 1

    now[0] = 30.0
    await slack.update("C0", "1.2", HELLO, key="k")
    assert len(server.asked("chat.update")) == 2


LIMITED = (429, {"Retry-After": "30"}, '{"ok": false, "error": "ratelimited"}')


async def test_a_limit_closes_the_channel_and_no_other(server: SlackServer) -> None:
    """Posts are limited by channel; updates, which are not, are limited by method."""
    now = [0.0]
    slack = client(server, clock=lambda: now[0])
    server.faults["chat.postMessage"] = [LIMITED]
    with pytest.raises(SlackError) as limited:
        await slack.post("C0", HELLO, key="a")
    with pytest.raises(SlackError):
        await slack.post("C0", HELLO, key="b")
    await slack.post("C1", HELLO, key="c")
    await slack.update("C0", "1.2", HELLO, key="a")

    assert (limited.value.retry_after, limited.value.unreachable) == (30.0, False)
    assert [call["channel"] for call in server.asked("chat.postMessage")] == ["C0", "C1"]
    assert slack.room("chat.postMessage", "C0", Rank.FIRST) == 0
    assert slack.room("chat.postMessage", "C1", Rank.FIRST) > 0


async def test_while_slack_is_away_nothing_is_tried_but_what_people_wait_for(server: SlackServer) -> None:
    """A message waits untouched; who clicked a moment ago is still answered, if that can be."""
    slack = client(server)
    server.faults["chat.postMessage"] = [(503, {}, "upstream")]
    with pytest.raises(SlackError) as lost:
        await slack.post("C0", HELLO, key="k")
    with pytest.raises(SlackError) as waits:
        await slack.update("C0", "1.2", HELLO, key="k")
    assert (lost.value.unreachable, lost.value.untouched) == (True, False)
    assert (waits.value.unreachable, waits.value.untouched) == (True, True)
    assert server.asked("chat.update") == []
    assert slack.room("chat.update", "C0", Rank.FIRST) == 0
    assert slack.line.trouble().startswith("Slack: not reachable since ")

    await slack.ephemeral("C0", "U0BOB", HELLO)
    assert slack.line.trouble() == ""
    await slack.update("C0", "1.2", HELLO, key="k")


async def test_those_in_the_queue_do_not_wait_for_a_slack_that_hangs(server: SlackServer) -> None:
    """The first finds out; the others, who came at the same time, are told at once and have called nobody."""
    server.breaks = 1
    slack = client(server)
    ends = await asyncio.gather(*(slack.post("C0", HELLO, key=str(n)) for n in range(4)), return_exceptions=True)

    errors = [end for end in ends if isinstance(end, SlackError)]
    assert [error.untouched for error in errors] == [False, True, True, True]
    assert len(server.asked("chat.postMessage")) == 1


async def test_somebody_keeps_asking_whether_slack_is_back(server: SlackServer) -> None:
    """Every moment, with the smallest call there is; and the workspace's address becomes known for links."""
    slack = client(server)
    assert slack.permalink("C0", "1.2") == ""
    server.faults["auth.test"] = [(503, {}, ""), (200, {}, "<html>")]
    asking = asyncio.create_task(slack.keep_asking(0.01))
    async with asyncio.timeout(5):
        while not slack.workspace_url or slack.line.down_since is not None:
            await asyncio.sleep(0.01)
    asking.cancel()

    assert len(server.asked("auth.test")) == 3
    assert slack.permalink("C0", "1700000000.000100") == f"{server.url}/archives/C0/p1700000000000100"
