"""
Once for each event, click and command, however often Slack delivers it.

Slack retries an event that was not acknowledged in time, three times over HTTP and over Socket Mode, and a connection
that breaks may cost it an acknowledgement that we sent. Bolt does not look for repetitions. A delivery that was handled
to its end is acknowledged and not handled again; one that a crash cut off is handled again, which is harmless because
deeds are idempotent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from bot.incidents import StoreUnavailableError
from bot.store.slack_events import Claim

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
_LOOK_EVERY_S = 0.2


class Claims(Protocol):
    """What is remembered of earlier deliveries (`bot.store.slack_events`). Raises StoreUnavailableError."""

    async def claim(self, key: str, *, now: datetime) -> Claim: ...

    async def done(self, key: str, *, now: datetime) -> None: ...

    async def release(self, key: str) -> None: ...


class Repeated(Exception):  # noqa: N818 - nothing is wrong; it says why there is no result
    """This delivery repeats one that was handled; acknowledge it, and say nothing."""


class Once:
    """
    Runs what a delivery asks for, unless that was done.

    `begin` starts what nobody waits for: that it was done is written down while Slack is already being answered. A
    crash in between would let a retry do it again; it hardly comes, since it was acknowledged, and does no harm.
    """

    def __init__(self, claims: Claims, begin: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._claims = claims
        self._begin = begin

    async def run(self, body: Mapping[str, Any], work: Callable[[], Awaitable[Result]]) -> Result:
        """The result of `work`. Raises Repeated, after the first delivery's end, and whatever `work` raises."""
        key = key_of(body)
        if key is None or not await self._claimed(key):
            return await work()
        finished = False
        try:
            result = await work()
            finished = True
        finally:
            self._begin(self._settle(key, finished=finished))
        return result

    async def _claimed(self, key: str) -> bool:
        """False when nothing can be remembered just now: a deed finds that out by itself, and says so."""
        try:
            while (claim := await self._claims.claim(key, now=datetime.now(UTC))) is Claim.UNDER_WAY:  # noqa: ASYNC110 - another process may end it
                await asyncio.sleep(_LOOK_EVERY_S)
        except StoreUnavailableError as error:
            log.warning("a delivery could not be claimed", why=str(error))
            return False
        if claim is Claim.DONE:
            log.info("a repeated delivery was acknowledged", key=key)
            raise Repeated
        return True

    async def _settle(self, key: str, *, finished: bool) -> None:
        try:
            if finished:
                await self._claims.done(key, now=datetime.now(UTC))
            else:
                await self._claims.release(key)
        except StoreUnavailableError as error:
            log.warning("a delivery could not be marked", key=key, finished=finished, why=str(error))


def key_of(body: Mapping[str, Any]) -> str | None:
    """
    The same for every delivery of one event, click or command, and for no other; None when it cannot be told.

    Events have an id. A click or a command has a trigger of its own; the rest is in the key so that no payload of
    another shape can pass for it.
    """
    event_id = body.get("event_id")
    if isinstance(event_id, str) and 0 < len(event_id) <= 200:
        return f"event:{event_id}"
    actions = body.get("actions")
    stamps = [action.get("action_ts") for action in actions or () if isinstance(action, Mapping)]
    if not body.get("trigger_id") and not any(stamps):
        return None
    told = {name: body.get(name) for name in ("trigger_id", "team", "team_id", "user", "user_id", "command", "text")}
    raw = json.dumps([told, actions, body.get("container")], sort_keys=True, default=str)
    return "asked:" + hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
