"""
The words of runbooks: BM25 over their bodies and over their names, and how much of a name was said.

A runbook's names are its title and the alerts that its author declared.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import Document
from retrieval.troubles import named_percentage, percentages, troubles
from retrieval.words import stem, stems, words

Scores = NDArray[np.float64]

_WRITTEN = re.compile(r"\w+")


class KeywordIndex:
    """
    The words of some documents, ready to be asked.

    Building it costs the stemming of all text (about 1 ms a document) and belongs in a thread; asking costs well
    under a millisecond per thousand documents.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        bodies = [stems(body(document)) for document in documents]
        titles = [stems(_title(document)) for document in documents]
        self._count = len(documents)
        self._body = _bm25(bodies)
        self._title = _bm25(titles)
        self._has = [frozenset(said) for said in bodies]
        self._documents_with = Counter(word for has in self._has for word in has)
        self._names = _Names([(document.title, *document.alerts) for document in documents], self.rarity)
        self._percentages = [_percentages(document) for document in documents]
        self._documents_at = Counter(percentage for said in self._percentages for percentage in said)

    def body_scores(self, asked: Sequence[str]) -> Scores:
        """BM25 of each document's body for these stems."""
        return self._scores(self._body, asked)

    def title_scores(self, asked: Sequence[str]) -> Scores:
        """BM25 of each document's title and declared alert names for these stems."""
        return self._scores(self._title, asked)

    def name_coverage(self, asked: Sequence[str]) -> Scores:
        """The share of each document's best said name, weighted by rarity, that these stems have: 0 to 1."""
        return self._names.coverage(frozenset(asked))

    def trouble_scores(self, text: str) -> Scores:
        """How well each document's names speak of this text's troubles; troubles of the name alone count against it."""
        return self._names.trouble_scores(troubles(text))

    def percentage_scores(self, text: str) -> Scores:
        """The rarity of the percentages that this text and each document share."""
        asked = percentages(text)
        scores = np.zeros(self._count)
        for at, said in enumerate(self._percentages if asked else ()):
            scores[at] = sum(math.log((self._count + 1) / (self._documents_at[each] + 0.5)) for each in asked & said)
        return scores

    def rarity(self, word: str) -> float:
        """The inverse document frequency of a stem; a word that no document has is the rarest."""
        with_it = self._documents_with[word]
        return math.log(1 + (self._count - with_it + 0.5) / (with_it + 0.5))

    def coverage(self, asked: Sequence[str], document: int) -> float:
        """
        The share of what was asked, weighted by rarity, that this document mentions at all: 0 to 1.

        Words that no document has (hosts, tags, the names of people) tell no two documents apart and do not count;
        with the weight of the rarest, a long alert would fit nothing.
        """
        weights = {word: self.rarity(word) for word in asked if self._documents_with[word]}
        total = sum(weights.values())
        return sum(weight for word, weight in weights.items() if word in self._has[document]) / total if total else 0.0

    def shared_counts(self, asked: Sequence[str]) -> Scores:
        """How many of these stems each document has, all alike."""
        wanted = frozenset(asked)
        return np.array([len(wanted & has) for has in self._has], np.float64)

    def words_of(self, document: int) -> frozenset[str]:
        """The stems of its body."""
        return self._has[document]

    def shared_words(self, text: str, document: int, most: int = 4) -> list[str]:
        """The rarest words that this document has too, as the question wrote them: PCIe, and not "pc" and "ie"."""
        spelled: dict[str, str] = {}
        for written in _WRITTEN.findall(text):
            for is_shared, run in groupby(words(written), key=lambda word: stem(word) in self._has[document]):
                together = list(run) if is_shared else []
                joined = written if written in together else "".join(together)
                for word in together:
                    spelled.setdefault(stem(word), joined if joined in written else word)
        rarest = sorted(spelled, key=self.rarity, reverse=True)
        return list(dict.fromkeys(spelled[word] for word in rarest))[:most]

    def _scores(self, bm25: Any, asked: Sequence[str]) -> Scores:
        if bm25 is None or not asked:
            return np.zeros(self._count)
        return np.asarray(bm25.get_scores(list(asked)), np.float64)


class _Names:
    """Every name of every document; a document counts by the name that fits best."""

    def __init__(self, names: Sequence[Sequence[str]], rarity: Callable[[str], float]) -> None:
        self._count = len(names)
        flat = [(at, name) for at, some in enumerate(names) for name in some]
        self._documents = np.array([at for at, _ in flat], np.intp)
        self._has: dict[str, list[int]] = {}
        self._rarity = rarity
        self._whole = np.zeros(len(flat))
        for place, (_, name) in enumerate(flat):
            for word in frozenset(stems(name)):
                self._has.setdefault(word, []).append(place)
                self._whole[place] += rarity(word)
        spoken = [troubles(name) for _, name in flat]
        self._troubles = sorted(frozenset[str]().union(*spoken))
        self._speaks = np.array([[each in some for each in self._troubles] for some in spoken], np.float64)
        self._speaks = self._speaks.reshape(len(flat), len(self._troubles))
        names_with = self._speaks.sum(axis=0)
        self._trouble_rarity = np.log((len(flat) + 1) / (names_with + 0.5))

    def coverage(self, asked: frozenset[str]) -> Scores:
        said = np.zeros(len(self._whole))
        for word in asked:
            said[self._has.get(word, [])] += self._rarity(word)
        return self._best(np.divide(said, self._whole, out=np.zeros_like(said), where=self._whole > 0), floor=0.0)

    def trouble_scores(self, asked: frozenset[str]) -> Scores:
        wanted = np.array([each in asked for each in self._troubles], np.float64)
        weights = self._trouble_rarity * (wanted - 0.5 * (1 - wanted))
        return self._best(self._speaks @ weights, floor=-np.inf)

    def _best(self, scores: Scores, *, floor: float) -> Scores:
        best = np.full(self._count, floor)
        np.maximum.at(best, self._documents, scores)
        return best


def _percentages(document: Document) -> frozenset[str]:
    named = frozenset[str]().union(*map(named_percentage, (document.title, *document.alerts)))
    return named.union(percentages(document.title), *(percentages(section.text) for section in document.sections))


def _bm25(texts: list[list[str]]) -> Any:
    if not any(texts):
        return None
    import bm25s  # noqa: PLC0415  brings scipy, half a second

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # else it tells of every index, on a person's terminal
    # b = 0.9: runbooks differ tenfold in length, and the long ones mention everything.
    index = bm25s.BM25(k1=1.2, b=0.9)
    index.index(texts, show_progress=False)
    return index


def body(document: Document) -> str:
    """All that a document says, its title, the headings above its sections, labels and signals included."""
    own = {document.title, *(section.heading for section in document.sections)}
    above = dict.fromkeys(name for section in document.sections for name in section.path if name not in own)
    sections = (f"{section.heading}\n{section.text}" for section in document.sections)
    return "\n".join((document.title, *above, *document.labels, *document.signals, *sections))


def _title(document: Document) -> str:
    return " ".join((document.title, *document.alerts))
