"""
Which past incidents resemble this one: by cause, alert, service, words and meaning, or none does.

The signals are those of runbooks, compared and fused by the same code. What differs is what they are worth in absolute
terms: a past incident is an example and no instruction, so a diagnosis that speaks against its cause speaks against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from retrieval.candidates import WITHOUT_MEANING, Comparison, leads
from retrieval.chunks import chunks_of
from retrieval.documents import Document, Question, Section
from retrieval.embedder import Embedder
from retrieval.forgetting import ForgettingVectors
from retrieval.fusion import Weights, by_text, fused
from retrieval.ranking import RunbookSearch
from retrieval.vectors import VectorCache
from retrieval.words import cleaned, plain

FLOOR = 0.3
"""Below this a past incident is not shown; chosen on histories that the figures in docs/retrieval.md do not have."""

SERVICE = 0.1
"""What the same service counts: little beside the text's signals, each stretched to 0..1."""

_ALERT_ALONE = 0.7  # the same alert's name, where nothing is known of causes


@dataclass(frozen=True, kw_only=True)
class Past:
    """
    An incident that is over: what its alert said and its verdict found, and what it turned out to be.

    `cause` is a catalogue id, "" where none was found; `certainty` is 1 where a verified fix confirmed it, else the
    probability that its diagnosis gave it.
    """

    incident_id: str
    began: datetime
    title: str
    text: str
    alert: str = ""
    service: str = ""
    cause: str = ""
    certainty: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Similar:
    """A past incident that resembles the one in question, how much (0 to 1), and why in words."""

    incident_id: str
    score: float
    reasons: tuple[str, ...]


class IncidentSearch:
    """
    The past incidents of one installation, searchable; by words alone until the model is warm, as runbooks are.

    With a `ForgettingVectors` as cache, the vectors of incidents that are not there any more go with each refresh.
    """

    def __init__(
        self, embedder: Embedder | None = None, cache: VectorCache | None = None, *, patience_s: float = 1.0
    ) -> None:
        self._embedder = embedder
        self._cache = cache
        self._search = RunbookSearch(embedder, cache, patience_s=patience_s)
        self._known: dict[str, Past] = {}

    async def warm(self) -> None:
        """Raises WeightsError, EmbeddingError; search goes on by words."""
        await self._search.warm()
        await self._forget([_document(each) for each in self._known.values()])

    async def refresh(self, past: Sequence[Past]) -> None:
        """These, and no others, can be found from now on; only new texts are embedded."""
        documents = [_document(each) for each in past]
        await self._search.refresh(documents)
        self._known = {each.incident_id: each for each in past}
        await self._forget(documents)

    async def similar(self, question: Question, among: Collection[str], limit: int = 3) -> list[Similar]:
        """Those among these ids that resemble it, best first; an empty list says that none does."""
        comparison = await self._search.compare(question)
        return [] if comparison is None else resembling(comparison, self._known, among)[:limit]

    async def _forget(self, documents: Sequence[Document]) -> None:
        if isinstance(self._cache, ForgettingVectors) and self._embedder is not None and self._embedder.ready:
            texts = [chunk.text for chunk in chunks_of(documents)]
            await asyncio.to_thread(self._cache.keep_only, self._embedder.model_id, texts)


def resembling(
    comparison: Comparison, known: dict[str, Past], among: Collection[str], *, floor: float = FLOOR
) -> list[Similar]:
    """Pure; equal scores stand with the latest incident first."""
    documents, question = comparison.corpus.documents, comparison.question
    rows = [at for at, document in enumerate(documents) if document.doc_id in among and document.doc_id in known]
    if not rows:
        return []
    past = [known[documents[at].doc_id] for at in rows]
    signals = comparison.signals(rows)
    sure = signals.cause * np.array([each.certainty for each in past])
    same_service = np.array([_same_service(each, question) for each in past], np.float64)
    scores = fused(replace(signals, cause=sure), Weights()) + SERVICE * same_service
    ids = np.array([each.incident_id for each in past])
    ages = np.array([-each.began.timestamp() for each in past])
    places = np.lexsort((ids, ages, -scores))
    found = []
    for place, lead in zip(places, leads(scores[places]), strict=True):
        item = past[place]
        score = _probability(comparison, rows[place], item, float(sure[place]), lead)
        if score >= floor:
            reasons = _reasons(comparison, rows[place], item, float(signals.cause[place]))
            found.append(Similar(incident_id=item.incident_id, score=round(score, 3), reasons=reasons))
    return found


def _probability(comparison: Comparison, at: int, item: Past, sure: float, lead: float) -> float:
    """The same cause speaks for it by itself; alert and words count as far as no other cause is known better."""
    evidence = comparison.evidence(at, lead)
    looks = 1 - (1 - _ALERT_ALONE * evidence.alert) * (1 - by_text(evidence))
    likely = dict(comparison.question.causes).get(item.cause, 0.0)
    against = item.certainty * (1 - likely) if item.cause and comparison.question.causes else 0.0
    return 1 - (1 - sure) * (1 - looks * (1 - against))


def _reasons(comparison: Comparison, at: int, item: Past, likely: float) -> tuple[str, ...]:
    question = comparison.question
    reasons = [f"same cause ({item.cause}, now {likely * 100:.0f} %)"] if likely > 0 else []
    if question.alert and plain(question.alert) == plain(item.alert):
        reasons.append("same alert")
    if _same_service(item, question):
        reasons.append("same service")
    if shared := comparison.corpus.keywords.shared_words(comparison.prose, at):
        reasons.append(f"words: {', '.join(shared)}")
    if comparison.meaning is None:
        return (*reasons, WITHOUT_MEANING)
    return (*reasons, f"similar in meaning ({comparison.meaning.cosines[at]:.2f} of 1)")


def _same_service(item: Past, question: Question) -> bool:
    return bool(item.service) and item.service == question.service


def _document(item: Past) -> Document:
    """Cleaned as questions are: addresses, hashes and numbers belong to one incident only."""
    return Document(
        doc_id=item.incident_id,
        title=" ".join(cleaned(item.title).split()),
        sections=(Section(heading="", text=cleaned(item.text)),),
        alerts=(item.alert,) if item.alert else (),
        causes=(item.cause,) if item.cause else (),
    )
