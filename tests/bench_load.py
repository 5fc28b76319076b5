"""
The load generator of `make bench`: signed PagerDuty webhooks over keep-alive connections, from a process of its own.

`python -m tests.bench_load URL SECRET --connections 32 --seconds 6` sends as fast as answers come;
`--count 5000 --within 60` sends on a timetable, whatever the answers do, and repeats what was not accepted as PagerDuty
would. Prints JSON: answers by status, seconds to the answer, and when the first and the last answer came.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from lab.pagerduty_shapes import Incident, webhook_incident

KINDS = ("triggered", "acknowledged", "escalated", "unacknowledged", "annotated", "reassigned", "acknowledged")
"""The life of an incident in the storm, over and over from the second on."""

RETRY_S = 1.0


def events(prefix: str, incidents: int, each: int) -> Iterator[dict[str, Any]]:
    """Webhooks as PagerDuty words them (about 1.2 kB), one incident's after the other's in turns."""
    for position in range(each):
        name = KINDS[position] if position < len(KINDS) else KINDS[1 + position % (len(KINDS) - 1)]
        for number in range(incidents):
            yield _event(prefix, number, position, name)


def _event(prefix: str, number: int, position: int, name: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    incident = Incident(
        id=f"Q{prefix}{number:06}",
        number=10_000 + number,
        title=f"[FIRING:1] LLMHighTTFT chat {number}",
        key=f"{prefix}-{number}",
        urgency="high",
        created_at=now,
        status="acknowledged" if name == "acknowledged" else "triggered",
    )
    data = webhook_incident(incident)
    if name == "annotated":
        about = {"id": incident.id, "type": "incident_reference", "summary": incident.title}
        data = {"incident": about, "id": "PNOTE01", "content": "Looking into it.", "type": "incident_note"}
    return {
        "id": f"01{prefix}{number:08}{position:06}",
        "event_type": f"incident.{name}",
        "resource_type": "incident",
        "occurred_at": now,
        "agent": None,
        "client": None,
        "data": data,
    }


def request(url: str, secret: bytes, event: dict[str, Any]) -> bytes:
    """One whole HTTP request."""
    at = urlsplit(url)
    raw = json.dumps({"event": event}).encode()
    signature = hmac.new(secret, raw, hashlib.sha256).hexdigest()
    headers = {
        "Host": at.netloc,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "PagerDuty-Webhook/V3.0",
        "X-PagerDuty-Signature": f"v1={signature}",
        "Content-Length": str(len(raw)),
    }
    head = [f"POST {at.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(head).encode() + raw


@dataclass(kw_only=True)
class Tally:
    """What came back."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0

    def count(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.append(seconds)
        self.ended = time.perf_counter()

    def as_json(self) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [0.0]
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "took_s": self.ended - self.began,
            "p50_s": ordered[len(ordered) // 2],
            "p99_s": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
            "max_s": ordered[-1],
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._seen = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if end and self._answer is not None:
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(body) >= length:
                self._seen = b""
                self._answer.set_result(int(head[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    async def send(self, raw: bytes) -> int:
        """The status; 0 when the connection broke."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(raw)
        return await self._answer


async def connected(url: str, count: int) -> list[Connection]:
    at = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = at.hostname or "127.0.0.1", at.port or 80
    return [(await loop.create_connection(Connection, host, port))[1] for _ in range(count)]


async def as_fast_as_answered(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Tally:
    """Each connection sends its next request when the answer to its last one is there."""
    waiting, tally = iter(requests), Tally()

    async def one(connection: Connection) -> None:
        for raw in waiting:
            began = time.perf_counter()
            if began - tally.began > seconds:
                return
            tally.count(await connection.send(raw), time.perf_counter() - began)

    open_ones = await connected(url, connections)
    tally.began = time.perf_counter()
    await asyncio.gather(*(one(each) for each in open_ones))
    return tally


async def by_timetable(url: str, requests: Sequence[bytes], within_s: float, connections: int) -> Tally:
    """One request every few milliseconds; its time runs from when it was due, waiting for a connection included."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connected(url, connections):
        free.put_nowait(connection)
    tally = Tally()

    async def one(raw: bytes, due: float) -> None:
        while True:
            connection = await free.get()
            status = await connection.send(raw)
            free.put_nowait(connection if status else (await connected(url, 1))[0])
            tally.count(status, time.perf_counter() - due)
            if status == 202:
                return
            await asyncio.sleep(RETRY_S)
            due = time.perf_counter()

    async with asyncio.TaskGroup() as tasks:
        for position, raw in enumerate(requests):
            due = tally.began + position * within_s / len(requests)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(raw, due))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("secret")
    parser.add_argument("--prefix", default="BENCH")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--incidents", type=int, default=200)
    parser.add_argument("--within", type=float)
    options = parser.parse_args()
    each = -(-options.count // options.incidents)
    wanted = list(events(options.prefix, options.incidents, each))[: options.count]
    requests = [request(options.url, options.secret.encode(), event) for event in wanted]
    if options.within:
        sending = by_timetable(options.url, requests, options.within, options.connections)
    else:
        sending = as_fast_as_answered(options.url, requests, options.connections, options.seconds)
    print(json.dumps(asyncio.run(sending).as_json()))


if __name__ == "__main__":
    main()
