"""The vector store behind retrieval: whether it answers, how fast, and what is in the collection that it searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SOURCE = "manuals"
ALIAS = "manuals"
SHARES: Mapping[str, float] = {"manuals": 0.8, "forum": 0.2}
"""Data source -> its share of a collection's points. What agents read of orders is not in here."""

TIMEOUT_S = 3.0
"""How long the application waits for passages before it asks the model without any."""

REJECTED_S = 0.020
"""A query of the wrong dimension is refused before anything is searched."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """The model that makes a vector of a question."""

    name: str = "e5-base-v2"
    dimensions: int = 768


@dataclass(frozen=True, kw_only=True)
class Collection:
    """
    Vectors of one ingestion, and what a search in them brings.

    `empty` is the share of searches without a passage that is similar enough, `score` the best passage's similarity.
    """

    points: int = 1_240_000
    dimensions: int = 768
    empty: float = 0.02
    score: float = 0.72


@dataclass(kw_only=True)
class KnowledgeStore:
    """
    At rest: 120 ms a call, 2 % of the answers are empty, the best passage scores 0.72.

    Searches go to the collection that `serves` names. `overload` (0 to 1) is how far beyond its means the store is:
    then searches take up to the application's timeout, and come back cut short or not at all. Nothing is found
    of `quarantined`, pairs of collection and source.
    """

    seconds: float = 0.120
    embedder: Embedder = field(default_factory=Embedder)
    collections: dict[str, Collection] = field(default_factory=lambda: {"manuals-v7": Collection()})
    serves: str = "manuals-v7"
    overload: float = 0.0
    quarantined: set[tuple[str, str]] = field(default_factory=set)

    @property
    def collection(self) -> Collection:
        return self.collections[self.serves]

    def hides(self, source: str) -> bool:
        """Whether what is searched now leaves this source out."""
        return (self.serves, source) in self.quarantined

    @property
    def empty(self) -> float:
        """The share of searches without a passage that is similar enough, in a store that keeps up."""
        hidden = sum(share for source, share in SHARES.items() if self.hides(source))
        return min(1.0, self.collection.empty + _NOTHING_ELSE * hidden)

    @property
    def is_mismatched(self) -> bool:
        """The embedder's vectors do not have the collection's dimension, so that every search is refused."""
        return self.embedder.dimensions != self.collection.dimensions

    @property
    def outcomes(self) -> Mapping[str, float]:
        """Outcome -> share of the calls, as the application counts them."""
        if self.is_mismatched:
            # The application catches the error and counts that nothing was found, so errors are the few that remain.
            return {"ok": 0.0, "empty": 0.97, "error": 0.03, "timeout": 0.0}
        timeout, error = 0.001 + 0.25 * self.overload, 0.002 + 0.04 * self.overload
        empty = self.empty + 0.38 * self.overload
        return {"ok": max(0.0, 1 - timeout - error - empty), "empty": empty, "error": error, "timeout": timeout}

    @property
    def statuses(self) -> Mapping[str, float]:
        """HTTP status -> share of the searches, as the store itself counts them."""
        if self.is_mismatched:
            return {"200": 0.0, "400": 1.0, "503": 0.0}
        failed = 0.001 + 0.29 * self.overload
        return {"200": 1 - failed, "400": 0.0, "503": failed}

    @property
    def takes_s(self) -> float:
        """The mean time of a search."""
        if self.is_mismatched:
            return REJECTED_S
        return self.seconds + (TIMEOUT_S - self.seconds) * self.overload

    @property
    def score(self) -> float:
        """The mean similarity of the best passage."""
        return self.collection.score

    def passages_share(self) -> float:
        """How much of the passages that prompts usually carry they carry now: 1 at rest, 0 when nothing is found."""
        return self.outcomes["ok"] / _USUALLY_FOUND


_NOTHING_ELSE = 0.3
"""Of the searches whose best passage is hidden: the other sources have nothing that is similar enough."""

_USUALLY_FOUND = KnowledgeStore().outcomes["ok"]
