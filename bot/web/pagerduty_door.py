"""
`POST /webhooks/pagerduty`: verify, store, answer; nothing else happens here.

    authentic, stored (or stored before)                 202, only after the commit
    authentic, but unreadable, unknown or a ping         202 and a dead letter
    no or wrong signature                                401, constant body
    more than 256 KiB                                    413 (PagerDuty never sends that much)
    we are behind, and it changes no incident            429 + Retry-After; PagerDuty tries again
    the database cannot write, or anything unexpected    503 + Retry-After; PagerDuty tries again for 48 h

A genuine event must never be answered with another 4xx: PagerDuty drops it at once, and after three drops in a row
switches the subscription off for 24 hours.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bot.incidents import Delivery, OverloadedError, StoreUnavailableError, UnreadableEventError
from bot.pagerduty import parse_event
from bot.redact import safe_text
from bot.web.body import BodyLimits, IncompleteError, TooLargeError, read_body
from bot.web.signature import verify_pagerduty

log = structlog.get_logger(__name__)

RETRY_AFTER_S = "2"


class Intake(Protocol):
    """Where authentic events are kept; both calls return only after the commit."""

    async def deliver(self, delivery: Delivery) -> bool:
        """
        False when this event was stored before.

        Raises StoreUnavailableError, OverloadedError; UnreadableEventError for what cannot be kept as an event.
        """

    async def dead_letter(self, raw: bytes, why: str, key: str) -> None:
        """Keep what we could not read, once per key. Raises StoreUnavailableError."""


class PagerDutyDoor:
    """Answers PagerDuty within its five seconds; `secrets` are all live webhook secrets."""

    def __init__(self, *, intake: Intake, secrets: Sequence[bytes], limits: BodyLimits) -> None:
        self._intake = intake
        self._secrets = tuple(secrets)
        self._limits = limits

    async def receive(self, request: Request) -> Response:
        try:
            raw = await read_body(request, self._limits)
        except TooLargeError:
            return answer(413, "too large")
        except IncompleteError:
            return answer(503, "incomplete")
        header = ",".join(request.headers.getlist("x-pagerduty-signature"))
        if not verify_pagerduty(raw, header, self._secrets):
            # The body stays unlogged: nobody vouches for it, and it may be large or hostile.
            log.warning("webhook refused", door="pagerduty", why="signature", size=len(raw))
            return answer(401, "unauthorized")
        try:
            async with asyncio.timeout(self._limits.patience_s):
                return await self._store(raw)
        except OverloadedError:
            return answer(429, "later")
        except (StoreUnavailableError, TimeoutError):
            log.exception("webhook not stored; PagerDuty will send it again", door="pagerduty")
            return answer(503, "try again")

    async def _store(self, raw: bytes) -> Response:
        try:
            is_new = await self._intake.deliver(parse_event(raw))
        except UnreadableEventError as error:
            cleaned = safe_text(raw.decode("utf-8", "replace")).encode()
            await self._intake.dead_letter(cleaned, str(error), hashlib.sha256(raw).hexdigest())
            log.warning("webhook kept as a dead letter", door="pagerduty", why=str(error))
            return answer(202, "kept")
        return answer(202, "stored" if is_new else "seen before")


def answer(status: int, word: str) -> Response:
    headers = {"Retry-After": RETRY_AFTER_S} if status in (429, 503) else None
    return JSONResponse({"status": word}, status_code=status, headers=headers)
