"""Incidents that come faster than Slack takes cards: one card speaks for them, and each card follows once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from bot.burst import BurstKeeper
from bot.slack.burst import BurstLine, summary
from bot.slack.client import SlackError
from bot.slack.pace import Rank
from bot.slack.view import Message
from bot.store import tables
from bot.store.bursts import JOINS_WITHIN, LEAST, Bursts
from tests.bot.test_keeper import DOWN, Desk
from tests.kit import NOW, Store
from tests.stories import FakeSlack, texts

POST = "chat.postMessage"


class Storm:
    """A desk at which many incidents arrive while Slack takes few messages."""

    def __init__(self, store: Store) -> None:
        self.desk = Desk(store)
        self.store = store
        self.slack: FakeSlack = self.desk.slack
        self.slack.rooms = {POST: 0}
        self.keeper = BurstKeeper(
            bursts=Bursts(store.database),
            slack=self.slack,  # type: ignore[arg-type]  # a fake
            channel="C1",
            pulse=store.pulse,
        )

    async def arrive(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            await self.store.page(incident_id=f"Q{number:03d}", event_id=f"e{number}", number=100 + number)

    async def sweep(self) -> None:
        """A look at all cards, after the pauses between two of them."""
        async with self.store.database.write() as connection:
            await connection.execute(tables.burst.update().values(due_at=NOW))
            await connection.execute(tables.incident.update().values(card_due=None))
        await self.desk.keeper.sweep()

    def bursts(self) -> list[Message]:
        return [message for _, key, _, message in self.slack.posts if key.startswith("burst:")]

    def cards(self) -> list[str]:
        return [key for _, key, _, _ in self.slack.posts if key.startswith("card:")]

    def words(self) -> str:
        """What the card of the burst says now."""
        return texts((self.slack.updates[-1][2] if self.slack.updates else self.bursts()[-1]).blocks)

    async def later(self, passed: timedelta) -> None:
        """So long ago did the last incident join."""
        async with self.store.database.write() as connection:
            await connection.execute(tables.burst.update().values(joined_at=datetime.now(UTC) - passed))

    async def open_bursts(self) -> int:
        query = sa.select(sa.func.count()).where(tables.burst.c.closed_at.is_(None))
        async with self.store.database.read() as connection:
            return int((await connection.execute(query)).scalar_one())


@pytest.fixture
def storm(store: Store) -> Storm:
    return Storm(store)


async def test_few_incidents_are_no_burst(storm: Storm) -> None:
    """Their cards say it all."""
    await storm.arrive(LEAST - 1)
    await storm.sweep()
    storm.slack.rooms = {}
    await storm.sweep()

    assert storm.bursts() == []
    assert len(storm.cards()) == LEAST - 1


async def test_one_card_speaks_for_many_and_each_follows(storm: Storm) -> None:
    """First the summary; then cards as Slack takes them, and the summary links each. Nothing twice, nothing lost."""
    await storm.arrive(12)
    await storm.sweep()
    assert (len(storm.bursts()), storm.cards()) == (1, [])
    assert "12 incidents at once" in storm.words()
    assert "*chat*: LLMHighTTFT chat · 12" in storm.words()
    assert "0 of 12 have their own card" in storm.words()

    storm.slack.rooms = {POST: 2}
    for _ in range(6):
        await storm.sweep()
    await storm.sweep()

    assert len(storm.bursts()) == 1
    assert sorted(storm.cards()) == sorted(f"card:Q{number:03d}" for number in range(12))
    assert "Each has its own card." in storm.words()
    assert storm.words().count("<https://acme.slack.com/archives/C1/p") == 12
    assert "|#100>" in storm.words()


async def test_the_summary_grows_in_place(storm: Storm) -> None:
    """Who comes while the burst is open joins it, be it one alone; an unchanged card is not sent again."""
    await storm.arrive(LEAST)
    await storm.sweep()
    await storm.arrive(1, first=LEAST)
    await storm.sweep()
    await storm.sweep()

    assert len(storm.bursts()) == 1
    assert len(storm.slack.updates) == 1
    assert f"{LEAST + 1} incidents at once" in storm.words()


async def test_a_burst_ends(storm: Storm) -> None:
    """When all cards stand and nobody has joined for a minute; the next many are a burst of their own."""
    await storm.arrive(LEAST)
    await storm.sweep()
    storm.slack.rooms = {}
    await storm.sweep()
    await storm.sweep()
    assert await storm.open_bursts() == 1
    await storm.later(JOINS_WITHIN + timedelta(seconds=1))
    await storm.sweep()
    assert await storm.open_bursts() == 0

    storm.slack.rooms = {POST: 0}
    await storm.arrive(LEAST, first=50)
    await storm.sweep()
    assert len(storm.bursts()) == 2


async def test_a_burst_waits_for_its_last_card(storm: Storm) -> None:
    """However long Slack takes."""
    await storm.arrive(LEAST)
    await storm.sweep()
    await storm.later(JOINS_WITHIN * 60)
    await storm.sweep()

    assert await storm.open_bursts() == 1


async def test_a_summary_whose_answer_was_lost_is_posted_once(storm: Storm) -> None:
    """Slack took it and the process died, or the answer got lost: it is found by its key."""
    storm.slack.loses_answers = True
    await storm.arrive(LEAST)
    await storm.sweep()
    storm.slack.loses_answers = False
    storm.desk.restart()
    await storm.sweep()

    assert len(storm.bursts()) == 1
    assert storm.slack.looked_up == ["burst:1"]


async def test_a_summary_that_slack_did_not_take_is_tried_again(storm: Storm) -> None:
    """And the cards leave room for it until it stands."""
    storm.slack.troubles = [DOWN]
    await storm.arrive(LEAST)
    await storm.sweep()
    assert storm.bursts() == []
    await storm.sweep()

    assert len(storm.bursts()) == 1


async def test_a_summary_that_slack_will_never_take_holds_up_no_card(storm: Storm) -> None:
    """It goes before all cards, so trying for ever would take every turn that they could have."""
    storm.slack.troubles = [SlackError("Slack answered invalid_blocks", permanent=True)]
    await storm.arrive(LEAST)
    await storm.sweep()
    assert await storm.open_bursts() == 0

    storm.slack.rooms = {}
    await storm.sweep()

    assert (len(storm.bursts()), len(storm.cards())) == (0, LEAST)


async def test_a_deleted_summary_stays_deleted(storm: Storm) -> None:
    """Somebody tidied up; every incident has its own card anyway."""
    await storm.arrive(LEAST)
    await storm.sweep()
    storm.slack.troubles = [SlackError("Slack answered message_not_found", permanent=True, missing=True)]
    await storm.arrive(1, first=LEAST)
    await storm.sweep()
    await storm.sweep()

    assert len(storm.bursts()) == 1
    assert await storm.open_bursts() == 0


async def test_two_processes_make_one_burst(storm: Storm) -> None:
    """Both see the same cards waiting; one opens the burst and draws it, and when that one dies, the other."""
    for process in ("a", "b"):
        await storm.store.workers.register(executor_id=process, host="h", place="", pid=1, role="worker")
    await storm.arrive(LEAST)
    bursts, now = Bursts(storm.store.database), datetime.now(UTC)
    await asyncio.gather(bursts.gather(now=now), bursts.gather(now=now))
    taken = await asyncio.gather(bursts.take(now=now, me="a"), bursts.take(now=now, me="b"))
    assert sorted(len(places) for places in taken) == [0, 1]

    await storm.store.workers.end("a" if taken[0] else "b")
    assert len(await bursts.take(now=now, me="b" if taken[0] else "a")) == 1


async def test_other_cards_leave_room_until_a_summary_stands(storm: Storm) -> None:
    """The keeper asks for room as somebody less important; then the cards that were promised may have it all."""
    await storm.arrive(LEAST - 1)
    await storm.sweep()
    storm.slack.troubles = [DOWN]
    await storm.arrive(1, first=LEAST)
    await storm.sweep()
    await storm.sweep()

    assert [rank for method, rank in storm.slack.asked_room if method == POST] == [Rank.CARD, Rank.CARD, Rank.FIRST]


def line(number: int, **more: object) -> BurstLine:
    values = {"number": number, "title": "High", "service": "chat", "is_resolved": False, "stands": False, "url": ""}
    return BurstLine(**{**values, **more})  # type: ignore[arg-type]


def test_the_summary_groups_by_service_and_alert() -> None:
    """The largest group first; what is over is counted; titles are shown, never obeyed."""
    lines = [
        line(1, title="[FIRING:2] High <!channel>", service="search"),
        line(2, title="[FIRING:1] High"),
        line(3, title="High", is_resolved=True, stands=True, url="https://acme.slack.com/archives/C1/p1"),
    ]
    first, second = [block["text"]["text"] for block in summary(lines, NOW).blocks[2:]]

    assert first == "*chat*: High · 2 (1 resolved)\n#2 <https://acme.slack.com/archives/C1/p1|#3>"
    assert second == "*search*: High &lt;!channel&gt; · 1\n#1"


@pytest.mark.parametrize(("count", "kinds"), [(1000, 1), (1000, 1000), (3, 3)])
def test_the_summary_keeps_slacks_limits(count: int, kinds: int) -> None:
    """However many there are: whole lines, and what is left out is counted."""
    lines = [line(number, title=f"{'x' * 300} {number % kinds}") for number in range(count)]
    message = summary(lines, NOW)

    assert len(message.blocks) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in message.blocks)
    assert f"{count} incidents" in message.text
    if kinds > 20:
        assert "… and 980 more in 980 groups" in texts(message.blocks)
