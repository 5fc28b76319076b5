"""Clicks, commands and events over Socket Mode: a real WebSocket, the real Bolt, and a Slack that comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from bot import narrate
from bot.slack.client import web_client
from bot.slack.listeners import CLICKS
from bot.slack.socket import SlackSocket
from bot.web.slack_payload import has_parts
from lab.listening import new_socket
from lab.slack import Workspace as LabWorkspace
from lab.slack_carriers import Answer, Kind, Retry
from lab.slack_socket import SocketCarrier
from tests.slack_counter import MALLORY, Workspace
from tests.slack_server import TEAM, SlackServer, account

pytestmark = pytest.mark.integration  # real WebSockets


class Place:
    """Slack's two faces, its Web API and its envelopes, and the product between them."""

    def __init__(self, slack: SlackServer, runner: web.AppRunner) -> None:
        self.slack = slack
        self.workspace = Workspace(slack)
        self.lab = LabWorkspace()
        self.carrier = SocketCarrier(self.lab, patience_s=1.5)
        slack.new_address = lambda: f"{self.lab.socket_url}/link/?ticket={self.lab.new_ticket()}"
        self.runner = runner
        self.sockets = [self.new_socket()]

    def new_socket(self) -> SlackSocket:
        """Another process of the product."""
        web = web_client("xoxb-test", f"{self.slack.url}/api/", timeout_s=2)
        return SlackSocket(
            bolt=self.workspace.bolt, web=web, app_token="xapp-test", is_readable=has_parts, longest_wait_s=0.2
        )

    @property
    def socket(self) -> SlackSocket:
        return self.sockets[0]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.01)

    async def connected(self, count: int = 1) -> None:
        await self.until(lambda: len(self.carrier.connections) == count and not self.socket.line.down_since)

    def click(self, action: str, value: str = "p-1", user: str = "U0BOB", trigger: str = "1.2.3") -> dict[str, Any]:
        return {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": TEAM},
            "channel": {"id": "C0INCIDENT"},
            "container": {"type": "message", "channel_id": "C0INCIDENT", "message_ts": "1.2"},
            "trigger_id": trigger,
            "actions": [{"type": "button", "action_id": action, "block_id": "fix", "value": value}],
        }

    def send(self, kind: Kind, payload: dict[str, Any], retry: Retry | None = None) -> Awaitable[Answer]:
        return self.carrier.carry(kind, payload, retry)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    slack = SlackServer(accounts={"U0BOB": account("U0BOB"), MALLORY: account(MALLORY)})
    runner = await slack.start()
    place = Place(slack, runner)
    async with place.carrier.listening(new_socket()):
        place.socket.start()
        await place.connected()
        yield place
        await place.workspace.shut(place.workspace.desk.gate)
        for socket in place.sockets:
            await socket.stop()
    await runner.cleanup()


async def test_a_click_is_decided_and_acknowledged(place: Place) -> None:
    """One deed of the person who clicked; the person is told, and Slack hears nothing but the acknowledgement."""
    answer = await place.send("interactivity", place.click("approve"))

    assert (answer.is_acknowledged, answer.body) == (True, "")
    assert place.workspace.desk.deeds == [("approve", "p-1", "bob")]
    await place.until(lambda: bool(place.slack.asked("chat.postEphemeral")))
    assert place.workspace.told() == CLICKS["approve"].done


async def test_a_stranger_is_refused(place: Place) -> None:
    """The same authoriser stands before the same desk."""
    await place.send("interactivity", place.click("approve", user=MALLORY))

    assert place.workspace.desk.deeds == []
    assert len(place.workspace.desk.refusals) == 1


async def test_a_command_is_answered_in_the_acknowledgement(place: Place) -> None:
    """As a message to the person alone."""
    form = {"command": "/oncall", "text": "status", "team_id": TEAM, "user_id": "U0BOB", "trigger_id": "1.2.3"}
    answer = json.loads((await place.send("command", form)).body)

    assert answer["response_type"] == "ephemeral"
    assert "LLMHighTTFT" in json.dumps(answer["blocks"])


async def test_a_repeated_envelope_is_acknowledged_and_not_handled_again(place: Place) -> None:
    """Slack did not hear our acknowledgement; what was decided stays decided once, and is told once."""
    answers = [await place.send("interactivity", place.click("approve")) for _ in range(3)]
    event = {
        "type": "event_callback",
        "event_id": "Ev1",
        "team_id": TEAM,
        "event": {"type": "app_mention", "user": "U0BOB", "channel": "C0", "text": "<@U0BOT> status", "ts": "1.1"},
    }
    answers += [await place.send("event", event, Retry(number=n, reason="timeout") if n else None) for n in range(3)]

    assert [answer.error for answer in answers] == [""] * 6
    assert place.workspace.desk.deeds == [("approve", "p-1", "bob"), ("status",)]
    await place.workspace.stragglers.finish()
    assert len(place.slack.asked("chat.postEphemeral")) == 2


async def test_what_could_not_be_decided_is_not_acknowledged(place: Place) -> None:
    """Slack shows the person an error; when it comes again it is handled."""
    place.workspace.desk.fault = RuntimeError("a bug")
    first = await place.send("interactivity", place.click("approve"))
    place.workspace.desk.fault = None
    second = await place.send("interactivity", place.click("approve"))

    assert (first.error, second.error) == ("http_timeout", "")
    assert place.workspace.desk.deeds == [("approve", "p-1", "bob")]


@pytest.mark.parametrize("reason", ["refresh_requested", "link_disabled"])
async def test_a_connection_that_slack_ends_is_replaced(place: Place, reason: str) -> None:
    """Slack renews its connections every few hours; the next click arrives all the same."""
    [old] = place.carrier.connections
    await place.carrier.disconnect(reason)
    await place.until(lambda: bool(place.carrier.connections) and old not in place.carrier.connections)

    assert (await place.send("interactivity", place.click("approve"))).is_acknowledged


async def test_a_connection_that_breaks_is_replaced(place: Place) -> None:
    """Without a word: the cable, or Slack's own machine."""
    [old] = place.carrier.connections
    transport = old._req.transport if old._req else None
    assert transport is not None
    transport.abort()
    await place.until(lambda: bool(place.carrier.connections) and old not in place.carrier.connections)

    assert (await place.send("interactivity", place.click("approve"))).is_acknowledged


async def test_after_a_warning_both_connections_are_heard(place: Place) -> None:
    """Slack announces the end seconds before it; what it still sends over the old connection is not lost."""
    [old] = place.carrier.connections
    await place.carrier.disconnect("warning", hard=False)
    await place.connected(2)
    place.carrier.connections.remove(new := place.carrier.connections[1])
    over_old = await place.send("interactivity", place.click("approve", trigger="1"))
    place.carrier.connections[:] = [new]
    over_new = await place.send("interactivity", place.click("deny", trigger="2"))
    place.carrier.connections.append(old)

    assert (over_old.error, over_new.error) == ("", "")
    assert place.workspace.desk.deeds == [("approve", "p-1", "bob"), ("deny", "p-1", "bob")]


async def test_an_address_is_used_once(place: Place) -> None:
    """A handshake that failed is followed by a new address; the old one would never work again."""
    good = place.slack.new_address
    given: list[str] = []

    def stale_twice() -> str:
        given.append(good() if len(given) > 1 else f"{place.lab.socket_url}/link/?ticket=used")
        return given[-1]

    place.slack.new_address = stale_twice
    [old] = place.carrier.connections
    await old.close()
    await place.until(lambda: bool(place.carrier.connections) and old not in place.carrier.connections)

    assert len(given) == 3
    assert (await place.send("interactivity", place.click("approve"))).is_acknowledged


async def test_a_slack_that_is_away_is_waited_for(place: Place) -> None:
    """Since when and why is told; as soon as it is back clicks are heard."""
    place.slack.faults["apps.connections.open"] = [(503, {}, "upstream")] * 3
    [old] = place.carrier.connections
    await old.close()
    await place.until(lambda: "503" in place.socket.line.trouble())
    assert place.socket.line.trouble().startswith("Slack: Socket Mode not connected since ")

    await place.connected()
    assert place.socket.line.trouble() == ""
    assert (await place.send("interactivity", place.click("approve"))).is_acknowledged


async def test_an_address_that_was_refused_is_told_to_nobody(place: Place) -> None:
    """Its ticket may still be good for somebody else, and /healthz and the log are read by many."""
    place.slack.new_address = lambda: f"{place.lab.socket_url}/nowhere/?ticket=still-good"
    [connection] = place.carrier.connections
    await connection.close()

    await place.until(lambda: "404" in place.socket.line.why)

    assert place.socket.line.why == "WSServerHandshakeError 404"


async def test_a_limit_on_connecting_is_kept(place: Place) -> None:
    """No address is asked for before Retry-After is over."""
    place.slack.faults["apps.connections.open"] = [(429, {"Retry-After": "1"}, '{"ok": false, "error": "ratelimited"}')]
    asked = len(place.slack.asked("apps.connections.open"))
    began = asyncio.get_running_loop().time()
    [old] = place.carrier.connections
    await old.close()
    await place.until(lambda: len(place.slack.asked("apps.connections.open")) == asked + 2)

    assert asyncio.get_running_loop().time() - began >= 1.0


async def test_connections_that_end_at_once_are_not_spun_through(place: Place) -> None:
    """Too many connections: Slack ends each new one, and is left in peace between two attempts."""
    place.socket._longest_wait_s = 20.0
    place.carrier.connections.extend([place.carrier.connections[0]] * 9)
    asked = len(place.slack.asked("apps.connections.open"))
    await place.carrier.connections[0].close()
    await asyncio.sleep(1.5)

    assert len(place.slack.asked("apps.connections.open")) - asked <= 8


@pytest.mark.parametrize(
    "garbage",
    ["", "{", "null", "[]", '"hello"', '{"type": 7}', '{"envelope_id": 7}', '{"envelope_id": "x"}', "[" * 100_000]
    + [f'{{"envelope_id": "x", "payload": {each}}}' for each in ("[]", '"x"', "{}", '{"actions": []}', '{"user": 7}')],
)
async def test_garbage_is_survived(place: Place, garbage: str) -> None:
    """Only Slack can send it; the connection and everything else goes on."""
    [connection] = place.carrier.connections
    await connection.send_str(garbage)

    assert (await place.send("interactivity", place.click("approve"))).is_acknowledged
    assert place.carrier.connections == [connection]


async def test_a_stop_lets_decisions_end_and_takes_no_more(place: Place) -> None:
    """What is being decided is acknowledged; what comes meanwhile is for another process."""
    desk = place.workspace.desk
    desk.gate.clear()
    deciding = asyncio.ensure_future(place.send("interactivity", place.click("approve", trigger="1")))
    await place.until(lambda: bool(place.workspace.claims.claims))
    stopping = asyncio.create_task(place.socket.stop())
    await asyncio.sleep(0)
    late = asyncio.ensure_future(place.send("interactivity", place.click("deny", trigger="2")))
    desk.gate.set()

    assert (await deciding).is_acknowledged
    assert not (await late).is_acknowledged
    await stopping
    assert desk.deeds == [("approve", "p-1", "bob")]
    assert place.carrier.connections == []


async def test_several_processes_share_the_work(place: Place) -> None:
    """Slack sends an envelope to one of them; a retry that reaches another is known there."""
    place.sockets.append(place.new_socket())
    place.sockets[1].start()
    await place.connected(2)
    answers = [await place.send("interactivity", place.click("approve")) for _ in range(4)]

    assert [answer.error for answer in answers] == [""] * 4
    assert place.workspace.desk.deeds == [("approve", "p-1", "bob")]


async def test_slow_decisions_are_acknowledged_in_time(place: Place) -> None:
    """As over HTTP: the person hears that it takes longer, and how it ended."""
    place.workspace.desk.gate.clear()
    answer = await place.send("interactivity", place.click("approve"))
    assert answer.is_acknowledged
    await place.workspace.shut(place.workspace.desk.gate)

    assert place.workspace.told() == narrate.DONE["approve"]
