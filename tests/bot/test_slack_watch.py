"""While Slack is away, PagerDuty says what people need; when it is back, everything that waited is due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bot.narrate import slack_down_opening
from bot.slack.client import SlackError
from bot.slack_watch import SlackWatch
from bot.store import tables
from bot.store.outages import Outages
from tests.bot.test_keeper import DOWN, Desk
from tests.kit import INCIDENT, NOW, Store, event
from tests.stories import diagnosed, fresh_plan, texts

LONG = timedelta(minutes=2)


class Outage:
    """An incident with a verdict and a fix, and a Slack that may be away."""

    def __init__(self, store: Store) -> None:
        self.desk = Desk(store)
        self.store = store
        self.line = self.desk.slack.line
        self.watch = SlackWatch(slack=self.desk.slack, outages=Outages(store.database))  # type: ignore[arg-type]

    async def away(self, since: timedelta) -> None:
        """Slack has not answered for so long, and neither has the diagnosis been asked for later than that."""
        self.line.lost("ClientConnectorError")
        then = self.line.down_since = datetime.now(UTC) - since
        async with self.store.database.write() as connection:
            await connection.execute(tables.run.update().values(created_at=then, finished_at=then))

    async def notes(self) -> list[str]:
        """What PagerDuty was told, after all mail has gone out."""
        await self.watch.sweep()
        while await self.desk.pagerduty_mail.sweep():
            pass
        return self.desk.pagerduty.kept_notes


@pytest.fixture
async def outage(store: Store) -> Outage:
    await store.page()
    await diagnosed(store)
    await store.offer(fresh_plan(store))
    outage = Outage(store)
    outage.desk.messenger._public_url = "https://watchkeeper.example.com"
    return outage


async def test_pagerduty_says_what_slack_cannot_show(outage: Outage) -> None:
    """Verdict, fix, who may approve it, and how without Slack; once, however often it is looked at."""
    await outage.away(LONG)
    assert len(await outage.notes()) == 1
    [note] = await outage.notes()

    assert note.startswith("Watchkeeper, diagnosis 1: Slack cannot be reached")
    assert "chat: A prompt change broke the prefix cache (91 %" in note
    assert "Proposed fix: Set the thing from 8 to 7." in note
    assert "Bob Brandt" in note
    assert "https://watchkeeper.example.com/incidents/Q0INCIDENT1" in note
    assert "`watchkeeper approve plan-1`" in note


async def test_a_new_diagnosis_is_told_anew(outage: Outage) -> None:
    """Once for each run."""
    await outage.away(LONG)
    await outage.notes()
    await outage.store.incidents.ask_again(INCIDENT, by="alice", now=datetime.now(UTC))
    await diagnosed(outage.store, number=2)
    await outage.away(LONG)

    assert [note.split(":")[0] for note in await outage.notes()] == [
        "Watchkeeper, diagnosis 1",
        "Watchkeeper, diagnosis 2",
    ]


async def test_a_lost_answer_does_not_make_a_second_note(outage: Outage) -> None:
    """PagerDuty took it; meanwhile the fix was withdrawn, and it is found all the same."""
    await outage.away(LONG)
    await outage.watch.sweep()
    [parcel] = await outage.desk.waiting("pagerduty")
    await outage.desk.begin(parcel)
    outage.desk.pagerduty.kept_notes.append(f"{slack_down_opening(1)}\n…")

    assert len(await outage.notes()) == 1


@pytest.mark.parametrize("since", [timedelta(0), timedelta(seconds=29)])
async def test_a_short_outage_is_waited_out(outage: Outage, since: timedelta) -> None:
    """Half a minute is Slack's own."""
    await outage.away(since)

    assert await outage.notes() == []


async def test_a_card_that_waits_for_its_turn_is_no_outage(outage: Outage) -> None:
    """In a burst Slack is there, and takes one card a second."""
    await outage.away(LONG)
    outage.line.found()

    assert await outage.notes() == []


async def test_a_card_that_slack_does_not_take_is_one(outage: Outage) -> None:
    """Slack answers, and refuses: the bot is not in the channel."""
    outage.desk.slack.troubles = [SlackError("Slack answered not_in_channel", permanent=False)]
    await outage.desk.keeper.sweep()
    await outage.away(LONG)
    outage.line.found()

    assert len(await outage.notes()) == 1


async def test_a_verdict_that_came_after_the_card_is_told_too(outage: Outage) -> None:
    """The card stands and says that it is being diagnosed; what was found meanwhile is not on it."""
    await outage.desk.keeper.sweep()
    await outage.store.offer(fresh_plan(outage.store, plan_id="plan-2"), rank=1)
    await outage.away(LONG)
    assert len(await outage.notes()) == 1


async def test_a_card_that_shows_everything_needs_no_note(outage: Outage) -> None:
    """Slack went away afterwards."""
    await outage.desk.keeper.sweep()
    await outage.away(LONG)

    assert await outage.notes() == []


async def test_what_is_resolved_needs_no_note(outage: Outage) -> None:
    """Nobody waits for it any more."""
    await outage.store.inbox.deliver(event("incident.resolved"), now=NOW)
    await outage.store.inbox.fold(now=NOW)
    await outage.away(LONG)

    assert await outage.notes() == []


async def test_when_slack_is_back_all_that_waited_is_due(outage: Outage) -> None:
    """The card is drawn at once, although its own next try was a minute away, and as things stand now."""
    outage.desk.slack.troubles = [DOWN]
    await outage.desk.keeper.sweep()
    await outage.away(timedelta(seconds=10))
    await outage.watch.sweep()
    async with outage.store.database.write() as connection:
        await connection.execute(tables.incident.update().values(card_due=datetime.now(UTC) + timedelta(minutes=1)))
    await outage.desk.keeper.sweep()
    assert outage.desk.slack.posts == []

    outage.line.found()
    await outage.watch.sweep()
    await outage.desk.keeper.sweep()

    [(_, _, _, message)] = outage.desk.slack.posts
    assert "Set the thing from 8 to 7" in texts(message.blocks)
