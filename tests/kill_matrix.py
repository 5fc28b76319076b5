"""
The kill matrix: kill -9 at every boundary of intake and of a fix, another process takes over, and nothing is amiss.

`python -m tests.kill_matrix --seeds 25 --database both [--point "mid-run"]`. In each trial one process comes to its
boundary and kills itself there (`tests.kill_points`), a second one goes on, and then the database, the file that the
acts wrote and the far ends' own records are judged: nothing lost, nothing done twice, every step in doubt shown, the
record's chain whole. Then three processes are frozen until others have declared them dead, and thawed: what they write
late is refused. Exit status 1 tells of any violation, also of a boundary that nobody came to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from lab.listening import listening, new_socket, url_of
from lab.slack import Workspace
from lab.slack_delivery import AppLink
from lab.slack_web import slack_app
from tests.chaos import database
from tests.kill_points import BOUNDARIES, FREEZES
from tests.kill_trial import Tally, Trials
from tests.kit import config_in, open_store


@asynccontextmanager
async def _slack() -> AsyncIterator[tuple[Workspace, str]]:
    workspace, at = Workspace(), new_socket()
    link = AppLink(workspace, url="http://127.0.0.1:9/", base_url=url_of(at))
    async with listening(slack_app(workspace, link, base_url=url_of(at)), at):
        yield workspace, f"{url_of(at)}/api/"


async def trial(url: str, folder: Path, seed: int, points: Sequence[str]) -> Tally:
    """One seed on an empty database."""
    async with _slack() as (workspace, slack), open_store(url, config_in(folder)) as store:
        return await Trials(store, url, folder, seed, workspace, slack).play(points)


@contextlib.contextmanager
def _databases(kind: str) -> Iterator[Callable[[int, Path], str]]:
    """Gives an empty one for each seed."""
    if kind == "sqlite":
        yield lambda _, folder: f"sqlite:///{folder}/store.sqlite"
        return
    with database(kind, Path()) as base:
        engine = sa.create_engine(base, isolation_level="AUTOCOMMIT")

        def fresh(seed: int, _: Path) -> str:
            with engine.connect() as connection:
                connection.exec_driver_sql(f'CREATE DATABASE "kill_{seed}"')
            return sa.make_url(base).set(database=f"kill_{seed}").render_as_string(hide_password=False)

        try:
            yield fresh
        finally:
            engine.dispose()


@dataclass(kw_only=True)
class Sum:
    """Of all seeds on one kind of database."""

    kind: str
    seeds: int
    reached: Counter[str] = field(default_factory=Counter)
    in_doubt: int = 0
    late_refused: int = 0
    wrong: int = 0

    def add(self, tally: Tally) -> None:
        self.reached += tally.reached
        self.in_doubt += tally.in_doubt
        self.late_refused += tally.late_refused
        self.wrong += len(tally.violations)

    def __str__(self) -> str:
        frozen = sum(count for point, count in self.reached.items() if point in FREEZES)
        return (
            f"{self.kind}: {self.reached.total() - frozen} kill -9 at {len(self.reached.keys() - FREEZES.keys())} "
            f"boundaries with {self.seeds} seeds; {self.in_doubt} steps in doubt were shown; {frozen} processes frozen "
            f"until declared dead, {self.late_refused} late writes refused; violations: {self.wrong}"
        )


def matrix(kind: str, seeds: Sequence[int], points: Sequence[str]) -> Sum:
    """All seeds on one kind of database; says what is wrong as it goes, and keeps that seed's folder."""
    whole = Sum(kind=kind, seeds=len(seeds))
    with _databases(kind) as fresh:
        for seed in seeds:
            folder, began = Path(tempfile.mkdtemp(prefix=f"watchkeeper-kill-{kind}-")), time.monotonic()
            tally = asyncio.run(trial(fresh(seed, folder), folder, seed, points))
            whole.add(tally)
            took = time.monotonic() - began
            print(f"  {kind}, seed {seed}: {tally.reached.total()} boundaries in {took:.0f} s", flush=True)
            for violation in tally.violations:
                print(f"  VIOLATION: {violation} (see {folder})", flush=True)
            if not tally.violations:
                shutil.rmtree(folder)
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 at every boundary of intake and of a fix")
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--point", choices=sorted(BOUNDARIES), help="this boundary alone")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    kinds = ("sqlite", "postgresql") if given.database == "both" else (given.database,)
    points = [given.point] if given.point else list(BOUNDARIES)
    sums = [matrix(kind, range(given.seeds), points) for kind in kinds]
    print(*sums, sep="\n")
    return 1 if any(each.wrong for each in sums) else 0


if __name__ == "__main__":
    sys.exit(main())
