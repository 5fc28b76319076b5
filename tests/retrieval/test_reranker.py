"""A cross-encoder changes places where nothing else was said, and nothing at all when it cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from retrieval.documents import Hit, Question
from retrieval.ranking import FLOOR, RunbookSearch
from retrieval.reranker import MOVED, RerankedSearch, Reranker, reordered, reranker_for
from retrieval.weights import WeightsError
from tests.retrieval.conftest import PREFIX_CACHE, RUNBOOKS
from tests.retrieval.hashing_embedder import HashingEmbedder
from tests.retrieval.tiny_models import cross_encoder

CAUSE = "diagnosis says S04 (0.91), which this runbook treats"
ASKED = Question(text="first token slow, requests wait and the GPU is missing from the prefix cache")


def hit(doc_id: str, score: float, *reasons: str) -> Hit:
    return Hit(doc_id=doc_id, title=doc_id, heading="", score=score, reasons=reasons)


def test_what_was_declared_is_never_outvoted() -> None:
    """It sorts among the last two, for which nobody said anything; the first stays, whatever its score."""
    hits = [hit("caused", 0.9, CAUSE), hit("words", 0.5, "words: cache"), hit("meant", 0.4, "similar in meaning")]

    shown = reordered(hits, [-9.0, 0.1, 0.7])

    assert [each.doc_id for each in shown] == ["caused", "meant", "words"]
    assert [each.score for each in shown] == [0.9, 0.4, 0.4]
    assert [MOVED in each.reasons for each in shown] == [False, True, True]
    assert reordered(hits, [0.0, 0.0, 0.0]) == hits


def test_there_is_none_unless_somebody_names_one() -> None:
    """Off by default."""
    assert reranker_for(None) is None


@pytest.mark.integration
async def test_a_real_cross_encoder_orders_by_its_scores(tmp_path: Path) -> None:
    """The pairs go through transformers; the order is the model's, and two runs give the same."""
    reranker = Reranker(str(tmp_path), cross_encoder(tmp_path))
    plain, search = RunbookSearch(HashingEmbedder(), floor=0.0), _search(reranker, floor=0.0)
    await search.warm()
    for each in (plain, search):
        await each.refresh(RUNBOOKS)
    before, after = await plain.search(ASKED, limit=4), await search.search(ASKED, limit=4)

    texts = [f"{each.title}. {each.heading}. {_text(each)}" for each in before]
    scores = await reranker.scores(f"\n{ASKED.text}", texts)
    assert len(set(scores)) == len(before) == 4
    assert [each.doc_id for each in after] == [
        each.doc_id for _, each in sorted(zip(scores, before, strict=True), key=lambda pair: -pair[0])
    ]
    linked = replace(ASKED, runbook_url=PREFIX_CACHE.url)
    assert (await search.search(linked))[0].doc_id == PREFIX_CACHE.doc_id


@pytest.mark.integration
async def test_what_cannot_be_used_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """Another hash, a pickle, code of its own, two scores, nothing there: an error says which, and search goes on."""
    good, two = tmp_path / "good", tmp_path / "two"
    sha256 = cross_encoder(good)
    cross_encoder(two, labels=2)
    refused = {
        Reranker(str(good), "0" * 64): "refusing to load",
        Reranker(str(two)): "must give one",
        Reranker("nobody/nothing"): "the re-ranker nobody/nothing is no folder here",
    }
    for reranker, why in refused.items():
        with pytest.raises(WeightsError, match=why):
            await reranker.warm()
    config = good / "config.json"
    was = config.read_text(encoding="utf-8")
    config.write_text(json.dumps({**json.loads(was), "auto_map": {"AutoModel": "evil.Model"}}), encoding="utf-8")
    with pytest.raises(WeightsError, match="wants code that comes with the model"):
        await Reranker(str(good), sha256).warm()
    config.write_text(was, encoding="utf-8")
    (good / "pytorch_model.bin").write_bytes(b"cos")
    broken = _search(Reranker(str(good), sha256))

    with capture_logs() as logs:
        await broken.warm()
    await broken.refresh(RUNBOOKS)

    assert ["a pickle can run code" in str(each.get("why")) for each in logs if "re-ranker" in each["event"]] == [True]
    plain = RunbookSearch(HashingEmbedder())
    await plain.refresh(RUNBOOKS)
    assert await broken.search(ASKED) == await plain.search(ASKED)


@pytest.mark.integration
async def test_a_slow_one_is_not_waited_for(tmp_path: Path) -> None:
    """People read the card now."""
    reranker = Reranker(str(tmp_path), cross_encoder(tmp_path))
    search = _search(reranker, rerank_patience_s=0.0, floor=0.0)
    await search.warm()
    await search.refresh(RUNBOOKS)

    with capture_logs() as logs:
        found = await search.search(ASKED)

    assert [MOVED in each.reasons for each in found] == [False] * len(found)
    assert "runbooks keep their order: the re-ranker is too slow" in [each["event"] for each in logs]


def _search(reranker: Reranker, *, floor: float = FLOOR, rerank_patience_s: float = 60.0) -> RerankedSearch:
    return RerankedSearch(HashingEmbedder(), floor=floor, reranker=reranker, rerank_patience_s=rerank_patience_s)


def _text(hit: Hit) -> str:
    [section] = next(each.sections for each in RUNBOOKS if each.doc_id == hit.doc_id)
    return section.text
