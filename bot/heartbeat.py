"""
Says outside that we live: one GET a minute, as long as everything that must happen happens.

Whoever watches the address (healthchecks.io, Dead Man's Snitch, a PagerDuty heartbeat) hears of our silence, also when
the machine, the network or this program is not there to complain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import httpx
import structlog

from bot.far_ends import FarEnds
from bot.status import late_sweeps
from bot.vitals import Loop

log = structlog.get_logger()

EVERY_S = 60.0
NAME = "heartbeat"


class Heartbeat:
    """Silent while a loop is stuck or the database does not answer; the address is a secret and is never logged."""

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient,
        sweepers: Callable[[], Sequence[Loop]],
        ask_database: Callable[[], Awaitable[object]],
        far_ends: FarEnds,
    ) -> None:
        self._url = url
        self._client = client
        self._sweepers = sweepers
        self._ask_database = ask_database
        self._far_ends = far_ends
        self._started_at = datetime.now(UTC)
        far_ends.expect(NAME)

    async def sweep(self) -> None:
        """One beat, if all is well. Raises StoreUnavailableError."""
        if late := late_sweeps(self._sweepers(), started_at=self._started_at, now=datetime.now(UTC)):
            log.error("no heartbeat: loops are stuck", sweeps=late)
            return
        await self._ask_database()
        try:
            response = await self._client.get(self._url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._far_ends.failed(NAME, "GET", "unreachable", type(error).__name__)
            return
        if response.is_success:
            self._far_ends.answered(NAME, "GET")
        else:
            self._far_ends.failed(NAME, "GET", "refused", f"status {response.status_code}")
