"""The Web API of the local Slack, asked by Slack's own asynchronous client over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from lab.people import CHANNEL
from lab.slack import Workspace
from lab.slack_api import Api
from tests.lab_workspace import CARD, LocalSlack, local_slack

pytestmark = pytest.mark.integration


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with local_slack() as running:
        yield running


async def refused(call: Any) -> dict[str, Any]:
    with pytest.raises(SlackApiError) as refusal:
        await call
    answer = refusal.value.response.data
    assert isinstance(answer, dict)
    return answer


async def test_a_posted_message_is_kept_with_its_blocks_and_metadata(slack: LocalSlack) -> None:
    """Metadata comes back only to who asks for it, as in Slack."""
    metadata = {"event_type": "watchkeeper_card", "event_payload": {"incident": "Q1"}}
    posted = await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD, metadata=metadata)

    plain = await slack.client.conversations_history(channel=CHANNEL)
    full = await slack.client.conversations_history(channel=CHANNEL, include_all_metadata=True)

    assert plain["messages"][0]["ts"] == posted["ts"]
    assert plain["messages"][0]["blocks"][2]["block_id"] == "fix"
    assert "metadata" not in plain["messages"][0]
    assert full["messages"][0]["metadata"] == metadata


async def test_messages_are_ordered_by_ts_even_within_a_microsecond() -> None:
    """A clock that stands still must not give two messages one identity."""
    frozen = Workspace().now()
    async with local_slack(workspace=Workspace(now=lambda: frozen)) as slack:
        stamps = [(await slack.client.chat_postMessage(channel=CHANNEL, text=str(i)))["ts"] for i in range(3)]
        history = await slack.client.conversations_history(channel=CHANNEL)

    assert stamps == sorted(set(stamps))
    assert [m["text"] for m in history["messages"]] == ["2", "1", "0"]


async def test_update_without_blocks_drops_them(slack: LocalSlack) -> None:
    """The trap of chat.update: a card edited with text alone loses its buttons."""
    ts = (await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
    await slack.client.chat_update(channel=CHANNEL, ts=ts, text="only text")

    [message] = (await slack.client.conversations_history(channel=CHANNEL))["messages"]

    assert message["text"] == "only text"
    assert "blocks" not in message


async def test_update_with_blocks_keeps_metadata_and_shows_no_edited_mark(slack: LocalSlack) -> None:
    """A card is edited in place; how it is found again (its metadata) stays."""
    metadata = {"event_type": "card", "event_payload": {}}
    posted = await slack.client.chat_postMessage(channel=CHANNEL, text="a", blocks=CARD, metadata=metadata)
    await slack.client.chat_update(channel=CHANNEL, ts=posted["ts"], text="b", blocks=CARD[:2])

    [message] = (await slack.client.conversations_history(channel=CHANNEL, include_all_metadata=True))["messages"]

    assert len(message["blocks"]) == 2
    assert message["metadata"] == metadata
    assert "edited" not in message


async def test_replies_gather_under_their_parent(slack: LocalSlack) -> None:
    """A reply to a reply belongs to the thread's parent; history shows only the parent."""
    parent = (await slack.client.chat_postMessage(channel=CHANNEL, text="card"))["ts"]
    reply = (await slack.client.chat_postMessage(channel=CHANNEL, text="one", thread_ts=parent))["ts"]
    await slack.client.chat_postMessage(channel=CHANNEL, text="two", thread_ts=reply)

    thread = await slack.client.conversations_replies(channel=CHANNEL, ts=parent)
    history = await slack.client.conversations_history(channel=CHANNEL)

    assert [m["text"] for m in thread["messages"]] == ["card", "one", "two"]
    assert [m["reply_count"] for m in history["messages"]] == [2]


async def test_an_ephemeral_message_is_seen_by_one_person_alone(slack: LocalSlack) -> None:
    """It is neither in history nor on anybody else's page."""
    await slack.client.chat_postEphemeral(channel=CHANNEL, user="U0MALLORY", text="you may not")

    hers = (await slack.browser.get("/channel", params={"person": "mallory"})).json()["messages"]
    bobs = (await slack.browser.get("/channel", params={"person": "bob"})).json()["messages"]
    history = await slack.client.conversations_history(channel=CHANNEL)

    assert [(m["text"], m["only_visible_to_you"]) for m in hers] == [("you may not", True)]
    assert bobs == []
    assert history["messages"] == []


async def test_a_picture_is_uploaded_into_the_thread(slack: LocalSlack) -> None:
    """The client's own three-step upload ends as a reply with a file that a browser can show."""
    parent = (await slack.client.chat_postMessage(channel=CHANNEL, text="card"))["ts"]
    png = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20
    await slack.client.files_upload_v2(
        channel=CHANNEL, thread_ts=parent, content=png, filename="latency.png", title="Where the time goes"
    )

    thread = await slack.client.conversations_replies(channel=CHANNEL, ts=parent)
    [file] = thread["messages"][1]["files"]
    shown = await slack.browser.get(httpx.URL(file["url_private"]).path)

    assert file["title"] == "Where the time goes"
    assert shown.content == png
    assert shown.headers["content-type"] == "image/png"


async def test_a_file_that_was_never_sent_cannot_be_completed(slack: LocalSlack) -> None:
    """Reserving an address uploads nothing."""
    reserved = await slack.client.files_getUploadURLExternal(filename="a.png", length=3)
    completing = slack.client.files_completeUploadExternal(
        files=[{"id": str(reserved["file_id"]), "title": "a"}], channel_id=CHANNEL
    )

    assert (await refused(completing))["error"] == "file_not_found"


REFUSED = [
    ("chat.postMesage", {"channel": CHANNEL, "text": "x"}, "unknown_method"),
    ("chat.postMessage", {"channel": "C0NOWHERE", "text": "x"}, "channel_not_found"),
    ("chat.postMessage", {"channel": CHANNEL}, "no_text"),
    ("chat.postMessage", {"channel": CHANNEL, "text": "x", "blcoks": "[]"}, "invalid_arguments"),
    ("chat.postMessage", {"text": "x"}, "invalid_arguments"),
    ("chat.postMessage", {"channel": CHANNEL, "text": "x", "blocks": "[{"}, "invalid_blocks_format"),
    ("chat.postMessage", {"channel": CHANNEL, "text": "x", "blocks": '[{"type": "section"}]'}, "invalid_blocks"),
    ("chat.postMessage", {"channel": CHANNEL, "text": "x", "thread_ts": "1.000000"}, "thread_not_found"),
    ("chat.postMessage", {"channel": CHANNEL, "text": "x", "metadata": '{"a": 1}'}, "invalid_metadata_format"),
    ("chat.update", {"channel": CHANNEL, "ts": "1.000000", "text": "x"}, "message_not_found"),
    ("chat.postEphemeral", {"channel": CHANNEL, "user": "U0NOBODY", "text": "x"}, "user_not_in_channel"),
    ("users.info", {"user": "U0NOBODY"}, "user_not_found"),
    ("views.open", {"trigger_id": "1.2.3", "view": '{"type": "modal", "title": {}}'}, "invalid_trigger_id"),
]


async def test_wrong_calls_are_refused_by_slacks_own_names(slack: LocalSlack) -> None:
    """A typing mistake in a method or argument is an error here, not silence."""
    answers = [
        (method, arguments, (await refused(slack.client.api_call(method, data=arguments)))["error"])
        for method, arguments, _ in REFUSED
    ]

    assert answers == REFUSED


async def test_the_token_is_checked(slack: LocalSlack) -> None:
    """Nobody without the bot's token may read or write."""
    wrong = await slack.browser.post("/api/auth.test", headers={"Authorization": "Bearer xoxb-wrong"})
    none = await slack.browser.post("/api/auth.test")

    assert wrong.json() == {"ok": False, "error": "invalid_auth"}
    assert none.json() == {"ok": False, "error": "not_authed"}


async def test_who_the_app_is(slack: LocalSlack) -> None:
    """Bolt asks this at its start."""
    me = await slack.client.auth_test()

    assert (me["user_id"], me["team_id"]) == ("U0WATCH", "T0LAB00001")
    assert (await slack.client.users_info(user=str(me["user_id"])))["user"]["is_bot"]


async def test_socket_mode_is_the_apps_own() -> None:
    """Only the app's token opens a connection, and each address of one works once."""
    workspace = Workspace()
    api = Api(workspace, base_url="http://127.0.0.1")
    assert api.call("apps.connections.open", workspace.app_token, {})["error"] == "access_denied"  # not switched on

    workspace.socket_url = "ws://127.0.0.1:1"
    assert api.call("apps.connections.open", workspace.bot_token, {})["error"] == "not_allowed_token_type"
    assert api.call("auth.test", workspace.app_token, {})["error"] == "not_allowed_token_type"
    first, second = (api.call("apps.connections.open", workspace.app_token, {})["url"] for _ in range(2))
    ticket = first.partition("ticket=")[2].partition("&")[0]
    assert first != second
    assert workspace.use_ticket(ticket)
    assert not workspace.use_ticket(ticket)


async def test_a_burst_of_messages_is_rate_limited() -> None:
    """About one message a second and channel after a short burst: HTTP 429 with Retry-After, then all is well again."""
    seconds = [100.0]
    async with local_slack(workspace=Workspace(elapsed_s=lambda: seconds[0]), rate_limited=True) as slack:
        impatient = AsyncWebClient(token=slack.workspace.bot_token, base_url=f"{slack.url}/api/", retry_handlers=[])
        for number in range(4):
            await impatient.chat_postMessage(channel=CHANNEL, text=str(number))
        with pytest.raises(SlackApiError) as refusal:
            await impatient.chat_postMessage(channel=CHANNEL, text="too many")
        assert refusal.value.response.status_code == 429
        seconds[0] += int(refusal.value.response.headers["Retry-After"])

        assert (await impatient.chat_postMessage(channel=CHANNEL, text="later"))["ok"]
