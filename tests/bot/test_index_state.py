"""`watchkeeper index`: what is indexed, what of it may be used, and a cache made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bot.config import Config, load_config
from bot.index_state import index_state, rebuild
from bot.parts import vectors_key, vectors_path
from bot.settings import Settings
from retrieval.embedder import DIMENSIONS, EmbeddingError
from retrieval.vectors import SqliteVectors
from tests.retrieval.hashing_embedder import HashingEmbedder


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Settings, Config]:
    """The shipped runbooks, one of our own that is broken, a page, and a database whose neighbour the cache is."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "broken.md").write_text("---\nformat: 1\n---\nNo title.\n", encoding="utf-8")
    (tmp_path / "books" / "page.md").write_text("# A page\n\nFor people.\n", encoding="utf-8")
    (tmp_path / "w.toml").write_text('format = 1\n[[runbooks]]\npath = "books"\n', encoding="utf-8")
    settings = Settings(_env_file=None, database_url=f"sqlite:///{tmp_path}/w.sqlite")
    return settings, load_config(tmp_path / "w.toml")


async def test_the_state_before_and_after_a_rebuild(installed: tuple[Settings, Config]) -> None:
    """Looking creates nothing; of a change of model nothing of the old one stays; another's rows are told apart."""
    before = index_state(*installed)
    path = vectors_path(installed[0].database_url.get_secret_value())
    assert (path.exists(), before.cached, before.left_out, before.pages, before.kind) == (False, (), 1, 1, "flat")
    assert "index rebuild" in "\n".join(before.lines())
    SqliteVectors(path, vectors_key(installed[0])).keep("old", ["gone"], np.zeros((1, DIMENSIONS), np.float32))

    said = await rebuild(*installed, HashingEmbedder())

    after = index_state(*installed)
    [cached] = after.cached
    assert (cached.model, cached.rows, cached.usable, cached.dimensions) == (
        "hashing",
        *[after.sections] * 2,
        DIMENSIONS,
    )
    assert (after.sha256, after.sections > 300) == (before.sha256, True)
    assert said.startswith(f"{after.sections} sections embedded with hashing (384 dimensions)")
    SqliteVectors(path, b"another key").keep("hashing", ["a text"], np.zeros((1, DIMENSIONS), np.float32))
    [cached] = index_state(*installed).cached
    assert (cached.rows, cached.usable) == (after.sections + 1, after.sections)


async def test_a_rebuild_that_fails_leaves_the_cache(installed: tuple[Settings, Config]) -> None:
    """A model that cannot embed costs nobody the vectors that are there."""
    await rebuild(*installed, HashingEmbedder())
    broken = HashingEmbedder()
    broken.broken = True

    with pytest.raises(EmbeddingError):
        await rebuild(*installed, broken)

    [cached] = index_state(*installed).cached
    assert cached.usable == index_state(*installed).sections
