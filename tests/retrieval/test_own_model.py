"""A model of your own, really loaded: other dimensions than the packaged one's, and never a vector of two models."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from retrieval.documents import Question
from retrieval.embedder import DIMENSIONS, OwnEmbedder
from retrieval.ranking import RunbookSearch
from retrieval.vectors import SqliteVectors
from retrieval.weights import WeightsError
from tests.retrieval.conftest import RUNBOOKS
from tests.retrieval.hashing_embedder import HashingEmbedder
from tests.retrieval.tiny_models import HIDDEN, sentence_model

pytestmark = pytest.mark.integration


async def test_changing_the_model_never_mixes_vectors(tmp_path: Path) -> None:
    """One cache file, three models: each embeds for itself, and an index has the vectors of one."""
    file, folder = tmp_path / "vectors.sqlite", tmp_path / "own"
    sha256 = sentence_model(folder)
    packaged, question = HashingEmbedder(), Question(text="prefix cache hit ratio fell")
    await _searched(packaged, file)

    own = OwnEmbedder(str(folder), sha256)
    first = await _searched(own, file)
    again = await _searched(OwnEmbedder(str(folder)), file)
    (folder / "README.md").write_text("another state of it", encoding="utf-8")
    other = OwnEmbedder(str(folder))
    await _searched(other, file)

    vectors = await own.embed(["prefix cache"])
    assert vectors.shape == (1, HIDDEN)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    found = await first.search(question)
    assert found[0].reasons[-1].startswith("similar in meaning")
    assert await again.search(question) == found
    with closing(sqlite3.connect(file)) as connection:
        sizes = dict(connection.execute("SELECT model, max(length(floats)) - 32 FROM vector GROUP BY model"))
        assert len({*connection.execute("SELECT model, count(*) FROM vector GROUP BY model")}) == 3
    assert sizes == {packaged.model_id: 4 * DIMENSIONS, own.model_id: 4 * HIDDEN, other.model_id: 4 * HIDDEN}
    assert own.model_id != other.model_id


async def test_another_hash_or_a_pickle_is_not_loaded(tmp_path: Path) -> None:
    """Before torch sees a byte; and code that a model's folder brings along stays text."""
    sha256 = sentence_model(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')", encoding="utf-8")
    await OwnEmbedder(str(tmp_path), sha256).warm()

    with pytest.raises(WeightsError, match="refusing to load"):
        await OwnEmbedder(str(tmp_path), "0" * 64).warm()
    (tmp_path / "training.bin").write_bytes(b"cos")
    with pytest.raises(WeightsError, match="a pickle can run code"):
        await OwnEmbedder(str(tmp_path), sha256).warm()
    assert not ran.exists()


async def _searched(embedder: HashingEmbedder | OwnEmbedder, file: Path) -> RunbookSearch:
    search = RunbookSearch(embedder, SqliteVectors(file, b"key"), floor=0.0, patience_s=60.0)
    await search.warm()
    await search.refresh(RUNBOOKS)
    return search
