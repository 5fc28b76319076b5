"""Slack and PagerDuty are kept in line with the record, through crashes, outages and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bot.burst import BurstKeeper
from bot.card import Cards
from bot.incidents import PlanState, StoreUnavailableError
from bot.keeper import MOST_ATTEMPTS, CardKeeper, Mailroom, PagerDutyCourier, SlackCourier, backoff
from bot.pagerduty_client import PagerDutyError
from bot.slack.client import SlackError
from bot.slack.view import Message
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.bursts import Bursts
from bot.store.database import Database
from bot.store.incidents import CardPlace, Incidents
from bot.store.outbox import Outbox, Parcel
from bot.store.past import PastIncidents
from diagnostics.diagnosis import Stage
from tests.kit import INCIDENT, NOW, Store, step
from tests.stories import FOUND, FakeLook, FakePagerDuty, FakeSlack, diagnosed, fresh_plan, texts, without

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
DOWN = SlackError("Slack cannot be reached: ClientError", permanent=False)
UNREACHABLE = PagerDutyError("PagerDuty cannot be reached", permanent=False)


class Desk:
    """The keeper of cards and the two couriers, over fakes that remember."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.slack = FakeSlack()
        self.pagerduty = FakePagerDuty()
        self.cards = Cards(
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
        self.look = FakeLook()
        courier = SlackCourier(
            incidents=store.incidents,
            cards=self.cards,
            slack=self.slack,  # type: ignore[arg-type]  # a fake
            diagnosers={"chat": self.look},  # type: ignore[dict-item]  # a fake
            config=store.config,
        )
        self.messenger = PagerDutyCourier(
            cards=self.cards,
            pagerduty=self.pagerduty,  # type: ignore[arg-type]  # a fake
            from_email="bot@example.com",
        )
        self.slack_mail = Mailroom("slack", store.outbox, courier.deliver, store.pulse)
        self.pagerduty_mail = Mailroom("pagerduty", store.outbox, self.messenger.deliver, store.pulse)
        self.restart()

    def restart(self) -> None:
        """A new process knows what the database knows."""
        self.keeper = CardKeeper(
            incidents=self.store.incidents,
            cards=self.cards,
            slack=self.slack,  # type: ignore[arg-type]  # a fake
            bursts=BurstKeeper(
                bursts=Bursts(self.store.database),
                slack=self.slack,  # type: ignore[arg-type]  # a fake
                channel="C1",
                pulse=self.store.pulse,
            ),
            channel="C1",
            pulse=self.store.pulse,
        )

    async def begin(self, parcel: Parcel) -> None:
        """A process took it for delivery, and nobody knows how that ended."""
        assert await self.store.outbox.claim(parcel, now=datetime.now(UTC))

    async def draw(self) -> None:
        """A sweep after whatever the last failure asked to wait for."""
        async with self.store.database.write() as connection:
            await connection.execute(tables.incident.update().values(card_due=None))
        await self.keeper.sweep()

    async def wait(self) -> None:
        """Every parcel's time has come."""
        async with self.store.database.write() as connection:
            await connection.execute(tables.outbox.update().values(due_at=LONG_AGO))

    async def post(self, kind: str, lane: str = "slack", **content: Any) -> None:
        await self.store.outbox.post(
            key=f"{lane}:{kind}:{content}", incident_id=INCIDENT, lane=lane, kind=kind, now=LONG_AGO, **content
        )

    async def waiting(self, lane: str = "slack") -> list[Parcel]:
        return await self.store.outbox.due(lane, now=datetime.now(UTC) + timedelta(days=1))

    async def card_due(self) -> datetime | None:
        async with self.store.database.read() as connection:
            row = (await connection.execute(tables.incident.select())).one()
        due: datetime | None = row.card_due
        return due

    async def troubles(self) -> Sequence[str]:
        return (await self.cards.view(INCIDENT)).troubles


class Playing:
    """Telemetry that has one value everywhere."""

    async def exported(self, *_: Any) -> bool:
        return True

    async def matrix(self, _: Any, start: datetime, end: datetime, step: timedelta) -> Any:
        return {(): [(start, 1.0), (start + step, 2.0), (end, 3.0)]}


@pytest.fixture
async def desk(store: Store) -> Desk:
    """An incident is paged and diagnosed; its card is not drawn yet."""
    await store.page()
    await diagnosed(store)
    return Desk(store)


async def test_a_card_is_posted_once_and_then_updated(desk: Desk) -> None:
    """One message per incident; nothing is sent while nothing changed."""
    await desk.keeper.sweep()
    await desk.keeper.sweep()
    assert [(channel, key, thread) for channel, key, thread, _ in desk.slack.posts] == [
        ("C1", f"card:{INCIDENT}", None)
    ]
    assert (desk.slack.updates, desk.slack.looked_up) == ([], [])

    await desk.store.offer(fresh_plan(desk.store))
    await desk.draw()

    [(channel, ts, message)] = desk.slack.updates
    assert (channel, ts) == ("C1", "1")
    assert "Set the thing from 8 to 7" in texts(message.blocks)
    assert len(desk.slack.posts) == 1


async def test_a_change_while_the_card_is_drawn_is_not_lost(desk: Desk) -> None:
    """Slack shows the older revision, so the newer one stays to be shown."""
    [place] = await desk.store.incidents.cards_to_show(now=NOW)
    await desk.store.offer(fresh_plan(desk.store))

    await desk.store.incidents.card_shown(INCIDENT, place.revision, "C1", "1", now=NOW, next_at=NOW)

    [again] = await desk.store.incidents.cards_to_show(now=NOW)
    assert again.revision > place.revision


async def test_a_card_whose_post_was_not_recorded_is_found_by_its_key(desk: Desk) -> None:
    """The process died between Slack's yes and our row: `shown` is -1, and the channel is asked first."""
    [place] = await desk.store.incidents.cards_to_show(now=NOW)
    assert await desk.store.incidents.claim_card(place, now=NOW)
    desk.slack.posts.append(("C1", f"card:{INCIDENT}", None, Message(text="the card")))
    desk.restart()

    await desk.keeper.sweep()

    assert len(desk.slack.posts) == 1
    assert desk.slack.looked_up == [f"card:{INCIDENT}"]
    assert [ts for _, ts, _ in desk.slack.updates] == ["1"]
    assert await desk.store.incidents.place(INCIDENT) == ("C1", "1")


async def test_a_lost_answer_does_not_post_a_second_card(desk: Desk) -> None:
    """Slack took the post and the answer got lost."""
    desk.slack.loses_answers = True
    await desk.keeper.sweep()
    desk.slack.loses_answers = False

    await desk.draw()

    assert len(desk.slack.posts) == 1
    assert await desk.store.incidents.place(INCIDENT) == ("C1", "1")


async def test_a_post_that_never_arrived_is_sent_again(desk: Desk) -> None:
    """The channel does not know the key, so there is no card yet."""
    desk.slack.troubles = [DOWN]
    await desk.keeper.sweep()
    assert desk.slack.posts == []

    await desk.draw()

    assert desk.slack.looked_up == [f"card:{INCIDENT}"]
    assert len(desk.slack.posts) == 1


async def test_the_card_waits_as_long_as_slack_wishes(desk: Desk) -> None:
    """A Retry-After of ninety seconds is kept; nothing is sent before."""
    desk.slack.troubles = [SlackError("Slack answered ratelimited", permanent=False, retry_after=90)]
    started = datetime.now(UTC)

    await desk.keeper.sweep()
    await desk.keeper.sweep()

    due = await desk.card_due()
    assert due is not None
    assert due >= started + timedelta(seconds=90)
    assert desk.slack.posts == []


async def test_a_refused_card_is_tried_again_when_somebody_may_have_mended_it(desk: Desk) -> None:
    """The bot was not in the channel; somebody invites it."""
    desk.slack.troubles = [SlackError("Slack answered not_in_channel", permanent=True)] * 2
    for _ in range(2):
        await desk.draw()
    assert await desk.card_due() is not None

    await desk.draw()

    assert await desk.store.incidents.place(INCIDENT) is not None
    assert await desk.store.incidents.cards_to_show(now=datetime.now(UTC)) == []


async def test_a_deleted_card_is_posted_anew(desk: Desk) -> None:
    """Somebody removed it from the channel; the incident is still there."""
    await desk.keeper.sweep()
    await desk.store.offer(fresh_plan(desk.store))
    desk.slack.troubles = [SlackError("Slack answered message_not_found", permanent=True, missing=True)]
    await desk.draw()

    await desk.draw()

    assert len(desk.slack.posts) == 2
    assert await desk.store.incidents.place(INCIDENT) == ("C1", "2")


async def test_a_card_that_cannot_be_drawn_does_not_hold_up_the_others(desk: Desk) -> None:
    """A diagnosis that an older release wrote and this one cannot read: its own card waits, the others are drawn."""
    await desk.store.incidents.record(INCIDENT, 1, diagnosis={"of": "another age"})
    await desk.store.page(incident_id="Q0OTHER", event_id="other")

    await desk.keeper.sweep()

    assert [key for _, key, _, _ in desk.slack.posts] == ["card:Q0OTHER"]
    assert [place.incident_id for place in await desk.store.incidents.cards_to_show(now=datetime.now(UTC))] == []


async def test_a_parcel_that_breaks_does_not_hold_up_the_others(desk: Desk) -> None:
    """It is put off, and in the end given up, as after an outage."""
    await desk.store.page(incident_id="Q0OTHER", event_id="other")
    await desk.post("verdict", "pagerduty")  # names no run
    await desk.store.outbox.post(
        key="other", incident_id="Q0OTHER", lane="pagerduty", kind="resolve", now=LONG_AGO, email="bob@example.com"
    )

    assert await desk.pagerduty_mail.sweep() == 1

    assert desk.pagerduty.told == [("resolve", "Q0OTHER", "bob@example.com")]
    assert await desk.store.outbox.due("pagerduty", now=datetime.now(UTC)) == []


async def test_a_database_that_is_away_is_not_passed_over_in_silence(desk: Desk, tmp_path: Path) -> None:
    """The sweep says so, or it would count as healthy."""
    await desk.post("resolve", "pagerduty")
    places = await desk.store.incidents.cards_to_show(now=datetime.now(UTC))
    parcels = await desk.waiting("pagerduty")
    away = Database(f"sqlite:///{tmp_path}/without-tables.sqlite")
    desk.keeper._incidents = Away(away, places)
    desk.pagerduty_mail._outbox = FullOutbox(away, parcels)

    with pytest.raises(StoreUnavailableError):
        await desk.keeper.sweep()
    with pytest.raises(StoreUnavailableError):
        await desk.pagerduty_mail.sweep()
    await away.close()


class Away(Incidents):
    """It answered once, and is away now."""

    def __init__(self, database: Database, places: list[CardPlace]) -> None:
        super().__init__(database)
        self._places = places

    async def cards_to_show(self, *, now: datetime, me: str = "", new: int = 20, old: int = 20) -> list[CardPlace]:
        return self._places


class FullOutbox(Outbox):
    """The same, for mail."""

    def __init__(self, database: Database, parcels: list[Parcel]) -> None:
        super().__init__(database)
        self._parcels = parcels

    async def due(self, lane: str, *, now: datetime, me: str = "", limit: int = 20) -> list[Parcel]:
        return self._parcels


async def test_one_broken_card_does_not_hold_up_the_others(desk: Desk) -> None:
    """Incidents are drawn beside each other."""
    await desk.store.page(incident_id="Q0OTHER", event_id="other")
    desk.slack.troubles = [DOWN]

    await desk.keeper.sweep()

    assert len(desk.slack.posts) == 1


async def test_mail_waits_for_its_card(desk: Desk) -> None:
    """There is no thread yet, so nobody tries; what goes to PagerDuty does not wait for it."""
    await desk.post("evidence", run=1)
    await desk.post("verdict", "pagerduty", run=1)
    assert await desk.slack_mail.sweep() == 0
    assert await desk.waiting() == []
    assert await desk.pagerduty_mail.sweep() == 1

    await desk.keeper.sweep()
    [parcel] = await desk.waiting()
    assert (parcel.attempts, parcel.uncertain) == (0, False)
    assert await desk.slack_mail.sweep() == 1

    [_, (channel, _, thread, _)] = desk.slack.posts
    assert (channel, thread) == ("C1", "1")
    assert await desk.waiting() == []


async def test_mail_is_delivered_in_order(desk: Desk) -> None:
    """One parcel of an incident per sweep; what is second waits for the first, even when the first fails."""
    await desk.keeper.sweep()
    await desk.post("evidence", run=1)
    await desk.post("outcome", plan="nowhere")
    desk.slack.troubles = [DOWN]

    assert await desk.slack_mail.sweep() == 0
    assert await desk.slack_mail.sweep() == 0
    await desk.wait()
    assert [await desk.slack_mail.sweep(), await desk.slack_mail.sweep()] == [1, 1]

    words = [texts(message.blocks) for _, _, thread, message in desk.slack.posts if thread]
    assert words[0].count("Evidence for diagnosis 1") == 1
    assert "A fix ended" in words[1]


async def test_an_outcome_says_how_the_fix_ended(desk: Desk) -> None:
    """With its effect and who approved it, in the thread and in PagerDuty."""
    await desk.keeper.sweep()
    item = await desk.store.offer(fresh_plan(desk.store))
    await desk.store.plans.end(item, PlanState.DONE, "", now=NOW, expected=[PlanState.PROPOSED])
    await desk.post("outcome", plan=item.plan_id)
    await desk.post("outcome", "pagerduty", plan=item.plan_id)

    await desk.slack_mail.sweep()
    await desk.pagerduty_mail.sweep()

    assert "Set the thing from 8 to 7." in texts(desk.slack.posts[-1][3].blocks)
    assert desk.pagerduty.kept_notes == ["Watchkeeper, plan-1: done. Set the thing from 8 to 7."]


async def test_an_uncertain_message_is_looked_up_first(desk: Desk) -> None:
    """Slack took it, the answer got lost; it stands in the thread once."""
    await desk.keeper.sweep()
    await desk.post("evidence", run=1)
    desk.slack.loses_answers = True
    assert await desk.slack_mail.sweep() == 0
    desk.slack.loses_answers = False
    await desk.wait()

    assert await desk.slack_mail.sweep() == 1

    assert len([thread for _, _, thread, _ in desk.slack.posts if thread]) == 1


async def test_an_uncertain_message_stays_so_while_nobody_can_look(desk: Desk) -> None:
    """The answer got lost, then Slack is away or limits us: waiting is no proof that it did not take the message."""
    await desk.keeper.sweep()
    await desk.post("evidence", run=1)
    desk.slack.loses_answers = True
    assert await desk.slack_mail.sweep() == 0
    desk.slack.loses_answers = False
    desk.slack.troubles = [SlackError("Slack cannot be reached", permanent=False, untouched=True)]
    await desk.wait()
    assert await desk.slack_mail.sweep() == 0
    [parcel] = await desk.waiting()
    assert (parcel.uncertain, parcel.attempts) == (True, 1)
    await desk.wait()

    assert await desk.slack_mail.sweep() == 1

    assert len([thread for _, _, thread, _ in desk.slack.posts if thread]) == 1


async def test_a_picture_is_drawn_into_the_thread(desk: Desk) -> None:
    """With words for those who do not see it, and although the telemetry gives no time line."""
    await desk.keeper.sweep()
    await desk.post("picture", run=1)

    assert await desk.slack_mail.sweep() == 1

    assert desk.slack.pictures == [("C1", "1", "Latency of chat, baseline to now: prefill 430 ms to 670 ms")]


async def test_a_picture_is_never_sent_twice(desk: Desk) -> None:
    """It has no key to find it by, so an unknown outcome counts as sent."""
    await desk.keeper.sweep()
    await desk.post("picture", run=1)
    desk.slack.troubles = [DOWN]
    await desk.slack_mail.sweep()
    await desk.wait()

    assert await desk.slack_mail.sweep() == 1

    assert desk.slack.pictures == []


async def test_without_a_breakdown_there_is_no_picture(store: Store) -> None:
    """Nothing was measured, so nothing is drawn, and the parcel is done with."""
    await store.page()
    await diagnosed(store, found=without(FOUND, stages=(Stage(stage="prefill", now_s=None, baseline_s=None),)))
    desk = Desk(store)
    await desk.keeper.sweep()
    await desk.post("picture", run=1)

    assert await desk.slack_mail.sweep() == 1
    assert desk.slack.pictures == []


async def test_the_signals_are_drawn_from_the_telemetry(desk: Desk) -> None:
    """A second picture: what moved, asked for when the verdict stands."""
    desk.look.telemetry = Playing()
    await desk.keeper.sweep()
    await desk.post("signals", run=1)

    assert await desk.slack_mail.sweep() == 1

    [(channel, thread, words)] = desk.slack.pictures
    assert (channel, thread) == ("C1", "1")
    assert words.startswith("Key signals of chat: prefix cache hit ratio")


async def test_without_telemetry_the_thread_goes_without_the_signals(desk: Desk) -> None:
    """The verdict stands; a picture is worth no trouble on the card."""
    await desk.keeper.sweep()
    await desk.post("signals", run=1)

    assert await desk.slack_mail.sweep() == 1

    assert (desk.slack.pictures, await desk.troubles()) == ([], ())


async def test_pagerduty_hears_it_in_the_persons_name(desk: Desk) -> None:
    """With the person's e-mail where there is one, else with the bot's."""
    await desk.post("acknowledge", "pagerduty", by="bob", email="bob@example.com")
    await desk.post("resolve", "pagerduty", by="paul", email=None)
    await desk.post("verdict", "pagerduty", run=1)

    assert [await desk.pagerduty_mail.sweep() for _ in range(3)] == [1, 1, 1]

    assert desk.pagerduty.told == [
        ("acknowledge", INCIDENT, "bob@example.com"),
        ("resolve", INCIDENT, "bot@example.com"),
        ("note", INCIDENT, "bot@example.com"),
    ]
    [note] = desk.pagerduty.kept_notes
    assert note.startswith("Watchkeeper, diagnosis 1: A prompt change broke the prefix cache (91 % sure).")


async def test_an_uncertain_note_is_looked_up_first(desk: Desk) -> None:
    """PagerDuty keeps every note that it is sent, so a repeated one would stand there twice."""
    await desk.post("verdict", "pagerduty", run=1)
    [parcel] = await desk.waiting("pagerduty")
    await desk.begin(parcel)
    await desk.pagerduty.add_note(INCIDENT, await _note(desk), "bot@example.com")

    assert await desk.pagerduty_mail.sweep() == 1

    assert len(desk.pagerduty.kept_notes) == 1


async def _note(desk: Desk) -> str:
    """The note as the courier words it."""
    messenger = PagerDutyCourier(cards=desk.cards, pagerduty=desk.pagerduty, from_email="")  # type: ignore[arg-type]
    [parcel] = await desk.waiting("pagerduty")
    return await messenger._note(parcel)


async def test_a_note_is_found_again_although_a_secret_was_struck_out_of_it(desk: Desk) -> None:
    """The client redacts what it sends, so what stands in PagerDuty is not what the courier worded."""
    item = await desk.store.offer(fresh_plan(desk.store, steps=(step(effect="Set password=hunter2hunter2."),)))
    await desk.post("outcome", "pagerduty", plan=item.plan_id)
    [parcel] = await desk.waiting("pagerduty")
    await desk.begin(parcel)
    await desk.pagerduty.add_note(INCIDENT, await _note(desk), "bot@example.com")
    assert "hunter2" not in desk.pagerduty.kept_notes[0]

    await desk.pagerduty_mail.sweep()

    assert len(desk.pagerduty.kept_notes) == 1


async def test_an_uncertain_note_that_is_not_there_is_sent(desk: Desk) -> None:
    """The crash came before the call."""
    await desk.post("verdict", "pagerduty", run=1)
    [parcel] = await desk.waiting("pagerduty")
    await desk.begin(parcel)

    await desk.pagerduty_mail.sweep()

    assert len(desk.pagerduty.kept_notes) == 1


async def test_an_outage_is_waited_out(desk: Desk) -> None:
    """Not due again at once, uncertain until it is told, and then told."""
    await desk.post("resolve", "pagerduty")
    desk.pagerduty.refuses = UNREACHABLE
    assert await desk.pagerduty_mail.sweep() == 0
    assert await desk.store.outbox.due("pagerduty", now=datetime.now(UTC)) == []
    desk.pagerduty.refuses = None
    await desk.wait()

    assert await desk.pagerduty_mail.sweep() == 1
    assert await desk.troubles() == ()


async def test_what_is_refused_for_good_is_a_trouble_on_the_card(desk: Desk) -> None:
    """It is not tried again, and what waits behind it goes on."""
    await desk.post("resolve", "pagerduty")
    await desk.post("verdict", "pagerduty", run=1)
    desk.pagerduty.refuses = PagerDutyError("PagerDuty answered 403", permanent=True)
    revision = (await desk.store.incidents.get(INCIDENT)).revision

    await desk.pagerduty_mail.sweep()

    desk.pagerduty.refuses = None
    assert await desk.troubles() == ("pagerduty did not take resolve: PagerDuty answered 403",)
    assert (await desk.store.incidents.get(INCIDENT)).revision > revision
    assert await desk.pagerduty_mail.sweep() == 1
    assert len(desk.pagerduty.kept_notes) == 1


async def test_after_hours_the_card_says_that_it_could_not_be_told(desk: Desk) -> None:
    """The last attempt is the last."""
    await desk.post("resolve", "pagerduty")
    async with desk.store.database.write() as connection:
        await connection.execute(tables.outbox.update().values(attempts=MOST_ATTEMPTS))
    desk.pagerduty.refuses = UNREACHABLE

    await desk.pagerduty_mail.sweep()

    assert await desk.waiting("pagerduty") == []
    assert await desk.troubles() == ("pagerduty did not take resolve: PagerDuty cannot be reached",)


async def test_waits_grow_to_five_minutes_and_no_further() -> None:
    """Full jitter: never below half a second, never above the ceiling of the attempt."""
    ceilings = [1.5, 3, 6, 12, 24, 48, 96, 192, 300, 300, 300]
    for attempts, ceiling in enumerate(ceilings):
        waits = [backoff(attempts).total_seconds() for _ in range(200)]
        assert min(waits) >= 0.5
        assert max(waits) <= ceiling
    assert all(shorter <= longer for shorter, longer in pairwise(ceilings))
    assert backoff(MOST_ATTEMPTS * 10).total_seconds() <= 300


async def test_a_wish_of_the_far_end_is_never_undercut() -> None:
    """Even when it is longer than our own longest wait."""
    assert backoff(0, 600.0) == timedelta(seconds=600)
    assert backoff(8, 0.1) >= timedelta(seconds=0.5)
