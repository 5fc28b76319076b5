"""
One question against one corpus: the order, the probability and the reasons of each candidate; pure, in memory.

What people and the diagnosis said about a runbook counts before what its words look like: the link in the alert,
the alert names and causes that its author declared, the probability of each cause. The text of a question is compared
and never obeyed: all it can do is move runbooks of ours up and down a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import numpy as np

from retrieval.corpus import Corpus, Meaning
from retrieval.documents import Document, Hit, Question
from retrieval.fusion import Evidence, Signals, Weights, fused, probability
from retrieval.words import cleaned, plain, spaced, stems

WORTH_A_LOOK = 10  # reasons cost a little per document, and nobody is shown more
WITHOUT_MEANING = "by words only: the embedding model is not ready"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question made comparable: its cleaned text, and the stems of that text and of the alert's expression."""

    text: str
    stems: tuple[str, ...]
    expr: tuple[str, ...]

    @classmethod
    def of(cls, question: Question) -> Asked:
        """The alert's name is part of the text, once."""
        text = question.text if question.alert in question.text else f"{question.alert}\n{question.text}"
        text = cleaned(text)
        return cls(text=text, stems=tuple(stems(text)), expr=tuple(stems(cleaned(question.expr))))

    @property
    def for_embedding(self) -> str:
        """What the model is given; empty when nothing readable was asked."""
        return spaced(self.text)


def candidates(
    corpus: Corpus, question: Question, meaning: Meaning | None, weights: Weights, *, floor: float
) -> list[Hit]:
    """All documents that may fit, best first; without those whose probability is below `floor`."""
    asked = Asked.of(question)
    eligible = [at for at, document in enumerate(corpus.documents) if _serves(document, question.service)]
    linked = _linked(corpus, eligible, question.runbook_url)
    if not eligible or not (asked.stems or asked.expr or question.causes or linked is not None):
        return []

    scores = fused(signals_of(corpus, question, asked, meaning, eligible), weights)
    order = [eligible[at] for at in np.argsort(-scores, kind="stable")]
    if linked is not None:
        order.remove(linked)
        order.insert(0, linked)
    hits = [_hit(corpus, question, asked, meaning, at, linked=at == linked) for at in order[:WORTH_A_LOOK]]
    return [hit for hit in _never_surer_than_the_one_above(hits) if hit.score >= floor]


def signals_of(
    corpus: Corpus, question: Question, asked: Asked, meaning: Meaning | None, eligible: list[int]
) -> Signals:
    """What is known about each eligible document, in their order."""
    documents = [corpus.documents[at] for at in eligible]
    return Signals(
        body=corpus.keywords.body_scores(asked.stems)[eligible],
        title=corpus.keywords.title_scores(asked.stems)[eligible],
        dense=None if meaning is None else meaning.cosines[eligible],
        expr=corpus.keywords.body_scores(asked.expr)[eligible] if asked.expr else None,
        alert=np.array([bool(_alert_reason(document, question)) for document in documents], np.float64),
        cause=np.array([_treated(document, question)[1] for document in documents], np.float64),
    )


def _hit(corpus: Corpus, question: Question, asked: Asked, meaning: Meaning | None, at: int, *, linked: bool) -> Hit:
    document = corpus.documents[at]
    evidence = Evidence(
        coverage=corpus.keywords.coverage(asked.stems, at),
        cosine=None if meaning is None else float(meaning.cosines[at]),
        alert=bool(_alert_reason(document, question)),
        cause=_treated(document, question)[1],
    )
    return Hit(
        doc_id=document.doc_id,
        title=document.title,
        heading=_best_heading(corpus, asked, meaning, at),
        score=1.0 if linked else round(probability(evidence), 3),
        reasons=_reasons(corpus, question, asked, meaning, at, linked=linked),
        url=document.url,
    )


def _reasons(
    corpus: Corpus, question: Question, asked: Asked, meaning: Meaning | None, at: int, *, linked: bool
) -> tuple[str, ...]:
    document = corpus.documents[at]
    reasons = ["linked by the alert's runbook_url"] if linked else []
    reasons += _alert_reason(document, question)
    cause, likely = _treated(document, question)
    if likely > 0:
        reasons.append(f"diagnosis says {cause} ({likely:.2f}), which this runbook treats")
    shared = corpus.keywords.shared_words(cleaned(question.text), at)
    if shared:
        reasons.append(f"words: {', '.join(shared)}")
    reasons.append(WITHOUT_MEANING if meaning is None else f"similar in meaning ({meaning.cosines[at]:.2f} of 1)")
    return tuple(reasons)


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


def _serves(document: Document, service: str) -> bool:
    """A runbook written for some services is no candidate for another one; a question without a service sees all."""
    return not document.services or not service or service in document.services


def _linked(corpus: Corpus, eligible: list[int], url: str) -> int | None:
    """The one document that the alert's author linked: by its address, else by the last part of the path."""
    if not url.strip():
        return None
    address, name = _address(url), _last_part(url)
    by_address = [at for at in eligible if corpus.documents[at].url and _address(corpus.documents[at].url) == address]
    by_name = [at for at in eligible if name and _last_part(corpus.documents[at].doc_id) == name]
    for found in (by_address, by_name):
        if len(found) == 1:
            return found[0]
    return None


def _address(url: str) -> str:
    host, path = _host_and_path(url)
    return f"{host}{path}".removesuffix("/").removesuffix(".md").lower()


def _last_part(url: str) -> str:
    _, path = _host_and_path(url)
    return path.rstrip("/").rpartition("/")[2].removesuffix(".md").removesuffix(".html").lower()


def _host_and_path(url: str) -> tuple[str, str]:
    """Host and decoded path of an address or a file path; text that is no URL at all is all path."""
    try:
        parts = urlsplit(url.strip())
        return parts.netloc, unquote(parts.path)
    except ValueError:  # "http://[": an alert's annotation can be anything
        return "", url.strip()


def _best_heading(corpus: Corpus, asked: Asked, meaning: Meaning | None, at: int) -> str:
    """The section to open first: the nearest by meaning, else the one that shares most words."""
    if meaning is not None and meaning.best_chunks[at] >= 0:
        return corpus.chunks[meaning.best_chunks[at]].heading
    wanted = set(asked.stems)
    sections = corpus.documents[at].sections
    shared = [len(wanted.intersection(stems(f"{section.heading} {section.text}"))) for section in sections]
    return sections[int(np.argmax(shared))].heading if sections else ""


def _never_surer_than_the_one_above(hits: list[Hit]) -> list[Hit]:
    """Order weighs, probability counts; where they disagree, people should not see a less likely one on top."""
    ceiling, shown = 1.0, []
    for hit in hits:
        ceiling = min(ceiling, hit.score)
        shown.append(Hit(**{**vars(hit), "score": ceiling}))
    return shown
