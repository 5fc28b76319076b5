"""What one search works on: documents, their chunks and words, and their vectors once there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.chunks import Chunk, chunks_of
from retrieval.documents import Document
from retrieval.embedder import Vectors
from retrieval.keywords import KeywordIndex
from retrieval.near_copies import NearCopies

if TYPE_CHECKING:
    from retrieval.index import VectorIndex

# One question does not need more neighbours than this; each document counts by its nearest chunk.
NEIGHBOURS = 1024
BREADTH = 3


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Replaced as a whole by a refresh, so a search never sees half of one; `index` is None until vectors are there."""

    documents: tuple[Document, ...]
    chunks: tuple[Chunk, ...]
    keywords: KeywordIndex
    copies: NearCopies
    index: VectorIndex | None = None

    @cached_property
    def chunks_each(self) -> NDArray[np.int64]:
        """How many chunks each document has; at least 1."""
        counts = np.bincount(self._document_of_row, minlength=len(self.documents))
        return np.maximum(counts, 1).astype(np.int64)

    def open_to(self, service: str) -> list[int]:
        """
        The places of the documents that may be answered to this service; a question without one may see all.

        A runbook that was written for some services is no candidate for another one, whatever was asked.
        """
        return [
            at for at, each in enumerate(self.documents) if not each.services or not service or service in each.services
        ]

    def rows_of(self, places: Sequence[int]) -> NDArray[np.int64]:
        """The rows of these documents in the index."""
        return np.flatnonzero(np.isin(self._document_of_row, places)).astype(np.int64)

    @cached_property
    def _document_of_row(self) -> NDArray[np.int64]:
        return np.array([chunk.document for chunk in self.chunks], np.int64)


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """
    The dense answer to one question: per document its best cosine, and the chunk that had it (-1: none near).

    `breadth` is the mean of its three best cosines: a runbook about the question has it in more than one section.
    """

    cosines: NDArray[np.float64]
    breadth: NDArray[np.float64]
    best_chunks: tuple[int, ...]


def counted(documents: tuple[Document, ...]) -> Corpus:
    """The documents cut and counted; blocks for about 2 ms a document."""
    keywords = KeywordIndex(documents)
    copies = NearCopies(documents, keywords)
    return Corpus(documents=documents, chunks=tuple(chunks_of(documents)), keywords=keywords, copies=copies)


def indexed(corpus: Corpus, rows: Vectors) -> Corpus:
    """The corpus with one vector per chunk; belongs in the heavy thread."""
    from retrieval.index import VectorIndex  # noqa: PLC0415  so that importing this module stays light

    return replace(corpus, index=VectorIndex(rows))


def nearest(corpus: Corpus, vector: Vectors, service: str = "") -> Meaning | None:
    """
    Compare one vector, shape (1, dimensions), with every chunk that this service may see; None without vectors.

    What it may not see takes no place among the neighbours. For the heavy thread.
    """
    if corpus.index is None:
        return None
    places = corpus.open_to(service)
    among = None if len(places) == len(corpus.documents) else corpus.rows_of(places)
    [cosines], [rows] = corpus.index.search(vector, NEIGHBOURS, among)
    found = [(float(cosine), int(row)) for cosine, row in zip(cosines, rows, strict=True) if row >= 0]
    # A document with no chunk among the neighbours is at best as near as the farthest of them.
    far = min((cosine for cosine, _ in found), default=0.0)
    best = np.full((len(corpus.documents), BREADTH), far)
    chunks = [-1] * len(corpus.documents)
    taken = [0] * len(corpus.documents)
    for cosine, row in found:  # best first
        document = corpus.chunks[row].document
        if taken[document] == 0:
            chunks[document] = row
        if taken[document] < BREADTH:
            best[document, taken[document]] = cosine
            taken[document] += 1
    within = np.minimum(corpus.chunks_each, BREADTH)  # a document of one section is as broad as that section
    sums = np.where(np.arange(BREADTH) < within[:, None], best, 0.0).sum(axis=1)
    return Meaning(cosines=best[:, 0], breadth=sums / within, best_chunks=tuple(chunks))
