"""What stands between the web's doors and the store: the intake, and whether traffic may come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bot.engine import Sweeper
from bot.incidents import Delivery, StoreUnavailableError
from bot.store import schema
from bot.store.database import Database
from bot.store.inbox import Inbox
from bot.vitals import Vitals

_LOOK_EVERY_S = 1.0
_PATIENCE_S = 2.0


class Intake:
    """The web door's way into the inbox; rings the bell once something is committed."""

    def __init__(self, inbox: Inbox, ring: Callable[[], None]) -> None:
        self._inbox = inbox
        self._ring = ring

    async def deliver(self, delivery: Delivery) -> bool:
        """Commit; False when it is here already. Raises StoreUnavailableError."""
        is_new = await self._inbox.deliver(delivery, now=datetime.now(UTC))
        self._ring()
        return is_new

    async def dead_letter(self, raw: bytes, why: str, key: str) -> None:
        """Keep what nobody could read. Raises StoreUnavailableError."""
        now = datetime.now(UTC)
        letter = Delivery(
            event_id=key,
            source="pagerduty",
            kind="unreadable",
            occurred_at=now,
            incident_id=None,
            raw=raw.decode("utf-8", "replace").replace("\x00", "\ufffd"),
        )
        await self._inbox.bury(letter, why, now=now)


class Readiness:
    """What the probes are told; the database is asked at most once a second, however many ask."""

    def __init__(self, database: Database, sweepers: Sequence[Sweeper], vitals: Vitals) -> None:
        self._database = database
        self._sweepers = sweepers
        self._vitals = vitals
        self._looked_at = -_LOOK_EVERY_S
        self._reasons: Sequence[str] = ()
        self.stopping = False

    async def not_ready_because(self) -> Sequence[str]:
        """Empty when traffic may come."""
        if self.stopping:
            return ["shutting down"]
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            self._reasons = await self._look()
        return self._reasons

    async def _look(self) -> list[str]:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                revision = await schema.revision_of(self._database)
        except (StoreUnavailableError, TimeoutError) as error:
            return [f"the database does not answer: {type(error).__name__}"]
        return [] if revision == schema.head() else [f"the schema is at {revision}, not {schema.head()}"]

    async def details(self) -> Mapping[str, Any]:
        """When each sweep last went through, and the counts of /metrics."""
        swept = {each.name: each.healthy_at.isoformat() if each.healthy_at else None for each in self._sweepers}
        return {"swept": swept, "counts": self._vitals.counts}
