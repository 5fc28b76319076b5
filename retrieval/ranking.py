"""
Which runbooks fit an incident: up to three candidates with the reasons in words, or none.

Words (BM25) answer from the first second; meaning (embeddings in FAISS) joins when the model is loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np
import structlog

from retrieval.candidates import Asked, Comparison, candidates
from retrieval.corpus import Corpus, Meaning, counted, indexed, nearest
from retrieval.documents import Document, Hit, Question
from retrieval.embedder import Embedder, EmbeddingError
from retrieval.fusion import Weights
from retrieval.heavy_thread import in_heavy_thread
from retrieval.vectors import MemoryVectors, VectorCache

log = structlog.get_logger(__name__)

# Below this probability a runbook is not shown; chosen on the benchmark, see docs/retrieval.md.
FLOOR = 0.06


class RunbookSearch:
    """
    The runbooks of one installation, searchable.

    `warm` is started in the background once; until it is done, and whenever embedding takes longer than `patience_s`,
    answers come from words alone and say so. Without an embedder they always do.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        cache: VectorCache | None = None,
        *,
        weights: Weights | None = None,
        floor: float = FLOOR,
        patience_s: float = 1.0,
    ) -> None:
        self._embedder = embedder
        self._cache = cache or MemoryVectors()
        self._weights = weights or Weights()
        self._floor = floor
        self._patience_s = patience_s
        self._corpus: Corpus | None = None
        self._refreshing = asyncio.Lock()

    @property
    def by_meaning(self) -> bool:
        """Whether all that is searched has vectors."""
        return self._corpus is not None and self._corpus.index is not None

    @property
    def lacks_vectors(self) -> bool:
        """Whether vectors are missing although the model is there: embedding failed, and `warm` may try again."""
        has_model = self._embedder is not None and self._embedder.ready
        return has_model and self._corpus is not None and bool(self._corpus.chunks) and not self.by_meaning

    async def warm(self) -> None:
        """
        Load the model and embed what is there. Searching by words goes on whatever happens here.

        Raises WeightsError, EmbeddingError.
        """
        if self._embedder is None:
            return
        await self._embedder.warm()
        async with self._refreshing:
            if self._corpus is not None and self._corpus.index is None:
                self._corpus = await self._with_vectors(self._corpus, self._embedder)

    async def refresh(self, documents: Sequence[Document]) -> None:
        """
        Search these documents from now on; only changed chunks are embedded.

        While the model is not loaded this returns with the words alone, and `warm` adds the vectors.
        """
        async with self._refreshing:
            corpus = await asyncio.to_thread(counted, tuple(documents))
            if self._embedder is None or not self._embedder.ready:
                self._corpus = corpus
                return
            self._corpus = self._corpus or corpus  # an answer by words is better than none while the first one runs
            try:
                self._corpus = await self._with_vectors(corpus, self._embedder)
            except EmbeddingError as error:
                log.warning("runbooks are searched by words only", reason=str(error))
                self._corpus = corpus

    async def search(self, question: Question, limit: int = 3) -> list[Hit]:
        """The best candidates first; an empty list says that none fits."""
        comparison = await self.compare(question)
        if comparison is None:
            return []
        return (await asyncio.to_thread(candidates, comparison, self._weights, floor=self._floor))[:limit]

    async def compare(self, question: Question) -> Comparison | None:
        """The question beside what is searched now; None when there is nothing to search."""
        corpus = self._corpus
        if corpus is None or not corpus.documents:
            return None
        asked = Asked.of(question)
        meaning = await self._meaning(corpus, asked.for_embedding, question.service)
        return Comparison(corpus=corpus, question=question, asked=asked, meaning=meaning)

    async def _with_vectors(self, corpus: Corpus, embedder: Embedder) -> Corpus:
        if not corpus.chunks:
            return corpus
        texts = list(dict.fromkeys(chunk.text for chunk in corpus.chunks))
        known = await asyncio.to_thread(self._cache.known, embedder.model_id, texts)
        fresh = [text for text in texts if text not in known]
        if fresh:
            vectors = await embedder.embed(fresh)
            await asyncio.to_thread(self._cache.keep, embedder.model_id, fresh, vectors)
            known.update(zip(fresh, vectors, strict=True))
        rows = np.stack([known[chunk.text] for chunk in corpus.chunks])
        return await in_heavy_thread(partial(indexed, corpus, rows))

    async def _meaning(self, corpus: Corpus, text: str, service: str) -> Meaning | None:
        if self._embedder is None or not self._embedder.ready or corpus.index is None or not text:
            return None
        try:
            async with asyncio.timeout(self._patience_s):
                vector = await self._embedder.embed([text])
                return await in_heavy_thread(partial(nearest, corpus, vector, service))
        except TimeoutError:  # a refresh keeps the thread busy; words answer now
            return None
        except EmbeddingError as error:
            log.warning("a question is answered by words only", reason=str(error))
            return None
