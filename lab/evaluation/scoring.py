"""
The figures: every answer held against its truth, each share with its n and its Wilson 95 % interval.

A case without an answer (unreadable, crashed, too late) counts as wrong in every share. A share of no cases is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diagnostics.diagnosis import Scope
from lab.evaluation.cases import HALF_BELOW, NONE, OTHER, Truth
from retrieval.measures import wilson

BINS = 10
CONFIDENT = 0.8
ABSTAINS_BELOW = 0.5


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one system says of one case: causes with probabilities, best first; `seconds` is how long that took."""

    ranked: tuple[tuple[str, float], ...]
    scope: Scope | None = None
    culprit: str | None = None
    hurts_users: bool = False
    seconds: float = 0.0

    @property
    def first(self) -> str:
        return self.ranked[0][0]

    @property
    def confidence(self) -> float:
        """The probability of the first cause."""
        return self.ranked[0][1]

    @property
    def accuses(self) -> bool:
        """Whether a cause of the catalogue stands first."""
        return self.first not in {NONE, OTHER}

    @property
    def abstains(self) -> bool:
        """Whether no cause of the catalogue is held for at least as likely as not."""
        return all(
            cause in {NONE, OTHER} or probability < ABSTAINS_BELOW for cause, probability in self.ranked
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One case with what a system answered; None, and why, where there is no answer."""

    case: str
    truth: Truth
    answer: Answer | None
    skipped: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def names(self, within: int) -> bool:
        """Whether a right cause is among the first ones."""
        return self.answer is not None and any(cause in self.truth.right for cause, _ in self.answer.ranked[:within])


Judgement = Callable[[Truth, Answer], bool]


def figures(cases: Sequence[Scored]) -> dict[str, Any]:
    """The figures over some cases; shares from 0 to 1."""
    answered = [one.answer for one in cases if one.answer is not None]
    with_scope = [one for one in cases if one.truth.scope is not None]
    with_culprit = [one for one in cases if one.truth.culprit is not None]
    return {
        "n": len(cases),
        "skipped": len(cases) - len(answered),
        **share("ac1", (one.names(1) for one in cases)),
        **share("ac3", (one.names(3) for one in cases)),
        **share("class", _judged(cases, _is_right_class)),
        "scope_f1": mean([scope_f1(one.truth.scope, one.answer) for one in with_scope]),
        "scope_f1_n": len(with_scope),
        **share("culprit", _judged(cases, _is_right_culprit)),
        **share("culprit_where_one", _judged(with_culprit, _is_right_culprit)),
        **share("decoy_named", (_names_a_decoy(one) for one in cases)),
        **share("false_accusation", (_accuses_falsely(one) for one in cases if one.truth.may_accuse_nobody)),
        **share("confident_wrong", (_is_confidently_wrong(one) for one in cases)),
        **share("abstention", _judged([one for one in cases if _may_abstain(one.truth)], _abstains_rightly)),
        "ece": expected_calibration_error(cases),
        **_times(answered),
    }


def faint_figures(cases: Sequence[Scored]) -> dict[str, Any]:
    """Cases at half magnitude: the figures, with abstention as an outcome of its own beside right and wrong."""
    abstained = [one for one in cases if one.answer is not None and one.answer.abstains]
    spoke = [one for one in cases if one not in abstained]
    return {
        **figures(cases),
        **share("abstained", (one in abstained for one in cases)),
        **share("ac3_when_it_spoke", (one.names(3) for one in spoke)),
    }


def pair_figures(cases: Sequence[Scored]) -> dict[str, Any]:
    """Cases with two faults at once: are both among the first three, and is anything said with undue confidence."""
    return {
        "n": len(cases),
        **share("both_in_3", (_names_all(one) for one in cases)),
        **share("either_first", (one.names(1) for one in cases)),
        **share("confident_wrong", (_is_confidently_wrong(one) for one in cases)),
    }


def grouped(cases: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """The groups that are reported apart, where there are cases of them."""
    groups: dict[str, tuple[Callable[[Truth], bool], Callable[[Sequence[Scored]], dict[str, Any]]]] = {
        "faults": (lambda truth: truth.cause != NONE and not truth.is_control, figures),
        "healthy": (lambda truth: truth.cause == NONE, figures),
        "controls": (lambda truth: truth.is_control, figures),
        "outside_the_catalogue": (lambda truth: truth.cause == OTHER, figures),
        "stated_magnitude": (lambda truth: truth.strength is not None and truth.strength >= HALF_BELOW, figures),
        "half_magnitude": (lambda truth: truth.strength is not None and truth.strength < HALF_BELOW, faint_figures),
        "pairs": (lambda truth: bool(truth.also), pair_figures),
    }
    found = {name: (count, [one for one in cases if belongs(one.truth)]) for name, (belongs, count) in groups.items()}
    return {name: count(members) for name, (count, members) in found.items() if members}


def by(cases: Sequence[Scored], key: Callable[[Truth], str]) -> dict[str, dict[str, Any]]:
    """The figures per class or per cause, in the order of their names."""
    names = sorted({key(one.truth) for one in cases})
    return {name: figures([one for one in cases if key(one.truth) == name]) for name in names}


def confusion(cases: Sequence[Scored], most: int = 12) -> list[dict[str, Any]]:
    """The pairs that are mixed up most: what was wrong, what was said instead, how often and how surely."""
    wrong = [(one.truth.name, one.answer) for one in cases if one.answer is not None and not one.names(1)]
    pairs = Counter((cause, answer.first) for cause, answer in wrong)
    totals = Counter(one.truth.name for one in cases)
    return [
        {
            "truth": cause,
            "said": said,
            "cases": count,
            "share": count / totals[cause],
            "mean_probability": mean([a.confidence for c, a in wrong if (c, a.first) == (cause, said)]),
        }
        for (cause, said), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:most]
    ]


def calibration(cases: Sequence[Scored]) -> list[dict[str, Any]]:
    """Per tenth of stated probability: how many first causes, what was said and what was right on average."""
    stated = [(one.answer.confidence, one.names(1)) for one in cases if one.answer is not None]
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability, is_right in stated:
        bins[min(int(probability * BINS), BINS - 1)].append((probability, is_right))
    return [
        {
            "from": at / BINS,
            "n": len(members),
            "said": mean([probability for probability, _ in members]),
            **share("right", (is_right for _, is_right in members)),
        }
        for at, members in enumerate(bins)
    ]


def expected_calibration_error(cases: Sequence[Scored]) -> float | None:
    """
    The mean distance between stated and actual share over ten equal bins, weighted by their cases.

    Naeini, Cooper and Hauskrecht 2015. A case without an answer stated no probability and takes no part.
    """
    bins = calibration(cases)
    n = sum(one["n"] for one in bins)
    return sum(one["n"] * abs(one["said"] - one["right"]) for one in bins if one["n"]) / n if n else None


def scope_f1(truth: Scope | None, answer: Answer | None) -> float:
    """F1 over the values of the named dimension; another dimension scores 0, and the fleet has no values to miss."""
    said = None if answer is None else answer.scope
    if truth is None or said is None:
        return float(answer is not None and truth is None and said is None)
    if truth.dimension != said.dimension:
        return 0.0
    wanted, named = set(truth.values), set(said.values)
    if not wanted and not named:
        return 1.0
    return 2 * len(wanted & named) / (len(wanted) + len(named))


def share(name: str, verdicts: Iterable[bool]) -> dict[str, Any]:
    """A share with its n and interval."""
    outcomes = list(verdicts)
    n, hits = len(outcomes), sum(outcomes)
    return {
        name: hits / n if n else None,
        f"{name}_n": n,
        f"{name}_ci95": [round(abs(bound), 4) for bound in wilson(hits, n)],  # abs: at no hits the lower is -1e-17
    }


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _judged(cases: Sequence[Scored], judge: Judgement) -> list[bool]:
    return [one.answer is not None and judge(one.truth, one.answer) for one in cases]


def _is_right_class(truth: Truth, answer: Answer) -> bool:
    """`none` is a class of its own; `other` names no class, so it is never the right one."""
    return answer.first != OTHER and (NONE if answer.first == NONE else answer.first[0]) == truth.family


def _is_right_culprit(truth: Truth, answer: Answer) -> bool:
    return answer.culprit == truth.culprit


def _names_a_decoy(one: Scored) -> bool:
    return one.answer is not None and one.answer.culprit not in {None, one.truth.culprit}


def _accuses_falsely(one: Scored) -> bool:
    """A healthy run or a control in which another cause of the catalogue stands first, or that got no answer."""
    return one.answer is None or (one.answer.accuses and one.answer.first not in one.truth.right)


def _is_confidently_wrong(one: Scored) -> bool:
    """Nothing was said with confidence where nothing was said: such a case is wrong, but not confidently."""
    return one.answer is not None and not one.names(1) and one.answer.confidence >= CONFIDENT


def _may_abstain(truth: Truth) -> bool:
    return truth.may_accuse_nobody or truth.cause == OTHER


def _abstains_rightly(truth: Truth, answer: Answer) -> bool:
    """`none` first; or a control first with nobody hurt (X07 costs money, so there its being first is enough)."""
    if truth.cause == OTHER:
        return answer.abstains
    if truth.cause == NONE:
        return answer.first == NONE
    return answer.first == truth.cause and (truth.cause == "X07" or not answer.hurts_users)


def _names_all(one: Scored) -> bool:
    wanted = {one.truth.cause, *one.truth.also}
    return one.answer is not None and wanted <= {cause for cause, _ in one.answer.ranked[:3]}


def _times(answers: Sequence[Answer]) -> dict[str, float | None]:
    if not answers:
        return {"p50_s": None, "p95_s": None}
    p50, p95 = np.percentile([answer.seconds for answer in answers], [50, 95])
    return {"p50_s": round(float(p50), 3), "p95_s": round(float(p95), 3)}
