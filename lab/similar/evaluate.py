"""How often the first similar incident has the same cause, beside what a person would look up by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.alert_texts.evaluate import misled
from lab.alert_texts.texts import FAMILIES, AlertTexts, Ranked
from lab.similar.histories import History, diagnosed, histories
from retrieval.documents import Question
from retrieval.embedder import Embedder, Vectors
from retrieval.evaluate import PATIENT_S
from retrieval.measures import RESAMPLES, wilson
from retrieval.similar import FLOOR, IncidentSearch
from retrieval.vectors import MemoryVectors
from retrieval.words import plain

SEED = 20_261_124
COUNT = 400

TEXT, DIAGNOSED, MISLED = "text", "text_and_diagnosis", "text_and_wrong_diagnosis"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One history and, by system, the true cause of the incident that it puts first; None where it names none."""

    history: History
    firsts: Mapping[str, str | None]


class _Remembering:
    """An embedder that embeds each text once: histories repeat their texts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._cache = MemoryVectors()

    @property
    def model_id(self) -> str:
        return self._embedder.model_id

    @property
    def ready(self) -> bool:
        return self._embedder.ready

    async def warm(self) -> None:
        await self._embedder.warm()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if not self._cache.known(self.model_id, [text])]
        if new:
            self._cache.keep(self.model_id, new, await self._embedder.embed(new))
        known = self._cache.known(self.model_id, texts)
        return np.stack([known[text] for text in texts])


async def evaluate(
    texts: AlertTexts,
    embedder: Embedder,
    *,
    count: int = COUNT,
    seed: int = SEED,
    families: Sequence[str] = FAMILIES,
) -> dict[str, Any]:
    """Shares from 0 to 1. Raises WeightsError, EmbeddingError."""
    once = _Remembering(embedder)
    await once.warm()
    answered = [await _answered(each, once) for each in histories(texts, count, seed, families)]
    recurring = [each for each in answered if each.history.recurs]
    new = [each for each in answered if not each.history.recurs]
    return {
        "histories": count,
        "seed": seed,
        "n": len(recurring),
        "new": len(new),
        "model": embedder.model_id,
        "floor": FLOOR,
        "systems": {name: _figures(name, recurring, new) for name in answered[0].firsts},
        "per_family": {
            family: {name: _figures(name, part, []) for name in (TEXT, DIAGNOSED)}
            for family in families
            if (part := [each for each in recurring if each.history.asked.truth in _causes(texts, family)])
        },
    }


async def _answered(history: History, embedder: Embedder) -> Answered:
    search = IncidentSearch(embedder, patience_s=PATIENT_S)
    await search.refresh(history.past)
    page, ranked = history.asked.page, history.asked.ranked
    wrong = misled(ranked, history.asked.truth) if history.asked.truth else ranked
    questions = {TEXT: page, DIAGNOSED: diagnosed(page, ranked), MISLED: diagnosed(page, wrong)}
    firsts: dict[str, str | None] = {}
    for way, question in questions.items():
        found = await search.similar(question, history.truths.keys(), limit=1)
        firsts[way] = history.truths[found[0].incident_id] if found else None
    firsts |= {name: system(history, page, ranked) for name, system in BY_HAND.items()}
    return Answered(history=history, firsts=firsts)


def _latest_of_service(history: History, page: Question, _: Ranked) -> str | None:
    return next((history.truths[past.incident_id] for past in history.past if past.service == page.service), None)


def _latest_of_alert(history: History, page: Question, ranked: Ranked) -> str | None:
    """Of the same service if there is any; where the alert is new, or has no name, the latest of the service."""
    name = plain(page.alert)
    same = [past for past in history.past if name and plain(past.alert) == name]
    ordered = [past for past in same if past.service == page.service] + same
    return history.truths[ordered[0].incident_id] if ordered else _latest_of_service(history, page, ranked)


def _latest_of_cause(history: History, _: Question, ranked: Ranked) -> str | None:
    """Of the cause that the diagnosis puts first; none where that never was."""
    return next((history.truths[past.incident_id] for past in history.past if past.cause == ranked[0][0]), None)


BY_HAND: Mapping[str, Callable[[History, Question, Ranked], str | None]] = {
    "latest_of_service": _latest_of_service,
    "latest_of_alert": _latest_of_alert,
    "latest_of_diagnosed_cause": _latest_of_cause,
}


def _causes(texts: AlertTexts, family: str) -> set[str | None]:
    return {text.cause for text in texts.families[family]}


def _figures(name: str, recurring: Sequence[Answered], new: Sequence[Answered]) -> dict[str, Any]:
    """Of recurring troubles: first with the same cause, and shown at all; of new ones: rightly nothing shown."""
    answers = [(each.history.asked.truth, each.firsts[name] == each.history.asked.truth) for each in recurring]
    shown = [each.firsts[name] is not None for each in recurring]
    silent = sum(each.firsts[name] is None for each in new)
    return {
        "n": len(recurring),
        "same_cause": float(np.mean([right for _, right in answers])) if answers else 0.0,
        "same_cause_ci95": _clustered(answers),
        "shown": float(np.mean(shown)) if shown else 0.0,
        "right_when_shown": sum(right for _, right in answers) / max(sum(shown), 1),
        "new": len(new),
        "none_shown": silent / len(new) if new else 0.0,
        "none_shown_ci95": list(wilson(silent, len(new))),
    }


def _clustered(answers: Sequence[tuple[str, bool]]) -> list[float]:
    """
    The bootstrap's 95 % interval of the share, drawing whole causes: texts of one cause are alike.

    Percentiles of 2,000 resamples, one seed; [0, 1] of none.
    """
    if not answers:
        return [0.0, 1.0]
    causes = sorted({cause for cause, _ in answers})
    rights = np.array([sum(right for of, right in answers if of == cause) for cause in causes])
    counts = np.array([sum(of == cause for of, _ in answers) for cause in causes])
    drawn = np.random.default_rng(0).integers(0, len(causes), (RESAMPLES, len(causes)))
    shares = rights[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [float(end) for end in np.percentile(shares, [2.5, 97.5])]
