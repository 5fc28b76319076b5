"""Which index is built at which size, and where it is placed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from retrieval.embedder import DIMENSIONS, Vectors, with_length_one
from retrieval.index import FLAT_UP_TO, FP16_UP_TO, VectorIndex, place, recall_of

NO_ROWS = np.zeros((0, DIMENSIONS), np.float32)


def unit_vectors(n: int) -> Vectors:
    """Random rows of length 1."""
    return with_length_one(np.random.default_rng(3).normal(size=(n, DIMENSIONS)).astype(np.float32))


class RememberedIndex:
    """An index that only knows how it was made and what was added."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        self.kind = kind
        self.arguments = arguments
        self.rows = 0

    def add(self, vectors: Vectors) -> None:
        self.rows += len(vectors)


class Graph(RememberedIndex):
    """FAISS' HNSW has a parameter object; this one finds nothing where `is_lost`."""

    is_lost = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__("hnsw", *arguments)
        self.hnsw = type("Hnsw", (), {"efSearch": 16})()

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, Any]:
        rows = np.full((len(vectors), k), -1 if self.is_lost else 0)
        return np.zeros(rows.shape, np.float32), rows


class LostGraph(Graph):
    """A graph whose walks end nowhere."""

    is_lost = True


class FaissWith:
    """The names of the faiss module that we use, on a machine with this many GPUs."""

    METRIC_INNER_PRODUCT = 0
    ScalarQuantizer = type("ScalarQuantizer", (), {"QT_fp16": "fp16"})
    IndexHNSWFlat = Graph
    StandardGpuResources = type("StandardGpuResources", (), {})
    GpuMultipleClonerOptions = type("GpuMultipleClonerOptions", (), {})

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.moved: list[tuple[Any, ...]] = []

    def get_num_gpus(self) -> int:
        return self._gpus

    def IndexFlatIP(self, dimensions: int) -> RememberedIndex:  # noqa: N802  faiss' name
        return RememberedIndex("flat", dimensions)

    def IndexScalarQuantizer(self, *arguments: Any) -> RememberedIndex:  # noqa: N802  faiss' name
        return RememberedIndex("fp16", *arguments)

    def index_cpu_to_gpu(self, resources: Any, device: int, index: Any) -> RememberedIndex:
        self.moved.append((resources, device, index))
        return RememberedIndex("on one gpu")

    def index_cpu_to_all_gpus(self, index: Any, co: Any) -> RememberedIndex:
        self.moved.append((index, co.shard, co.useFloat16))
        return RememberedIndex("on all gpus")


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(1, "flat"), (FLAT_UP_TO - 1, "flat"), (FLAT_UP_TO, "fp16"), (FP16_UP_TO - 1, "fp16"), (FP16_UP_TO, "hnsw")],
)
def test_the_size_chooses_the_index(rows: int, kind: str) -> None:
    """Exact while that is cheap, half precision next, a graph above."""
    index = VectorIndex(np.zeros((rows, 2), np.float32), FaissWith(gpus=0))

    assert (index._cpu.kind, index._cpu.rows, index.recall, index.on_gpu) == (kind, rows, 1.0, False)


def test_a_graph_that_misses_too_much_is_not_used() -> None:
    """What it finds is measured when it is built; below the least, all vectors are compared."""
    faiss: Any = FaissWith(gpus=0)
    faiss.IndexHNSWFlat = LostGraph

    with capture_logs() as logs:
        index = VectorIndex(np.zeros((FP16_UP_TO, 2), np.float32), faiss)

    assert (index.kind, index._cpu.kind, [line["log_level"] for line in logs]) == ("fp16", "fp16", ["warning"])


@pytest.mark.parametrize(("cagra", "is_used"), [(Graph, True), (LostGraph, False)])
def test_a_gpu_gets_a_graph_of_its_own_where_it_finds_enough(cagra: type[Graph], *, is_used: bool) -> None:
    """CAGRA, where the build has it; measured like the one on the CPU, which stays and answers when the GPU fails."""
    faiss: Any = FaissWith(gpus=1)
    faiss.GpuIndexCagra = type("Cagra", (cagra,), {"train": RememberedIndex.add})

    index = VectorIndex(np.zeros((FP16_UP_TO, 2), np.float32), faiss)

    assert (index.on_gpu, index._cpu.kind, index._cpu.rows) == (is_used, "hnsw", FP16_UP_TO)


@pytest.mark.parametrize("kind", ["flat", "fp16", "graph"])
def test_rows_that_may_not_be_found_take_no_place(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind, the rows that were asked for are compared, and all of them: by the real library."""
    monkeypatch.setattr("retrieval.index.kind_for", lambda _: kind)
    vectors = unit_vectors(300)
    among = np.array([7, 250, 31, 8], np.int64)

    cosines, [rows] = VectorIndex(vectors).search(vectors[7:8], 10, among)

    assert (rows[0], set(rows)) == (7, set(among))
    np.testing.assert_allclose(cosines[0], (vectors[rows] @ vectors[7]), atol=2e-3)
    assert VectorIndex(vectors).search(vectors[:2], 10, among[:0])[1].shape == (2, 0)


def test_recall_is_counted_by_cosine() -> None:
    """A graph that finds all but one of ten nearest has nine tenths; among equal ones any will do."""
    vectors = np.repeat(unit_vectors(40), 20, axis=0)

    class All(Graph):
        def search(self, asked: Vectors, k: int) -> tuple[Vectors, Any]:
            rows = np.argsort(-(asked @ vectors.T), axis=1)[:, 5 : 5 + k]
            return np.zeros(rows.shape, np.float32), rows

    class ButOne(All):
        def search(self, asked: Vectors, k: int) -> tuple[Vectors, Any]:
            cosines, rows = super().search(asked, k)
            return cosines, np.hstack([rows[:, 1:], np.full((len(rows), 1), -1)])

    assert recall_of(All(), vectors) == 1.0
    assert recall_of(ButOne(), vectors) == pytest.approx(0.9)


def test_without_a_gpu_the_index_stays() -> None:
    """The same call on a machine without GPUs changes nothing."""
    index = RememberedIndex("flat")

    assert place(index, FaissWith(gpus=0), NO_ROWS) == (index, None)


def test_a_build_that_never_heard_of_gpus_is_fine() -> None:
    """faiss-cpu may lack the question itself."""
    index = RememberedIndex("flat")

    assert place(index, object(), NO_ROWS) == (index, None)


def test_one_gpu_gets_the_index_and_keeps_its_resources() -> None:
    """FAISS crashes when the resources are collected while the index lives."""
    faiss = FaissWith(gpus=1)
    index = RememberedIndex("flat")

    placed, resources = place(index, faiss, NO_ROWS)

    assert placed.kind == "on one gpu"
    assert faiss.moved == [(resources, 0, index)]
    assert isinstance(resources, FaissWith.StandardGpuResources)


def test_several_gpus_share_the_rows() -> None:
    """More cards hold more vectors."""
    faiss = FaissWith(gpus=4)
    index = RememberedIndex("flat")

    placed, _ = place(index, faiss, NO_ROWS)

    assert placed.kind == "on all gpus"
    assert faiss.moved == [(index, True, True)]


def test_a_graph_stays_on_the_cpu() -> None:
    """FAISS has no GPU form of HNSW and would refuse."""
    faiss = FaissWith(gpus=1)

    index = VectorIndex(np.zeros((FP16_UP_TO, 2), np.float32), faiss)

    assert (index.on_gpu, faiss.moved) == (False, [])


def test_the_cpu_index_stays_the_truth() -> None:
    """What went to a GPU is a copy; all rows are in the index on the CPU."""
    index = VectorIndex(np.zeros((5, 2), np.float32), FaissWith(gpus=1))

    assert (index.on_gpu, index._cpu.kind, index._cpu.rows) == (True, "flat", 5)


class Failing:
    """A GPU that is gone."""

    def __init__(self) -> None:
        self.asked = 0

    def search(self, vectors: Vectors, k: int) -> None:
        self.asked += 1
        raise RuntimeError("CUDA error 79: the GPU fell off the bus")


class FaissThatFails:
    """The real FAISS on the CPU, beside one GPU that takes the index and then fails, or that never takes it."""

    def __init__(self, *, takes_it: bool) -> None:
        self.gpu = Failing()
        self._takes_it = takes_it

    def __getattr__(self, name: str) -> Any:
        return getattr(pytest.importorskip("faiss"), name)

    def get_num_gpus(self) -> int:
        return 1

    def StandardGpuResources(self) -> object:  # noqa: N802  faiss' name
        return object()

    def index_cpu_to_gpu(self, *_: object) -> Failing:
        if not self._takes_it:
            raise RuntimeError("out of memory")
        return self.gpu


@pytest.mark.parametrize("takes_it", [True, False], ids=["while running", "at the start"])
def test_when_the_gpu_fails_the_cpu_answers(*, takes_it: bool) -> None:
    """The card needs an answer now; the GPU is asked once, told of once, and not again."""
    vectors = unit_vectors(50)
    faiss = FaissThatFails(takes_it=takes_it)

    with capture_logs() as logs:
        index = VectorIndex(vectors, faiss)
        for _ in range(3):
            _, rows = index.search(vectors, 1)

    np.testing.assert_array_equal(rows[:, 0], np.arange(50))
    assert (index.on_gpu, faiss.gpu.asked, len(logs)) == (False, int(takes_it), 1)


def test_equal_scores_stand_in_the_order_of_their_rows() -> None:
    """Copies of one text have one score; who stands first must not depend on the device or on chance."""
    vectors = np.repeat(unit_vectors(3), 4, axis=0)

    _, [rows] = VectorIndex(vectors).search(vectors[4:5], 12)

    assert list(rows[:4]) == [4, 5, 6, 7]
    assert [sorted(rows[at : at + 4]) == list(rows[at : at + 4]) for at in (4, 8)] == [True, True]


def test_faiss_finds_the_nearest_exactly() -> None:
    """By the real library: cosines and order equal those of a plain matrix product."""
    vectors = unit_vectors(500)
    cosines = vectors[:3] @ vectors.T

    found, rows = VectorIndex(vectors).search(vectors[:3], 10)

    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1)[:, :10])
    np.testing.assert_allclose(found[:, 0], 1, atol=1e-5)


def test_no_more_neighbours_than_rows() -> None:
    """Asking for ten of three gives three, without the -1 that FAISS fills in."""
    _, rows = VectorIndex(unit_vectors(3)).search(unit_vectors(1), 10)

    assert sorted(rows[0]) == [0, 1, 2]


@pytest.mark.gpu
def test_a_real_gpu_agrees_with_the_cpu() -> None:
    """On a machine with CUDA and the GPU build of faiss: the same scores within 1e-4, the same rows up to ties."""
    faiss = pytest.importorskip("faiss")
    if getattr(faiss, "get_num_gpus", int)() == 0:
        pytest.skip('faiss sees no GPU here: pip install -e ".[gpu]" on a machine with CUDA')
    vectors = unit_vectors(5000)
    index = VectorIndex(vectors)

    cosines, rows = index.search(vectors[:50], 10)
    expected, expected_rows = index._cpu.search(vectors[:50], 10)

    assert index.on_gpu
    np.testing.assert_allclose(cosines, expected, atol=1e-4)
    differ = rows != expected_rows
    np.testing.assert_allclose(cosines[differ], expected[differ], atol=1e-6)
    assert differ.mean() < 0.01
