"""Each figure of the evaluation, held against an example that was computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.diagnosis import Scope
from lab.evaluation import scoring
from lab.evaluation.cases import Truth
from lab.evaluation.scoring import Answer, Scored


def truth(cause: str = "S04", **more: Any) -> Truth:
    family = "none" if cause == "none" else cause[0]
    usual: dict[str, Any] = {"family": family, "scope": None, "culprit": None, "is_control": False}
    return Truth(cause=cause, **{**usual, **more})


def answer(*ranked: tuple[str, float], **more: Any) -> Answer:
    return Answer(ranked=ranked or (("S04", 0.9),), **more)


def scored(what_was: Truth, said: Answer | None, case: str = "c") -> Scored:
    return Scored(case=case, truth=what_was, answer=said, skipped="" if said else "metrics.om: broken")


def figures(*cases: Scored) -> dict[str, Any]:
    return scoring.figures(cases)


def test_the_first_and_the_first_three_are_counted() -> None:
    """Two of four are right at once, three within three; a skipped case is wrong in both."""
    found = figures(
        scored(truth("S04"), answer(("S04", 0.9))),
        scored(truth("S01"), answer(("S01", 0.6), ("I10", 0.3))),
        scored(truth("G01"), answer(("G02", 0.5), ("G03", 0.2), ("G01", 0.1))),
        scored(truth("G01"), None),
    )

    assert (found["n"], found["skipped"]) == (4, 1)
    assert (found["ac1"], found["ac3"]) == (0.5, 0.75)


def test_the_fourth_cause_is_not_among_three() -> None:
    """AC@3 means three, whatever stands there: `none` and `other` take places, too."""
    ranked = (("G02", 0.5), ("other", 0.2), ("none", 0.1), ("G01", 0.1))

    assert figures(scored(truth("G01"), answer(*ranked)))["ac3"] == 0.0


def test_a_share_comes_with_its_interval() -> None:
    """Nine of ten: Wilson's 95 % interval is 0.596 to 0.982 (formula: Newcombe 1998); of none, all is possible."""
    nine = [scored(truth(), answer())] * 9

    assert figures(*nine, scored(truth(), None))["ac1_ci95"] == pytest.approx([0.5958, 0.9821], abs=1e-4)
    assert scoring.share("x", []) == {"x": None, "x_n": 0, "x_ci95": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("what_was", "said", "is_right"),
    [
        (truth("S04"), ("S01", 0.9), True),
        (truth("S04"), ("G01", 0.9), False),
        (truth("none"), ("none", 0.9), True),
        (truth("S04"), ("none", 0.9), False),
        (truth("other", family="S"), ("S01", 0.9), True),
        (truth("other", family="S"), ("other", 0.9), False),
    ],
)
def test_the_class_is_the_letter_of_the_first_cause(
    what_was: Truth,
    said: tuple[str, float],
    is_right: bool,  # noqa: FBT001 - an expectation
) -> None:
    """`none` is a class; `other` names none, not even where nothing of the catalogue is right."""
    assert figures(scored(what_was, answer(said)))["class"] == float(is_right)


@pytest.mark.parametrize(
    ("was", "said", "f1"),
    [
        (
            Scope(dimension="pod", values=("a", "b")),
            Scope(dimension="pod", values=("b", "c", "d")),
            0.4,
        ),  # P 1/3, R 1/2
        (Scope(dimension="pod", values=("a",)), Scope(dimension="pod", values=("a",)), 1.0),
        (Scope(dimension="pod", values=("a",)), Scope(dimension="node", values=("a",)), 0.0),
        (Scope(dimension="fleet"), Scope(dimension="fleet"), 1.0),
        (Scope(dimension="pod", values=("a",)), Scope(dimension="pod"), 0.0),
        (Scope(dimension="pod", values=("a",)), None, 0.0),
        (None, None, 1.0),
    ],
)
def test_the_scope_is_scored_by_the_values_of_its_dimension(was: Scope | None, said: Scope | None, f1: float) -> None:
    """F1 of the values: too many and too few both cost; the right values of another dimension are worth nothing."""
    assert scoring.scope_f1(was, answer(scope=said)) == pytest.approx(f1)


def test_scopes_are_averaged_where_there_is_one() -> None:
    """A healthy run has no scope to find, and a skipped case finds none."""
    pod = Scope(dimension="pod", values=("a",))
    found = figures(
        scored(truth(scope=pod), answer(scope=pod)),
        scored(truth(scope=pod), None),
        scored(truth("none"), answer(("none", 1.0))),
    )

    assert (found["scope_f1"], found["scope_f1_n"]) == (0.5, 2)


def test_a_decoy_is_no_culprit() -> None:
    """The exact change or, where nobody did it, none: of four answers two are right, and one named a decoy."""
    found = figures(
        scored(truth(culprit="c-1"), answer(culprit="c-1")),
        scored(truth(culprit="c-1"), answer(culprit="c-2")),
        scored(truth(culprit="c-1"), answer(culprit=None)),
        scored(truth(culprit=None), answer(culprit=None)),
    )

    assert (found["culprit"], found["decoy_named"]) == (0.5, 0.25)
    assert (found["culprit_where_one"], found["culprit_where_one_n"]) == (pytest.approx(1 / 3), 3)


def test_the_innocent_are_not_accused() -> None:
    """Healthy runs and controls: another cause of the catalogue is an accusation, `other` and a cautious `none` not."""
    control = truth("G11", is_control=True)
    found = figures(
        scored(truth("none"), answer(("none", 0.9))),
        scored(truth("none"), answer(("other", 0.9))),
        scored(truth("none"), answer(("G11", 0.9))),
        scored(control, answer(("G11", 0.9))),
        scored(control, answer(("G03", 0.9))),
        scored(truth("S04"), answer(("G03", 0.9))),  # wrong, but something is wrong there
    )

    assert (found["false_accusation"], found["false_accusation_n"]) == (0.4, 5)


def test_wrong_and_sure_is_counted_from_eight_tenths() -> None:
    """Wrong at 0.8 counts, wrong at 0.79 and right at 0.95 do not; silence is wrong without being sure."""
    found = figures(
        scored(truth("S04"), answer(("S02", 0.8))),
        scored(truth("S04"), answer(("S02", 0.79))),
        scored(truth("S04"), answer(("S04", 0.95))),
        scored(truth("S04"), None),
    )

    assert found["confident_wrong"] == 0.25


@pytest.mark.parametrize(
    ("what_was", "said", "is_right"),
    [
        (truth("none"), answer(("none", 0.4)), True),
        (truth("none"), answer(("other", 0.4)), False),
        (truth("G11", is_control=True), answer(("G11", 0.6)), True),
        (truth("G11", is_control=True), answer(("G11", 0.6), hurts_users=True), False),
        (truth("X07", is_control=True), answer(("X07", 0.6), hurts_users=True), True),
        (truth("other", family="S"), answer(("S01", 0.49), ("other", 0.4)), True),
        (truth("other", family="S"), answer(("S01", 0.5), ("other", 0.4)), False),
        (truth("other", family="S"), answer(("other", 0.9), ("S01", 0.05)), True),
    ],
)
def test_abstention_is_right_where_no_fault_of_the_catalogue_is_to_be_named(
    what_was: Truth,
    said: Answer,
    is_right: bool,  # noqa: FBT001 - an expectation
) -> None:
    """Healthy: `none` first. Controls: theirs first and nobody hurt. Unknown faults: nothing known reaches one half."""
    found = figures(scored(what_was, said), scored(truth("S04"), answer()))

    assert (found["abstention"], found["abstention_n"]) == (float(is_right), 1)


def test_calibration_is_the_mean_distance_over_ten_bins() -> None:
    """Four at 0.95 of which three are right, one right at 0.55: (4 x |0.95 - 0.75| + 1 x |0.55 - 1|) / 5 = 0.25."""
    cases = [
        *[scored(truth("S04"), answer(("S04", 0.95)))] * 3,
        scored(truth("S04"), answer(("S01", 0.95))),
        scored(truth("S04"), answer(("S04", 0.55))),
        scored(truth("S04"), None),  # stated no probability
    ]

    assert scoring.expected_calibration_error(cases) == pytest.approx(0.25)
    assert [one["n"] for one in scoring.calibration(cases)] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 4]


def test_certainty_belongs_to_the_last_bin() -> None:
    """A probability of 1 has no bin of its own."""
    assert scoring.calibration([scored(truth(), answer(("S04", 1.0)))])[9]["right"] == 1.0


def test_half_magnitude_counts_abstention_as_such() -> None:
    """A faint fault: right, silent (nothing known at one half) and wrong are three outcomes."""
    faint = truth("S04", strength=0.5)
    groups = scoring.grouped(
        [
            scored(faint, answer(("S04", 0.6), ("none", 0.3))),
            scored(faint, answer(("none", 0.6), ("S02", 0.3))),
            scored(faint, answer(("S02", 0.7))),
            scored(truth("S04", strength=0.6), answer()),
        ]
    )

    assert groups["half_magnitude"]["n"] == 3
    assert groups["half_magnitude"]["ac3"] == pytest.approx(1 / 3)
    assert groups["half_magnitude"]["abstained"] == pytest.approx(1 / 3)
    assert groups["half_magnitude"]["ac3_when_it_spoke"] == 0.5
    assert groups["stated_magnitude"]["n"] == 1


def test_of_two_faults_either_may_stand_first_and_both_should_be_seen() -> None:
    """Naming one of two surely is not wrong; naming a third surely is."""
    both = truth("S04", also=("G04",))
    groups = scoring.grouped(
        [
            scored(both, answer(("G04", 0.9), ("S04", 0.05))),
            scored(both, answer(("G04", 0.9), ("S02", 0.05))),
            scored(both, answer(("S02", 0.9), ("G04", 0.05), ("S04", 0.05))),
        ]
    )

    assert groups["pairs"]["both_in_3"] == pytest.approx(2 / 3)
    assert groups["pairs"]["either_first"] == pytest.approx(2 / 3)
    assert groups["pairs"]["confident_wrong"] == pytest.approx(1 / 3)


def test_a_fault_that_nobody_described_is_other() -> None:
    """Left out of the knowledge base: `other` is right, and of a fault that hurts nobody also `none`."""
    unknown, harmless = truth("S04").left_out(), truth("G11", is_control=True).left_out()
    found = figures(
        scored(unknown, answer(("other", 0.9))),
        scored(unknown, answer(("none", 0.9))),
        scored(harmless, answer(("none", 0.9))),
        scored(harmless, answer(("G03", 0.9))),
    )

    assert (found["ac1"], found["confident_wrong"]) == (0.5, 0.5)
    assert (unknown.cause, unknown.name) == ("other", "S04")  # told under its own name


def test_the_worst_pairs_come_first() -> None:
    """What is mixed up most, as a share of its cases and with how sure the wrong answer was."""
    cases = [
        *[scored(truth("G01"), answer(("G02", said))) for said in (0.6, 0.8)],
        *[scored(truth("G01"), answer(("G01", 0.9)))] * 2,
        scored(truth("S01"), answer(("I10", 0.5))),
        scored(truth("S01"), None),
    ]

    assert scoring.confusion(cases) == [
        {"truth": "G01", "said": "G02", "cases": 2, "share": 0.5, "mean_probability": pytest.approx(0.7)},
        {"truth": "S01", "said": "I10", "cases": 1, "share": 0.5, "mean_probability": 0.5},
    ]


def test_time_is_of_the_answers_that_came() -> None:
    """Twenty answers in 1 to 20 s: the median is 10.5 s, the 95th percentile 19.05 s."""
    cases = [scored(truth(), answer(seconds=float(second))) for second in range(1, 21)]

    found = figures(*cases, scored(truth(), None))

    assert (found["p50_s"], found["p95_s"]) == (10.5, 19.05)
