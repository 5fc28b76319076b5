"""Turns at the one writer of SQLite: whoever is in a hurry goes before the others, but not twice in a row."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Turns:
    """Like asyncio.Lock, with a second queue: webhooks, whose senders give up after seconds."""

    def __init__(self) -> None:
        self._is_taken = False
        self._was_first = False
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def take(self, *, first: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while the block runs."""
        if self._is_taken:
            await self._wait(self._first if first else self._others)
        self._is_taken, self._was_first = True, first
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came in the moment in which we stopped waiting
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """It stays taken on the way to the next one, so that nobody slips in between."""
        order = (self._others, self._first) if self._was_first else (self._first, self._others)
        for queue in order:
            while queue:
                turn = queue.popleft()
                if not turn.done():  # whoever stopped waiting is still in the queue
                    turn.set_result(None)
                    return
        self._is_taken = False
