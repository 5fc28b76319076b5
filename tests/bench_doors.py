"""
How fast webhooks are accepted: our door, against the same framework and database without our work.

`python -m tests.bench_doors KIND DATABASE_URL` serves one of three doors and prints its address:
`door` is the product's own; `single` does one signed insert per request; `floor` checks the signature, takes the ids
out of the JSON and uses the same batching writer, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bot.doors import Backlog, Intake
from bot.incidents import Delivery
from bot.pagerduty import parse_event
from bot.store import schema
from bot.store.database import Database
from bot.store.inbox import Inbox, to_row
from bot.store.inbox_writer import InboxWriter
from bot.web.app import WebSettings, build_web
from lab.listening import new_socket, server, url_of
from tests.bench_load import events

SECRET = "whsec-of-the-bench"
PATH = "/webhooks/pagerduty"
KINDS = ("floor", "door", "single")


class Ready:
    """Probes are not measured."""

    async def not_ready_because(self) -> Sequence[str]:
        return ()

    async def count(self) -> None:
        return None

    async def details(self) -> Mapping[str, Any]:
        return {}


def product_door(database: Database) -> FastAPI:
    """As `serve` builds it, without Slack."""
    intake = Intake(InboxWriter(database), lambda: None, Backlog(Inbox(database, services={})))
    settings = WebSettings(pagerduty_secrets=(SECRET.encode(),), slack_secret=b"")
    return build_web(
        intake=intake, slack_handler=None, readiness=Ready(), settings=settings, registry=CollectorRegistry()
    )


def bare_door(store: Callable[[Mapping[str, Any]], Awaitable[bool]]) -> FastAPI:
    """Signature, ids, a row of the usual size; no redaction, no limits, no counting, no log."""
    usual = to_row(parse_event(json.dumps({"event": next(events("X", 1, 1))}).encode()), now=datetime.now(UTC))
    web = FastAPI(openapi_url=None)

    async def receive(request: Request) -> Response:
        raw = await request.body()
        expected = "v1=" + hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(request.headers["x-pagerduty-signature"], expected):
            return JSONResponse({"status": "unauthorized"}, 401)
        event = json.loads(raw)["event"]
        now = datetime.now(UTC)
        await store({**usual, "event_id": event["id"], "kind": event["event_type"], "received_at": now})
        return JSONResponse({"status": "stored"}, 202)

    web.add_route(PATH, receive, methods=["POST"])
    return web


def door_of(kind: str, database: Database) -> FastAPI:
    if kind == "door":
        return product_door(database)
    if kind == "floor":
        return bare_door(InboxWriter(database).write)
    inbox = Inbox(database, services={})

    async def insert(row: Mapping[str, Any]) -> bool:
        columns = ("event_id", "source", "kind", "occurred_at", "incident_id", "incident", "raw")
        return await inbox.deliver(Delivery(**{name: row[name] for name in columns}), now=row["received_at"])

    return bare_door(insert)


@dataclass(frozen=True, kw_only=True)
class Door:
    """One kind of door: medians of the rounds. `cpu_ms` is the server's processor time for each webhook."""

    accepted_per_s: float
    cpu_ms: float
    p99_s: float


def measure(
    new_database: Callable[[str], str], *, rounds: int, seconds: float, connections: int = 128
) -> dict[str, Door]:
    """`new_database` makes an empty one of this name and gives its URL. Doors take turns, so that drift hits all."""
    found: dict[str, list[Door]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            url = new_database(f"bench_{kind}_{number}")
            schema.upgrade(url)
            with served(kind, url) as (address, pid):
                before = cpu_s(pid)
                result = load(address, "--seconds", str(seconds), "--connections", str(connections))
                found[kind].append(_door(result, cpu_s(pid) - before))
    return {
        kind: Door(**{name: statistics.median(getattr(each, name) for each in rows) for name in vars(rows[0])})
        for kind, rows in found.items()
    }


def _door(result: Mapping[str, Any], spent_s: float) -> Door:
    if set(result["statuses"]) != {"202"}:
        raise RuntimeError(f"a door did not accept everything: {result['statuses']}")
    count = result["statuses"]["202"]
    return Door(accepted_per_s=count / result["took_s"], cpu_ms=1000 * spent_s / count, p99_s=result["p99_s"])


def cpu_s(pid: int) -> float:
    """What a process has spent in user and system mode (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(kind: str, database_url: str) -> Iterator[tuple[str, int]]:
    """A door in a process of its own; gives the address of the webhook, and the process."""
    program = [sys.executable, "-m", "tests.bench_doors", kind, database_url]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip() + PATH, process.pid
        finally:
            process.terminate()


def load(address: str, *options: str, secret: str = SECRET) -> dict[str, Any]:
    """Run the load generator to its end."""
    program = [sys.executable, "-m", "tests.bench_load", address, secret, *options]
    result: dict[str, Any] = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    return result


async def _serve(kind: str, database_url: str) -> None:
    database = Database(database_url)
    at = new_socket()
    print(url_of(at), flush=True)
    await server(door_of(kind, database)).serve(sockets=[at])


if __name__ == "__main__":
    from bot.logs import set_up_logging

    set_up_logging()  # the door's log lines are part of its work
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
