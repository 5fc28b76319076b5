"""What Slack delivers more than once is remembered, on both databases and across processes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from bot.slack.once import key_of
from bot.store.slack_events import FORSAKEN_AFTER, KEPT, Claim, SlackEvents
from tests.kit import NOW, Store

KEY = "event:Ev1"


@pytest.fixture
def events(store: Store) -> SlackEvents:
    return SlackEvents(store.database)


async def test_one_of_many_gets_it(events: SlackEvents) -> None:
    """Ten deliveries at once, as after a lost acknowledgement to several processes."""
    claims = await asyncio.gather(*(events.claim(KEY, now=NOW) for _ in range(10)))

    assert sorted(claims) == [Claim.MINE, *[Claim.UNDER_WAY] * 9]


async def test_what_was_done_is_done(events: SlackEvents) -> None:
    """However late the retry comes."""
    await events.claim(KEY, now=NOW)
    await events.done(KEY, now=NOW)

    assert await events.claim(KEY, now=NOW + FORSAKEN_AFTER * 10) is Claim.DONE
    assert await events.claim("event:Ev2", now=NOW) is Claim.MINE


async def test_a_crash_before_the_end_leaves_it_to_the_retry(events: SlackEvents) -> None:
    """Whoever had it is silent for longer than Slack's patience; one successor gets it."""
    await events.claim(KEY, now=NOW)
    assert await events.claim(KEY, now=NOW + FORSAKEN_AFTER - timedelta(seconds=1)) is Claim.UNDER_WAY

    later = NOW + FORSAKEN_AFTER + timedelta(seconds=1)
    claims = await asyncio.gather(*(events.claim(KEY, now=later) for _ in range(5)))

    assert sorted(claims) == [Claim.MINE, *[Claim.UNDER_WAY] * 4]


async def test_who_breaks_off_gives_it_back(events: SlackEvents) -> None:
    """The next delivery is handled at once; what is done cannot be given back."""
    await events.claim(KEY, now=NOW)
    await events.release(KEY)
    assert await events.claim(KEY, now=NOW) is Claim.MINE

    await events.done(KEY, now=NOW)
    await events.release(KEY)
    assert await events.claim(KEY, now=NOW) is Claim.DONE


async def test_a_month_is_remembered(events: SlackEvents) -> None:
    """Older rows are of no use: Slack retries for minutes."""
    now = datetime.now(UTC)
    await events.claim("old", now=now - KEPT - timedelta(hours=1))
    await events.claim("young", now=now - KEPT + timedelta(hours=1))

    assert await events.sweep() == 1
    assert await events.claim("young", now=now - KEPT + timedelta(hours=1)) is Claim.UNDER_WAY
    assert await events.claim("old", now=now) is Claim.MINE


CLICK = {"trigger_id": "1.2.3", "user": {"id": "U1"}, "actions": [{"action_id": "approve", "value": "p-1"}]}


@pytest.mark.parametrize(
    "other",
    [
        {**CLICK, "trigger_id": "1.2.4"},
        {**CLICK, "user": {"id": "U2"}},
        {**CLICK, "actions": [{"action_id": "deny", "value": "p-1"}]},
        {**CLICK, "actions": [{"action_id": "approve", "value": "p-2"}]},
        {**CLICK, "event_id": "Ev1"},
        {"command": "/oncall", "text": "status", "trigger_id": "1.2.3", "user_id": "U1"},
    ],
    ids=range(6),
)
def test_different_things_have_different_keys(other: dict[str, object]) -> None:
    """Nobody's click passes for a repetition of somebody else's."""
    assert key_of(CLICK) == key_of(dict(CLICK))
    assert key_of(other) is not None
    assert key_of(other) != key_of(CLICK)


@pytest.mark.parametrize(
    "body", [{}, {"actions": "x"}, {"actions": [{"value": "p"}]}, {"event_id": ["x"]}], ids=range(4)
)
def test_what_has_no_identity_has_no_key(body: dict[str, object]) -> None:
    """It is handled each time, which is harmless."""
    assert key_of(body) is None
