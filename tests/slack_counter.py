"""Slack on one side, a desk that remembers on the other, and the product's listeners between them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import httpx
from slack_bolt.adapter.fastapi.async_handler import AsyncSlackRequestHandler

from bot import narrate
from bot.incidents import Choices, IncidentLine, Person, StepUpNeededError
from bot.slack.authorise import Authoriser
from bot.slack.bolt import build_bolt
from bot.slack.client import SlackClient, web_client
from bot.slack.listeners import Stragglers
from bot.store.slack_events import Claim
from bot.web.app import WebSettings, build_web
from retrieval.documents import Hit
from runbooks.engine.declared import (
    BooleanParameter,
    EnumParameter,
    IntegerParameter,
    NumberParameter,
    TextParameter,
)
from tests.bot_fakes import NoIntake, Ready
from tests.slack_server import TEAM, SlackServer, account

SIGNING = "slack-signing"
BOB = Person(person_id="bob", name="Bob", roles=frozenset({"prompt-owner"}), slack_user="U0BOB")
MALLORY = "U0MALLORY"
CHOICES = Choices(
    plan_id="p-1",
    digest="d" * 64,
    title="Add replicas",
    declared={
        "replicas": IntegerParameter(type="integer", minimum=1, maximum=8, description="How many to run"),
        "ratio": NumberParameter(type="number", minimum=0.5),
        "tenant": TextParameter(type="text", pattern="[a-z]+"),
        "pool": EnumParameter(type="enum", enum=("spot", "reserved")),
        "force": BooleanParameter(type="boolean"),
    },
    values={"replicas": "4", "ratio": "0.5", "tenant": "acme", "pool": "spot", "force": "false"},
)


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

    async def revoke(self, plan_id: str, by: Person) -> None:
        await self._do("revoke", plan_id, by.person_id)

    async def escalate(self, plan_id: str, by: Person) -> None:
        await self._do("escalate", plan_id, by.person_id)

    async def break_glass(self, plan_id: str, reason: str, by: Person) -> str:
        await self._do("break_glass", plan_id, by.person_id)
        raise StepUpNeededError(f"A code, to {reason}.", url=f"https://watch.example.com/plans/{plan_id}")

    async def request(self, plan_id: str, by: Person) -> None:
        await self._do("request", plan_id, by.person_id)

    async def choices(self, plan_id: str, by: Person) -> Choices:
        await self._do("choices", plan_id, by.person_id)
        return CHOICES

    async def narrow(self, plan_id: str, values: Mapping[str, str], by: Person, *, digest: str | None = None) -> None:
        await self._do("narrow", plan_id, dict(values), digest, by.person_id)

    async def undo(self, plan_id: str, by: Person) -> None:
        await self._do("undo", plan_id, by.person_id)

    async def settle(self, plan_id: str, step: int, answer: str, by: Person) -> None:
        await self._do("settle", plan_id, step, answer, by.person_id)

    async def vote(self, incident_id: str, run: int, runbook: str, verdict: str, by: Person) -> str:
        await self._do("vote", incident_id, run, runbook, verdict, by.person_id)
        return narrate.DONE["vote"]

    async def stop(self, reason: str, by: Person) -> str:
        await self._do("stop", reason, by.person_id)
        return narrate.DONE["stop"]

    async def go(self, by: Person) -> str:
        await self._do("go", by.person_id)
        return narrate.DONE["go"]

    async def stopped(self) -> str:
        return ""

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

    async def accounts(self, person_id: str) -> list[tuple[str, str]]:
        return [account for account, person in self.known.items() if person.person_id == person_id]


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

    async def submit(self, values: Mapping[str, Any], user: str = "U0BOB", **view: Any) -> httpx.Response:
        """Send the form for p-1; values by the block's id, as Slack has them in the view's state."""
        metadata = json.dumps({"plan": "p-1", "digest": "d" * 64})
        state = {block: {"value": {"type": "plain_text_input", "value": text}} for block, text in values.items()}
        form = {
            "type": "modal",
            "id": "V1",
            "callback_id": "plan_values",
            "private_metadata": metadata,
            "state": {"values": state},
        }
        who = {"team": {"id": TEAM, "domain": "lab"}, "user": {"id": user, "team_id": TEAM}}
        payload = {"type": "view_submission", **who, "api_app_id": "A1", "trigger_id": "1.2.3", "view": form | view}
        return await self.send({"payload": json.dumps(payload)})

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


@asynccontextmanager
async def open_workspace() -> AsyncIterator[Workspace]:
    """A workspace with Bob, whom the configuration knows, and Mallory, whom it does not."""
    slack = SlackServer(accounts={"U0BOB": account("U0BOB"), MALLORY: account(MALLORY)})
    runner = await slack.start()
    place = Workspace(slack)
    yield place
    await place.shut(place.desk.gate, place.people.gate)
    await runner.cleanup()
