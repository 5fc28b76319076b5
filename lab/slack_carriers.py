"""
How Slack reaches an app: a signed request of its own, or an envelope over the app's WebSocket (`lab.slack_socket`).

Either way the app has three seconds. Signature: `v0=` and the HMAC-SHA256 of `v0:{timestamp}:{raw body}`
(docs.slack.dev/authentication/verifying-requests).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import httpx

from lab.listening import local_client

PATIENCE_S = 3.0

Kind = Literal["event", "interactivity", "command"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the app answered; `error` is "" or Slack's word for why a delivery failed."""

    kind: str
    status: int | None
    error: str
    took_s: float
    body: str = ""
    may_retry: bool = True

    @property
    def is_acknowledged(self) -> bool:
        return not self.error


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Which one it is, and Slack's word for why the delivery before failed."""

    number: int
    reason: str


class Carrier(Protocol):
    """Brings one payload to the app, once."""

    async def carry(self, kind: Kind, payload: Mapping[str, Any], retry: Retry | None) -> Answer: ...

    async def aclose(self) -> None: ...


class HttpCarrier:
    """Signed requests to one address."""

    def __init__(self, url: str, secret: str, *, patience_s: float = PATIENCE_S) -> None:
        self._url = url
        self._secret = secret
        self._patience_s = patience_s
        self._client = local_client(timeout_s=patience_s)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def carry(self, kind: Kind, payload: Mapping[str, Any], retry: Retry | None) -> Answer:
        raw, content_type = _encoded(kind, payload)
        headers = {
            "Content-Type": content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            **signature(self._secret, raw),
        }
        if retry is not None:
            headers |= {"X-Slack-Retry-Num": str(retry.number), "X-Slack-Retry-Reason": retry.reason}
        started_s = time.monotonic()
        status, error, body, may_retry = None, "", "", True
        try:
            async with asyncio.timeout(self._patience_s):
                response = await self._client.post(self._url, content=raw, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            error = "http_timeout"
        except httpx.TransportError:
            error = "connection_failed"
        else:
            status, body = response.status_code, response.text
            may_retry = response.headers.get("X-Slack-No-Retry") != "1"
            error = "" if status == 200 else "http_error"
        took_s = time.monotonic() - started_s
        return Answer(kind=kind, status=status, error=error, took_s=took_s, body=body, may_retry=may_retry)


def _encoded(kind: Kind, payload: Mapping[str, Any]) -> tuple[bytes, str]:
    if kind == "event":
        return json.dumps(payload).encode(), "application/json"
    fields = payload if kind == "command" else {"payload": json.dumps(payload)}
    return urlencode(fields).encode(), "application/x-www-form-urlencoded"


def signature(secret: str, raw: bytes, *, at: float | None = None) -> dict[str, str]:
    """Slack's two signing headers for a raw body."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + raw, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}
