"""A stand-in for the embedding model: a bag of words thrown into 384 places by CRC-32; remembers what it was given."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from retrieval.embedder import DIMENSIONS, EmbeddingError, Vectors, with_length_one


class HashingEmbedder:
    """Texts that share words are near; the same text always gets the same vector, in any process."""

    model_id = "hashing"

    def __init__(self, *, ready: bool = True) -> None:
        self.ready = ready
        self.embedded: list[str] = []
        self.broken = False

    async def warm(self) -> None:
        """Nothing to load."""
        self.ready = True

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (n, 384); raises EmbeddingError while `broken`."""
        if self.broken:
            raise EmbeddingError("the device is gone")
        self.embedded += texts
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                row[zlib.crc32(word.strip(".,").encode()) % DIMENSIONS] += 1
        return with_length_one(vectors)
