"""
Where the weights come from: leave one source out, choose on the others, count on the one left out.

`python -m retrieval.tuning FOLDER` prints what a choice by this rule is worth on alerts that had no say in it, beside
the weights in use. Nothing is written: weights are changed by people, in `retrieval/fusion.py`, with a reason.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.benchmark import Benchmark, BenchmarkError, Case, Field
from retrieval.embedder import Embedder, EmbeddingError, MiniLmEmbedder
from retrieval.fusion import Signals, Weights, fused
from retrieval.ranking import RunbookSearch
from retrieval.weights import WeightsError

# dense = 1; only proportions matter. `alert` stays out: where titles are alert names it would be chosen blindly.
GRID = tuple(
    Weights(body=body, title=title, dense=1.0, alert=0.0, expr=0.0)
    for body, title in itertools.product((0.4, 0.6, 0.8, 1.0, 1.25, 1.5), (0.3, 0.5, 0.65, 0.8, 1.0, 1.25))
)
IN_USE = Weights(alert=0.0, expr=0.0)


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """One source: the weights chosen on the others, and on this one their R@1 beside that of the weights in use."""

    source: str
    field: Field
    n: int
    chosen: Weights
    chosen_first: float
    in_use_first: float


async def cross_validate(benchmark: Benchmark, embedder: Embedder) -> list[Heldout]:
    """One row per source and field. Raises WeightsError."""
    search = RunbookSearch(embedder, patience_s=60.0)
    await search.warm()
    await search.refresh(benchmark.documents)
    ids = [document.doc_id for document in benchmark.documents]
    sources = np.array([case.source for case in benchmark.cases])

    grid: dict[Field, NDArray[np.float64]] = {}
    in_use: dict[Field, NDArray[np.float64]] = {}
    for field in get_args(Field):
        signals = [await _signals(search, case, field) for case in benchmark.cases]
        firsts = [_firsts(weights, signals, benchmark.cases, ids) for weights in (*GRID, IN_USE)]
        grid[field], in_use[field] = np.array(firsts[:-1]), firsts[-1]

    rows = []
    for source in sorted(set(sources)):
        here = sources == source
        best = int(np.argmax(sum(grid[field][:, ~here].mean(axis=1) for field in grid)))
        rows += [
            Heldout(
                source=str(source),
                field=field,
                n=int(here.sum()),
                chosen=GRID[best],
                chosen_first=float(grid[field][best][here].mean()),
                in_use_first=float(in_use[field][here].mean()),
            )
            for field in grid
        ]
    return rows


async def _signals(search: RunbookSearch, case: Case, field: Field) -> Signals:
    comparison = await search.compare(case.question(field))
    if comparison is None:
        raise ValueError("the benchmark has no documents")
    return comparison.signals(range(len(comparison.corpus.documents)))


def _firsts(
    weights: Weights, signals: Sequence[Signals], cases: Sequence[Case], ids: Sequence[str]
) -> NDArray[np.float64]:
    """1 for each case whose best document is right."""
    best = [ids[int(np.argmax(fused(known, weights)))] for known in signals]
    return np.array([doc_id in case.relevance for doc_id, case in zip(best, cases, strict=True)], np.float64)


def report(rows: Sequence[Heldout]) -> str:
    """One line per source and field, and the means over all alerts."""
    lines = ["source               field       n   body title | R@1 chosen elsewhere, in use"]
    lines += [
        f"{row.source:20} {row.field:10} {row.n:3}  {row.chosen.body:5.2f} {row.chosen.title:5.2f} | "
        f"{row.chosen_first:.3f}  {row.in_use_first:.3f}"
        for row in rows
    ]
    for field in get_args(Field):
        some = [row for row in rows if row.field == field]
        n = sum(row.n for row in some)
        chosen = sum(row.chosen_first * row.n for row in some) / n
        in_use = sum(row.in_use_first * row.n for row in some) / n
        lines.append(f"{'all':20} {field:10} {n:3}              | {chosen:.3f}  {in_use:.3f}")
    return "\n".join(lines)


def main() -> None:
    """`python -m retrieval.tuning FOLDER`."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m retrieval.tuning FOLDER")
    try:
        rows = asyncio.run(cross_validate(Benchmark.read(Path(sys.argv[1])), MiniLmEmbedder()))
    except (BenchmarkError, WeightsError, EmbeddingError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{report(rows)}\n")


if __name__ == "__main__":
    main()
