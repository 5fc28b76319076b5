"""Vectors survive a restart, and a bad cache file hurts nobody."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from retrieval.embedder import DIMENSIONS, Vectors, with_length_one
from retrieval.vectors import MemoryVectors, SqliteVectors, VectorCache, digest


def some_vectors(n: int) -> Vectors:
    """Random rows of length 1."""
    return with_length_one(np.random.default_rng(7).normal(size=(n, DIMENSIONS)).astype(np.float32))


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> VectorCache:
    """Both kinds of cache keep the same promises."""
    return MemoryVectors() if request.param == "memory" else SqliteVectors(tmp_path / "deep" / "vectors.sqlite")


def test_what_was_kept_is_known(cache: VectorCache) -> None:
    """The same text and model give back the same numbers; other texts stay unknown."""
    vectors = some_vectors(2)
    cache.keep("m", ["a", "b"], vectors)

    known = cache.known("m", ["a", "b", "c"])

    assert set(known) == {"a", "b"}
    np.testing.assert_array_equal(known["b"], vectors[1])


def test_models_do_not_mix(cache: VectorCache) -> None:
    """A vector of one model means nothing to another."""
    cache.keep("m", ["a"], some_vectors(1))

    assert cache.known("other", ["a"]) == {}


def test_many_texts_are_asked_in_slices(cache: VectorCache) -> None:
    """SQLite limits the parameters of one statement."""
    texts = [str(number) for number in range(1200)]
    cache.keep("m", texts, some_vectors(1200))

    assert len(cache.known("m", texts)) == 1200


def test_it_survives_a_restart(tmp_path: Path) -> None:
    """A new process finds what the last one computed."""
    SqliteVectors(tmp_path / "v.sqlite").keep("m", ["a"], some_vectors(1))

    assert set(SqliteVectors(tmp_path / "v.sqlite").known("m", ["a"])) == {"a"}


def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    """Half-written or foreign bytes cost the cache, not the start; nothing of them is deleted."""
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"not a database " * 100)
    cache = SqliteVectors(path)

    assert cache.known("m", ["a"]) == {}
    cache.keep("m", ["a"], some_vectors(1))

    assert set(cache.known("m", ["a"])) == {"a"}
    assert (tmp_path / "v.sqlite.unreadable").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(
    "floats",
    [b"", b"abc", np.full(DIMENSIONS, np.nan, "<f4").tobytes(), np.full(DIMENSIONS, 9, "<f4").tobytes(), "text", None],
    ids=["empty", "odd", "nan", "too long", "text", "null"],
)
def test_poisoned_rows_count_as_absent(tmp_path: Path, floats: object) -> None:
    """A row that cannot be a vector of length 1 is embedded again instead of believed."""
    path = tmp_path / "v.sqlite"
    SqliteVectors(path).keep("m", ["a"], some_vectors(1))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE vector")
        connection.execute("CREATE TABLE vector (model TEXT, sha256 TEXT, floats)")
        connection.execute("INSERT INTO vector VALUES ('m', ?, ?)", (digest("a"), floats))

    assert SqliteVectors(path).known("m", ["a"]) == {}


def test_a_place_that_cannot_be_written_is_passed(tmp_path: Path) -> None:
    """No cache is slower, not broken."""
    (tmp_path / "file").write_text("in the way")
    cache = SqliteVectors(tmp_path / "file" / "v.sqlite")

    cache.keep("m", ["a"], some_vectors(1))

    assert cache.known("m", ["a"]) == {}
