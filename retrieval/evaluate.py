"""
How often the right runbook comes first: `watchkeeper eval retrieval PATH`.

Every figure is of `RunbookSearch` itself, asked one question after the other with nothing cached but the documents'
vectors. A question whose runbook is not among the first ten counts as wrong, as does one without any right runbook.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.benchmark import Benchmark, Case, Field
from retrieval.candidates import candidates
from retrieval.documents import Hit
from retrieval.embedder import Embedder, MiniLmEmbedder
from retrieval.fusion import Weights
from retrieval.ranking import FLOOR, RunbookSearch
from retrieval.vectors import MemoryVectors, VectorCache

DEPTH = 10
PATIENT_S = 60.0  # an evaluation waits for the model; it never falls back to words in silence


def only(**weights: float) -> Weights:
    """These weights, and nothing else counts."""
    return Weights(**{**dict.fromkeys((field.name for field in fields(Weights)), 0.0), **weights})


ONLY_BODY = only(body=1)
ONLY_WORDS = only(body=0.65, title=0.5)
ONLY_MEANING = only(dense=1)
THREE_SIGNALS = only(body=0.65, title=0.5, dense=0.65)
TEXT_ALONE = Weights(alert=0)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one system answered to one case: document ids, best first, and how long it took."""

    case: Case
    ranked: tuple[str, ...]
    seconds: float


async def evaluate(
    folder: Path, field: Field, embedder: Embedder | None = None, cache: VectorCache | None = None
) -> dict[str, Any]:
    """
    The product's figures on one benchmark, beside simpler systems on the same data; shares from 0 to 1.

    Raises BenchmarkError, WeightsError.
    """
    benchmark = Benchmark.read(folder)
    embedder = embedder or MiniLmEmbedder()
    cache = cache or MemoryVectors()

    async def asked(weights: Weights, *, with_expr: bool = False) -> list[Answer]:
        search = RunbookSearch(embedder, cache, weights=weights, floor=0.0, patience_s=PATIENT_S)
        await search.warm()
        await search.refresh(benchmark.documents)
        return [await _asked(search, case, field, with_expr=with_expr) for case in benchmark.cases]

    product = await asked(Weights())
    baselines = {
        "bm25_body": await asked(ONLY_BODY),
        "bm25_body_title": await asked(ONLY_WORDS),
        "dense_sections": await asked(ONLY_MEANING),
        "bm25_body_title_dense": await asked(THREE_SIGNALS),
        "fused_text_alone": await asked(TEXT_ALONE),
        "product_with_expr": await asked(Weights(), with_expr=True),
    }
    return {
        "field": field,
        "documents": len(benchmark.documents),
        **figures(product),
        **_latencies(product),
        "baselines": {name: figures(answers) for name, answers in baselines.items()},
        "per_source": {
            source: figures([answer for answer in product if answer.case.source == source])
            for source in sorted({case.source for case in benchmark.cases})
        },
        "none_fits": await _none_fits(benchmark, field, embedder, cache),
        "model": embedder.model_id,
    }


async def _asked(search: RunbookSearch, case: Case, field: Field, *, with_expr: bool) -> Answer:
    question = case.question(field, with_expr=with_expr)
    started = time.perf_counter()
    hits = await search.search(question, limit=DEPTH)
    seconds = time.perf_counter() - started
    return Answer(case=case, ranked=tuple(hit.doc_id for hit in hits), seconds=seconds)


async def _none_fits(benchmark: Benchmark, field: Field, embedder: Embedder, cache: VectorCache) -> dict[str, float]:
    """What the floor costs and what it brings: each case once with its runbooks, once without them."""
    search = RunbookSearch(embedder, cache, patience_s=PATIENT_S)
    await search.warm()
    await search.refresh(benchmark.documents)
    right = kept = refused = 0
    for case in benchmark.cases:
        comparison = await search.compare(case.question(field))
        if comparison is None:
            continue
        all_of_them = candidates(comparison, Weights(), floor=0.0)
        if _first_right(all_of_them, case):
            right += 1
            kept += all_of_them[0].score >= FLOOR
        refused += not candidates(comparison, Weights(), floor=FLOOR, without=frozenset(case.relevance))
    return {
        "floor": FLOOR,
        "right_kept": kept / right if right else 0.0,
        "refused_without_its_runbook": refused / len(benchmark.cases),
    }


def _first_right(hits: Sequence[Hit], case: Case) -> bool:
    return bool(hits) and hits[0].doc_id in case.relevance


def figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """Hit rates, MRR and nDCG over these answers, with the 95 % interval of the first."""

    def mean(score: Callable[[Answer], float]) -> float:
        return sum(score(answer) for answer in answers) / len(answers) if answers else 0.0

    first = sum(_found(answer, 1) for answer in answers)
    return {
        "n": len(answers),
        "recall@1": mean(lambda answer: _found(answer, 1)),
        "recall@1_ci95": list(wilson(first, len(answers))),
        "recall@3": mean(lambda answer: _found(answer, 3)),
        "recall@10": mean(lambda answer: _found(answer, DEPTH)),
        "mrr@10": mean(_reciprocal_rank),
        "ndcg@10": mean(_ndcg),
    }


def _found(answer: Answer, within: int) -> int:
    """1 when a right document is among the first ones: what a person sees who reads that far."""
    return int(any(doc_id in answer.case.relevance for doc_id in answer.ranked[:within]))


def _reciprocal_rank(answer: Answer) -> float:
    ranks = [rank for rank, doc_id in enumerate(answer.ranked[:DEPTH], 1) if doc_id in answer.case.relevance]
    return 1 / ranks[0] if ranks else 0.0


def _ndcg(answer: Answer) -> float:
    """Discounted cumulative gain with the relevance itself as gain, as a share of the best possible order's."""
    relevance = answer.case.relevance
    best = _gain(sorted(relevance.values(), reverse=True)[:DEPTH])
    return _gain([relevance.get(doc_id, 0) for doc_id in answer.ranked[:DEPTH]]) / best if best else 0.0


def _gain(relevances: Sequence[int]) -> float:
    return sum(relevance / math.log2(rank + 1) for rank, relevance in enumerate(relevances, 1))


def _latencies(answers: Sequence[Answer]) -> dict[str, float]:
    milliseconds = [answer.seconds * 1000 for answer in answers]
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): right at 0 and 1 too, where the usual one has no width."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def report(result: dict[str, Any]) -> str:
    """The result as a table for a terminal."""
    rows = [("product", result), *result["baselines"].items()]
    rows += [(f"product, {source or 'no source'}", part) for source, part in result["per_source"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"retrieval on {result['field']}: {result['n']} alerts, {result['documents']} runbooks, {result['model']}",
        f"{'':{width}}    n  R@1 [95 % interval]   R@3   R@10  MRR   nDCG",
    ]
    for name, part in rows:
        low, high = part["recall@1_ci95"]
        lines.append(
            f"{name:{width}} {part['n']:4}  {part['recall@1']:.3f} [{low:.3f}, {high:.3f}]  {part['recall@3']:.3f}  "
            f"{part['recall@10']:.3f} {part['mrr@10']:.3f} {part['ndcg@10']:.3f}"
        )
    none = result["none_fits"]
    lines += [
        f"one query: p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms",
        f"none fits (probability under {none['floor']:g}): {none['right_kept']:.1%} of right first answers stay",
        f"with its runbook taken away, an alert gets no answer in {none['refused_without_its_runbook']:.1%} of cases",
    ]
    return "\n".join(lines)
