"""What votes would have been worth: each incident answered with what the others of its team taught, beside without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.documents import Hit
from retrieval.feedback import Lesson, keys_of, learned, reordered
from retrieval.measures import DEPTH, RESAMPLES

FEWEST_INCIDENTS = 20
FEWEST_ALERTS = 5
"""Of different alerts (or causes): the bootstrap draws these, and over fewer it says nothing."""


class TooLittleError(Exception):
    """There is too little to measure with; the message says how much there is and how much it takes."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An incident whose right runbook is known, and what is found for it without any experience."""

    lesson: Lesson
    hits: Sequence[Hit]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A measure before and after, and the 95 % interval of the difference."""

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Over `incidents` with a known right runbook, of `alerts` different alerts: Recall@1 and MRR@10."""

    incidents: int
    alerts: int
    recall_1: Change
    mrr_10: Change


def gain(lessons: Sequence[Lesson], trials: Sequence[Trial], contents: Mapping[str, str]) -> Gain:
    """
    Leave one incident out, learn from the others, answer it; of one team. Raises TooLittleError.

    Incidents of one alert resemble each other, so the intervals are the bootstrap's over alerts and not over
    incidents. What alerts nobody voted on gain is nothing, and not in these figures.
    """
    groups = [next(iter(keys_of(trial.lesson.question)), trial.lesson.incident) for trial in trials]
    if len(trials) < FEWEST_INCIDENTS or len(set(groups)) < FEWEST_ALERTS:
        raise TooLittleError(
            f"{len(trials)} incidents of {len(set(groups))} alerts have a runbook known to be right; it takes "
            f"{FEWEST_INCIDENTS} of {FEWEST_ALERTS} to say what votes are worth"
        )
    rows = np.array([_ranks(trial, lessons, contents) for trial in trials])
    return Gain(
        incidents=len(trials),
        alerts=len(set(groups)),
        recall_1=_change(rows[:, 0] == 1.0, rows[:, 1] == 1.0, groups),
        mrr_10=_change(rows[:, 0], rows[:, 1], groups),
    )


def _ranks(trial: Trial, lessons: Sequence[Lesson], contents: Mapping[str, str]) -> tuple[float, float]:
    """The reciprocal rank of the first right runbook, without and with what the other incidents teach."""
    question, right = trial.lesson.question, trial.lesson.right
    keys = set(keys_of(question))
    others = [
        each for each in lessons if each.incident != trial.lesson.incident and keys.intersection(keys_of(each.question))
    ]
    taught = reordered(trial.hits, question, learned(others, contents))
    return _reciprocal(trial.hits, right), _reciprocal(taught, right)


def _reciprocal(hits: Sequence[Hit], right: frozenset[str]) -> float:
    return next((1 / rank for rank, hit in enumerate(hits[:DEPTH], 1) if hit.doc_id in right), 0.0)


def _change(before: NDArray[np.generic], after: NDArray[np.generic], groups: Sequence[str]) -> Change:
    first, second = before.astype(np.float64), after.astype(np.float64)
    low, high = _interval(second - first, groups)
    return Change(before=float(first.mean()), after=float(second.mean()), low=low, high=high)


def _interval(differences: NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float]:
    """Whole alerts are drawn, with all their incidents; 2,000 times, with one seed."""
    _, member = np.unique(np.array(groups), return_inverse=True)
    sums, sizes = np.bincount(member, differences), np.bincount(member).astype(np.float64)
    drawn = np.random.default_rng(0).integers(0, sums.size, (RESAMPLES, sums.size))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
