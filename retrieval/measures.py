"""Recall, MRR and nDCG over ranked answers, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.benchmark import Case

DEPTH = 10
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one system answered to one case: document ids, best first."""

    case: Case
    ranked: tuple[str, ...]


def figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """
    Each measure's mean over these answers, as a share from 0 to 1, and under `NAME_ci95` its 95 % interval.

    An alert without any right runbook counts as wrong, as does one whose runbook is not among the first ten. The
    interval is the bootstrap's over alerts (percentiles of 2,000 resamples, one seed); it has no width at 0 and 1.
    """
    rows = np.array([_measured(answer) for answer in answers]).reshape(len(answers), len(MEASURES))
    result: dict[str, Any] = {"n": len(answers)}
    for name, values in zip(MEASURES, rows.T, strict=True):
        result[name] = float(values.mean()) if values.size else 0.0
        result[f"{name}_ci95"] = bootstrap(values)
    return result


MEASURES = ("recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10")


def bootstrap(values: NDArray[np.float64]) -> list[float]:
    """The 95 % interval of the mean of these values, one per alert; [0, 1] of none."""
    if not values.size:
        return [0.0, 1.0]
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, values.size, (RESAMPLES, values.size))].mean(axis=1)
    return [float(end) for end in np.percentile(means, [2.5, 97.5])]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): it has width at 0 and 1 too."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def _measured(answer: Answer) -> tuple[float, ...]:
    relevance, ranked = answer.case.relevance, answer.ranked[:DEPTH]
    first = next((rank for rank, doc_id in enumerate(ranked, 1) if doc_id in relevance), None)
    best = _gain(sorted(relevance.values(), reverse=True)[:DEPTH])
    return (
        *(float(first is not None and first <= within) for within in (1, 3, DEPTH)),
        1 / first if first else 0.0,
        _gain([relevance.get(doc_id, 0) for doc_id in ranked]) / best if best else 0.0,
    )


def _gain(relevances: Sequence[int]) -> float:
    """Discounted cumulative gain with the relevance itself as gain."""
    return sum(relevance / math.log2(rank + 1) for rank, relevance in enumerate(relevances, 1))
