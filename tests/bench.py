"""
`make bench`: how long a page takes to become a card and a verdict, and how fast the command line starts.

One run on one machine; compare figures only within a run. The first page comes from the lab's own alert rule and meets
a cold process, so it is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.configuration import read_environment
from lab.drill import DrillOptions, running_drill
from lab.listening import local_client
from lab.progress import Progress

LOOK_EVERY_S = 0.02
GIVE_UP_S = 30.0
CARD_BUDGET_S, VERDICT_BUDGET_S, HELP_BUDGET_S = 2.0, 5.0, 0.3


def main() -> int:
    """Print the figures as a table and as JSON; the exit status is 1 when a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cards, verdicts = asyncio.run(_pages(Path(folder), options.pages))
    helps = [_help_s() for _ in range(10)]
    rows = [
        _row("webhook stored -> first card in Slack", cards, CARD_BUDGET_S),
        _row("webhook stored -> verdict on the card", verdicts, VERDICT_BUDGET_S),
        _row("watchkeeper --help", helps, HELP_BUDGET_S),
    ]
    load = os.getloadavg()[0]
    machine = f"{_processor()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}"
    print(f"\n{machine}\n")
    print(f"{'':42}{'n':>4}{'p50 s':>8}{'p95 s':>8}{'max s':>8}{'budget':>8}")
    for row in rows:
        print(f"{row['what']:42}{row['n']:4}{row['p50']:8.2f}{row['p95']:8.2f}{row['max']:8.2f}{row['budget']:8.1f}")
    print("\nreproduce: make bench")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    return int(any(row["p95"] > row["budget"] for row in rows))


async def _pages(folder: Path, count: int) -> tuple[list[float], list[float]]:
    async with running_drill(DrillOptions(folder=folder, seed=1), Progress()):
        events = json.loads((folder / "lab.json").read_text())["events"]
        routing_key = read_environment(folder)["LAB_ROUTING_KEY"]
        database = folder / "watchkeeper.sqlite"
        await _seen(database, 1)
        await _until_verdict(database, _newest(database))
        await asyncio.sleep(5)  # the embedding model has been loaded by then
        cards, verdicts = [], []
        async with local_client(base_url=events) as client:
            for number in range(count):
                body = _event(routing_key, number)
                (await client.post("/v2/enqueue", json=body)).raise_for_status()
                incident_id = await _seen(database, number + 2)
                cards.append(await _until_card(database, incident_id))
                verdicts.append(await _until_verdict(database, incident_id))
                await asyncio.sleep(1.0)
    return cards, verdicts


def _event(routing_key: str, number: int) -> dict[str, Any]:
    return {
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": f"bench-{number}",
        "payload": {
            "summary": f"[FIRING:1] LLMHighTTFT bench {number}",
            "source": "Alertmanager",
            "severity": "error",
            "custom_details": {"firing": "Labels:\n - alertname = LLMHighTTFT\nAnnotations:\nSource: x\n"},
        },
    }


async def _seen(database: Path, count: int) -> str:
    """The newest incident, once there are so many."""
    deadline = time.monotonic() + 2 * GIVE_UP_S
    while _one(database, "SELECT count(*) FROM incident") < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"there are not {count} incidents after {2 * GIVE_UP_S:.0f} s")
        await asyncio.sleep(LOOK_EVERY_S)
    return _newest(database)


def _newest(database: Path) -> str:
    query = "SELECT incident_id FROM delivery WHERE kind = 'incident.triggered' ORDER BY received_at DESC"
    return str(_one(database, query))


async def _until_card(database: Path, incident_id: str) -> float:
    return await _until(database, incident_id, "SELECT card_ts IS NOT NULL FROM incident WHERE incident_id = ?")


async def _until_verdict(database: Path, incident_id: str) -> float:
    query = (
        "SELECT run.state = 'done' AND incident.shown >= incident.revision FROM incident "
        "JOIN run ON run.incident_id = incident.incident_id WHERE incident.incident_id = ?"
    )
    return await _until(database, incident_id, query)


async def _until(database: Path, incident_id: str, query: str) -> float:
    """Seconds from the commit of the webhook until the query says 1."""
    received = _one(database, "SELECT min(received_at) FROM delivery WHERE incident_id = ?", incident_id)
    began = datetime.fromisoformat(received).replace(tzinfo=UTC)
    while not _one(database, query, incident_id):
        if (datetime.now(UTC) - began).total_seconds() > GIVE_UP_S:
            raise TimeoutError(f"{incident_id} had to wait {GIVE_UP_S:.0f} s for: {query}")
        await asyncio.sleep(LOOK_EVERY_S)
    return (datetime.now(UTC) - began).total_seconds()


def _one(database: Path, query: str, *values: Any) -> Any:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        row = connection.execute(query, values).fetchone()
    finally:
        connection.close()
    return row[0] if row else None


def _help_s() -> float:
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("watchkeeper"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def _row(what: str, seconds: Sequence[float], budget: float) -> dict[str, Any]:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {
        "what": what,
        "n": len(ordered),
        "p50": statistics.median(ordered),
        "p95": p95,
        "max": ordered[-1],
        "budget": budget,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
