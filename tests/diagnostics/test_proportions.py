"""The tests behind the verdicts: against scipy, hand-worked cases, and what they say of nothing."""

from __future__ import annotations

from importlib import import_module

import pytest

from diagnostics.look import Compared
from diagnostics.proportions import (
    Share,
    chance_of_rates,
    chance_of_shares,
    discoveries,
    folded,
    probability_of_higher,
    shares,
    summed,
)
from diagnostics.spend import mix_shift, prices, split
from diagnostics.telemetry.model import Key
from tests.diagnosed import frame_of


@pytest.mark.parametrize(("first", "then"), [(9, 12), (5, 0), (3, 40), (700, 6000)])
def test_rare_events_are_tested_exactly(first: int, then: int) -> None:
    """The conditional binomial, as scipy has it."""
    expected = import_module("scipy.stats").binomtest(first, first + then, 300 / 3900, alternative="greater").pvalue
    assert chance_of_rates(first, 300, then, 3600) == pytest.approx(expected, rel=0.15 if first > 500 else 1e-6)


def test_two_shares_are_tested_by_their_pooled_z() -> None:
    """Twelve of 200 against 80 of 2,000: z = 1.347 by hand."""
    assert chance_of_shares(12, 200, 80, 2000) == pytest.approx(0.178, abs=0.001)


def test_votes_are_compared_by_their_posteriors() -> None:
    """Near the exact probability of two Beta posteriors, drawn."""
    from numpy.random import default_rng

    rng = default_rng(4)
    drawn = (rng.beta(13, 149, 200_000) > rng.beta(79, 1823, 200_000)).mean()
    assert probability_of_higher(12, 160, 78, 1900) == pytest.approx(drawn, abs=0.02)


@pytest.mark.parametrize("empty", [(0.0, 0.0, 5.0, 100.0), (5.0, 100.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)])
def test_nothing_convicts_nobody(empty: tuple[float, float, float, float]) -> None:
    """Without events in a window no test believes anything."""
    assert chance_of_shares(*empty) == 1.0
    assert chance_of_rates(*empty) == 1.0


def test_many_cells_are_believed_with_care() -> None:
    """Benjamini and Hochberg: a p-value that convicts alone does not among a hundred."""
    assert discoveries([0.04]) == [True]
    assert not any(discoveries([0.04, *[0.5] * 99]))
    assert discoveries([0.5, 0.0001, 0.02, 0.9]) == [False, True, True, False]
    assert discoveries([]) == []


def test_rates_become_counts_of_their_windows() -> None:
    """Five minutes now, seventeen in the baseline, grouped by all labels but the last."""
    cells: dict[Key, Compared] = {
        ("a", "bad"): Compared(now=1.0, baseline=0.5),
        ("a", "ok"): Compared(now=9.0, baseline=9.5),
        ("b", "ok"): Compared(now=2.0),
    }
    found = shares(cells, frame_of(), lambda kind: kind == "bad")
    assert found[("a",)] == Share(hits_now=300, all_now=3000, hits_then=510, all_then=10200)
    assert found[("b",)].compared() == Compared(now=0.0, baseline=None)
    assert folded(found)[()].all_now == 3600
    assert summed(cells, 1)[("ok",)] == Compared(now=11.0, baseline=9.5)


def test_spend_is_split_into_parts_that_sum_up() -> None:
    """Twice the requests, half as long again, at a third dearer mix: the parts are the change."""
    tokens: dict[Key, Compared] = {("s",): Compared(now=3000, baseline=1500), ("l",): Compared(now=1500, baseline=0.0)}
    spend: dict[Key, Compared] = {
        ("s",): Compared(now=0.0003, baseline=0.00015),
        ("l",): Compared(now=0.00045, baseline=None),
    }
    parts = split(spend, tokens, Compared(now=2.0, baseline=1.0))
    assert parts is not None
    whole = 3600 * (0.00075 - 0.00015)
    assert parts.requests + parts.tokens_per_request + parts.mix + parts.price == pytest.approx(whole)
    assert parts.price == pytest.approx(0.0, abs=1e-9)
    assert min(parts.requests, parts.tokens_per_request, parts.mix) > 0
    assert mix_shift(tokens) == pytest.approx(1 / 3)
    assert prices(spend, tokens)["l"].now == pytest.approx(0.0003)


def test_a_split_needs_its_numbers() -> None:
    """A missing factor leaves the spend whole; one model has no mix."""
    assert split({}, {}, Compared(now=1.0, baseline=1.0)) is None
    assert mix_shift({("s",): Compared(now=1.0, baseline=1.0)}) is None
