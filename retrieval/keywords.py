"""BM25 over runbooks: once over their bodies, once over their titles, which bring as much as the embeddings do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import Document
from retrieval.words import stem, stems, words

Scores = NDArray[np.float64]


class KeywordIndex:
    """
    The words of some documents, ready to be asked.

    Building it costs the stemming of all text (about 1 ms a document) and belongs in a thread; asking costs well
    under a millisecond per thousand documents.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        bodies = [stems(_body(document)) for document in documents]
        titles = [stems(_title(document)) for document in documents]
        self._count = len(documents)
        self._body = _bm25(bodies)
        self._title = _bm25(titles)
        self._has = [frozenset(body) for body in bodies]
        self._documents_with = Counter(word for has in self._has for word in has)

    def body_scores(self, asked: Sequence[str]) -> Scores:
        """BM25 of each document's body for these stems."""
        return self._scores(self._body, asked)

    def title_scores(self, asked: Sequence[str]) -> Scores:
        """BM25 of each document's title and declared alert names for these stems."""
        return self._scores(self._title, asked)

    def rarity(self, word: str) -> float:
        """The inverse document frequency of a stem; a word that no document has is the rarest."""
        with_it = self._documents_with[word]
        return math.log(1 + (self._count - with_it + 0.5) / (with_it + 0.5))

    def coverage(self, asked: Sequence[str], document: int) -> float:
        """The share of what was asked, weighted by rarity, that this document mentions at all: 0 to 1."""
        weights = {word: self.rarity(word) for word in asked}
        total = sum(weights.values())
        return sum(weight for word, weight in weights.items() if word in self._has[document]) / total if total else 0.0

    def shared_words(self, text: str, document: int, most: int = 4) -> list[str]:
        """The rarest words, as the question wrote them, that this document has too."""
        spelled: dict[str, str] = {}
        for word in words(text):
            spelled.setdefault(stem(word), word)
        shared = [word for word in spelled if word in self._has[document]]
        return [spelled[word].lower() for word in sorted(shared, key=self.rarity, reverse=True)[:most]]

    def _scores(self, bm25: Any, asked: Sequence[str]) -> Scores:
        if bm25 is None or not asked:
            return np.zeros(self._count)
        return np.asarray(bm25.get_scores(list(asked)), np.float64)


def _bm25(texts: list[list[str]]) -> Any:
    if not any(texts):
        return None
    import bm25s  # noqa: PLC0415  brings scipy, half a second

    # b = 0.9: runbooks differ tenfold in length, and the long ones mention everything.
    index = bm25s.BM25(k1=1.2, b=0.9)
    index.index(texts, show_progress=False)
    return index


def _body(document: Document) -> str:
    sections = "\n".join(f"{section.heading}\n{section.text}" for section in document.sections)
    return f"{document.title}\n{sections}"


def _title(document: Document) -> str:
    return " ".join((document.title, *document.alerts))
