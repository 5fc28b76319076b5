"""What people do in the local Slack reaches a real slack-bolt app, signed and shaped as Slack does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.signature import SignatureVerifier

from lab.listening import listening, new_socket, url_of
from lab.people import BOT_USER, CHANNEL
from lab.slack import Workspace
from lab.slack_carriers import signature
from lab.slack_delivery import AppLink
from lab.slack_web import slack_app
from tests.lab_workspace import CARD, LocalSlack, local_slack, until

pytestmark = pytest.mark.integration


@dataclass(kw_only=True)
class BoltApp:
    """A small app that remembers what it was sent; bolt itself checks the signatures."""

    slack: LocalSlack
    bodies: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


@asynccontextmanager
async def bolt_app() -> AsyncIterator[BoltApp]:
    socket = new_socket()
    async with local_slack(app_url=url_of(socket) + "/slack/events") as slack:
        remembered = BoltApp(slack=slack)
        bolt = AsyncApp(client=slack.client, signing_secret=slack.workspace.signing_secret)

        @bolt.action("approve")
        async def approve(ack: AsyncAck, respond: AsyncRespond, body: dict[str, Any]) -> None:
            await ack()
            remembered.bodies.append(body)
            await respond(text=f"<@{body['user']['id']}>, your approval is recorded.", replace_original=False)

        @bolt.action("request")
        async def request_fix(ack: AsyncAck, body: dict[str, Any]) -> None:
            await ack()
            remembered.bodies.append(body)

        @bolt.command("/oncall")
        async def on_call(ack: AsyncAck, body: dict[str, Any]) -> None:
            remembered.bodies.append(body)
            await ack(text=f"you asked: {body['text']}")

        @bolt.event("message")
        async def on_message(event: dict[str, Any]) -> None:
            remembered.events.append(event)

        @bolt.event("app_mention")
        async def on_mention(event: dict[str, Any]) -> None:
            remembered.events.append(event)

        handler = AsyncSlackRequestHandler(bolt)
        web = FastAPI()

        @web.post("/slack/events")
        async def door(request: Request) -> Response:
            return await handler.handle(request)

        async with listening(web, socket):
            yield remembered


async def seen_by(slack: LocalSlack, person: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = (await slack.browser.get("/channel", params={"person": person})).json()["messages"]
    return messages


async def test_a_click_arrives_as_slack_sends_it() -> None:
    """The payload's fields are those that bolt and an authoriser read; the answer is for the clicker alone."""
    async with bolt_app() as app:
        ts = (await app.slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
        clicked = await app.slack.browser.post("/people/U0BOB/click", json={"ts": ts, "action_id": "approve"})
        await until(lambda: len(app.slack.workspace.messages) == 2)
        messages = await seen_by(app.slack, "bob")
        alices = await seen_by(app.slack, "alice")

    [body] = app.bodies
    assert clicked.json()["ok"]
    assert body["type"] == "block_actions"
    assert body["user"]["id"] == "U0BOB"
    assert body["team"]["id"] == body["user"]["team_id"] == "T0LAB00001"
    assert body["api_app_id"] == "A0LAB00001"
    assert body["container"] == {
        "type": "message",
        "message_ts": ts,
        "channel_id": CHANNEL,
        "is_ephemeral": False,
    }
    assert body["message"]["ts"] == ts
    assert body["actions"][0]["value"] == "plan-1"
    assert body["actions"][0]["block_id"] == "fix"
    assert body["trigger_id"]
    assert messages[1]["text"] == "<@U0BOB>, your approval is recorded."
    assert messages[1]["only_visible_to_you"]
    assert len(alices) == 1


async def test_a_choice_from_a_menu_carries_the_option() -> None:
    """The chosen option is in the action and in the state; one that is not offered cannot be chosen."""
    async with bolt_app() as app:
        ts = (await app.slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
        wish = {"ts": ts, "action_id": "request", "value": "plan-2"}
        chosen = await app.slack.browser.post("/people/dana/click", json=wish)
        impossible = await app.slack.browser.post("/people/dana/click", json={**wish, "value": "plan-9"})

    [body] = app.bodies
    assert chosen.status_code == 200
    assert body["actions"][0]["selected_option"]["value"] == "plan-2"
    assert body["state"]["values"]["fix"]["request"]["selected_option"]["value"] == "plan-2"
    assert (impossible.status_code, impossible.json()["error"]) == (409, "no_such_option")


async def test_a_command_is_answered_to_who_typed_it() -> None:
    """The HTTP answer of a slash command becomes an ephemeral message."""
    async with bolt_app() as app:
        await app.slack.browser.post("/people/alice/command", json={"text": "/oncall status chat"})
        [message] = await seen_by(app.slack, "alice")

    [body] = app.bodies
    assert (body["command"], body["text"], body["user_id"]) == ("/oncall", "status chat", "U0ALICE")
    assert body["response_url"].startswith(app.slack.url)
    assert (message["text"], message["only_visible_to_you"]) == ("you asked: status chat", True)


async def test_a_message_that_mentions_the_app_comes_as_two_events() -> None:
    """Slack sends `message` and `app_mention`; both carry the same ts."""
    async with bolt_app() as app:
        text = f"<@{BOT_USER}> why?"
        written = await app.slack.browser.post("/people/alice/message", json={"text": text})
        await until(lambda: len(app.events) == 2)

    assert sorted(event["type"] for event in app.events) == ["app_mention", "message"]
    assert {event["ts"] for event in app.events} == {written.json()["ts"]}


async def test_a_button_that_is_gone_cannot_be_clicked() -> None:
    """The workspace refuses what is not on the message now, and the app hears nothing of it."""
    async with bolt_app() as app:
        ts = (await app.slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
        await app.slack.client.chat_update(channel=CHANNEL, ts=ts, text="over", blocks=CARD[:2])
        gone = await app.slack.browser.post("/people/bob/click", json={"ts": ts, "action_id": "approve"})
        forged = await app.slack.browser.post(
            "/people/bob/click", json={"ts": ts, "action_id": "approve", "value": "plan-666"}
        )
        nobody = await app.slack.browser.post("/people/eve/click", json={"ts": ts, "action_id": "approve"})

    assert (gone.status_code, gone.json()["error"]) == (409, "no_such_element")
    assert forged.status_code == 409
    assert (nobody.status_code, nobody.json()["error"]) == (404, "user_not_found")
    assert app.bodies == []


async def test_an_app_that_is_down_is_told_of_and_not_retried() -> None:
    """Interactivity is delivered once; the person sees it and clicks again."""
    async with local_slack() as slack:
        ts = (await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
        answer = await slack.browser.post("/people/bob/click", json={"ts": ts, "action_id": "approve"})

    assert (answer.status_code, answer.json()["error"]) == (502, "connection_failed")
    assert [delivery["kind"] for delivery in slack.workspace.deliveries] == ["interactivity"]


async def test_an_app_that_is_slow_is_not_waited_for() -> None:
    """Slack's patience is three seconds; here it is shortened so that the test is not slow itself."""
    socket = new_socket()
    web = FastAPI()
    hung_up = asyncio.Event()

    @web.post("/slack/events")
    async def sleepy() -> None:
        await hung_up.wait()

    async with (
        local_slack(app_url=url_of(socket) + "/slack/events", patience_s=0.05) as slack,
        listening(web, socket),
    ):
        ts = (await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=CARD))["ts"]
        answer = await slack.browser.post("/people/bob/click", json={"ts": ts, "action_id": "approve"})
        hung_up.set()

    assert (answer.status_code, answer.json()["error"]) == (504, "http_timeout")


async def test_events_are_tried_four_times_with_slacks_headers() -> None:
    """An event that is not acknowledged comes again, numbered and with the reason."""
    socket = new_socket()
    web = FastAPI()
    heard: list[tuple[str | None, str | None]] = []

    @web.post("/slack/events")
    async def broken(request: Request) -> Response:
        heard.append((request.headers.get("x-slack-retry-num"), request.headers.get("x-slack-retry-reason")))
        return Response(status_code=500)

    async with local_slack(app_url=url_of(socket) + "/slack/events") as slack, listening(web, socket):
        written = await slack.browser.post("/people/alice/message", json={"text": "hello"})
        await until(lambda: len(heard) == 4)

    assert not written.json()["delivered"]
    assert heard == [(None, None), ("1", "http_error"), ("2", "http_error"), ("3", "http_error")]


async def test_a_response_url_works_five_times_within_half_an_hour() -> None:
    """Then Slack answers used_url or expired_url."""
    seconds = [0.0]
    workspace = Workspace(elapsed_s=lambda: seconds[0])
    async with local_slack(workspace=workspace) as slack:
        spent, old = workspace.new_response_url("U0BOB"), workspace.new_response_url("U0BOB")
        answers = [
            await slack.browser.post(f"/actions/T0LAB00001/{spent}", json={"text": str(number)}) for number in range(6)
        ]
        seconds[0] = 1801.0
        late = await slack.browser.post(f"/actions/T0LAB00001/{old}", json={"text": "late"})
        unknown = await slack.browser.post("/actions/T0LAB00001/feed", json={"text": "?"})
        nonsense = await slack.browser.post("/actions/T0LAB00001/feed", content=b"{")

    assert [answer.status_code for answer in answers] == [200] * 5 + [404]
    assert [answer.json()["error"] for answer in (answers[5], late, unknown)] == [
        "used_url",
        "expired_url",
        "invalid_url",
    ]
    assert nonsense.status_code == 400


async def test_a_trigger_opens_one_view_within_three_seconds() -> None:
    """Trigger ids are used once and expire."""
    seconds = [0.0]
    workspace = Workspace(elapsed_s=lambda: seconds[0])
    view = {"type": "modal", "title": {"type": "plain_text", "text": "Why?"}, "blocks": CARD[1:2]}
    async with local_slack(workspace=workspace) as slack:
        first, second = workspace.new_trigger("U0BOB"), workspace.new_trigger("U0BOB")
        opened = await slack.client.views_open(trigger_id=first, view=view)
        again = await slack.browser.post(
            "/api/views.open",
            json={"trigger_id": first, "view": view},
            headers={"Authorization": f"Bearer {workspace.bot_token}"},
        )
        seconds[0] = 3.1
        late = await slack.browser.post(
            "/api/views.open",
            json={"trigger_id": second, "view": view},
            headers={"Authorization": f"Bearer {workspace.bot_token}"},
        )

    assert opened["view"]["title"]["text"] == "Why?"
    assert (again.json()["error"], late.json()["error"]) == ("invalid_trigger_id", "expired_trigger_id")


def test_signatures_are_those_that_slacks_own_verifier_takes() -> None:
    """Checked by slack_sdk, not by our own arithmetic; another body does not pass."""
    headers = signature("a-secret", b'{"a": 1}')
    verifier = SignatureVerifier("a-secret")

    assert verifier.is_valid_request(b'{"a": 1}', headers)
    assert not verifier.is_valid_request(b'{"a": 2}', headers)
    assert not SignatureVerifier("another").is_valid_request(b'{"a": 1}', headers)


async def test_another_name_for_this_machine_is_refused() -> None:
    """A page of somebody else's that points its own name at 127.0.0.1 reaches nothing."""
    async with local_slack() as slack:
        answer = await slack.browser.get("/people", headers={"Host": "evil.example"})

    assert answer.status_code == 400


@pytest.mark.parametrize("wish", [{}, {"ts": "1"}, {"ts": "1", "action_id": "a", "force": True}])
async def test_half_a_click_is_refused(wish: dict[str, Any]) -> None:
    """A missing or misspelt field is named."""
    workspace = Workspace()

    link = AppLink(workspace, url="http://127.0.0.1:9/", base_url="http://127.0.0.1")
    app = slack_app(workspace, link, base_url="http://127.0.0.1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as browser:
        answer = await browser.post("/people/bob/click", json=wish)
    await link.aclose()

    assert answer.status_code == 422
