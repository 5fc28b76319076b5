"""
How the signals become one order and one probability; pure arithmetic on arrays, one number per document.

Order: each text signal is stretched to 0..1 over the documents of this question (min-max) and summed with a weight;
what an author declared or a diagnosis concluded is added on top. Weighted sums beat rank fusion by 2 to 4 points of
recall@1. Probability: whether the document fits at all cannot be read off a stretched score, where the best always
has 1, so it comes from absolute evidence (`Evidence`), by a logistic curve fitted on the benchmark with its right
documents taken away for half of the questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each signal counts; text weights by leave-one-source-out cross-validation, see docs/retrieval.md."""

    body: float = 0.65
    title: float = 0.5
    dense: float = 0.65
    expr: float = 0.2
    alert: float = 1.0  # the author declared this alert, or the title is the alert's name
    cause: float = 2.0  # times the diagnosis' probability: a sure diagnosis outweighs every word


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One number per document; `dense` is None while there are no vectors, `expr` while there is no expression."""

    body: Scores
    title: Scores
    dense: Scores | None
    expr: Scores | None
    alert: Scores
    cause: Scores


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Absolute evidence for one document: the share of the question's words it has, and the cosine if known."""

    coverage: float
    cosine: float | None
    alert: bool
    cause: float


def fused(signals: Signals, weights: Weights) -> Scores:
    """One score per document, larger is better."""
    total = weights.body * stretched(signals.body) + weights.title * stretched(signals.title)
    if signals.dense is not None:
        total += weights.dense * stretched(signals.dense)
    if signals.expr is not None:
        total += weights.expr * stretched(signals.expr)
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
    """
    The probability by words and meaning alone.

    Logistic curves fitted on 1,512 benchmark questions, half of them with their right documents taken away; on
    sources held out, the first separates right from wrong with an AUROC of .80, the second of .83.
    """
    if evidence.cosine is None:
        return _logistic(-3.6 + 5.8 * evidence.coverage)
    return _logistic(-6.9 + 4.7 * evidence.coverage + 5.4 * evidence.cosine)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
