"""
How often the right runbook comes first: `watchkeeper eval retrieval`.

The product's figures are of what `RunbookSearch` answers, asked one question after the other with nothing cached but
the documents' vectors; the baselines rank the same documents from the same words and vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.abstention import Abstention, abstention
from retrieval.benchmark import Benchmark, BenchmarkError, Case, Field
from retrieval.candidates import Comparison, candidates
from retrieval.documents import Hit
from retrieval.embedder import Embedder, MiniLmEmbedder
from retrieval.fusion import Weights, fused
from retrieval.measures import DEPTH, Answer, figures
from retrieval.ranking import RunbookSearch
from retrieval.vectors import MemoryVectors, VectorCache

PATIENT_S = 60.0  # an evaluation waits for the model; it never falls back to words in silence
RANKS_OF_FUSION = 60  # the usual constant of reciprocal-rank fusion (Cormack et al. 2009)

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured: the figures, the product's answers in full, and how sure it was of them."""

    figures: Mapping[str, Any]
    hits: Sequence[tuple[Case, Sequence[Hit]]]
    abstention: Abstention

    def run(self) -> str:
        """The product's answers as a TREC run file: query, Q0, document, rank, score, system."""
        return "".join(
            f"{case.query_id} Q0 {hit.doc_id} {rank} {1 / rank:.6f} watchkeeper\n"
            for case, hits in self.hits
            for rank, hit in enumerate(hits, 1)
        )


async def evaluate(
    benchmark: Benchmark, field: Field, embedder: Embedder | None = None, cache: VectorCache | None = None
) -> Evaluation:
    """
    The product on one benchmark, beside simpler systems on the same data; shares from 0 to 1.

    Raises BenchmarkError, WeightsError.
    """
    embedder = embedder or MiniLmEmbedder()
    search = RunbookSearch(embedder, cache or MemoryVectors(), patience_s=PATIENT_S)
    await search.warm()
    await search.refresh(benchmark.documents)

    asked: list[tuple[Case, Comparison]] = []
    hits: list[tuple[Case, Sequence[Hit]]] = []
    seconds = []
    for case in benchmark.cases:
        started = time.perf_counter()
        comparison = await search.compare(case.question(field))
        if comparison is None or comparison.meaning is None:
            raise BenchmarkError(f"{case.query_id}: this question's vector could not be had")
        found = candidates(comparison, Weights(), floor=0.0)[:DEPTH]
        seconds.append(time.perf_counter() - started)
        asked.append((case, comparison))
        hits.append((case, found))
    answers = [Answer(case=case, ranked=tuple(hit.doc_id for hit in some)) for case, some in hits]
    sureness = abstention(asked)
    return Evaluation(
        figures={
            "field": field,
            "documents": len(benchmark.documents),
            **figures(answers),
            **_latencies(seconds),
            "baselines": {name: figures(_ranked(asked, rank)) for name, rank in BASELINES.items()},
            "per_source": {
                source: figures([answer for answer in answers if answer.case.source == source])
                for source in sorted({case.source for case in benchmark.cases})
            },
            "none_fits": sureness.figures(),
            "model": embedder.model_id,
        },
        hits=hits,
        abstention=sureness,
    )


def _ranked(asked: Sequence[tuple[Case, Comparison]], rank: Callable[[Case, Comparison], Scores]) -> list[Answer]:
    answers = []
    for case, comparison in asked:
        order = np.argsort(-rank(case, comparison), kind="stable")[:DEPTH]
        answers.append(Answer(case=case, ranked=tuple(comparison.corpus.documents[at].doc_id for at in order)))
    return answers


def only(**weights: float) -> Weights:
    """These weights, and nothing else counts."""
    return Weights(**{**dict.fromkeys((field.name for field in fields(Weights)), 0.0), **weights})


def _by(weights: Weights) -> Callable[[Case, Comparison], Scores]:
    def rank(_case: Case, comparison: Comparison) -> Scores:
        return fused(comparison.signals(range(len(comparison.corpus.documents))), weights)

    return rank


def _reciprocal_ranks(case: Case, comparison: Comparison) -> Scores:
    """BM25 over body and title, and sections by meaning, each by its ranks alone."""
    total = np.zeros(len(comparison.corpus.documents))
    for weights in (only(body=0.65, title=0.5), only(dense=1)):
        order = np.argsort(-_by(weights)(case, comparison), kind="stable")
        total[order] += 1 / (RANKS_OF_FUSION + np.arange(1, len(order) + 1))
    return total


def _service_and_keywords(case: Case, comparison: Comparison) -> Scores:
    """What a script would do: the runbooks that name the service first, then by how many words are shared."""
    keywords = comparison.corpus.keywords
    shared = keywords.shared_counts(comparison.asked.stems)
    names = [service.lower() for service in case.services]
    served = [any(name in document.doc_id.lower() for name in names) for document in comparison.corpus.documents]
    return np.asarray(shared + np.array(served) * (1 + shared.max(initial=0)), np.float64)


def _with_expr(case: Case, comparison: Comparison) -> Scores:
    return _by(Weights())(case, comparison.asking(expr=case.expr))


BASELINES: Mapping[str, Callable[[Case, Comparison], Scores]] = {
    "service_keywords": _service_and_keywords,
    "bm25_body": _by(only(body=1)),
    "bm25_body_title": _by(only(body=0.65, title=0.5)),
    "dense_sections": _by(only(dense=1)),
    "reciprocal_rank_fusion": _reciprocal_ranks,
    "bm25_body_title_dense": _by(only(body=0.65, title=0.5, dense=0.65)),
    "product_text_alone": _by(Weights(alert=0)),
    "product_with_expr": _with_expr,
}


def _latencies(seconds: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile([each * 1000 for each in seconds], [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def report(result: Mapping[str, Any]) -> str:
    """The figures as a table for a terminal."""
    rows = [("product", result), *result["baselines"].items()]
    rows += [(f"product, {source or 'no source'}", part) for source, part in result["per_source"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"retrieval on {result['field']}: {result['n']} alerts, {result['documents']} runbooks, {result['model']}",
        f"{'':{width}}    n  R@1 [95 % interval]   R@3   R@10  MRR [95 % interval]   nDCG",
    ]
    for name, part in rows:
        (low, high), (mrr_low, mrr_high) = part["recall@1_ci95"], part["mrr@10_ci95"]
        lines.append(
            f"{name:{width}} {part['n']:4}  {part['recall@1']:.3f} [{low:.3f}, {high:.3f}]  {part['recall@3']:.3f}  "
            f"{part['recall@10']:.3f} {part['mrr@10']:.3f} [{mrr_low:.3f}, {mrr_high:.3f}]  {part['ndcg@10']:.3f}"
        )
    none = result["none_fits"]
    lines += [
        f"one query: p50 {result['p50_ms']:.1f} ms, p99 {result['p99_ms']:.1f} ms",
        f"none fits (probability under {none['floor']:g}): {none['right_kept']:.1%} of right first answers stay",
        f"with its runbook taken away, an alert gets no answer in {none['refused_without_its_runbook']:.1%} of cases",
        f"telling the two apart: AUROC {none['auroc']:.3f}, by BM25's score alone {none['auroc_raw_score']:.3f}",
    ]
    return "\n".join(lines)
