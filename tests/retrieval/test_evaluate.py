"""The figures of an evaluation are right, complete, and refuse broken input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.abstention import Abstention, draw
from retrieval.benchmark import Benchmark, BenchmarkError, Case
from retrieval.evaluate import evaluate, report
from retrieval.measures import Answer, bootstrap, figures, wilson
from retrieval.tuning import cross_validate
from retrieval.tuning import report as tuning_report
from tests.retrieval.hashing_embedder import HashingEmbedder

CORPUS = [
    {"doc_id": "a/NodeDown", "title": "NodeDown", "source": "a", "text": "# NodeDown\n\nA node has left the cluster."},
    {"doc_id": "a/DiskFull", "title": "DiskFull", "source": "a", "text": "# DiskFull\n\nNo space left on the volume."},
    {"doc_id": "b/CacheCold", "title": "CacheCold", "source": "b", "text": "# CacheCold\n\nThe prefix cache is empty."},
]
QUERIES = [
    ("q1", "a", "NodeDown", "A node left the cluster."),
    ("q2", "a", "DiskFull", "The volume has no space."),
    ("q3", "b", "CacheCold", "Prefix cache empty."),
    ("q4", "b", "Unanswered", "Prefix cache empty too."),
]
QRELS = [("q1", "a/NodeDown", 2), ("q2", "a/DiskFull", 2), ("q3", "b/CacheCold", 2), ("q4", "a/NodeDown", 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three runbooks and four alerts, one of which no runbook answers."""
    queries = [
        {
            "query_id": query_id,
            "source": source,
            "alertname": alert,
            "expr": "up == 0",
            "text_full": f"{alert}\n{text}",
            "text_blind": text,
        }
        for query_id, source, alert, text in QUERIES
    ]
    qrels = [{"query_id": query_id, "doc_id": doc_id, "rel": rel} for query_id, doc_id, rel in QRELS]
    write(tmp_path, corpus=CORPUS, queries=queries, qrels=qrels)
    return tmp_path


def write(folder: Path, **files: list[dict[str, Any]]) -> None:
    """JSON lines, as the benchmark has them."""
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def read(folder: Path) -> Benchmark:
    """The benchmark in this folder."""
    files = {name: folder / f"{name}.jsonl" for name in ("corpus", "queries", "qrels")}
    return Benchmark.read(**files)


async def test_the_figures_of_a_small_benchmark(folder: Path) -> None:
    """Three of four are found; the alert without a right runbook counts as wrong."""
    result = (await evaluate(read(folder), "text_blind", HashingEmbedder())).figures

    assert {key: result[key] for key in ("n", "field", "recall@1", "recall@3", "recall@10", "mrr@10", "ndcg@10")} == {
        "n": 4,
        "field": "text_blind",
        "recall@1": 0.75,
        "recall@3": 0.75,
        "recall@10": 0.75,
        "mrr@10": 0.75,
        "ndcg@10": 0.75,
    }
    assert {source: part["n"] for source, part in result["per_source"].items()} == {"a": 2, "b": 2}
    assert result["per_source"]["a"]["recall@1"] == 1.0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert all(part["n"] == 4 for part in result["baselines"].values())
    assert json.loads(json.dumps(result)) == result


async def test_the_report_is_readable(folder: Path) -> None:
    """Each system has a row with n and the interval of its first figure."""
    text = report((await evaluate(read(folder), "text_full", HashingEmbedder())).figures)

    assert "4 alerts, 3 runbooks" in text
    assert "product" in text
    assert "0.750 [0.250, 1.000]" in text


async def test_weights_are_learned_without_the_group_they_are_judged_on(folder: Path) -> None:
    """One row per group and field, all alerts counted once."""
    rows, weights, curve, by_words = await cross_validate(read(folder), HashingEmbedder())

    assert {(row.group, row.field): row.n for row in rows} == {
        ("a", "text_full"): 2,
        ("a", "text_blind"): 2,
        ("b", "text_full"): 2,
        ("b", "text_blind"): 2,
    }
    assert np.isfinite(weights).all()
    assert np.isfinite([*curve, *by_words]).all()
    assert all(0 <= share <= 1 for row in rows for share in (row.kept, row.refused))
    assert f"body {weights[0]:.2f}" in tuning_report(rows, weights, curve, by_words)


def answer(relevance: dict[str, int], *ranked: str) -> Answer:
    """One system's answer to one case."""
    texts: Any = {"text_full": "", "text_blind": ""}
    case = Case(query_id="q", source="s", alert="", expr="", texts=texts, relevance=relevance)
    return Answer(case=case, ranked=ranked)


def test_ranks_and_gains() -> None:
    """By hand: ranks 2 and 1; a lesser runbook above the best one costs gain: (1 + 2/log2 3) / (2 + 1/log2 3)."""
    part = figures([answer({"x": 2}, "y", "x"), answer({"x": 2, "z": 1}, "z", "x")])

    assert (part["recall@1"], part["recall@3"], part["mrr@10"]) == (0.5, 1.0, 0.75)
    assert part["ndcg@10"] == pytest.approx((0.63093 + 0.85972) / 2, abs=1e-4)


def test_the_eleventh_place_does_not_count() -> None:
    """Nobody reads that far."""
    part = figures([answer({"x": 2}, *"abcdefghij", "x")])

    assert (part["recall@10"], part["mrr@10"], part["ndcg@10"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (326, 378, 0.824, 0.894)]
)
def test_the_interval_is_wilsons(successes: int, n: int, low: float, high: float) -> None:
    """Published values; it has width at 0 and 1 too."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("corpus.jsonl", "{", "corpus.jsonl, line 4"),
        ("corpus.jsonl", '{"doc_id": "x"}', "corpus.jsonl, line 4: text: Field required"),
        ("queries.jsonl", "[]", "queries.jsonl, line 5"),
        ("qrels.jsonl", '{"query_id": "q1", "doc_id": "a", "rel": "good"}', "qrels.jsonl, line 5: rel"),
    ],
)
def test_a_broken_line_is_named(folder: Path, file: str, line: str, complaint: str) -> None:
    """Other people's benchmarks are typed by hand."""
    with (folder / file).open("a") as lines:
        lines.write(f"{line}\n")

    with pytest.raises(BenchmarkError, match=complaint):
        read(folder)


def test_a_missing_or_empty_benchmark_is_named(folder: Path) -> None:
    """No folder, and files without lines, are two clear errors."""
    with pytest.raises(BenchmarkError, match=r"cannot read .*corpus\.jsonl"):
        read(folder / "nowhere")
    write(folder, queries=[])

    with pytest.raises(BenchmarkError, match="3 documents and 0 queries"):
        read(folder)


async def test_the_answers_are_written_as_a_trec_run(folder: Path) -> None:
    """Six columns a line, so that other tools can judge them."""
    run = (await evaluate(read(folder), "text_full", HashingEmbedder())).run()

    first = next(line.split() for line in run.splitlines() if line.startswith("q1 "))
    assert first == ["q1", "Q0", "a/NodeDown", "1", "1.000000", "watchkeeper"]


def test_the_bootstrap_covers_the_mean() -> None:
    """Without alerts nothing is known; where all agree there is no width."""
    low, high = bootstrap(np.array([1.0, 0.0] * 50))

    assert low < 0.5 < high
    assert high - low == pytest.approx(4 * 0.05, abs=0.02)  # +-1.96 standard errors of a half at n = 100
    assert bootstrap(np.array([])) == [0.0, 1.0]
    assert bootstrap(np.ones(5)) == [1.0, 1.0]


def test_abstention_is_judged_at_every_floor(tmp_path: Path) -> None:
    """With no floor all wrong ones are suggested, with the highest all right ones missed; the picture is one."""
    found = Abstention(
        right=np.array([0.9, 0.6]),
        cannot=np.array([0.7, 0.01]),
        raw_right=np.array([2.0, 1.0]),
        raw_cannot=np.array([2.0, 1.0]),
    )
    missed, suggested = found.curve(found.right, found.cannot)

    assert (missed[0], suggested[0]) == (0, 1)
    assert (missed[-1], suggested[-1]) == (1, 0)
    assert found.auroc == 0.75
    assert found.raw_auroc == 0.5
    assert found.figures()["refused_without_its_runbook"] == 0.5
    draw(found, tmp_path / "curve.png", "two alerts")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
