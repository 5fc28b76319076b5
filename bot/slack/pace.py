"""
Slack's rate limits, kept by us: what may be called now, and the most important first.

Nobody waits in here. Who may not call now comes again with the next sweep, and then tells Slack the newest state.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum


class Rank(IntEnum):
    """Who goes first. Each leaves some room for those before it, so that a new card need not wait for evidence."""

    FIRST = 0  # the one card that speaks for many, and then those that it promised
    CARD = 1
    EVIDENCE = 2


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most so many calls in any so many seconds."""

    calls: int
    seconds: float


# docs.slack.dev/apis/web-api/rate-limits: a tier's calls a minute for each method; chat.postMessage one a second for
# each channel, "short bursts" allowed. Slack counts when a call arrives, we when it leaves, so windows are 5 % longer.
_TIER_3 = (Limit(calls=50, seconds=63.0),)
_TIER_4 = (Limit(calls=100, seconds=63.0),)
LIMITS: Mapping[str, tuple[Limit, ...]] = {
    "chat.postMessage": (Limit(calls=4, seconds=1.1), Limit(calls=5, seconds=5.3)),
    "chat.update": _TIER_3,
    "chat.postEphemeral": _TIER_4,
    "conversations.history": _TIER_3,
    "conversations.replies": _TIER_3,
    "files.upload": _TIER_3,  # three calls, the scarcest of them
    "users.info": _TIER_4,
    "views.open": _TIER_4,
}
_PER_CHANNEL = frozenset({"chat.postMessage"})
_REFUSED_MATTERS_S = 2.5
"""Who was refused comes again within this time, a sweep being a second; until then nobody less important goes ahead."""


class ClosedError(Exception):
    """Not now: Slack would refuse the call, or something more important waits for it."""

    def __init__(self, method: str, seconds: float) -> None:
        super().__init__(f"Slack limits {method} for another {seconds:.1f} s")
        self.seconds = seconds


@dataclass(kw_only=True)
class _Lane:
    """The calls of one method, in one channel where Slack counts so."""

    sent: deque[float] = field(default_factory=deque)
    refused: dict[Rank, float] = field(default_factory=dict)
    closed_until: float = 0.0
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pace:
    """`clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: defaultdict[tuple[str, str], _Lane] = defaultdict(_Lane)

    def room(self, method: str, channel: str, rank: Rank) -> int:
        """How many calls of this importance may go now. Asking for one in vain counts as being refused."""
        lane, now = self._lane(method, channel), self._clock()
        room = self._room(lane, method, rank, now)
        if room == 0:
            lane.refused[rank] = now
        return room

    @asynccontextmanager
    async def turn(self, method: str, channel: str, rank: Rank) -> AsyncIterator[None]:
        """
        One call, counted, and none beside it: those that asked while one is being limited would keep the limit up.

        Raises ClosedError.
        """
        lane = self._lane(method, channel)
        async with lane.one_at_a_time:
            now = self._clock()
            if not self._room(lane, method, rank, now):
                lane.refused[rank] = now
                raise ClosedError(method, max(lane.closed_until - now, 1.0))
            lane.refused.pop(rank, None)
            lane.sent.append(now)
            yield

    def close(self, method: str, channel: str, seconds: float) -> None:
        """Slack said so (Retry-After)."""
        lane = self._lane(method, channel)
        lane.closed_until = max(lane.closed_until, self._clock() + seconds)

    def _lane(self, method: str, channel: str) -> _Lane:
        return self._lanes[method, channel if method in _PER_CHANNEL else ""]

    def _room(self, lane: _Lane, method: str, rank: Rank, now: float) -> int:
        if now < lane.closed_until or _someone_before(rank, lane, now):
            return 0
        limits = LIMITS.get(method, _TIER_3)
        longest_s = max(limit.seconds for limit in limits)
        while lane.sent and lane.sent[0] <= now - longest_s:
            lane.sent.popleft()
        rooms = [limit.calls - rank - sum(at > now - limit.seconds for at in lane.sent) for limit in limits]
        return max(0, min(rooms))


def _someone_before(rank: Rank, lane: _Lane, now: float) -> bool:
    return any(other < rank and now - at < _REFUSED_MATTERS_S for other, at in lane.refused.items())
