"""
This process's life as the others see it: a beat every few seconds, and nothing is changed outside without a fresh one.

Others may declare a process dead that has not beaten for DEAD_AFTER_S by the database's clock, and take over what it
was doing. So this process trusts itself for a little less than that after each beat. Whatever it does to the world
stands under `guard`, which is cut off when the trust ends: a process that was frozen, or cut off from its database,
finds the time-out before anything else when it thaws.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from bot.incidents import LifelessError, StoreUnavailableError
from bot.store.workers import DEAD_AFTER_S, Workers

log = structlog.get_logger()

BEAT_S = 3.0
_AGAIN_S = 0.5
TRUST_S = DEAD_AFTER_S - 1.0
"""How long after the begin of a beat nobody can have declared us dead; a second for clocks that run apart."""


class Pulse:
    """Before `begin` nobody knows this process, so nobody can declare it dead, and `guard` lets everything pass."""

    def __init__(self, workers: Workers, role: str) -> None:
        self.me = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self.place = place()
        self.died = asyncio.Event()
        self._workers = workers
        self._role = role
        self._trusted_until = math.inf
        self._guards: set[asyncio.Timeout] = set()
        self._beating: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Live, from now on. Raises StoreUnavailableError."""
        began = _now()
        await self._workers.register(
            executor_id=self.me, host=socket.gethostname(), place=self.place, pid=os.getpid(), role=self._role
        )
        self._trust_until(began + TRUST_S)
        self._beating = asyncio.create_task(self._beat_for_ever(), name="pulse")

    async def end(self) -> None:
        """Stop living: whoever lives takes over what is left, at once."""
        if self._beating is None:
            return
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        self._trust_until(-math.inf)
        try:
            await self._workers.end(self.me)
        except StoreUnavailableError as error:
            log.warning("the others will have to notice that this process is gone", why=str(error))

    @contextlib.asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """The body runs only while nobody can have declared this process dead, and is cut off when that ends."""
        if self._trusted_until <= _now():
            raise LifelessError("this process has not reached its database for too long, and keeps still")
        when = None if self._trusted_until == math.inf else self._trusted_until
        try:
            async with asyncio.timeout_at(when) as limit:
                self._guards.add(limit)
                try:
                    yield
                finally:
                    self._guards.discard(limit)
        except TimeoutError as error:
            if limit.expired():
                raise LifelessError("this process lost touch with its database in the middle of it") from error
            raise

    async def _beat_for_ever(self) -> None:
        pause = BEAT_S
        while not self.died.is_set():
            await asyncio.sleep(pause)
            pause = BEAT_S if await self.beat() else _AGAIN_S

    async def beat(self) -> bool:
        """One beat; False when the database did not answer in time. Whoever was declared dead stays dead."""
        began = _now()
        try:
            async with asyncio.timeout(BEAT_S):
                lives = await self._workers.beat(self.me)
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("no beat", why=str(error) or type(error).__name__)
            return False
        if not lives:
            self.died.set()
        self._trust_until(began + TRUST_S if lives else -math.inf)
        return True

    def _trust_until(self, when: float) -> None:
        self._trusted_until = when
        for guard in self._guards:
            if not guard.expired():
                guard.reschedule(max(when, _now()))


def _now() -> float:
    return asyncio.get_running_loop().time()


def place() -> str:
    """
    This machine, its boot and the namespace of its process ids: in the same place, a pid that is gone is dead.

    Machines that were restored from one snapshot share a boot, so the name counts, too. Empty where Linux does not
    tell; then silence alone is death.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()}:{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""
