"""
Near copies of a runbook: of a family of them in one folder, a card shows one.

Otherwise whoever may write a folder could fill a card with copies of one text. Two are near copies when nine in ten of
their runs of five words are the same (Broder 1997); of 383 public runbooks no two of a source come above 0.84, though
siblings are often written from one template. Folders are kept apart: nobody's copy hides the original of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from retrieval.documents import Document
from retrieval.keywords import KeywordIndex, body

ALIKE = 0.9
_WORTH_COMPARING = 0.8  # of their words: below it the runs of words need not be counted
_RUN = 5
_MOST_LOOKED_AT = 200  # documents per question; each near copy costs about a millisecond, once


class NearCopies:
    """The documents of one corpus; what was compared is remembered."""

    def __init__(self, documents: Sequence[Document], keywords: KeywordIndex) -> None:
        self._documents = documents
        self._keywords = keywords
        self._runs: dict[int, frozenset[int]] = {}

    def families(self, order: Sequence[int], most: int) -> dict[int, int]:
        """Of these documents, best first, the first of each family, at most so many; and how many copies each has."""
        kept: dict[int, int] = {}
        for at in order[:_MOST_LOOKED_AT]:
            first = next((one for one in kept if self._are_copies(one, at)), None)
            if first is not None:
                kept[first] += 1
            elif len(kept) < most:
                kept[at] = 0
            else:
                break
        return kept

    def _are_copies(self, one: int, other: int) -> bool:
        folder = self._documents[one].origin.folder
        if not folder or folder != self._documents[other].origin.folder:
            return False
        words, more = self._keywords.words_of(one), self._keywords.words_of(other)
        return _shared(words, more) >= _WORTH_COMPARING and _shared(self._of(one), self._of(other)) >= ALIKE

    def _of(self, at: int) -> frozenset[int]:
        if at not in self._runs:
            said = body(self._documents[at]).split()
            self._runs[at] = frozenset(hash(tuple(said[start : start + _RUN])) for start in range(len(said)))
        return self._runs[at]


def _shared(one: AbstractSet[object], other: AbstractSet[object]) -> float:
    """The share of all that both have (Jaccard); two without anything are alike."""
    union = len(one | other)
    return len(one & other) / union if union else 1.0
