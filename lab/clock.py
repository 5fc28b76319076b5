"""Lab time: a clock that runs faster than the wall, so that an incident of half an hour fits into a minute or two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class LabClock:
    """
    Lab time is `start + pace x elapsed`, always UTC.

    It stands still at `start` until `run()` is called, so that preparing the past takes no lab time. `elapsed` reads a
    monotonic clock (seconds): a correction of the machine's time never makes lab time jump. Tests pass their own.
    Raises ValueError for a pace that is not positive or a start without a time zone.
    """

    def __init__(self, *, pace: float, start: datetime, elapsed: Callable[[], float] = time.monotonic) -> None:
        if pace <= 0:
            raise ValueError(f"a lab clock needs a positive pace, not {pace:g}")
        if start.tzinfo is None:
            raise ValueError("a lab clock starts at a time with a time zone")
        self.pace = pace
        self.start = start.astimezone(UTC)
        self._elapsed = elapsed
        self._zero: float | None = None

    def run(self) -> None:
        """Let lab time pass from this moment on; a second call changes nothing."""
        if self._zero is None:
            self._zero = self._elapsed()

    def now(self) -> datetime:
        if self._zero is None:
            return self.start
        return self.start + timedelta(seconds=self.pace * (self._elapsed() - self._zero))

    def wall_seconds_until(self, moment: datetime) -> float:
        """How long a person waits for that lab moment (if the clock runs); 0 when it has passed."""
        return max(0.0, (moment - self.now()).total_seconds() / self.pace)

    async def sleep_until(self, moment: datetime) -> None:
        """Return when lab time has reached `moment`; for one in the past at once, after yielding."""
        await asyncio.sleep(self.wall_seconds_until(moment))
