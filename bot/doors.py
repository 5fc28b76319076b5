"""What stands between the web's doors and the store: the intake, and whether traffic may come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bot.engine import Sweeper
from bot.fold import says_a_state
from bot.incidents import Delivery, OverloadedError, StoreUnavailableError, UnreadableEventError
from bot.store import schema
from bot.store.database import Database
from bot.store.inbox import Inbox, to_row
from bot.store.inbox_writer import InboxWriter, RefusedRowError
from bot.vitals import Vitals

_LOOK_EVERY_S = 1.0
_PATIENCE_S = 2.0

_LOOK_BEHIND_EVERY_S = 5.0
_FULL_FOR_THE_UNIMPORTANT = 0.5
_BEHIND_S = 2.0  # PagerDuty waits five for its answer
_FAR_BEHIND_S = 60.0


class Backlog:
    """How far the folding is behind; the database is asked every few seconds at most, and only when it matters."""

    def __init__(self, inbox: Inbox, *, every_s: float = _LOOK_BEHIND_EVERY_S) -> None:
        self._inbox = inbox
        self._every_s = every_s
        self._looked_at = -every_s
        self._oldest: datetime | None = None

    async def age_s(self, now: datetime) -> float:
        """Of the oldest event that was not folded yet when we last looked. Raises StoreUnavailableError."""
        if time.monotonic() - self._looked_at >= self._every_s:
            self._looked_at = time.monotonic()
            self._oldest = await self._inbox.oldest_waiting()
        return (now - self._oldest).total_seconds() if self._oldest else 0.0


class Intake:
    """
    The web door's way into the inbox; rings the bell once something is committed.

    While we are behind, events that change no incident (notes, responders, services) are put off; those that do are
    taken as long as memory lasts.
    """

    def __init__(self, writer: InboxWriter, ring: Callable[[], None], backlog: Backlog) -> None:
        self._writer = writer
        self._ring = ring
        self._backlog = backlog

    async def deliver(self, delivery: Delivery) -> bool:
        """
        Commit; False when it is here already.

        Raises StoreUnavailableError and OverloadedError, and UnreadableEventError for what the database does not take.
        """
        now = datetime.now(UTC)
        if not says_a_state(delivery) and await self._is_behind(now):
            raise OverloadedError("we are behind, and this can wait")
        try:
            is_new = await self._writer.write(to_row(delivery, now=now))
        except RefusedRowError as error:
            raise UnreadableEventError(f"the database does not take it: {error}") from error
        self._ring()
        return is_new

    async def _is_behind(self, now: datetime) -> bool:
        if self._writer.fullness > _FULL_FOR_THE_UNIMPORTANT or self._writer.waits_s > _BEHIND_S:
            return True
        return await self._backlog.age_s(now) > _FAR_BEHIND_S

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
        await self._writer.write(to_row(letter, now=now, dead_because=why))


class Readiness:
    """What the probes are told; the database is asked at most once a second, however many ask."""

    def __init__(
        self,
        database: Database,
        sweepers: Sequence[Sweeper],
        vitals: Vitals,
        troubles: Sequence[Callable[[], str]] = (),
    ) -> None:
        """`troubles` say in a sentence what does not work although traffic may come, or nothing."""
        self._database = database
        self.sweepers = sweepers
        self._vitals = vitals
        self._troubles = troubles
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

    async def count(self) -> None:
        """Bring the numbers of /metrics up to date; never raises."""
        await self._vitals.fresh()

    async def details(self) -> Mapping[str, Any]:
        """What is degraded, when each sweep last went through, and the counts of /metrics."""
        await self.count()
        swept = {each.name: each.healthy_at.isoformat() if each.healthy_at else None for each in self.sweepers}
        degraded = [trouble for each in self._troubles if (trouble := each())]
        return {"degraded": degraded, "swept": swept, "counts": self._vitals.counts}
