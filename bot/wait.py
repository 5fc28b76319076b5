"""A step that only waits: by the telemetry's clock, which runs faster in a drill, or by ours, whichever is first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from bot.store.journal import JournalEntry
from bot.verify import Verifier

LOOK_EVERY_S = 1.0


async def wait_out(
    verifier: Verifier,
    service: str,
    began: JournalEntry,
    for_s: float,
    cut_short: Callable[[], Awaitable[str]],
    *,
    look_every_s: float = LOOK_EVERY_S,
) -> str:
    """
    Return once `for_s` seconds have passed since `began`; "", or why it ended earlier, as `cut_short` says. Raises what
    that raises.

    Nothing is remembered here: whoever calls it again after a crash waits for the rest only. A telemetry that stands
    still or does not answer holds nobody up, since our own clock goes on.
    """
    while True:
        if why := await cut_short():
            return why
        telemetry_now = await verifier.now(service)
        passed = [(datetime.now(UTC) - began.at).total_seconds()]
        if telemetry_now is not None and began.telemetry_at is not None:
            passed.append((telemetry_now - began.telemetry_at).total_seconds())
        if (left := for_s - max(passed)) <= 0:
            return ""
        await asyncio.sleep(min(look_every_s, left))
