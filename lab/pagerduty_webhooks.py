"""
PagerDuty's V3 webhooks: signed, one event a request, in order per incident, retried as PagerDuty retries.

Rules (developer.pagerduty.com, Webhooks Overview): 2xx within 5 s; time-outs, lost connections, 5xx and 429 are retried
while later events of that incident wait; any other 4xx drops the event, and three drops in a row disable the
subscription. `X-Webhook-Id` stays the same over retries. PagerDuty waits minutes between tries; a drill waits seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lab.listening import local_client

PATIENCE_S = 5.0
DROPS_THAT_DISABLE = 3
SUBSCRIPTION_ID = "PLABSUB"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try to deliver an event; `status` is None when no answer came."""

    event_id: str
    event_type: str
    number: int
    status: int | None
    problem: str = ""


class WebhookSender:
    """Delivers events to one subscriber; `send` returns at once and the delivery goes on in the background."""

    def __init__(
        self,
        *,
        url: str,
        secrets: tuple[str, ...],
        first_wait_s: float = 0.5,
        longest_wait_s: float = 4.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url = url
        self.secrets = secrets
        self.attempts: list[Attempt] = []
        self.is_disabled = False
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._patience_s = patience_s
        self._drops_in_a_row = 0
        self._queues: dict[str, asyncio.Queue[Mapping[str, Any]]] = {}
        self._couriers: list[asyncio.Task[None]] = []
        self._client = local_client()

    async def aclose(self) -> None:
        for courier in self._couriers:
            courier.cancel()
        await asyncio.gather(*self._couriers, return_exceptions=True)
        await self._client.aclose()

    def send(self, incident_id: str, event: Mapping[str, Any]) -> None:
        """Queue an event behind the earlier ones of its incident."""
        if incident_id not in self._queues:
            self._queues[incident_id] = asyncio.Queue()
            self._couriers.append(asyncio.create_task(self._deliver_all(self._queues[incident_id])))
        self._queues[incident_id].put_nowait(event)

    def enable(self) -> None:
        """Somebody switches the subscription on again; what was dropped meanwhile stays dropped."""
        self.is_disabled, self._drops_in_a_row = False, 0

    async def settled(self) -> None:
        """Return when everything sent so far was delivered or dropped."""
        for queue in list(self._queues.values()):
            await queue.join()

    async def _deliver_all(self, queue: asyncio.Queue[Mapping[str, Any]]) -> None:
        while True:
            event = await queue.get()
            if not self.is_disabled:
                await self._deliver(event)
            queue.task_done()

    async def _deliver(self, event: Mapping[str, Any]) -> None:
        raw = json.dumps({"event": event}).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "PagerDuty-Webhook/V3.0",
            "X-Webhook-Id": str(uuid.uuid4()),
            "X-Webhook-Subscription": SUBSCRIPTION_ID,
            "X-PagerDuty-Signature": signature(raw, self.secrets),
        }
        number, wait_s = 0, self._first_wait_s
        while True:
            number += 1
            status, problem = await self._try(raw, headers)
            self.attempts.append(
                Attempt(
                    event_id=event["id"], event_type=event["event_type"], number=number, status=status, problem=problem
                )
            )
            if status is not None and 200 <= status < 300:
                self._drops_in_a_row = 0
                return
            if status is not None and 300 <= status < 500 and status != 429:
                self._drops_in_a_row += 1
                self.is_disabled = self._drops_in_a_row >= DROPS_THAT_DISABLE
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, self._longest_wait_s)

    async def _try(self, raw: bytes, headers: Mapping[str, str]) -> tuple[int | None, str]:
        try:
            async with asyncio.timeout(self._patience_s):
                response = await self._client.post(self.url, content=raw, headers=dict(headers), timeout=None)
        except TimeoutError:
            return None, "timeout"
        except httpx.TransportError as error:
            return None, type(error).__name__
        return response.status_code, ""


def signature(raw: bytes, secrets: tuple[str, ...]) -> str:
    """`v1=<hex>` of the raw body for each live secret, comma-separated. No timestamp is signed: replays verify."""
    return ",".join("v1=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest() for secret in secrets)
