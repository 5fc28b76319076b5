"""
How the signals become one order and one probability; pure arithmetic on arrays, one number per document.

Order: each text signal is stretched to 0..1 over the documents of this question (min-max) and summed with a weight;
what an author declared or a diagnosis concluded is added on top. Probability: whether the document fits at all cannot
be read off a stretched score, where the best always has 1, so it comes from absolute evidence (`Evidence`), by a
logistic curve fitted on the benchmark with its right documents taken away for half of the questions.
`python -m retrieval.tuning` fits both and says what they are worth where they were not fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each signal counts; those of text are learned, then rounded; see docs/retrieval.md."""

    body: float = 0.8
    title: float = 0.15
    name: float = 0.4
    trouble: float = 0.3
    percentage: float = 0.2
    dense: float = 0.65
    breadth: float = 0.4
    expr: float = 0.2
    alert: float = 1.6  # the author declared this alert, or the title is the alert's name
    cause: float = 3.2  # times the diagnosis' probability: a sure diagnosis outweighs every word


@dataclass(frozen=True, kw_only=True)
class Signals:
    """
    One number per document: BM25 over body and title, the share of its name that was said, the troubles and the
    percentages shared, its best cosine and the mean of its three best, BM25 of the expression's names, declared alert
    and diagnosed cause. `dense` and `breadth` are None while there are no vectors, `expr` without an expression.
    """

    body: Scores
    title: Scores
    name: Scores
    trouble: Scores
    percentage: Scores
    dense: Scores | None
    breadth: Scores | None
    expr: Scores | None
    alert: Scores
    cause: Scores


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """
    Absolute evidence for one document: the share of the question's words (of those that any document has) that it has,
    the share of its name that the question has, and by how much its score leads the one after the next; without vectors
    `by_words` is true.
    """

    coverage: float
    name: float
    lead: float
    by_words: bool
    alert: bool
    cause: float


TEXT = ("body", "title", "name", "trouble", "percentage", "dense", "breadth")
"""The signals of the text alone, in the order in which they are learned."""


def fused(signals: Signals, weights: Weights) -> Scores:
    """One score per document, larger is better."""
    total = np.zeros_like(signals.alert)
    for name in (*TEXT, "expr"):
        scores: Scores | None = getattr(signals, name)
        if scores is not None:
            total += getattr(weights, name) * stretched(scores)
    return np.asarray(total + weights.alert * signals.alert + weights.cause * signals.cause, np.float64)


def stretched(scores: Scores) -> Scores:
    """Scores moved to 0..1; all equal (nothing to tell them apart by) become 0."""
    if not scores.size:
        return scores
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.zeros_like(scores)


def probability(evidence: Evidence) -> float:
    """How likely the document fits the question, 0 to 1; independent grounds add up (noisy or)."""
    doubts = (1 - by_text(evidence)) * (1 - 0.7 * evidence.alert) * (1 - evidence.cause)
    return 1 - doubts


def by_text(evidence: Evidence) -> float:
    """The probability by words and meaning alone."""
    base, coverage, name, lead = BY_WORDS if evidence.by_words else BY_WORDS_AND_MEANING
    return 1 / (1 + math.exp(-(base + coverage * evidence.coverage + name * evidence.name + lead * evidence.lead)))


BY_WORDS_AND_MEANING = (-5.7, 4.4, 4.1, 1.2)
BY_WORDS = (-5.6, 3.9, 4.0, 2.1)
"""Logistic curves: the constant, and what coverage, name and lead count."""
