"""
Approvals in any order of deeds, at length: `python -m tests.evidence_approvals --deeds 20000`.

Prints how many deeds were done and how many plans they started. A start that nobody approved, of another hash or a
second one ends it with the story that leads there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.approvals_machine import play

EXAMPLES, STEPS = 40, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deeds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=20261122)
    asked = parser.parse_args()
    fired: Counter[str] = Counter()
    starts, seed, began = 0, asked.seed, time.monotonic()
    while fired.total() < asked.deeds:
        house = play(examples=EXAMPLES, steps=STEPS, seed=seed)
        fired += house.fired
        starts += house.starts
        sys.stdout.write(f"seed {seed}: {house.fired.total()} deeds, {house.starts} plans started\n")
        sys.stdout.flush()
        seed += 1
    kinds = ", ".join(f"{count} {name}" for name, count in fired.most_common())
    sys.stdout.write(
        f"{fired.total()} deeds ({kinds}) in {time.monotonic() - began:.0f} s, seeds {asked.seed} to {seed - 1}\n"
    )
    sys.stdout.write(f"{starts} plans started; 0 unauthorised, 0 of another hash, 0 twice\n")


if __name__ == "__main__":
    main()
