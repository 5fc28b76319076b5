"""
Nearest vectors by FAISS: the only importer of faiss, one code path for CPU and GPU.

The index on the CPU is the truth and is built from documents each time; an index file is never written nor read, since
FAISS' reader was not made for untrusted input. Everything here blocks and belongs in the heavy thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from retrieval.embedder import EmbeddingError, Vectors

log = structlog.get_logger(__name__)

# Exact search in fp32 takes 6 ms at 100k vectors; fp16 halves memory and time with recall 1.000; above 200k a graph
# answers in a millisecond. No IVF or PQ: at these sizes their training costs more recall than they save (measured).
FLAT_UP_TO = 50_000
FP16_UP_TO = 200_000
LEAST_RECALL = 0.98
"""A graph that finds fewer of the ten nearest than this, measured on its own rows, is not used: exact fp16 is."""
GPU_MOST_NEIGHBOURS = 2048  # FAISS' limit of k on a GPU
_PROBES, _NEAREST, _BLOCK = 64, 10, 100_000


class VectorIndex:
    """
    Rows of length 1, searched by inner product, on the GPU when faiss has one.

    `kind` is what the rows' number chose: `flat` (exact), `fp16` (exact but for rounding), `graph` (HNSW, or CAGRA on a
    GPU whose faiss has it); `recall` what a graph was measured to find of the ten nearest, 1 otherwise. `faiss` is the
    module, or in tests an object with its names. Raises EmbeddingError when it is not installed.
    """

    def __init__(self, vectors: Vectors, faiss: Any = None) -> None:
        self._faiss = faiss or _faiss()
        self.rows, dimensions = vectors.shape
        rows = np.ascontiguousarray(vectors, np.float32)
        self.kind, self.recall = kind_for(self.rows), 1.0
        self._cpu = self._filled(rows, dimensions)
        if self.kind == "graph" and (recall := recall_of(self._cpu, rows)) < LEAST_RECALL:
            log.warning("a graph would miss too much, so all vectors are compared", recall=round(recall, 3))
            self.kind = "fp16"
            self._cpu = self._filled(rows, dimensions)
        elif self.kind == "graph":
            self.recall = recall
        try:
            self._placed, self._resources = place(self._cpu, self._faiss, rows)
        except RuntimeError as error:
            self._use_the_cpu(error)

    @property
    def on_gpu(self) -> bool:
        return self._placed is not self._cpu

    def search(
        self, vectors: Vectors, k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """
        Cosines and row numbers of the k nearest, best first, each of shape (n, k); fewer when there are fewer.

        `among` are the rows that may be found; the CPU compares all of these and no other. Equal cosines stand in the
        order of their rows, so that CPU and GPU say the same. A GPU that fails (its memory is full, it fell off the
        bus) is not asked again: the CPU has all rows, too.
        """
        k = min(k, self.rows if among is None else len(among), GPU_MOST_NEIGHBOURS)
        asked = np.ascontiguousarray(vectors, np.float32)
        if k == 0:
            return np.zeros((len(asked), 0), np.float32), np.zeros((len(asked), 0), np.int64)
        try:
            cosines, rows = self._placed.search(asked, k) if among is None else self._within(asked, k, among)
        except RuntimeError as error:  # FAISS' one class for everything
            if not self.on_gpu or among is not None:
                raise EmbeddingError(f"the index cannot be searched: {error}") from error
            self._use_the_cpu(error)
            cosines, rows = self._placed.search(asked, k)
        order = np.lexsort((rows, -cosines))
        return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _within(self, asked: Vectors, k: int, among: NDArray[np.int64]) -> Any:
        """Of a graph, the vectors that it stands on: a walk that may enter few nodes only would get lost."""
        exact = self._faiss.downcast_index(self._cpu.storage) if self.kind == "graph" else self._cpu
        selected = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBatch(among))
        return exact.search(asked, k, params=selected)

    def _use_the_cpu(self, error: RuntimeError) -> None:
        log.warning("the GPU failed; runbooks are searched on the CPU until they change", reason=str(error))
        self._placed, self._resources = self._cpu, None

    def _filled(self, rows: Vectors, dimensions: int) -> Any:
        inner_product = self._faiss.METRIC_INNER_PRODUCT
        if self.kind == "flat":
            index = self._faiss.IndexFlatIP(dimensions)
        elif self.kind == "fp16":
            fp16 = self._faiss.ScalarQuantizer.QT_fp16
            index = self._faiss.IndexScalarQuantizer(dimensions, fp16, inner_product)
        else:
            index = self._faiss.IndexHNSWFlat(dimensions, 32, inner_product)
            index.hnsw.efSearch = 128
        index.add(rows)
        return index


def kind_for(rows: int) -> str:
    """Exact while that is cheap, half precision next, a graph above."""
    if rows < FLAT_UP_TO:
        return "flat"
    return "fp16" if rows < FP16_UP_TO else "graph"


def recall_of(index: Any, rows: Vectors) -> float:
    """The share of the ten nearest that this index finds, for rows of its own taken at even distances."""
    probes = rows[:: max(1, len(rows) // _PROBES)][:_PROBES]
    _, found = index.search(probes, _NEAREST)
    best = np.full((len(probes), 1), -np.inf, np.float32)
    for start in range(0, len(rows), _BLOCK):  # a block of products is 25 MB
        products = probes @ rows[start : start + _BLOCK].T
        best = np.sort(np.hstack([best, products]), axis=1)[:, -_NEAREST:]
    cosines = np.where(found >= 0, np.einsum("pkd,pd->pk", rows[found], probes), -np.inf)
    return float(np.mean(cosines >= best[:, :1] - 1e-6))  # by cosine: of equal ones, any will do


def place(index: Any, faiss: Any, rows: Vectors) -> tuple[Any, Any]:
    """
    The index where it is fastest (all GPUs that this build of faiss sees, else unchanged), and what must stay alive.

    FAISS has no GPU form of HNSW: one GPU gets a graph of its own (CAGRA) where the build has it and it finds enough;
    otherwise the graph stays. Several GPUs share the rows, so that more fit.
    """
    gpus = getattr(faiss, "get_num_gpus", int)()
    if gpus == 0:
        return index, None
    if isinstance(index, faiss.IndexHNSWFlat):
        return _graph_on_a_gpu(index, faiss, rows) if gpus == 1 else (index, None)
    if gpus == 1:
        resources = faiss.StandardGpuResources()
        return faiss.index_cpu_to_gpu(resources, 0, index), resources
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = True
    return faiss.index_cpu_to_all_gpus(index, co=options), None


def _graph_on_a_gpu(index: Any, faiss: Any, rows: Vectors) -> tuple[Any, Any]:
    if not hasattr(faiss, "GpuIndexCagra"):
        return index, None
    resources = faiss.StandardGpuResources()
    graph = faiss.GpuIndexCagra(resources, rows.shape[1], faiss.METRIC_INNER_PRODUCT)
    graph.train(rows)
    return (graph, resources) if recall_of(graph, rows) >= LEAST_RECALL else (index, None)


def device() -> str:
    """Where an index would lie: `CPU`, or how many GPUs. Raises EmbeddingError without faiss."""
    gpus = getattr(_faiss(), "get_num_gpus", int)()
    return f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "CPU"


def _faiss() -> Any:
    try:
        import faiss  # noqa: PLC0415  heavy, and absent from installs without the cpu or gpu extra
    except (ImportError, RuntimeError) as missing:  # RuntimeError: a GPU wheel that does not find its CUDA libraries
        raise EmbeddingError(f'faiss cannot be imported ({missing}); install one of "[cpu]" and "[gpu]"') from missing
    return faiss
