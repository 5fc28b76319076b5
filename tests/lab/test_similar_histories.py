"""`watchkeeper eval similar`: histories that give nothing away, and figures that add up."""

from __future__ import annotations

import asyncio

import pytest

from lab.alert_texts.texts import FAMILIES, UNCOVERED, AlertTexts
from lab.similar.command import report
from lab.similar.evaluate import DIAGNOSED, TEXT, evaluate
from lab.similar.histories import CAUSES, SIZE, histories
from tests.retrieval.hashing_embedder import HashingEmbedder


@pytest.fixture(scope="module")
def texts() -> AlertTexts:
    return AlertTexts.read()


def test_no_history_holds_its_own_question(texts: AlertTexts) -> None:
    """The same seed makes the same; a repeated text would be found by anything."""
    some = list(histories(texts, 40, 5))

    assert some == list(histories(texts, 40, 5))
    assert some != list(histories(texts, 40, 6))
    for each in some:
        assert len(each.past) == SIZE
        assert len(set(each.truths.values())) <= CAUSES
        assert all(each.asked.text.text[:60] not in past.text for past in each.past)
        assert [past.began for past in each.past] == sorted((past.began for past in each.past), reverse=True)
    uncovered = {text.id for text in texts.families[UNCOVERED]}
    kinds = [(each.recurs, each.asked.text.id in uncovered) for each in some]
    assert {(True, False), (False, False), (False, True)} == set(kinds)


def test_the_figures_add_up(texts: AlertTexts) -> None:
    """Every history is counted once; a diagnosis helps even where meaning is only a bag of words."""
    result = asyncio.run(evaluate(texts, HashingEmbedder(), count=25, seed=5))

    systems = result["systems"]
    assert result["n"] + result["new"] == 25
    assert sum(ways[TEXT]["n"] for ways in result["per_family"].values()) == result["n"]
    assert set(result["per_family"]) <= set(FAMILIES)
    for part in systems.values():
        low, high = part["same_cause_ci95"]
        assert low <= part["same_cause"] <= high
        assert part["same_cause"] == pytest.approx(part["shown"] * part["right_when_shown"])
    assert systems[DIAGNOSED]["same_cause"] > systems["latest_of_service"]["same_cause"]
    assert f"in {result['n']} the cause had been there before" in report(result)
