"""
What would take too long on every change, proved at length: `python -m tests.evidence --seeds 25 --deeds 20000`.

The kill matrix on both databases, approvals in any order of deeds, tampers with the record. What was counted, and on
which machine, stands at the end; exit status 1 tells of any violation. A deed that starts what nobody approved ends it
with the story that leads there.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.approvals_machine import play
from tests.bot.test_proof import unseen_tamper
from tests.kill_matrix import matrix
from tests.kill_points import BOUNDARIES

EXAMPLES, STEPS = 40, 50
FIRST_SEED = 20261122


def kills(seeds: int, kinds: Sequence[str]) -> tuple[list[str], int]:
    sums = [matrix(kind, range(seeds), list(BOUNDARIES)) for kind in kinds]
    return [str(each) for each in sums], sum(each.wrong for each in sums)


def approvals(deeds: int) -> tuple[list[str], int]:
    fired: Counter[str] = Counter()
    starts, seed, began = 0, FIRST_SEED, time.monotonic()
    while fired.total() < deeds:
        house = play(examples=EXAMPLES, steps=STEPS, seed=seed)
        fired += house.fired
        starts += house.starts
        print(f"  seed {seed}: {house.fired.total()} deeds, {house.starts} plans started", flush=True)
        seed += 1
    kinds = ", ".join(f"{count} {name}" for name, count in fired.most_common())
    return [
        f"{fired.total()} deeds ({kinds}) in {time.monotonic() - began:.0f} s, seeds {FIRST_SEED} to {seed - 1}",
        f"{starts} plans started; 0 unauthorised, 0 of another hash, 0 twice",
    ], 0


def tampers(count: int) -> tuple[list[str], int]:
    dice, began = random.Random(FIRST_SEED), time.monotonic()
    unseen = [deed for _ in range(count) if (deed := unseen_tamper(dice))]
    return [f"{count} tampers with the record, {len(unseen)} not found, in {time.monotonic() - began:.0f} s"], len(
        unseen
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="the kill matrix, approvals and tampers, at length")
    parser.add_argument("--seeds", type=int, default=25, help="of the kill matrix, on each database")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--deeds", type=int, default=20_000)
    parser.add_argument("--tampers", type=int, default=10_000)
    asked = parser.parse_args()
    kinds = ("sqlite", "postgresql") if asked.database == "both" else (asked.database,)
    load, began = os.getloadavg()[0], time.monotonic()
    proved = [kills(asked.seeds, kinds), approvals(asked.deeds), tampers(asked.tampers)]
    for lines, _ in proved:
        print(*lines, sep="\n")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load_after, took = os.getloadavg()[0], time.monotonic() - began
    print(f"{machine}; load {load:.1f} before, {load_after:.1f} after; {took:.0f} s")
    return 1 if sum(wrong for _, wrong in proved) else 0


if __name__ == "__main__":
    sys.exit(main())
