"""
Text to vectors with all-MiniLM-L6-v2 or a model of your own, offline, in the thread that belongs to torch.

Importing this module is cheap; torch and sentence-transformers (5 to 6 s, 400 MB) are imported by `warm`, in the
background, and `ready` says when vectors can be had.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.heavy_thread import in_heavy_thread
from retrieval.weights import SHA256, checked_folder, fingerprint, named_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]

DIMENSIONS = 384  # of all-MiniLM-L6-v2; a model of your own has its own
BATCH = 16  # about half a second of work on two cores: the longest that a query has to wait behind a refresh


class EmbeddingError(Exception):
    """Vectors cannot be had (the device failed, faiss is missing); searching by words goes on."""


class Embedder(Protocol):
    """What turns texts into vectors; `model_id` names model and precision, so cached vectors never mix."""

    @property
    def model_id(self) -> str:
        """Which vectors these are; meaningful once ready."""

    @property
    def ready(self) -> bool:
        """Whether `embed` would answer at once."""

    async def warm(self) -> None:
        """Load what embedding needs; afterwards `ready` is true."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text: float32, shape (n, dimensions), each row of length 1. Raises EmbeddingError."""


def embedder_for(model: str | None, sha256: str | None = None) -> MiniLmEmbedder:
    """The packaged model, or the one of this path or name; `sha256` is what its model.safetensors has to have."""
    return MiniLmEmbedder() if model is None else OwnEmbedder(model, sha256)


class MiniLmEmbedder:
    """
    all-MiniLM-L6-v2 (384 dimensions, 256 word pieces, longer text is cut) by sentence-transformers.

    On CUDA when there is a device; bf16 on CPUs that have it (three times the throughput, top-1 agreement with fp32
    .97, measured on an AMD EPYC with AVX-512), fp32 elsewhere. Only checked safetensors are loaded; no network.
    """

    def __init__(self, folder: Path | None = None, sha256: str = SHA256) -> None:
        self._folder = folder
        self._sha256 = sha256
        self._model: SentenceTransformer | None = None
        self._precision = "not loaded"
        self._dimensions = DIMENSIONS

    @property
    def model_id(self) -> str:
        """Precision is part of it: vectors of bf16 and fp32 differ in the third decimal."""
        return f"all-MiniLM-L6-v2:{self._sha256[:12]}:{self._precision}"

    @property
    def ready(self) -> bool:
        return self._model is not None

    async def warm(self) -> None:
        """Check, load and try the model once. Raises WeightsError."""
        await in_heavy_thread(self._loaded)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """
        Shape (n, dimensions), rows of length 1; loads the model first when nobody warmed it.

        Raises WeightsError, EmbeddingError.
        """
        rows = []
        for start in range(0, len(texts), BATCH):  # one turn in the thread per batch, so queries get theirs between
            batch = list(texts[start : start + BATCH])
            rows.append(await in_heavy_thread(partial(self._encode, batch)))
        return np.concatenate(rows) if rows else np.zeros((0, self._dimensions), np.float32)

    def _encode(self, texts: list[str]) -> Vectors:
        readable = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # tokenizers refuse surrogates
        model = self._loaded()
        try:
            vectors = model.encode(readable, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        except RuntimeError as error:  # torch's own class for everything, out of memory and lost devices included
            raise EmbeddingError(f"embedding failed: {error}") from error
        return with_length_one(np.asarray(vectors, np.float32))

    def _loaded(self) -> SentenceTransformer:
        if self._model is None:
            self._model, self._precision, self._dimensions = _load(self._checked())
        return self._model

    def _checked(self) -> Path:
        return checked_folder(self._folder, self._sha256)


class OwnEmbedder(MiniLmEmbedder):
    """
    Any sentence-transformers model of this machine, by path or name: safetensors only, and no code that came with it.

    Its id has the hash of all its files, so that vectors of two models, or of two states of one, never meet.
    """

    def __init__(self, model: str, sha256: str | None = None) -> None:
        super().__init__()
        self._named = model
        self._wanted = sha256
        self._fingerprint = "not loaded"

    @property
    def model_id(self) -> str:
        return f"{self._fingerprint}:{self._precision}"

    def _checked(self) -> Path:
        folder = named_folder(self._named)
        self._fingerprint = fingerprint(folder, self._wanted)
        return folder


def _load(folder: Path) -> tuple[SentenceTransformer, str, int]:
    """The model, its precision and dimensions; torch is imported and the first call paid for here, not in a query."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning OpenMP threads starve the event loop on two cores

    import torch  # noqa: PLC0415  heavy: only where embedding happens
    from sentence_transformers import SentenceTransformer as Model  # noqa: PLC0415  heavy, see above
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415  heavy, see above

    without_drawing: Callable[[], None] = transformers_logging.disable_progress_bar  # stderr is a log here
    without_drawing()

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    on_gpu = torch.cuda.is_available()
    in_bf16 = cpu_has_bf16() and not on_gpu
    options: dict[str, Any] = {"use_safetensors": True, "dtype": torch.bfloat16 if in_bf16 else torch.float32}
    model = Model(
        str(folder),
        device="cuda" if on_gpu else "cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs=options,
    )
    [vector] = model.encode(["first call"], show_progress_bar=False)
    return model, "bf16" if in_bf16 else "fp32", len(vector)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware, by what Linux says of it; elsewhere: no."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def with_length_one(vectors: Vectors) -> Vectors:
    """Each row divided by its length, so that an inner product is a cosine; rows of zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
