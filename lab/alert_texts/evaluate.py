"""How often the right runbook comes first for alerts of LLM services: by text alone, and with the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runbooks
from diagnostics.causes import knowledge
from diagnostics.causes.evidence import NONE_TITLE, OTHER_TITLE
from lab.alert_texts.texts import FAMILIES, UNCOVERED, AlertText, AlertTexts, Ranked
from retrieval.abstention import Abstention
from retrieval.benchmark import Case
from retrieval.candidates import Comparison, candidates
from retrieval.documents import Document, Hit, Question, Section
from retrieval.embedder import Embedder
from retrieval.evaluate import BASELINES, PATIENT_S
from retrieval.fusion import Weights
from retrieval.measures import DEPTH, Answer, figures
from retrieval.ranking import FLOOR, RunbookSearch
from retrieval.vectors import MemoryVectors, VectorCache
from runbooks.engine.library import load_folder

TEXT, DIAGNOSED, MISLED = "text", "text_and_diagnosis", "text_and_wrong_diagnosis"
BESIDE = ("bm25_body_title", "dense_sections", "reciprocal_rank_fusion")
"""The simpler systems of `retrieval.evaluate`, by text alone."""

SURE = 0.5
"""A runbook that is suggested with at least this probability, and covers nothing of the alert, misleads."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One text, what was answered in each way of asking, and BM25's best score for the text."""

    family: str
    text: AlertText
    case: Case
    hits: dict[str, Sequence[Hit]]
    beside: dict[str, Sequence[str]]
    raw_score: float


async def evaluate(texts: AlertTexts, embedder: Embedder, cache: VectorCache | None = None) -> dict[str, Any]:
    """Shares from 0 to 1 over the shipped runbooks. Raises WeightsError, EmbeddingError."""
    documents = shipped()
    search = RunbookSearch(embedder, cache or MemoryVectors(), patience_s=PATIENT_S)
    await search.warm()
    await search.refresh(documents)
    asked = [await _ask(search, family, text, ranked) for family, text, ranked in texts.diagnosed()]
    covered = [one for one in asked if one.family != UNCOVERED]
    uncovered = [one for one in asked if one.family == UNCOVERED]
    firsts = [ranked[0][0] == text.cause for _, text, ranked in texts.diagnosed() if text.cause is not None]
    return {
        "n": len(covered),
        "uncovered": len(uncovered),
        "runbooks": len(documents),
        "model": embedder.model_id,
        "diagnosis_right_first": float(np.mean(firsts)),
        "systems": {
            **{way: _figures(covered, _product(way)) for way in (TEXT, DIAGNOSED, MISLED)},
            **{name: _figures(covered, _beside(name)) for name in BESIDE},
        },
        "per_voice": _parts(covered, lambda one: one.text.voice),
        "per_family": _parts(covered, lambda one: one.family),
        "none_fits": {way: _none_fits(covered, uncovered, way) for way in (TEXT, DIAGNOSED)},
        "alerts": [_told(one) for one in asked],
    }


def shipped() -> list[Document]:
    """The shipped runbooks as the product searches them: prose, title, declared alerts and causes."""
    found, _ = load_folder(Path(runbooks.__file__).parent)
    return [
        Document(
            doc_id=book.runbook_id,
            title=book.title,
            sections=tuple(Section(heading=heading, text=text) for heading, text in book.sections),
            alerts=book.alerts,
            causes=book.causes,
            services=book.services,
        )
        for book in found
    ]


def question(text: AlertText, ranked: Ranked = ()) -> Question:
    """As the product asks: the alert's words, and of a diagnosis its causes and the title of the first."""
    said = f"{text.text}\n{cause_title(ranked[0][0])}" if ranked else text.text
    return Question(text=said, alert=text.alert, service=text.service, causes=ranked)


def misled(ranked: Ranked, truth: str) -> Ranked:
    """The same answer with the true cause and the likeliest other one of the catalogue changed about."""
    known = knowledge.load().causes
    other = next((cause for cause, _ in ranked if cause != truth and cause in known), None)
    if other is None or ranked[0][0] != truth:
        return ranked
    swapped = {truth: other, other: truth}
    return tuple((swapped.get(cause, cause), likely) for cause, likely in ranked)


async def _ask(search: RunbookSearch, family: str, text: AlertText, ranked: Ranked) -> Asked:
    questions = {TEXT: question(text), DIAGNOSED: question(text, ranked)}
    if text.cause is not None:
        questions[MISLED] = question(text, misled(ranked, text.cause))
    compared = {way: await _compared(search, each) for way, each in questions.items()}
    case = Case(
        query_id=text.id,
        source=text.voice,
        alert=text.alert,
        expr="",
        texts={"text_full": text.text},
        relevance=dict.fromkeys(text.runbooks, 2),
    )
    plain = compared[TEXT]
    return Asked(
        family=family,
        text=text,
        case=case,
        hits={way: candidates(each, Weights(), floor=0.0)[:DEPTH] for way, each in compared.items()},
        beside={name: _order(BASELINES[name](case, plain), plain) for name in BESIDE},
        raw_score=float(plain.corpus.keywords.body_scores(plain.asked.stems).max()),
    )


async def _compared(search: RunbookSearch, asked: Question) -> Comparison:
    comparison = await search.compare(asked)
    if comparison is None:
        raise AssertionError("there are no runbooks in this installation")
    return comparison


def _order(scores: NDArray[np.float64], comparison: Comparison) -> list[str]:
    best = np.argsort(-scores, kind="stable")[:DEPTH]
    return [comparison.corpus.documents[at].doc_id for at in best]


def cause_title(cause: str) -> str:
    known = knowledge.load().causes
    return known[cause].title if cause in known else NONE_TITLE if cause == "none" else OTHER_TITLE


def _product(way: str) -> Callable[[Asked], Sequence[str]]:
    return lambda one: [hit.doc_id for hit in one.hits[way]]


def _beside(name: str) -> Callable[[Asked], Sequence[str]]:
    return lambda one: one.beside[name]


def _figures(asked: Sequence[Asked], ranked: Callable[[Asked], Sequence[str]]) -> dict[str, Any]:
    return figures([Answer(case=one.case, ranked=tuple(ranked(one))) for one in asked])


def _parts(asked: Sequence[Asked], of: Callable[[Asked], str]) -> dict[str, Any]:
    return {
        name: {way: _figures([one for one in asked if of(one) == name], _product(way)) for way in (TEXT, DIAGNOSED)}
        for name in sorted({of(one) for one in asked}, key=[*FAMILIES, *sorted({of(one) for one in asked})].index)
    }


def _none_fits(covered: Sequence[Asked], uncovered: Sequence[Asked], way: str) -> dict[str, Any]:
    """What is suggested where nothing fits, and whether the first probability tells the two kinds apart."""
    fits, none = (np.array([_first(one, way) for one in group]) for group in (covered, uncovered))
    raw_fits, raw_none = (np.array([one.raw_score for one in group]) for group in (covered, uncovered))
    apart = Abstention(right=fits, cannot=none, raw_right=raw_fits, raw_cannot=raw_none)
    return {
        "floor": FLOOR,
        "covered_refused": float((fits < FLOOR).mean()),
        "right_refused": float((fits[_right(covered, way)] < FLOOR).mean()),
        "uncovered_refused": float((none < FLOOR).mean()),
        "uncovered_misled": float((none >= SURE).mean()),
        "uncovered_median": float(np.median(none)),
        "auroc": apart.auroc,
        "auroc_raw_score": apart.raw_auroc,
    }


def _right(asked: Sequence[Asked], way: str) -> NDArray[np.bool_]:
    return np.array([bool(one.hits[way]) and one.hits[way][0].doc_id in one.case.relevance for one in asked])


def _first(one: Asked, way: str) -> float:
    return one.hits[way][0].score if one.hits[way] else 0.0


def _told(one: Asked) -> dict[str, Any]:
    return {
        "id": one.text.id,
        "wanted": list(one.text.runbooks),
        **{way: [[hit.doc_id, hit.score] for hit in hits[:3]] for way, hits in one.hits.items()},
    }
