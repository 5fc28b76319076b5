"""
The batching writer: the webhooks of one process share commits.

A durable commit costs milliseconds whatever it holds. So while one is under way the next rows gather, and are then
written together; each caller waits for the commit that holds its own row. Alone, a row is committed at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from bot.incidents import StoreUnavailableError, WatchkeeperError
from bot.store.database import Database
from bot.store.inbox import POISON
from bot.store.statements import insert_all_new
from bot.store.tables import delivery

log = structlog.get_logger(__name__)

MOST_ROWS = 500
"""In one transaction."""
MOST_BYTES = 32 * 1024 * 1024
"""That may wait in memory; what comes then is refused and sent again."""
PATIENCE_S = 10.0
_ROW_BYTES = 2048  # of a row besides its raw text


class RefusedRowError(WatchkeeperError):
    """The database is well and does not take this row."""


@dataclass(eq=False, kw_only=True)
class _Waiting:
    row: Mapping[str, Any]
    size: int
    since: float
    stored: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class InboxWriter:
    """One for a process; needs no start, and is idle when nothing waits."""

    def __init__(self, database: Database, *, most_bytes: int = MOST_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._database = database
        self._most_bytes = most_bytes
        self._patience_s = patience_s
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._writing: asyncio.Task[None] | None = None

    @property
    def waits_s(self) -> float:
        """How long the oldest row has been waiting for its commit."""
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    @property
    def fullness(self) -> float:
        """Between 0 and 1."""
        return self._bytes / self._most_bytes

    async def write(self, row: Mapping[str, Any]) -> bool:
        """
        Returns after the commit that holds the row; False when its event id was there before.

        Raises StoreUnavailableError (nothing is known to be stored) and RefusedRowError.
        """
        size = _ROW_BYTES + len(row["raw"])
        if self._bytes + size > self._most_bytes:
            raise StoreUnavailableError(f"{len(self._waiting)} webhooks are waiting to be stored")
        item = _Waiting(row=row, size=size, since=time.monotonic())
        self._waiting.append(item)
        self._bytes += size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="inbox writer")
        return await item.stored

    async def drain(self) -> None:
        """Return when everything that waits is committed or refused."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MOST_ROWS, len(self._waiting)))]
                try:
                    await self._write_batch(batch)
                finally:
                    self._bytes -= sum(item.size for item in batch)
                    _fail(batch, StoreUnavailableError("the writer broke off"))  # nobody waits for ever
        finally:
            self._writing = None

    async def _write_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            new = set(await self._commit([item.row for item in batch]))
        except StoreUnavailableError as error:
            _fail(batch, error)
        except POISON as error:
            await self._write_singly(batch, error)
        else:
            for item in batch:
                event_id = item.row["event_id"]
                _tell(item, is_new=event_id in new)
                new.discard(event_id)  # a copy in the same batch was not stored
            log.info("webhooks stored", count=len(batch), event_ids=[item.row["event_id"] for item in batch])

    async def _write_singly(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """One row is poisoned; its neighbours must not suffer."""
        if len(batch) == 1:
            _fail(batch, RefusedRowError(f"{type(error).__name__}: {error}"))
            return
        for item in batch:
            await self._write_batch([item])

    async def _commit(self, rows: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._database.write_at_once(
                    lambda connection: insert_all_new(connection, delivery, rows), first=True
                )
        except TimeoutError as error:
            raise StoreUnavailableError(f"the database took more than {self._patience_s:g} s") from error


def _tell(item: _Waiting, *, is_new: bool) -> None:
    if not item.stored.done():  # the sender may have gone away
        item.stored.set_result(is_new)


def _fail(batch: Sequence[_Waiting], error: WatchkeeperError) -> None:
    for item in batch:
        if not item.stored.done():
            item.stored.set_exception(type(error)(str(error)))  # each waiter raises one of its own
