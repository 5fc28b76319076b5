"""Vectors survive a restart, and a bad cache file hurts nobody."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from retrieval.embedder import DIMENSIONS, Vectors, with_length_one
from retrieval.vectors import MemoryVectors, SqliteVectors, VectorCache, digest

KEY = b"what the rows are sealed with"


def some_vectors(n: int) -> Vectors:
    """Random rows of length 1."""
    return with_length_one(np.random.default_rng(7).normal(size=(n, DIMENSIONS)).astype(np.float32))


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> VectorCache:
    """Both kinds of cache keep the same promises."""
    return MemoryVectors() if request.param == "memory" else SqliteVectors(tmp_path / "deep" / "vectors.sqlite", KEY)


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
    SqliteVectors(tmp_path / "v.sqlite", KEY).keep("m", ["a"], some_vectors(1))

    assert set(SqliteVectors(tmp_path / "v.sqlite", KEY).known("m", ["a"])) == {"a"}


def test_a_file_that_is_no_database_is_put_aside(tmp_path: Path) -> None:
    """Half-written or foreign bytes cost the cache, not the start; nothing of them is deleted."""
    path = tmp_path / "v.sqlite"
    path.write_bytes(b"not a database " * 100)
    cache = SqliteVectors(path, KEY)

    assert cache.known("m", ["a"]) == {}
    cache.keep("m", ["a"], some_vectors(1))

    assert set(cache.known("m", ["a"])) == {"a"}
    assert (tmp_path / "v.sqlite.unreadable").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(
    "floats",
    [
        b"",
        b"abc",
        np.eye(1, DIMENSIONS, dtype="<f4").tobytes(),
        np.eye(1, DIMENSIONS + 8, dtype="<f4").tobytes(),
        "t",
        None,
    ],
    ids=["empty", "odd", "without a seal", "with room for one", "text", "null"],
)
def test_poisoned_rows_count_as_absent(tmp_path: Path, floats: object) -> None:
    """A row that was not kept by us is embedded again instead of believed."""
    path = tmp_path / "v.sqlite"
    SqliteVectors(path, KEY).keep("m", ["a"], some_vectors(1))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE vector")
        connection.execute("CREATE TABLE vector (model TEXT, sha256 TEXT, floats)")
        connection.execute("INSERT INTO vector VALUES ('m', ?, ?)", (digest("a"), floats))

    assert SqliteVectors(path, KEY).known("m", ["a"]) == {}


def test_another_key_another_text_and_another_model_break_the_seal(tmp_path: Path) -> None:
    """A row is good for its own text and model, and for whoever knows the key."""
    path = tmp_path / "v.sqlite"
    SqliteVectors(path, KEY).keep("m", ["a", "b"], some_vectors(2))
    assert SqliteVectors(path, b"another").known("m", ["a", "b"]) == {}
    with closing(sqlite3.connect(path)) as connection, connection:
        swap = "UPDATE vector SET floats = (SELECT floats FROM vector WHERE sha256 = ?) WHERE sha256 = ?"
        connection.execute(swap, (digest("b"), digest("a")))
        connection.execute("INSERT INTO vector SELECT 'other', sha256, floats FROM vector")

    cache = SqliteVectors(path, KEY)

    assert (set(cache.known("m", ["a", "b"])), cache.known("other", ["a", "b"])) == ({"b"}, {})


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One of: some bytes changed, cut off, a stretch of zeros, a page in another's place."""
    kind, at = rng.integers(4), int(rng.integers(len(content)))
    if kind == 0:
        changed = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 20)):
            changed[place] ^= int(rng.integers(1, 256))
        return bytes(changed)
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + bytes(min(300, len(content) - at)) + content[at + 300 :]
    there, here = (4096 * int(rng.integers(len(content) // 4096)) for _ in range(2))
    return content[:here] + content[there : there + 4096] + content[here + 4096 :]


def test_nothing_of_1600_damaged_files_is_used(tmp_path: Path) -> None:
    """Whatever happened to the file, a vector is the one that was kept, or is computed again."""
    path, texts, vectors = tmp_path / "v.sqlite", [str(number) for number in range(12)], some_vectors(12)
    cache, rng, lost = SqliteVectors(path, KEY), np.random.default_rng(16), 0
    cache.keep("m", texts, vectors)
    content = path.read_bytes()
    for turn in range(1600):
        path.write_bytes(damaged(content, rng))
        known = cache.known("m", texts)
        lost += len(known) < len(texts)
        assert all(np.array_equal(row, vectors[int(text)]) for text, row in known.items()), turn
        if turn % 40 == 0:
            for _ in range(2):  # a damaged index can swallow what is kept, and is found at the next look
                cache.keep("m", texts, vectors)
                known = cache.known("m", texts)
            assert set(known) == set(texts), turn

    assert lost > 800, "the damage was real"


def test_a_place_that_cannot_be_written_is_passed(tmp_path: Path) -> None:
    """No cache is slower, not broken."""
    (tmp_path / "file").write_text("in the way")
    cache = SqliteVectors(tmp_path / "file" / "v.sqlite", KEY)

    cache.keep("m", ["a"], some_vectors(1))

    assert cache.known("m", ["a"]) == {}


def test_a_cache_made_anew_holds_one_model(tmp_path: Path) -> None:
    """Rows of other models and of texts that are no more go in the same moment; when it cannot be written, none go."""
    cache = SqliteVectors(tmp_path / "v.sqlite", KEY)
    cache.keep("old", ["a", "b"], some_vectors(2))

    assert cache.replace("new", ["a"], some_vectors(1))

    assert (cache.models(), cache.known("old", ["a"]), set(cache.known("new", ["a"]))) == ({"new": 1}, {}, {"a"})
    with pytest.raises(ValueError, match="shorter"):
        cache.replace("newer", ["a", "b"], some_vectors(1))
    assert cache.models() == {"new": 1}
