"""
Where the numbers of `retrieval/fusion.py` come from: learned on some sources, counted on the others.

`python -m retrieval.tuning CORPUS QUERIES QRELS` prints what learning by this rule is worth on alerts that had no say
in it, beside the numbers in use, and the numbers learned on all. Nothing is written: people change them, with a reason.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from retrieval.benchmark import Benchmark, BenchmarkError, Case, Field
from retrieval.candidates import Comparison, leads
from retrieval.embedder import Embedder, EmbeddingError, MiniLmEmbedder
from retrieval.fusion import BY_WORDS_AND_MEANING, TEXT, Weights, fused, stretched
from retrieval.ranking import FLOOR, RunbookSearch
from retrieval.vectors import VectorCache
from retrieval.weights import WeightsError

Array = NDArray[np.float64]

START = Weights(body=0.65, title=0.5, name=0, trouble=0, percentage=0, dense=0.65, breadth=0)
"""What learning starts from and is held to: the weights before the newer signals."""

SHARPNESS = 8.0  # of the softmax: a lead of 0.25 is e^2
HOLD = 0.1  # of the ridge that holds what is learned to START
IMPORTANCE: dict[Field, float] = {"text_full": 0.3, "text_blind": 1.0}


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """
    One group of sources and one field: recall@1 with weights learned on the others and with those in use, and the
    AUROC of the probability, learned on the others and in use, at telling a right first answer from the first answer
    when every right runbook is taken away. At the floor, with the probability learned on the others: the share of
    right first answers that are `kept`, and of first answers `refused` when every right runbook is taken away.
    """

    group: str
    field: Field
    n: int
    learned_first: float
    in_use_first: float
    learned_auroc: float
    in_use_auroc: float
    kept: float
    refused: float


class _Data:
    """The signals of every case: per field an array (cases, documents, signals), and which documents are right."""

    def __init__(self, cases: Sequence[Case], ids: Sequence[str], comparisons: dict[Field, list[Comparison]]) -> None:
        everything = range(len(ids))
        self.right = np.array([[id_ in case.relevance for id_ in ids] for case in cases])
        self.signals: dict[Field, Array] = {}
        for field, compared in comparisons.items():
            rows = [[stretched(getattr(each.signals(everything), name)) for name in TEXT] for each in compared]
            self.signals[field] = np.array(rows).transpose(0, 2, 1)

    def firsts(self, field: Field, some: NDArray[np.bool_], weights: Array) -> float:
        """The share of these cases whose best document is right."""
        best = (self.signals[field][some] @ weights).argmax(axis=1)
        return float(self.right[some][np.arange(len(best)), best].mean())


async def cross_validate(
    benchmark: Benchmark, embedder: Embedder, cache: VectorCache | None = None
) -> tuple[list[Heldout], Array, Array, Array]:
    """
    One row per group and field; then, learned on all, the weights and the curves with and without meaning. Groups share
    no runbook.

    Raises WeightsError.
    """
    search = RunbookSearch(embedder, cache, patience_s=60.0)
    await search.warm()
    await search.refresh(benchmark.documents)
    comparisons = {
        field: [await _compared(search, case, field) for case in benchmark.cases] for field in get_args(Field)
    }
    data = _Data(benchmark.cases, [document.doc_id for document in benchmark.documents], comparisons)
    groups = _groups(benchmark)
    in_use = _numbers(Weights())
    evidence = {field: _evidence(data, compared) for field, compared in comparisons.items()}
    by_words = {
        field: _evidence(data, [replace(each, meaning=None) for each in compared])
        for field, compared in comparisons.items()
    }

    rows = []
    for group in sorted(set(groups)):
        here = groups == group
        weights = _learned_weights(data, ~here) if not here.all() else in_use
        curve = _learned_curve(evidence, ~here) if not here.all() else np.array(BY_WORDS_AND_MEANING)
        rows += [
            Heldout(
                group=group,
                field=field,
                n=int(here.sum()),
                learned_first=data.firsts(field, here, weights),
                in_use_first=data.firsts(field, here, in_use),
                learned_auroc=_auroc(evidence[field], here, curve),
                in_use_auroc=_auroc(evidence[field], here, np.array(BY_WORDS_AND_MEANING)),
                kept=1 - _below_floor(evidence[field], here, curve, without=False),
                refused=_below_floor(evidence[field], here, curve, without=True),
            )
            for field in comparisons
        ]
    everywhere = np.ones(len(groups), bool)
    curve, words_curve = (_learned_curve(each, everywhere) for each in (evidence, by_words))
    return rows, _learned_weights(data, everywhere), curve, words_curve


async def _compared(search: RunbookSearch, case: Case, field: Field) -> Comparison:
    comparison = await search.compare(case.question(field))
    if comparison is None or comparison.meaning is None:
        raise ValueError("the benchmark has no documents, or no vectors could be had")
    return comparison


def _groups(benchmark: Benchmark) -> NDArray[np.str_]:
    """Sources that answer each other's alerts belong together: a runbook must not be on both sides."""
    group = {case.source: case.source for case in benchmark.cases}
    answered: dict[str, str] = {}
    for case in benchmark.cases:
        for doc_id in case.relevance:
            other = answered.setdefault(doc_id, case.source)
            one, two = group[other], group[case.source]
            group = {source: one if name == two else name for source, name in group.items()}
    return np.array([group[case.source] for case in benchmark.cases])


def _learned_weights(data: _Data, some: NDArray[np.bool_]) -> Array:
    """Listwise: the softmax over all documents should lie on the right ones; held to START by a ridge."""
    import torch  # noqa: PLC0415  heavy

    start = torch.tensor(_numbers(START) * SHARPNESS, dtype=torch.float32)
    usable = some & data.right.any(axis=1)
    right = torch.tensor(data.right[usable])
    signals = {field: torch.tensor(rows[usable], dtype=torch.float32) for field, rows in data.signals.items()}

    def loss(weights: Any) -> Any:
        total = HOLD / int(usable.sum()) * ((weights - start) ** 2).sum()
        for field, rows in signals.items():
            chances = torch.log_softmax(rows @ weights, dim=1).masked_fill(~right, -1e9)
            total = total - IMPORTANCE[field] * torch.logsumexp(chances, dim=1).mean()
        return total

    return _minimised(loss, start) / SHARPNESS


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """First answers, with all documents and without the right ones: their evidence (cases, 4), and which are right."""

    facts: Array
    is_right: NDArray[np.bool_]
    case: NDArray[np.intp]
    is_without: NDArray[np.bool_]


def _evidence(data: _Data, comparisons: Sequence[Comparison]) -> _Judged:
    facts, is_right, case, is_without = [], [], [], []
    weights = Weights(alert=0)
    for at, comparison in enumerate(comparisons):
        for without in (False, True):
            eligible = np.flatnonzero(~data.right[at]) if without else np.arange(data.right.shape[1])
            scores = fused(comparison.signals(eligible.tolist()), weights)
            order = np.argsort(-scores, kind="stable")
            first = int(eligible[order[0]])
            found = comparison.evidence(first, leads(scores[order])[0])
            facts.append((1.0, found.coverage, found.name, found.lead))
            is_right.append(bool(data.right[at, first]))
            case.append(at)
            is_without.append(without)
    return _Judged(
        facts=np.array(facts), is_right=np.array(is_right), case=np.array(case), is_without=np.array(is_without)
    )


def _learned_curve(evidence: dict[Field, _Judged], some: NDArray[np.bool_]) -> Array:
    import torch  # noqa: PLC0415  heavy

    facts = torch.tensor(np.concatenate([each.facts[some[each.case]] for each in evidence.values()]))
    right = torch.tensor(np.concatenate([each.is_right[some[each.case]] for each in evidence.values()])).double()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def loss(curve: Any) -> Any:
        return entropy(facts @ curve, right) + 1e-4 * (curve**2).sum()

    return _minimised(loss, torch.zeros(4, dtype=torch.float64))


def _minimised(loss: Callable[[Any], Any], start: Any) -> Array:
    import torch  # noqa: PLC0415  heavy

    found = start.clone().requires_grad_(True)
    optimizer: Any = torch.optim.LBFGS([found], max_iter=300, line_search_fn="strong_wolfe")

    def again() -> Any:
        optimizer.zero_grad()
        value = loss(found)
        value.backward()
        return value

    optimizer.step(again)
    return np.asarray(found.detach().numpy(), np.float64)


def _auroc(judged: _Judged, some: NDArray[np.bool_], curve: Array) -> float:
    """How often a right first answer is the likelier of a pair with one that cannot be right."""
    here = some[judged.case]
    chances = judged.facts @ curve
    right = chances[here & judged.is_right & ~judged.is_without]
    cannot = chances[here & judged.is_without]
    return float(((right[:, None] > cannot).mean() + (right[:, None] >= cannot).mean()) / 2)


def _below_floor(judged: _Judged, some: NDArray[np.bool_], curve: Array, *, without: bool) -> float:
    """Of right first answers, or of those given without the right runbooks, the share that is not shown."""
    these = some[judged.case] & (judged.is_without if without else judged.is_right & ~judged.is_without)
    return float((1 / (1 + np.exp(-(judged.facts[these] @ curve))) < FLOOR).mean())


def _numbers(weights: Weights) -> Array:
    return np.array([getattr(weights, name) for name in TEXT])


def report(rows: Sequence[Heldout], weights: Array, curve: Array, by_words: Array) -> str:
    """One line per group and field, the means over all alerts, and what was learned on all."""
    lines = ["held out             field        n | R@1 learned, in use | AUROC learned, in use | kept, refused"]
    lines += [
        f"{row.group:20} {row.field:10} {row.n:3} |       {row.learned_first:.3f}   {row.in_use_first:.3f} |"
        f"         {row.learned_auroc:.3f}   {row.in_use_auroc:.3f} | {row.kept:.3f}  {row.refused:.3f}"
        for row in rows
    ]
    for field in get_args(Field):
        some = [row for row in rows if row.field == field]
        n = sum(row.n for row in some)
        learned, in_use, kept, refused = (
            sum(getattr(row, of) * row.n for row in some) / n
            for of in ("learned_first", "in_use_first", "kept", "refused")
        )
        lines.append(f"{'all':20} {field:10} {n:3} |       {learned:.3f}   {in_use:.3f} |{kept:31.3f}  {refused:.3f}")
    named = ", ".join(f"{name} {value:.2f}" for name, value in zip(TEXT, weights, strict=True))
    lines.append(f"learned on all: {named}")
    for name, numbers in (("words and meaning", curve), ("words alone", by_words)):
        lines.append(f"curve of {name}: {', '.join(f'{value:.2f}' for value in numbers)}")
    return "\n".join(lines)


def main() -> None:
    """`python -m retrieval.tuning CORPUS QUERIES QRELS`."""
    if len(sys.argv) != 4:
        sys.exit("usage: python -m retrieval.tuning corpus.jsonl queries.jsonl qrels.jsonl")
    corpus, queries, qrels = map(Path, sys.argv[1:])
    try:
        found = asyncio.run(
            cross_validate(Benchmark.read(corpus=corpus, queries=queries, qrels=qrels), MiniLmEmbedder())
        )
    except (BenchmarkError, WeightsError, EmbeddingError) as error:
        sys.exit(str(error))
    sys.stdout.write(f"{report(*found)}\n")


if __name__ == "__main__":
    main()
