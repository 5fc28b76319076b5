"""
Watches over outages of Slack: people who cannot see a verdict there hear it from PagerDuty, with a way to approve.

When Slack is back, whatever waited is due at once; cards are drawn as they are then, so nobody sees what is over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from bot.slack.client import SlackClient
from bot.store.outages import Outages

log = structlog.get_logger()

EVERY_S = 1.0

UNSEEN_FOR = timedelta(seconds=30)
"""So long Slack may take to show a diagnosis before PagerDuty says it."""

BLINK = timedelta(seconds=5)
"""A shorter outage left nobody waiting for long; and what Slack refuses again and again keeps to its own waits."""


class SlackWatch:
    """One look a second."""

    def __init__(
        self, *, slack: SlackClient, outages: Outages, unseen_for: timedelta = UNSEEN_FOR, blink: timedelta = BLINK
    ) -> None:
        self._line = slack.line
        self._outages = outages
        self._unseen_for = unseen_for
        self._blink = blink
        self._away_since: datetime | None = None

    async def sweep(self) -> None:
        """Raises StoreUnavailableError."""
        now = datetime.now(UTC)
        if self._line.down_since is not None:
            self._away_since = self._away_since or self._line.down_since
        elif self._away_since is not None:
            await self._back(now - self._away_since, now)
        is_away = self._line.down_for() >= self._unseen_for
        down_since = self._line.down_since if is_away else None
        for incident_id, run in await self._outages.unseen(since=now - self._unseen_for, down_since=down_since):
            log.warning("Slack does not show a verdict; PagerDuty gets it", incident=incident_id, run=run)
            await self._outages.tell_pagerduty(incident_id, run, now=now)

    async def _back(self, was_away: timedelta, now: datetime) -> None:
        if was_away >= self._blink:
            log.info("Slack is back", away_s=round(was_away.total_seconds()))
            await self._outages.over(now=now)
        self._away_since = None
