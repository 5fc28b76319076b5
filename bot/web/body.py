"""Reading what a stranger sends: by stream, never more than the cap, never for longer than the patience."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

MOST_BYTES = 256 * 1024  # PagerDuty drops larger events itself; Slack's are far smaller
PATIENCE_S = 4.0  # PagerDuty gives up after 5 s, Slack after 3 s


class TooLargeError(Exception):
    """The body is larger than the cap; the rest was not read."""


class IncompleteError(Exception):
    """The sender went away or was too slow; the body is not whole."""


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    most_bytes: int = MOST_BYTES
    patience_s: float = PATIENCE_S


async def read_body(request: Request, limits: BodyLimits) -> bytes:
    """
    The raw bytes, as they were signed. Raises TooLargeError, IncompleteError.

    A Content-Length above the cap is refused unread; a chunked or lying sender is cut off at the cap.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limits.most_bytes:
        raise TooLargeError
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.patience_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.most_bytes:
                    raise TooLargeError
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        raise IncompleteError from error
    return b"".join(parts)
