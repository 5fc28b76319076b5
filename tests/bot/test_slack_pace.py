"""Slack's limits are kept by us, whoever calls, and the most important go first."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from bot.slack.pace import LIMITS, ClosedError, Pace, Rank

POST, UPDATE = "chat.postMessage", "chat.update"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


async def call(pace: Pace, rank: Rank = Rank.FIRST, method: str = POST, channel: str = "C0") -> bool:
    """Whether it may go now."""
    try:
        async with pace.turn(method, channel, rank):
            return True
    except ClosedError:
        return False


async def test_a_short_burst_and_then_one_a_second(pace: Pace, clock: Clock) -> None:
    """About what Slack allows in a channel: in five minutes of pressing, never more than five in five seconds."""
    went = []
    for _ in range(3000):
        if await call(pace):
            went.append(clock.now)
        clock.now += 0.1

    assert went[3] - went[0] < 0.5
    assert all(later - earlier >= 5 for earlier, later in zip(went, went[5:], strict=False))
    assert len(went) > 270


@pytest.mark.parametrize("method", LIMITS)
async def test_every_limit_holds_under_any_pressure(clock: Clock, method: str) -> None:
    """Random calls of random importance: no window ever holds more than it may."""
    random, pace = Random(7), Pace(clock)
    went: list[float] = []
    for _ in range(4000):
        clock.now += random.expovariate(20.0)
        if await call(pace, random.choice(list(Rank)), method):
            went.append(clock.now)

    for limit in LIMITS[method]:
        starts = zip(went, went[limit.calls :], strict=False)
        assert all(later - earlier >= limit.seconds for earlier, later in starts)
    assert len(went) > 40


async def test_channels_do_not_wait_for_each_other(pace: Pace) -> None:
    """Slack counts posts by channel, and everything else for the whole workspace."""
    for _ in range(4):
        await call(pace)
    assert not await call(pace)
    assert await call(pace, channel="C1")
    assert await call(pace, method=UPDATE)


async def test_what_matters_most_finds_room(pace: Pace) -> None:
    """Evidence alone never fills the channel: a new card, and the card that speaks for many, still go out at once."""
    while await call(pace, Rank.EVIDENCE):
        pass
    assert await call(pace, Rank.CARD)
    assert not await call(pace, Rank.CARD)
    assert await call(pace, Rank.FIRST)


async def test_who_was_refused_goes_before_the_less_important(pace: Pace, clock: Clock) -> None:
    """A card that found no room has the next one, although evidence asks more often; then evidence goes on."""
    while await call(pace, Rank.FIRST):
        pass
    assert pace.room(POST, "C0", Rank.CARD) == 0
    order: list[str] = []
    for _ in range(200):
        clock.now += 0.1
        if not order and await call(pace, Rank.EVIDENCE):
            order.append("evidence")
        if "card" not in order and pace.room(POST, "C0", Rank.CARD) and await call(pace, Rank.CARD):
            order.append("card")
        elif order == ["card"] and await call(pace, Rank.EVIDENCE):
            order.append("evidence")

    assert order[:2] == ["card", "evidence"]


async def test_a_limit_that_slack_names_is_kept(pace: Pace, clock: Clock) -> None:
    """Nothing goes before Retry-After is over, however important, and who asks is told how long."""
    pace.close(POST, "C0", 30.0)
    for passed in (0.0, 10.0, 19.9):
        clock.now = 100.0 + passed
        with pytest.raises(ClosedError) as closed:
            async with pace.turn(POST, "C0", Rank.FIRST):
                pass
        assert closed.value.seconds == pytest.approx(30.0 - passed)
        assert pace.room(POST, "C0", Rank.FIRST) == 0
    clock.now = 130.0
    assert await call(pace)


def test_more_important_never_has_less_room() -> None:
    """In any state."""
    clock = Clock()
    for sent in range(6):
        rooms = []
        for rank in Rank:
            pace = Pace(clock)
            pace._lane(POST, "C0").sent.extend([clock.now] * sent)
            rooms.append(pace.room(POST, "C0", rank))
        assert all(more >= less for more, less in pairwise(rooms))
