"""Clicks and commands as Slack sends them: signed, over HTTP, through the guard and the real Bolt, to the desk."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler

from bot import narrate
from bot.incidents import AlreadyDecidedError, IncidentLine, NotAllowedError, Person, StaleError, StoreUnavailableError
from bot.slack.authorise import Authoriser
from bot.slack.buttons import ACTIONS
from bot.slack.client import SlackClient, web_client
from bot.slack.listeners import (
    CLICKS,
    STILL_AT_IT,
    ClickListener,
    CommandListener,
    EventListener,
    Stragglers,
    build_bolt,
)
from bot.store.slack_events import Claim
from bot.web.app import WebSettings, build_web
from retrieval.documents import Hit
from tests.bot_fakes import NoIntake, Ready
from tests.slack_server import TEAM, SlackServer, account

pytestmark = pytest.mark.integration  # real HTTP

SIGNING = "slack-signing"
BOB = Person(person_id="bob", name="Bob", roles=frozenset({"prompt-owner"}), slack_user="U0BOB")
MALLORY = "U0MALLORY"


def open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


class FakeDesk:
    """Remembers the deeds; they wait while `gate` is shut, and `fault` is raised instead."""

    def __init__(self) -> None:
        self.deeds: list[tuple[Any, ...]] = []
        self.refusals: list[dict[str, str]] = []
        self.fault: Exception | None = None
        self.gate = open_gate()

    async def _do(self, *deed: Any) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.deeds.append(deed)

    async def acknowledge(self, incident_id: str, by: Person) -> None:
        await self._do("acknowledge", incident_id, by.person_id)

    async def resolve(self, incident_id: str, by: Person) -> None:
        await self._do("resolve", incident_id, by.person_id)

    async def rediagnose(self, incident_id: str, by: Person) -> None:
        await self._do("rediagnose", incident_id, by.person_id)

    async def approve(self, plan_id: str, by: Person) -> None:
        await self._do("approve", plan_id, by.person_id)

    async def deny(self, plan_id: str, by: Person) -> None:
        await self._do("deny", plan_id, by.person_id)

    async def request(self, plan_id: str, by: Person) -> None:
        await self._do("request", plan_id, by.person_id)

    async def undo(self, plan_id: str, by: Person) -> None:
        await self._do("undo", plan_id, by.person_id)

    async def settle(self, plan_id: str, step: int, answer: str, by: Person) -> None:
        await self._do("settle", plan_id, step, answer, by.person_id)

    async def status(self) -> list[IncidentLine]:
        await self._do("status")
        return [
            IncidentLine(
                incident_id="Q1",
                title="LLMHighTTFT <!here>",
                service="chat",
                state="triggered",
                cause="S04",
                waiting_for="an approval",
                url="https://acme.pagerduty.com/incidents/Q1",
            )
        ]

    async def search(self, text: str) -> list[Hit]:
        await self._do("search", text)
        return [
            Hit(doc_id="r", title="Prefix cache collapse", heading="Symptoms", score=0.9, reasons=("the words fit",))
        ]

    async def refused(self, *, who: str, what: str, why: str, subject: str) -> None:
        self.refusals.append({"who": who, "what": what, "why": why, "subject": subject})


class FakePeople:
    def __init__(self) -> None:
        self.known = {(TEAM, "U0BOB"): BOB}
        self.fault: Exception | None = None
        self.gate = open_gate()

    async def by_slack(self, team: str, user: str) -> Person | None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.known.get((team, user))


class MemoryClaims:
    """What was handled, in memory; `fault` is raised instead."""

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}
        self.fault: Exception | None = None

    async def claim(self, key: str, *, now: datetime) -> Claim:
        if self.fault is not None:
            raise self.fault
        if key in self.claims:
            return self.claims[key]
        self.claims[key] = Claim.UNDER_WAY
        return Claim.MINE

    async def done(self, key: str, *, now: datetime) -> None:
        self.claims[key] = Claim.DONE

    async def release(self, key: str) -> None:
        del self.claims[key]


class Workspace:
    """Slack on one side, the desk on the other, the product between them."""

    def __init__(self, slack: SlackServer) -> None:
        self.slack, self.desk, self.people, self.claims = slack, FakeDesk(), FakePeople(), MemoryClaims()
        web = web_client("xoxb-test", f"{slack.url}/api/")
        face = SlackClient(web)
        self.stragglers = Stragglers()
        self.bolt = build_bolt(
            web=web,
            desk=self.desk,
            authoriser=Authoriser(people=self.people, directory=face),
            slack=face,
            claims=self.claims,
            patience_s=0.4,
            stragglers=self.stragglers,
        )
        self.web = build_web(
            intake=NoIntake(),
            slack_handler=AsyncSlackRequestHandler(self.bolt),
            readiness=Ready(),
            settings=WebSettings(pagerduty_secrets=(), slack_secret=SIGNING.encode()),
        )

    async def send(self, body: dict[str, Any], *, as_json: bool = False) -> httpx.Response:
        """A form, or an event as JSON; signed as Slack signs, now."""
        raw = json.dumps(body).encode() if as_json else urlencode(body).encode()
        stamp = str(int(time.time()))
        signature = "v0=" + hmac.new(SIGNING.encode(), f"v0:{stamp}:".encode() + raw, hashlib.sha256).hexdigest()
        headers = {
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": signature,
            "Content-Type": "application/json" if as_json else "application/x-www-form-urlencoded",
        }
        transport = httpx.ASGITransport(app=self.web, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://watchkeeper") as client:
            return await client.post("/slack/events", content=raw, headers=headers)

    async def click(self, action: str, value: Any = "p-1", user: str = "U0BOB", **more: Any) -> httpx.Response:
        """Press a button; returns when the answer to the person was sent, too."""
        payload = {
            "type": "block_actions",
            "team": {"id": TEAM, "domain": "lab"},
            "user": {"id": user, "team_id": TEAM},
            "channel": {"id": "C0INCIDENT"},
            "container": {"type": "message", "channel_id": "C0INCIDENT", "message_ts": "1.2"},
            "api_app_id": "A1",
            "trigger_id": "1.2.3",
            "response_url": f"{self.slack.url}/respond",
            "actions": [{"type": "button", "action_id": action, "block_id": "fix", "value": value}],
            **more,
        }
        before = len(self.slack.asked("chat.postEphemeral"))
        answer = await self.send({"payload": json.dumps(payload)})
        for _ in range(80):
            if len(self.slack.asked("chat.postEphemeral")) > before:
                break
            await asyncio.sleep(0.005)
        return answer

    async def command(self, text: str, user: str = "U0BOB") -> httpx.Response:
        form = {
            "command": "/oncall",
            "text": text,
            "team_id": TEAM,
            "user_id": user,
            "channel_id": "C0",
            "api_app_id": "A1",
            "trigger_id": "1.2.3",
            "response_url": f"{self.slack.url}/respond",
        }
        return await self.send(form)

    async def shut(self, *gates: asyncio.Event) -> None:
        """Wait for what is still going on behind the gates."""
        for gate in gates:
            gate.set()
        await self.stragglers.finish()

    def told(self) -> str:
        """What the person was told last, only they."""
        return str(self.slack.asked("chat.postEphemeral")[-1]["text"])


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    slack = SlackServer(accounts={"U0BOB": account("U0BOB"), MALLORY: account(MALLORY)})
    runner = await slack.start()
    place = Workspace(slack)
    yield place
    await place.shut(place.desk.gate, place.people.gate)
    await runner.cleanup()


DEEDS = {
    "acknowledge": ("acknowledge", "p-1", "bob"),
    "resolve": ("resolve", "p-1", "bob"),
    "rediagnose": ("rediagnose", "p-1", "bob"),
    "approve": ("approve", "p-1", "bob"),
    "deny": ("deny", "p-1", "bob"),
    "undo": ("undo", "p-1", "bob"),
    "request": ("request", "p-1", "bob"),
    "settle_ran": ("settle", "p-1", 3, "ran", "bob"),
    "settle_not_run": ("settle", "p-1", 3, "did_not_run", "bob"),
    "settle_stop": ("settle", "p-1", 3, "stop", "bob"),
}


@pytest.mark.parametrize("action", ACTIONS)
async def test_every_button_reaches_its_deed(workspace: Workspace, action: str) -> None:
    """A click becomes exactly one deed of the person who clicked, and they hear so."""
    answer = await workspace.click(action, "p-1:3" if action.startswith("settle") else "p-1")

    assert answer.status_code == 200
    assert workspace.desk.deeds == [DEEDS[action]]
    assert workspace.told() == CLICKS[action].done
    assert workspace.desk.refusals == []


async def test_a_chosen_option_is_a_value_too(workspace: Workspace) -> None:
    """The menu of other fixes sends its value in another place."""
    action = {"type": "static_select", "action_id": "request", "selected_option": {"value": "p-2"}}
    await workspace.click("request", actions=[action])

    assert workspace.desk.deeds == [("request", "p-2", "bob")]


@pytest.mark.parametrize("action", [*ACTIONS, "a_button_of_last_year"])
async def test_a_stranger_is_refused_at_every_button(workspace: Workspace, action: str) -> None:
    """No listener lets a stranger through; the refusal is recorded and told to nobody else."""
    answer = await workspace.click(action, "p-1:0", user=MALLORY)

    assert answer.status_code == 200
    assert workspace.desk.deeds == []
    [refusal] = workspace.desk.refusals
    assert (refusal["who"], refusal["subject"]) == (f"{TEAM}/{MALLORY}", "p-1:0")
    assert workspace.told() == narrate.NOT_A_MEMBER
    assert workspace.slack.asked("chat.postEphemeral")[-1]["user"] == MALLORY


@pytest.mark.parametrize("text", ["", "help", "status", "runbook x", "rm -rf"])
async def test_a_stranger_is_refused_at_every_command(workspace: Workspace, text: str) -> None:
    """Not even the help or the list of incidents."""
    answer = await workspace.command(text, user=MALLORY)

    assert answer.json()["text"] == narrate.NOT_A_MEMBER
    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 1


async def test_every_listener_is_behind_the_authoriser(workspace: Workspace) -> None:
    """The inventory: Bolt holds no listener, middleware or lazy function but our three guarded kinds."""
    listeners = workspace.bolt._async_listeners

    assert len(listeners) == len(ACTIONS) + 3  # every button, buttons of old cards, the command, events
    for listener in listeners:
        owner = getattr(listener.ack_function, "__self__", None)
        assert isinstance(owner, ClickListener | CommandListener | EventListener)
        assert not listener.lazy_functions
    assert set(CLICKS) == set(ACTIONS)


@pytest.mark.parametrize(
    "flags",
    [
        {"deleted": True},
        {"is_bot": True},
        {"is_restricted": True},
        {"is_ultra_restricted": True},
        {"is_stranger": True},
        {"team_id": "T0OTHER"},
        {"team_id": None},
        {"id": "U0SOMEBODY"},
    ],
    ids=str,
)
async def test_who_slack_disowns_is_nobody(workspace: Workspace, flags: dict[str, Any]) -> None:
    """Guests, bots, deleted and foreign accounts may do nothing, even when they are in the configuration."""
    workspace.slack.accounts["U0BOB"] |= flags
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"user": {"id": "U0BOB", "team_id": "T0PARTNER"}},
        {"team": {"id": "T0OTHER"}},
        {"team": None},
        {"user": {"id": "U0BOBX"}},
        {"user": {"id": ["U0BOB"]}},
        {"user": {"name": "bob"}},
    ],
    ids=str,
)
async def test_no_field_of_the_payload_makes_somebody_else(workspace: Workspace, more: dict[str, Any]) -> None:
    """Team and user must both be the ones of the configuration; a partner in a shared channel is not."""
    await workspace.click("approve", **more)

    assert workspace.desk.deeds == []


async def test_while_slack_cannot_confirm_somebody_they_are_nobody(workspace: Workspace) -> None:
    """Doubt is refused, and the person is told to try again."""
    workspace.slack.faults["users.info"] = [(500, {}, "")]
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.CANNOT_CHECK_YOU


async def test_while_the_people_cannot_be_read_everybody_is_nobody(workspace: Workspace) -> None:
    """The same for our own database."""
    workspace.people.fault = StoreUnavailableError("the database is locked")
    await workspace.click("approve")

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.CANNOT_LOOK_YOU_UP


@pytest.mark.parametrize(
    "refusal",
    [
        NotAllowedError("This fix needs a prompt owner (Bob)."),
        AlreadyDecidedError("Carol decided first."),
        StaleError("This plan has expired."),
        StoreUnavailableError("The decision could not be stored; nothing was decided."),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_of_the_desk_is_told(workspace: Workspace, refusal: Exception) -> None:
    """The sentence of the error is what the person reads; the click is acknowledged."""
    workspace.desk.fault = refusal
    answer = await workspace.click("approve")

    assert answer.status_code == 200
    assert workspace.told() == str(refusal)


async def test_a_click_that_could_not_be_decided_is_not_acknowledged(workspace: Workspace) -> None:
    """When we break before the commit, Slack shows the person an error; a lost click would look like a good one."""
    workspace.desk.fault = RuntimeError("a bug")
    answer = await workspace.click("approve")

    assert answer.status_code >= 500
    assert workspace.slack.asked("chat.postEphemeral") == []


async def test_a_desk_that_hangs_does_not_hang_slack(workspace: Workspace) -> None:
    """Within Slack's three seconds the person hears that it takes longer; the deed goes on, and they hear the end."""
    workspace.desk.gate.clear()
    began = time.monotonic()
    answer = await workspace.click("approve")

    assert time.monotonic() - began < 3
    assert answer.status_code == 200
    assert workspace.told() == STILL_AT_IT

    await workspace.shut(workspace.desk.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]
    assert workspace.told() == CLICKS["approve"].done
    assert len(workspace.slack.asked("chat.postEphemeral")) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [(StaleError("This plan has expired."), "This plan has expired."), (RuntimeError("a bug"), narrate.TOO_SLOW)],
    ids=["refusal", "bug"],
)
async def test_a_late_end_is_told_whatever_it_is(workspace: Workspace, fault: Exception, words: str) -> None:
    """A refusal after Slack's time is told like any other; after a bug the person hears that it is not certain."""
    workspace.desk.gate.clear()
    workspace.desk.fault = fault
    await workspace.click("approve")
    await workspace.shut(workspace.desk.gate)

    assert workspace.told() == words


async def test_recognising_has_no_patience_of_its_own(workspace: Workspace) -> None:
    """While it takes long to find out who clicked, Slack is answered in time, and nothing is done before."""
    workspace.people.gate.clear()
    answer = await workspace.click("approve")

    assert answer.status_code == 200
    assert workspace.told() == STILL_AT_IT
    assert workspace.desk.deeds == []

    await workspace.shut(workspace.people.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]
    assert workspace.told() == CLICKS["approve"].done


async def test_waiting_for_the_end_has_an_end(workspace: Workspace) -> None:
    """A deed that never ends does not hold up the end of the program; neither is it cancelled before."""
    workspace.desk.gate.clear()
    await workspace.click("approve")
    await workspace.stragglers.finish(0.01)
    assert workspace.desk.deeds == []

    await workspace.shut(workspace.desk.gate)
    assert workspace.desk.deeds == [("approve", "p-1", "bob")]


async def test_a_stranger_who_is_recognised_late_is_refused(workspace: Workspace) -> None:
    """Slow is not lenient: no deed and no search, one record each."""
    workspace.people.gate.clear()
    await workspace.click("approve", user=MALLORY)
    first = (await workspace.command("status", user=MALLORY)).json()
    await workspace.shut(workspace.people.gate)

    assert first["text"] == narrate.SEARCHING
    assert workspace.desk.deeds == []
    assert len(workspace.desk.refusals) == 2
    assert workspace.told() == narrate.NOT_A_MEMBER
    assert workspace.slack.asked("response_url")[-1]["text"] == narrate.NOT_A_MEMBER


@pytest.mark.parametrize(
    "value", ["p-1", "p-1:", ":0", "p-1:-1", "p-1:x", "p-1:99999", "", None, 7, ["p-1:0"], "x" * 999]
)
async def test_a_forged_value_settles_nothing(workspace: Workspace, value: Any) -> None:
    """A value that we never put on a button is an answer to no question."""
    await workspace.click("settle_ran", value)

    assert workspace.desk.deeds == []
    assert workspace.told() == narrate.ODD_CLICK


@pytest.mark.parametrize("actions", [[], None, "x", [None], [{}], [{"action_id": 7}]], ids=str)
async def test_an_odd_payload_does_nothing(workspace: Workspace, actions: Any) -> None:
    """Signed but senseless payloads reach no deed."""
    await workspace.send({"payload": json.dumps({"type": "block_actions", "team": {"id": TEAM}, "actions": actions})})

    assert [deed for deed in workspace.desk.deeds if deed[1]] == []


async def test_an_answer_goes_into_the_thread_of_the_click(workspace: Workspace) -> None:
    """A click in a thread is answered there; one on the card, in the channel."""
    await workspace.click("approve", container={"channel_id": "C0INCIDENT", "message_ts": "1.3", "thread_ts": "1.2"})
    await workspace.click("deny")

    first, second = workspace.slack.asked("chat.postEphemeral")
    assert (first.get("thread_ts"), second.get("thread_ts")) == ("1.2", None)


@pytest.mark.parametrize("text", ["", "help", "HELP", "  help  "])
async def test_help_comes_from_the_commands(workspace: Workspace, text: str) -> None:
    """Every command is in the help; no command at all is a question for help."""
    body = json.dumps((await workspace.command(text)).json())

    for usage in ("/oncall help", "/oncall status", "/oncall runbook TEXT"):
        assert usage in body
    assert '"ephemeral"' in body


async def test_an_unknown_command_gets_the_help(workspace: Workspace) -> None:
    """With the word that was not understood, as text."""
    body = (await workspace.command("<!here> now")).json()

    assert "There is no `&lt;!here&gt;`" in body["blocks"][0]["text"]["text"]


async def test_status_lists_open_incidents(workspace: Workspace) -> None:
    """Each with its service, state, cause and whom it waits for; titles are escaped."""
    text = (await workspace.command("status")).json()["blocks"][0]["text"]["text"]

    assert "*1 open incident*" in text
    assert "<https://acme.pagerduty.com/incidents/Q1|LLMHighTTFT &lt;!here&gt;>" in text
    assert "waits for an approval" in text


async def test_runbook_search(workspace: Workspace) -> None:
    """The words go to the desk's search; without words there is a hint."""
    found = (await workspace.command("runbook first token slow")).json()
    hint = (await workspace.command("runbook")).json()

    assert workspace.desk.deeds == [("search", "first token slow")]
    assert "Prefix cache collapse" in found["blocks"][0]["text"]["text"]
    assert "Say what you are looking for" in hint["text"]


async def test_a_slow_search_is_acknowledged_first(workspace: Workspace) -> None:
    """The answer then follows by the response_url."""
    workspace.desk.gate.clear()
    first = (await workspace.command("runbook x")).json()
    await workspace.shut(workspace.desk.gate)

    assert first["text"] == narrate.SEARCHING
    assert "Prefix cache collapse" in json.dumps(workspace.slack.asked("response_url"))


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
