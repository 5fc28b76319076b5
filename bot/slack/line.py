"""
Is Slack there? What the last calls told.

While it is not, only one small call asks again every few seconds; everything else waits in the database, untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    return datetime.now(UTC)


class Line:
    """`down_since` is None while Slack answers, be it with a refusal; `complaint` is how to say that it does not."""

    def __init__(self, complaint: str, now: Callable[[], datetime] = utc_now) -> None:
        self._complaint = complaint
        self._now = now
        self.down_since: datetime | None = None
        self.why = ""

    def lost(self, why: str) -> None:
        """A call found nobody, or nobody who speaks Slack."""
        self.down_since = self.down_since or self._now()
        self.why = why

    def found(self) -> None:
        """Slack answered."""
        self.down_since, self.why = None, ""

    def down_for(self) -> timedelta:
        return self._now() - self.down_since if self.down_since else timedelta(0)

    def trouble(self) -> str:
        """A sentence for operators; empty when all is well."""
        return f"{self._complaint} since {self.down_since:%H:%M:%S} UTC: {self.why}" if self.down_since else ""
