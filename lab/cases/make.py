"""Write many cases: every scenario of the catalogue in turn, with healthy runs between them, by one seed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lab.cases.files import write
from lab.cases.life import Recipe, live
from lab.scenarios.faults import FAULTS

MANIFEST = "cases.json"


class CasesError(Exception):
    """The cases cannot be made as asked; the text says why."""


@dataclass(frozen=True, kw_only=True)
class CasesOptions:
    """
    `count` cases; `healthy` is the share of runs without any fault. `scenario` makes all of them of one kind.

    `strength` fixes what is drawn between 0.6 and 1.6 otherwise; `pairs` puts two faults into every case.
    """

    folder: Path
    seed: int
    count: int
    healthy: float = 0.2
    scenario: str | None = None
    strength: float | None = None
    pairs: bool = False
    jobs: int = 0


def make_cases(options: CasesOptions, command: str) -> Iterator[dict[str, Any]]:
    """Write the cases and, at last, their manifest; yields what is known of each as it is done. Raises CasesError."""
    if options.scenario is not None and options.scenario not in FAULTS:
        raise CasesError(f"there is no scenario {options.scenario!r}; there is {', '.join(sorted(FAULTS))}")
    if options.folder.exists() and any(options.folder.iterdir()):
        raise CasesError(f"{options.folder} is not empty")
    options.folder.mkdir(parents=True, exist_ok=True)
    folders = [options.folder / f"case-{place:05d}" for place in range(options.count)]
    made = []
    with ProcessPoolExecutor(options.jobs or os.cpu_count()) as workers:
        for one in workers.map(_make, recipes(options), folders):
            made.append(one)
            yield one
    manifest = {"seed": options.seed, "count": options.count, "command": command, "cases": made}
    (options.folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def recipes(options: CasesOptions) -> list[Recipe]:
    """What each case is about: any first part of the list has about the same mixture as the whole."""
    rng = np.random.default_rng([options.seed, 48])
    themes = _themes(options, rng)
    is_healthy = _spread(options.count, 0.0 if options.scenario or options.pairs else options.healthy)
    found = []
    for place in range(options.count):
        faults = () if is_healthy[place] else next(themes)
        found.append(Recipe(seed=(options.seed, place), faults=faults, strength=options.strength))
    return found


def _themes(options: CasesOptions, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """Rounds over all themes, each round in another order."""
    themes: Sequence[tuple[str, ...]] = [(name,) for name in sorted(FAULTS)]
    if options.scenario is not None:
        themes = [(options.scenario,)]
    elif options.pairs:
        harmful = sorted(name for name, fault in FAULTS.items() if not fault.is_control)
        themes = [pair for pair in combinations(harmful, 2) if pair[0][0] != pair[1][0]]
    while True:
        for place in rng.permutation(len(themes)):
            yield themes[place]


def _spread(count: int, share: float) -> list[bool]:
    """`share` of `count` places, as evenly apart as can be."""
    return [int((place + 1) * share) > int(place * share) for place in range(count)]


def _make(recipe: Recipe, folder: Path) -> dict[str, Any]:
    return write(live(recipe), folder)
