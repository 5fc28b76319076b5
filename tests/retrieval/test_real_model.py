"""The packaged model and faiss together: meaning without shared words, offline, in one thread."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval.chunks import chunks_of
from retrieval.documents import Question
from retrieval.embedder import DIMENSIONS, MiniLmEmbedder
from retrieval.heavy_thread import in_heavy_thread
from retrieval.ranking import RunbookSearch
from retrieval.vectors import SqliteVectors
from tests.retrieval.conftest import GPU, QUEUE, RUNBOOKS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model() -> MiniLmEmbedder:
    """One model for all; loading takes seconds."""
    return MiniLmEmbedder()


async def test_vectors_have_length_one(model: MiniLmEmbedder) -> None:
    """Shape and length are what the index relies on; more texts than one batch keep their order."""
    texts = [f"text number {number}" for number in range(40)]

    vectors = await model.embed(texts)

    assert model.ready
    assert vectors.dtype == np.float32
    assert vectors.shape == (40, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = await model.embed([texts[33]])
    assert float(alone[0] @ vectors[33]) > 0.99
    assert int(np.argmax(vectors @ alone[0])) == 33


async def test_nothing_gives_nothing(model: MiniLmEmbedder) -> None:
    """No texts, no rows."""
    assert (await model.embed([])).shape == (0, DIMENSIONS)


async def test_hostile_text_is_embedded(model: MiniLmEmbedder) -> None:
    """Lone surrogates, control characters, nothing at all, and a megabyte."""
    vectors = await model.embed(["\ud800", "\x00\x1b", "", "word " * 200_000])

    assert np.isfinite(vectors).all()


async def test_all_of_it_runs_in_one_thread() -> None:
    """Torch and faiss never run on the event loop's thread, and always on the same one."""
    names = {await in_heavy_thread(lambda: threading.current_thread().name) for _ in range(5)}

    assert names == {"torch-and-faiss_0"}


async def test_meaning_finds_what_words_do_not(model: MiniLmEmbedder) -> None:
    """The graphics card is a GPU and a backlog a queue, with hardly a word in common; asked for order, not for fit."""
    search = RunbookSearch(model, floor=0.0)
    await search.warm()
    await search.refresh(RUNBOOKS)

    card = await search.search(Question(text="graphics card vanished from the host"))
    backlog = await search.search(Question(text="backlog of pending work because of too few servers"))

    assert card[0].doc_id == GPU.doc_id
    assert backlog[0].doc_id == QUEUE.doc_id


async def test_far_topics_fit_nothing(model: MiniLmEmbedder) -> None:
    """A sentence about dinner is near no runbook."""
    search = RunbookSearch(model)
    await search.warm()
    await search.refresh(RUNBOOKS)

    assert await search.search(Question(text="boil the noodles and fry the mushrooms in butter")) == []


async def test_a_second_start_reads_the_cache(model: MiniLmEmbedder, tmp_path: Path) -> None:
    """The vectors of the first start serve the second one and give the same answer."""
    await model.warm()
    first = RunbookSearch(model, SqliteVectors(tmp_path / "vectors.sqlite", b"key"))
    await first.refresh(RUNBOOKS)
    second = RunbookSearch(model, SqliteVectors(tmp_path / "vectors.sqlite", b"key"))
    await second.refresh(RUNBOOKS)
    question = Question(text="requests pile up")

    assert await second.search(question) == await first.search(question)
    texts = {chunk.text for chunk in chunks_of(RUNBOOKS)}
    assert set(SqliteVectors(tmp_path / "vectors.sqlite", b"key").known(model.model_id, list(texts))) == texts


async def test_no_code_comes_with_the_model(model: MiniLmEmbedder) -> None:
    """Transformers puts code that came with a model into this package; there is none."""
    await model.warm()

    assert "transformers_modules" not in sys.modules
