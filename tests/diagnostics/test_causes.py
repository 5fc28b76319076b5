"""The knowledge base and its engine: valid data, honest probabilities, and the scenarios it must recognise."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from diagnostics.causes import engine, knowledge
from diagnostics.causes.engine import CALIBRATION
from diagnostics.causes.look_alikes import next_check
from diagnostics.causes.observation import deviation_of, observe
from diagnostics.causes.unexplained import unexplained
from diagnostics.changes.change import Change
from diagnostics.checks import CHECKS, TRACES
from diagnostics.diagnosis import RankedCause, Suspect
from diagnostics.findings import Finding, Measure
from diagnostics.runner import Diagnoser
from tests import synthetic
from tests.diagnosed import recorded

KNOWN = knowledge.load()


def finding(*measures: Measure) -> Finding:
    return Finding.bad("check", "a sentence", *measures)


def moved(signal: str, value: float | None, baseline: float | None = None, **scope: str) -> Measure:
    return Measure(signal=signal, value=value, baseline=baseline, scope=tuple(scope.items()))


def ranked(*measures: Measure, suspects: tuple[Suspect, ...] = ()) -> tuple[RankedCause, ...]:
    observed = observe([finding(*measures)], KNOWN)
    return engine.rank(observed, suspects, KNOWN, changes_known=False)


def probability(causes: tuple[RankedCause, ...], name: str) -> float:
    return next((cause.probability for cause in causes if cause.cause == name), 0.0)


CACHE_LOST = (
    moved("prefix_hit_ratio", 0.03, 0.40),
    moved("prefill", 0.67, 0.43),
    moved("ttft", 0.74, 0.466),
    moved("itl", 0.0184, 0.016),
    moved("prompt_tokens", 3010, 3000),
    moved("requests_per_s", 24.2, 24.0),
    moved("queue", 0.05, 0.02),
)


def test_every_cause_can_be_seen_and_told() -> None:
    """Each has words, a scope, something it moves, and a next step for people."""
    for cause in KNOWN.causes.values():
        assert cause.title
        assert cause.next_check
        assert cause.prior > 0
        assert any(expected.value in {"up", "down"} for expected in cause.expects.values()), cause.id
        assert cause.decisive, cause.id


def test_the_whole_catalogue_is_there() -> None:
    """All 48 causes, and its four controls are marked as such."""
    numbers = {
        "G": "01 02 03 04 05 06 08 09 10 11",
        "S": "01 02 03 04 05 06 07 08 09 11 13 14",
        "I": "01 02 03 04 05 06 07 08 09 10 12",
        "Q": "01 02 03 04 05 06 08 09",
        "X": "01 02 03 04 05 06 07",
    }
    assert KNOWN.causes.keys() == {family + number for family, many in numbers.items() for number in many.split()}
    assert {cause.id for cause in KNOWN.causes.values() if cause.is_control} == {"G11", "S14", "Q08", "X07"}


def test_two_causes_never_expect_the_same() -> None:
    """Causes with identical signs could only be guessed between."""
    signs = [tuple(sorted((name, str(how)) for name, how in cause.expects.items())) for cause in KNOWN.causes.values()]
    assert len(set(signs)) == len(signs)


async def test_every_signal_is_measured_by_some_check() -> None:
    """A signal that no check reports would be a cause's dead letter: each is reported here, or named in the code."""
    diagnosis = await Diagnoser(recorded("S04"), patience_s=30).diagnose(synthetic.target())
    seen = {measure.signal for found in diagnosis.findings for measure in found.measures}
    room = Path(knowledge.__file__).parents[1]
    files = (file for file in room.rglob("*.py") if "causes" not in file.parts)
    named = {
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
    }
    missing = KNOWN.signals.keys() - seen - named
    assert not missing, missing


def test_a_lost_prefix_cache_is_recognised() -> None:
    """The hit ratio collapsed while prompts stayed as long: not longer prompts."""
    causes = ranked(*CACHE_LOST)
    assert causes[0].cause == "S04"
    assert causes[0].probability > 3 * probability(causes, "S02")
    assert any("prefix cache hit ratio fell from 40 % to 3.0 %" in said for said in causes[0].evidence_for)
    assert any("prompt length stays at 3010 tokens" in said for said in causes[0].evidence_for)


def test_what_speaks_against_is_said_too() -> None:
    """Longer prompts are the look-alike: the flat prompt length stands against them."""
    causes = ranked(*CACHE_LOST)
    longer = next(cause for cause in causes if cause.cause == "S02")
    assert any("prompt length" in said and "should be up" in said for said in longer.evidence_against)


@pytest.mark.parametrize("measures", [(), CACHE_LOST, (moved("itl", 0.03, 0.016),)])
def test_probabilities_are_at_most_one_and_leave_room(measures: tuple[Measure, ...]) -> None:
    """`none` and `other` always take part, and nothing sums to more than certainty."""
    causes = ranked(*measures)
    assert sum(cause.probability for cause in causes) <= 1.0
    assert {"none", "other"} <= {cause.cause for cause in causes}
    assert list(causes) == sorted(causes, key=lambda cause: -cause.probability)


FORMAT_BROKEN = (moved("format_valid_ratio", 0.70, 0.99), moved("quality_new_version", 1, 0))


def test_the_mark_of_another_fault_is_not_passed_over() -> None:
    """Double-bit memory errors are as clear as can be, but say nothing of slow guardrails."""
    memory = (
        moved("xid_uncontained_ecc", 1, 0),
        moved("ecc_double_bit", 1, 0),
        moved("row_remap_pending", 1, 0),
        moved("ready_ratio", 0.75, 1.0),
        moved("guardrail_error_ratio", 0.001, 0.001),
    )
    alone, beside = ranked(*memory), ranked(*memory, moved("new_policy", 1, 0))
    assert alone[0].cause == beside[0].cause == "G02"
    assert alone[0].probability > 0.9
    assert beside[0].probability <= CALIBRATION.doubtful < 0.8
    assert probability(beside, "other") > probability(alone, "other")
    assert sum(cause.probability for cause in beside) <= 1.0


def test_a_side_effect_that_marks_no_other_fault_is_no_doubt() -> None:
    """More running requests belong to nobody in particular; a lost cache is as sure with them as without."""
    with_side_effect = ranked(*CACHE_LOST, moved("gpu_util", 99, 20))
    assert with_side_effect[0].cause == "S04"
    assert not unexplained(KNOWN.causes["S04"], observe([finding(moved("gpu_util", 99, 20))], KNOWN), KNOWN)


@pytest.mark.parametrize(("cause", "is_doubted"), [("Q02", False), ("Q01", True)])
def test_what_follows_from_its_own_doing_is_no_doubt(cause: str, is_doubted: bool) -> None:  # noqa: FBT001 - a parameter
    """Refusals are short, so one model's answers are too; a broken format shortens nothing."""
    observed = observe([finding(moved("model_length_shift", 0.5, 0))], KNOWN)
    assert bool(unexplained(KNOWN.causes[cause], observed, KNOWN)) is is_doubted


@pytest.mark.parametrize("pair", [(), FORMAT_BROKEN])
def test_two_things_that_are_wrong_are_told_as_two(pair: tuple[Measure, ...]) -> None:
    """Two faults share the certainty, and the next step says what the first of them leaves open."""
    causes = ranked(*CACHE_LOST, *pair)
    said = next_check(causes, observe([finding(*CACHE_LOST, *pair)], KNOWN), KNOWN)
    assert said is not None
    assert said.startswith("More than one thing seems to be wrong") is bool(pair)
    if pair:
        assert {cause.cause for cause in causes[:2]} == {"S04", "Q01"}
        assert causes[0].probability < 0.8


def test_an_unknown_signal_neither_accuses_nor_acquits() -> None:
    """A measure without a value or a baseline changes no probability, and neither does an unheard-of signal."""
    blind = (moved("kv_usage", None, 0.2), moved("queue_depth_of_mars", 9.0, 0.1), moved("gateway", 5.0, None))
    assert ranked(*CACHE_LOST, *blind) == ranked(*CACHE_LOST)


def test_nothing_measured_is_no_health() -> None:
    """Total blindness must not read as "nothing is wrong"."""
    causes = ranked()
    assert causes[0].cause == "other"
    assert causes[0].probability < 0.5


def test_the_services_own_measure_counts_before_a_pods() -> None:
    """A pod's outlier explains where; the service's mean says what moved."""
    observed = observe([finding(moved("itl", 0.05, 0.016, pod="a"), moved("itl", 0.017, 0.016))], KNOWN)
    assert observed["itl"].measure.value == 0.017


def test_a_fitting_change_speaks_for_its_cause() -> None:
    """A prompt change at the right time makes the cache loss likelier, a judge's change does not."""
    change = Change(id="c", at=synthetic.ONSET, kind="prompt", service="chat", summary="a prompt moved")
    prompt = Suspect(change=change, score=0.7)
    judge = Suspect(change=replace(change, kind="judge"), score=0.7)
    alone = probability(ranked(*CACHE_LOST), "S04")
    assert probability(ranked(*CACHE_LOST, suspects=(prompt,)), "S04") > alone
    assert probability(ranked(*CACHE_LOST, suspects=(judge,)), "S04") <= alone


@pytest.mark.parametrize(
    ("value", "baseline", "expected"), [(0.0, 0.0, 0.0), (5.0, 0.0, 3.0), (0.0, 5.0, -3.0), (float("nan"), 1.0, None)]
)
def test_zero_baselines_are_survived(value: float, baseline: float, expected: float | None) -> None:
    """A ratio to nothing is either calm or far out, never a division by zero."""
    assert deviation_of(KNOWN.signals["itl"], moved("itl", value, baseline)) == expected


@pytest.mark.parametrize("scenario", [name for name in synthetic.SCENARIOS if name != "none"])
async def test_a_scenario_is_recognised(scenario: str) -> None:
    """Its cause comes first, from the serving equations' numbers and without any change to go by."""
    diagnosis = await Diagnoser(recorded(scenario), patience_s=30).diagnose(synthetic.target())
    first = diagnosis.causes[0]
    assert first.cause == scenario, [(cause.cause, cause.probability) for cause in diagnosis.causes[:3]]
    assert first.probability > 0.3
    assert first.evidence_for
    assert diagnosis.user_impact is not KNOWN.causes[scenario].is_control


async def test_a_healthy_service_accuses_nobody() -> None:
    """`none` first, nothing else near it, nobody hurt, no onset and no scope."""
    diagnosis = await Diagnoser(recorded("none"), patience_s=30).diagnose(synthetic.target())
    assert diagnosis.causes[0].cause == "none"
    assert max(cause.probability for cause in diagnosis.causes if cause.cause not in {"none", "other"}) < 0.1
    assert (diagnosis.user_impact, diagnosis.since, diagnosis.scope) == (False, None, None)


async def test_missing_exporters_leave_the_cause_findable() -> None:
    """Without GPU and gateway metrics the lost cache is still first; what is missing is said."""
    telemetry = recorded("S04", without=("DCGM_", "litellm_", "kube_", "container_"))
    diagnosis = await Diagnoser(telemetry, patience_s=30).diagnose(synthetic.target())
    assert diagnosis.causes[0].cause == "S04"
    assert {"gpu_xid", "gpu_ecc", "gpu_throttling", "replicas"} <= {spot.check for spot in diagnosis.blind_spots}
    assert {found.check for found in diagnosis.findings} == CHECKS.keys() - {TRACES}  # this service keeps none


def test_the_missing_question_that_tells_look_alikes_apart_is_named() -> None:
    """Slow clocks alone may be heat or a power brake; the answer says that nobody read which."""
    observed = observe([finding(moved("sm_clock", 1100, 1900), moved("gpu_power", 350, 480))], KNOWN)
    causes = (
        RankedCause(cause="G04", title="hot", probability=0.5),
        RankedCause(cause="G05", title="braked", probability=0.4),
    )
    said = next_check(causes, observed, KNOWN)
    assert said is not None
    assert "G05" in said
    assert KNOWN.signals["power_brakes"].words in said
    assert said.endswith(KNOWN.causes["G04"].next_check)


def test_a_lone_cause_has_its_own_next_check() -> None:
    """Without a rival there is nothing to tell apart; where nothing is wrong there is nothing to check."""
    lone = RankedCause(cause="G04", title="hot", probability=0.9)
    assert next_check((lone,), {}, KNOWN) == KNOWN.causes["G04"].next_check
    assert next_check((RankedCause(cause="none", title="", probability=0.9),), {}, KNOWN) is None
