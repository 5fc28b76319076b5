"""Which index is built at which size, and where it is placed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from retrieval.embedder import DIMENSIONS, Vectors, with_length_one
from retrieval.index import FLAT_UP_TO, FP16_UP_TO, VectorIndex, place


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
    """FAISS' HNSW has a parameter object."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__("hnsw", *arguments)
        self.hnsw = type("Hnsw", (), {"efSearch": 16})()


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

    assert (index._cpu.kind, index._cpu.rows, index.on_gpu) == (kind, rows, False)


def test_without_a_gpu_the_index_stays() -> None:
    """The same call on a machine without GPUs changes nothing."""
    index = RememberedIndex("flat")

    assert place(index, FaissWith(gpus=0)) == (index, None)


def test_a_build_that_never_heard_of_gpus_is_fine() -> None:
    """faiss-cpu may lack the question itself."""
    index = RememberedIndex("flat")

    assert place(index, object()) == (index, None)


def test_one_gpu_gets_the_index_and_keeps_its_resources() -> None:
    """FAISS crashes when the resources are collected while the index lives."""
    faiss = FaissWith(gpus=1)
    index = RememberedIndex("flat")

    placed, resources = place(index, faiss)

    assert placed.kind == "on one gpu"
    assert faiss.moved == [(resources, 0, index)]
    assert isinstance(resources, FaissWith.StandardGpuResources)


def test_several_gpus_share_the_rows() -> None:
    """More cards hold more vectors."""
    faiss = FaissWith(gpus=4)
    index = RememberedIndex("flat")

    placed, _ = place(index, faiss)

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
    """On a machine with CUDA and the GPU build of faiss, both give the same neighbours."""
    faiss = pytest.importorskip("faiss")
    if getattr(faiss, "get_num_gpus", int)() == 0:
        pytest.skip('faiss sees no GPU here: pip install -e ".[gpu]" on a machine with CUDA')
    vectors = unit_vectors(5000)
    index = VectorIndex(vectors)

    cosines, rows = index.search(vectors[:50], 10)

    assert index.on_gpu
    expected = vectors[:50] @ vectors.T
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1)[:, :10], atol=1e-3)
    np.testing.assert_array_equal(rows[:, 0], np.arange(50))
