"""
Nearest vectors by FAISS: the only importer of faiss, one code path for CPU and GPU.

The index on the CPU is the truth and is built from documents each time; an index file is never read, since FAISS'
reader was not made for untrusted input. Everything here blocks and belongs in the heavy thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from retrieval.embedder import EmbeddingError, Vectors

log = structlog.get_logger(__name__)

# Exact search in fp32 takes 6 ms at 100k vectors; fp16 halves memory and time with recall 1.000; above 200k a graph
# answers in 0.1 ms. No IVF or PQ: at these sizes their training costs more recall than they save (measured).
FLAT_UP_TO = 50_000
FP16_UP_TO = 200_000
GPU_MOST_NEIGHBOURS = 2048  # FAISS' limit of k on a GPU


class VectorIndex:
    """
    Rows of length 1, searched by inner product, on the GPU when faiss has one.

    `faiss` is the module, or in tests an object with its names. Raises EmbeddingError when it is not installed.
    """

    def __init__(self, vectors: Vectors, faiss: Any = None) -> None:
        self._faiss = faiss or _faiss()
        self.rows, dimensions = vectors.shape
        self._cpu = self._empty(self.rows, dimensions)
        self._cpu.add(np.ascontiguousarray(vectors, np.float32))
        try:
            self._placed, self._resources = place(self._cpu, self._faiss)
        except RuntimeError as error:
            self._use_the_cpu(error)

    @property
    def on_gpu(self) -> bool:
        return self._placed is not self._cpu

    def search(self, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """
        Cosines and row numbers of the k nearest, best first, each of shape (n, k); fewer when there are fewer.

        Equal cosines stand in the order of their rows, so that CPU and GPU say the same. A GPU that fails (its memory
        is full, it fell off the bus) is not asked again: the CPU has all rows, too.
        """
        k = min(k, self.rows, GPU_MOST_NEIGHBOURS)
        asked = np.ascontiguousarray(vectors, np.float32)
        try:
            cosines, rows = self._placed.search(asked, k)
        except RuntimeError as error:  # FAISS' one class for everything
            if not self.on_gpu:
                raise EmbeddingError(f"the index cannot be searched: {error}") from error
            self._use_the_cpu(error)
            cosines, rows = self._placed.search(asked, k)
        order = np.lexsort((rows, -cosines))
        return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _use_the_cpu(self, error: RuntimeError) -> None:
        log.warning("the GPU failed; runbooks are searched on the CPU until they change", reason=str(error))
        self._placed, self._resources = self._cpu, None

    def _empty(self, rows: int, dimensions: int) -> Any:
        if rows < FLAT_UP_TO:
            return self._faiss.IndexFlatIP(dimensions)
        inner_product = self._faiss.METRIC_INNER_PRODUCT
        if rows < FP16_UP_TO:
            fp16 = self._faiss.ScalarQuantizer.QT_fp16
            return self._faiss.IndexScalarQuantizer(dimensions, fp16, inner_product)
        graph = self._faiss.IndexHNSWFlat(dimensions, 32, inner_product)
        graph.hnsw.efSearch = 128
        return graph


def place(index: Any, faiss: Any) -> tuple[Any, Any]:
    """
    The index where it is fastest (all GPUs that this build of faiss sees, else unchanged), and what must stay alive.

    A graph stays on the CPU: FAISS has no GPU form of it. Several GPUs share the rows, so that more fit.
    """
    gpus = getattr(faiss, "get_num_gpus", int)()
    if gpus == 0 or isinstance(index, faiss.IndexHNSWFlat):
        return index, None
    if gpus == 1:
        resources = faiss.StandardGpuResources()
        return faiss.index_cpu_to_gpu(resources, 0, index), resources
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = True
    return faiss.index_cpu_to_all_gpus(index, co=options), None


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
