"""
`POST /slack/events`: the guard in front of Bolt.

Bolt 1.30's own verification answers 500 to an unauthenticated request whose timestamp is not a number or whose body is
not UTF-8, and logs the body of a request with a wrong signature. So it is switched off, and nothing reaches Bolt that
this door has not found to come from Slack.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from bot.web.body import BodyLimits, IncompleteError, TooLargeError, read_body
from bot.web.pagerduty_door import answer
from bot.web.signature import verify_slack
from bot.web.slack_payload import for_bolt, is_readable

log = structlog.get_logger(__name__)


class SlackHandler(Protocol):
    """Bolt's `AsyncSlackRequestHandler`."""

    async def handle(self, req: Request) -> Response: ...


class SlackDoor:
    """Lets through only whole, signed, fresh requests that Bolt can read."""

    def __init__(
        self, *, handler: SlackHandler, secret: bytes, now: Callable[[], datetime], limits: BodyLimits
    ) -> None:
        self._handler = handler
        self._secret = secret
        self._now = now
        self._limits = limits

    async def receive(self, request: Request) -> Response:
        try:
            raw = await read_body(request, self._limits)
        except TooLargeError:
            return answer(413, "too large")
        except IncompleteError:
            return answer(503, "incomplete")
        if not self._is_from_slack(request, raw):
            log.warning("request refused", door="slack", why="signature", size=len(raw))
            return answer(401, "unauthorized")
        content_type = request.headers.get("content-type", "")
        if not is_readable(raw, content_type):
            log.error("request not understood", door="slack", size=len(raw))
            return answer(400, "not understood")
        return await self._handler.handle(_with_body(request, for_bolt(raw, content_type)))

    def _is_from_slack(self, request: Request, raw: bytes) -> bool:
        timestamps = request.headers.getlist("x-slack-request-timestamp")
        signatures = request.headers.getlist("x-slack-signature")
        if len(timestamps) != 1 or len(signatures) != 1:
            return False  # which of two was meant?
        return verify_slack(raw, timestamps[0], signatures[0], self._secret, self._now())


def _with_body(request: Request, raw: bytes) -> Request:
    """The request with this body, still to be read."""

    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request(request.scope, receive)
