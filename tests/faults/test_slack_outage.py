"""
Slack away at any moment and in any way: nothing is lost, nothing is doubled, and when it is back all catches up.

The real keeper, couriers, outbox and client over real HTTP, through a proxy that breaks things, to the lab's Slack with
its rate limits; the waits of minutes are shortened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from bot.burst import BurstKeeper
from bot.card import Cards
from bot.incidents import StoreUnavailableError
from bot.keeper import CardKeeper, Mailroom, PagerDutyCourier, SlackCourier
from bot.slack.client import SlackClient, web_client
from bot.slack.pace import Rank
from bot.slack_watch import SlackWatch
from bot.store.audit import AuditLog
from bot.store.bursts import Bursts
from bot.store.outages import Outages
from bot.store.past import PastIncidents
from lab.listening import listening, new_socket, url_of
from lab.people import CHANNEL
from lab.slack import Message, Workspace
from lab.slack_delivery import AppLink
from lab.slack_web import slack_app
from tests.fault_proxy import Fault, FaultProxy
from tests.kit import NOW, Store, config_in, event, open_store
from tests.stories import FakeLook, FakePagerDuty, diagnosed, fresh_plan

pytestmark = pytest.mark.acceptance

INCIDENTS = 2
BROKEN = [fault for fault in Fault if fault is not Fault.NONE]


class World:
    """Slack behind a proxy, and a product that tells it of incidents."""

    def __init__(self, store: Store, workspace: Workspace, proxy: FaultProxy) -> None:
        self.store, self.workspace, self.proxy = store, workspace, proxy
        self.pagerduty = FakePagerDuty()
        self._running: list[asyncio.Task[None]] = []
        self.start()

    def start(self) -> None:
        """A process of the product; it knows what the database knows."""
        store = self.store
        self.slack = slack = SlackClient(web_client(self.workspace.bot_token, f"{self.proxy.url}/api/", timeout_s=1))
        cards = Cards(
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            outbox=store.outbox,
            switch=store.switch,
            record=AuditLog(store.database),
            past=PastIncidents(store.database, lambda _: ()),
            votes=store.votes,
            config=store.config,
            policy=store.policy,
        )
        bursts = BurstKeeper(bursts=Bursts(store.database), slack=slack, channel=CHANNEL, pulse=store.pulse)
        keeper = CardKeeper(
            incidents=store.incidents, cards=cards, slack=slack, bursts=bursts, channel=CHANNEL, pulse=store.pulse
        )
        courier = SlackCourier(
            incidents=store.incidents,
            cards=cards,
            slack=slack,
            diagnosers={"chat": FakeLook()},  # type: ignore[dict-item]  # a fake
            config=store.config,
        )
        messenger = PagerDutyCourier(cards=cards, pagerduty=self.pagerduty, from_email="bot@example.com")  # type: ignore[arg-type]
        room = lambda: slack.room("chat.postMessage", CHANNEL, Rank.EVIDENCE)  # noqa: E731
        watch = SlackWatch(
            slack=slack,
            outages=Outages(store.database),
            unseen_for=timedelta(seconds=1.5),
            blink=timedelta(seconds=0.5),
        )
        sweeps = (
            keeper.sweep,
            Mailroom("slack", store.outbox, courier.deliver, store.pulse, room).sweep,
            Mailroom("pagerduty", store.outbox, messenger.deliver, store.pulse).sweep,
            watch.sweep,
        )
        self._running = [asyncio.create_task(_for_ever(sweep)) for sweep in sweeps]
        self._running.append(asyncio.create_task(slack.keep_asking(0.2)))

    async def stop(self) -> None:
        """As a kill would: in the middle of whatever is being said."""
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running, timeout=5)

    async def happen(self, first: int = 0, count: int = INCIDENTS) -> None:
        """Incidents arrive and are diagnosed; each has a card to show and something to say in its thread."""
        for number in range(first, first + count):
            incident_id = f"Q{number}"
            await self.store.page(incident_id=incident_id, event_id=f"e{number}", number=100 + number)
            await self.store.outbox.post(
                key=f"evidence:{incident_id}",
                incident_id=incident_id,
                lane="slack",
                kind="evidence",
                now=NOW,
                run=1,
            )

    def said(self) -> Counter[str]:
        """How often each message stands in Slack, by its key."""
        return Counter(_key(message) for message in self.workspace.messages.values())

    async def all_is_said(self, count: int = INCIDENTS) -> None:
        wanted = {f"{kind}:Q{number}" for kind in ("card", "evidence") for number in range(count)}
        async with asyncio.timeout(40):
            while not wanted <= self.said().keys():
                await asyncio.sleep(0.05)


async def _for_ever(sweep: Callable[[], Awaitable[object]]) -> None:
    """As the engine's sweepers do."""
    while True:
        with contextlib.suppress(StoreUnavailableError):
            await sweep()
        await asyncio.sleep(0.1)


def _key(message: Message) -> str:
    return str(message.metadata["event_payload"]["key"]) if message.metadata else ""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with (
        lab_slack() as (workspace, proxy),
        open_store(f"sqlite:///{tmp_path}/store.sqlite", config_in(tmp_path)) as store,
    ):
        world = World(store, workspace, proxy)
        yield world
        await world.stop()


@asynccontextmanager
async def lab_slack() -> AsyncIterator[tuple[Workspace, FaultProxy]]:
    workspace, at = Workspace(), new_socket()
    link = AppLink(workspace, url="http://127.0.0.1:9/", base_url=url_of(at))
    proxy = FaultProxy(at.getsockname()[1])
    app = slack_app(workspace, link, base_url=url_of(at), rate_limited=True)
    async with listening(app, at), proxy.running():
        yield workspace, proxy


@pytest.mark.parametrize("fault", BROKEN)
async def test_an_outage_loses_and_doubles_nothing(world: World, fault: Fault) -> None:
    """It begins before the incidents, and in the middle of what is said about them; each message stands once."""
    await world.proxy.set(fault)
    await world.happen(count=1)
    await asyncio.sleep(1.5)
    await world.proxy.set(Fault.NONE)
    await asyncio.sleep(0.2)
    await world.proxy.set(fault)
    await world.happen(first=1, count=1)
    await asyncio.sleep(1.2)
    await world.proxy.set(Fault.NONE)

    await world.all_is_said()
    await asyncio.sleep(0.5)
    assert set(world.said().values()) == {1}, world.said()


async def test_slack_is_left_in_peace_while_it_is_away(world: World) -> None:
    """However much waits for it, one small call asks."""
    await world.proxy.set(Fault.BUSY)
    await world.happen()
    await asyncio.sleep(1.0)
    before = world.proxy.connections
    await asyncio.sleep(1.0)

    assert world.proxy.connections - before <= 6


async def test_pagerduty_says_it_meanwhile(world: World) -> None:
    """Once, and afterwards Slack has the card as well."""
    await world.proxy.set(Fault.REFUSE)
    await world.store.page()
    await diagnosed(world.store)
    await world.store.offer(fresh_plan(world.store))
    async with asyncio.timeout(10):
        while not world.pagerduty.kept_notes:
            await asyncio.sleep(0.05)
    await world.proxy.set(Fault.NONE)
    async with asyncio.timeout(10):
        while not world.said():
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)

    [note] = world.pagerduty.kept_notes
    assert "watchkeeper approve plan-1" in note
    assert world.said() == {"card:Q0INCIDENT1": 1}


async def test_a_kill_at_any_moment_doubles_nothing(world: World) -> None:
    """Twelve times in the middle of a burst; who comes after it finds what stands, and says the rest."""
    await world.stop()
    await world.happen(count=6)
    world.start()
    for number in range(12):
        await asyncio.sleep(0.05 + 0.05 * number)
        await world.stop()
        world.start()

    await world.all_is_said(6)
    await asyncio.sleep(0.5)
    said = world.said()
    assert set(said.values()) == {1}, said
    assert said["burst:1"] == 1


async def test_states_that_are_over_are_not_told(world: World) -> None:
    """An incident that came and went while Slack was away has one card, which says that it is resolved."""
    await world.proxy.set(Fault.REFUSE)
    await world.happen(count=1)
    await asyncio.sleep(0.5)
    await world.store.inbox.deliver(event("incident.resolved", incident_id="Q0"), now=NOW)
    await world.store.inbox.fold(now=NOW)
    await world.proxy.set(Fault.NONE)
    await world.all_is_said(1)

    drawn = [
        call["arguments"] for call in world.workspace.calls if call["method"] in {"chat.postMessage", "chat.update"}
    ]
    told = [each["text"] for each in drawn if "thread_ts" not in each]
    assert told
    assert all("resolved" in text for text in told), told
