"""
One question against one corpus: the order, the probability and the reasons of each candidate; pure, in memory.

What people and the diagnosis said about a runbook counts before what its words look like: the link in the alert,
the alert names and causes that its author declared, the probability of each cause. The text of a question is compared
and never obeyed: all it can do is move runbooks of ours up and down a list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retrieval.corpus import Corpus, Meaning
from retrieval.documents import Document, Hit, Question, Section
from retrieval.fusion import Evidence, Signals, Weights, fused, probability
from retrieval.links import linked_document
from retrieval.markdown import anchor
from retrieval.words import MOST_CHARACTERS, cleaned, plain, spaced, stems

WORTH_A_LOOK = 10  # reasons cost a little per document, and nobody is shown more
WITHOUT_MEANING = "by words only: the embedding model is not ready"

_METRIC = re.compile(r"\b[a-zA-Z]\w*[_:]\w+")  # of a PromQL expression, metric and label names; not its functions


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question made comparable: what was said, cleaned, and the stems of that and of its expression's names."""

    said: str
    text: str
    stems: tuple[str, ...]
    expr: tuple[str, ...]

    @classmethod
    def of(cls, question: Question) -> Asked:
        """The alert's name is part of the text, once."""
        said = question.text if question.alert in question.text else f"{question.alert}\n{question.text}"
        text = cleaned(said)
        names = " ".join(_METRIC.findall(question.expr[:MOST_CHARACTERS]))
        return cls(said=said[:MOST_CHARACTERS], text=text, stems=tuple(stems(text)), expr=tuple(stems(names)))

    @property
    def for_embedding(self) -> str:
        """What the model is given; empty when nothing readable was asked."""
        return spaced(self.text)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question beside one corpus; `meaning` is None when words alone have to do."""

    corpus: Corpus
    question: Question
    asked: Asked
    meaning: Meaning | None

    def asking(self, *, expr: str) -> Comparison:
        """The same question with an expression beside it."""
        question = replace(self.question, expr=expr)
        return replace(self, question=question, asked=Asked.of(question))

    @cached_property
    def prose(self) -> str:
        """The question's text without the alert's name, which has a reason of its own."""
        text, alert = self.question.text, self.question.alert
        return cleaned(text.replace(alert, " ") if alert else text)

    def signals(self, eligible: Sequence[int]) -> Signals:
        """What is known about each of these documents, in this order."""
        keywords, asked, rows = self.corpus.keywords, self.asked, list(eligible)
        documents = [self.corpus.documents[at] for at in rows]
        return Signals(
            body=keywords.body_scores(asked.stems)[rows],
            title=keywords.title_scores(asked.stems)[rows],
            name=self._named[rows],
            trouble=keywords.trouble_scores(asked.said)[rows],
            percentage=keywords.percentage_scores(asked.said)[rows],
            dense=None if self.meaning is None else self.meaning.cosines[rows],
            breadth=None if self.meaning is None else self.meaning.breadth[rows],
            expr=keywords.body_scores(asked.expr)[rows] if asked.expr else None,
            alert=np.array([bool(_alert_reason(document, self.question)) for document in documents], np.float64),
            cause=np.array([_treated(document, self.question)[1] for document in documents], np.float64),
        )

    @cached_property
    def _named(self) -> NDArray[np.float64]:
        return self.corpus.keywords.name_coverage(self.asked.stems)

    def hit(self, at: int, *, lead: float, linked: bool, copies: int = 0) -> Hit:
        """
        This document as a candidate; a link is taken at its word.

        `lead` is by how much its score is above that of the one after the next, `copies` how many near copies of it are
        not shown.
        """
        document = self.corpus.documents[at]
        section = self._section(at)
        before = ("linked by the alert's runbook_url",) if linked else ()
        after = (f"near copies of it in the same folder, not shown: {copies}",) if copies else ()
        return Hit(
            doc_id=document.doc_id,
            title=document.title,
            heading=section.heading,
            score=1.0 if linked else round(probability(self.evidence(at, lead)), 3),
            reasons=(*before, *self._reasons(at), *after),
            url=document.url,
            anchor=section.anchor or anchor(section.heading),
            origin=document.origin,
            standing=2 if linked else int(bool(_alert_reason(document, self.question))),
        )

    def evidence(self, at: int, lead: float) -> Evidence:
        """What speaks for this document in absolute terms."""
        document = self.corpus.documents[at]
        return Evidence(
            coverage=self.corpus.keywords.coverage(self.asked.stems, at),
            name=float(self._named[at]),
            lead=lead,
            by_words=self.meaning is None,
            alert=bool(_alert_reason(document, self.question)),
            cause=_treated(document, self.question)[1],
        )

    def _reasons(self, at: int) -> tuple[str, ...]:
        document = self.corpus.documents[at]
        reasons = _alert_reason(document, self.question)
        cause, likely = _treated(document, self.question)
        if likely > 0:
            reasons.append(f"diagnosis says {cause} ({likely:.2f}), which this runbook treats")
        shared = self.corpus.keywords.shared_words(self.prose, at)
        if shared:
            reasons.append(f"words: {', '.join(shared)}")
        if self.meaning is None:
            reasons.append(WITHOUT_MEANING)
        else:
            reasons.append(f"similar in meaning ({self.meaning.cosines[at]:.2f} of 1)")
        return tuple(reasons)

    def _section(self, at: int) -> Section:
        """The section to open first: the nearest by meaning, else the one that shares most words."""
        sections = self.corpus.documents[at].sections
        if not sections:
            return Section(heading="", text="")
        if self.meaning is not None and self.meaning.best_chunks[at] >= 0:
            return sections[self.corpus.chunks[self.meaning.best_chunks[at]].section]
        wanted = set(self.asked.stems)
        shared = [len(wanted.intersection(stems(f"{section.heading} {section.text}"))) for section in sections]
        return sections[int(np.argmax(shared))]


def candidates(
    comparison: Comparison, weights: Weights, *, floor: float, without: frozenset[str] = frozenset()
) -> list[Hit]:
    """
    The documents that may fit, best first, at most ten; none whose probability is below `floor`.

    `without` leaves out documents by id: how the evaluation asks what happens when the right one does not exist.
    """
    question, asked, documents = comparison.question, comparison.asked, comparison.corpus.documents
    eligible = [at for at in comparison.corpus.open_to(question.service) if documents[at].doc_id not in without]
    linked = linked_document(documents, eligible, question.runbook_url)
    if not eligible or not (asked.stems or asked.expr or question.causes or linked is not None):
        return []

    scores = fused(comparison.signals(eligible), weights)
    places = np.lexsort((np.array([documents[at].doc_id for at in eligible]), -scores))  # equal scores by id
    score_of = {eligible[at]: float(scores[at]) for at in places}
    order = list(score_of)
    if linked is not None:
        order.remove(linked)
        order.insert(0, linked)
    copies = comparison.corpus.copies.families(
        order, WORTH_A_LOOK + 2
    )  # two more: a lead is over the one after the next
    ranked = sorted(copies, key=lambda at: -score_of[at])
    lead_of = dict(zip(ranked, leads(np.array([score_of[at] for at in ranked])), strict=True))
    hits = [
        comparison.hit(at, lead=lead_of[at], linked=at == linked, copies=copies[at])
        for at in list(copies)[:WORTH_A_LOOK]
    ]
    return [hit for hit in never_surer_than_the_one_above(hits) if hit.score >= floor]


def leads(scores: NDArray[np.float64]) -> list[float]:
    """By how much each score, best first, is above the one after the next; 0 where there is none."""
    return [float(score - scores[at + 2]) if at + 2 < len(scores) else 0.0 for at, score in enumerate(scores)]


def _alert_reason(document: Document, question: Question) -> list[str]:
    """One reason when the alert's name is declared by the author or is the title; none otherwise."""
    name = plain(question.alert)
    if name and any(plain(alert) == name for alert in document.alerts):
        return ["alert name matches"]
    return ["alert name is its title"] if name and plain(document.title) == name else []


def _treated(document: Document, question: Question) -> tuple[str, float]:
    """The likeliest diagnosed cause that this runbook declares, and its probability within 0..1."""
    treated = [(cause, min(max(likely, 0.0), 1.0)) for cause, likely in question.causes if cause in document.causes]
    return max(treated, key=lambda pair: pair[1], default=("", 0.0))


def never_surer_than_the_one_above(hits: list[Hit]) -> list[Hit]:
    """Order weighs, probability counts; where they disagree, people should not see a less likely one on top."""
    ceiling = 1.0
    shown = []
    for hit in hits:
        ceiling = min(ceiling, hit.score)
        shown.append(replace(hit, score=ceiling))
    return shown
