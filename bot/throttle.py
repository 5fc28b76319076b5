"""Slows down whoever keeps failing; counted in this process' memory, of which nobody can fill more than a little."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST_FAILURES = 10
WINDOW_S = 60.0
_MOST_KEYS = 4096


class Throttle:
    """At most ten failures a minute for each key (an address, a secret's hash); the eleventh attempt has to wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic seconds."""
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, *keys: str) -> float:
        """Seconds until another attempt is looked at; 0 when it is now."""
        now = self._clock()
        return max((self._left(key, now) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """Remember a failure; of too many keys the ones that failed longest ago are forgotten."""
        now = self._clock()
        for key in keys:
            self._failures.setdefault(key, deque(maxlen=MOST_FAILURES)).append(now)
            self._failures.move_to_end(key)
        while len(self._failures) > _MOST_KEYS:
            self._failures.popitem(last=False)

    def _left(self, key: str, now: float) -> float:
        failures = self._failures.get(key)
        if failures is None or len(failures) < MOST_FAILURES:
            return 0.0
        return max(0.0, failures[0] + WINDOW_S - now)
