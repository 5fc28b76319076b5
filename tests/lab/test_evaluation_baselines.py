"""The baselines that the diagnosis is measured against: each does what it says, and no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diagnostics.causes import knowledge
from diagnostics.diagnosis import Frame, Scope
from diagnostics.findings import Finding, Measure
from diagnostics.telemetry.recorded import load_openmetrics
from lab.evaluation.baselines import USUAL_CAUSES, alert_name, latest_change, nearest_signature
from lab.evaluation.fixed_thresholds import RULES, fixed_thresholds
from tests import synthetic
from tests.diagnostics_prompts import DECOY, GUILTY

KNOWN = knowledge.load()


def test_the_newest_change_before_the_alert_is_blamed() -> None:
    """Whatever it did; a change after the alert is not known yet. Its kind's usual causes get its kind's shares."""
    late = replace(DECOY, id="late", at=synthetic.END + timedelta(minutes=1))

    said = latest_change([GUILTY, late, DECOY], synthetic.END, KNOWN)

    assert said.culprit == GUILTY.id
    assert said.scope == Scope(dimension="prompt", values=("chat-system",))
    assert all("prompt" in KNOWN.causes[cause].change_kinds for cause, _ in said.ranked)
    assert sum(probability for _, probability in said.ranked) == pytest.approx(1)
    assert said.first == max(said.ranked, key=lambda one: KNOWN.causes[one[0]].prior)[0]


def test_without_a_change_there_is_nobody_to_blame() -> None:
    """A lookup that finds nothing says so."""
    assert latest_change([], synthetic.END, KNOWN).ranked == (("other", 1.0),)


def test_the_alerts_name_is_found_wherever_the_page_has_it() -> None:
    """In the title or in the details; four candidates get a quarter each."""
    said = alert_name('[FIRING:1] page {"details": "alertname = LLMHighTTFT"}', KNOWN)

    assert said.ranked == (("S04", 0.25), ("S02", 0.25), ("S07", 0.25), ("S13", 0.25))
    assert alert_name("something burns", KNOWN).first == "other"


def test_a_cause_that_is_left_out_is_looked_up_no_more() -> None:
    """The baselines know as little as the diagnosis does."""
    assert alert_name("LLMKVSaturated", KNOWN.without("S03")).first == "other"


def test_every_alert_names_causes_of_the_catalogue() -> None:
    """A typo in the table would be a cause that nobody has."""
    named = [cause for causes in USUAL_CAUSES.values() for cause in causes]

    assert {cause for cause in named if cause[0] not in "GSIQX" or len(cause) != 3} == set()
    assert set(KNOWN.causes) <= {*named}


def _finding(*measures: Measure) -> Finding:
    return Finding.bad("check", "as measured", *measures)


def test_the_nearest_signature_points_where_the_signals_moved() -> None:
    """Prefill and first token up, hits down: the signature of a lost prefix cache has the smallest angle."""
    moved = _finding(
        Measure(signal="prefill", value=0.67, baseline=0.43, unit="s"),
        Measure(signal="ttft", value=0.74, baseline=0.47, unit="s"),
        Measure(signal="prefix_hit_ratio", value=0.03, baseline=0.40, unit="ratio"),
        Measure(signal="a_signal_nobody_knows", value=9.0, baseline=1.0),
    )

    assert nearest_signature([moved], KNOWN).first == "S04"


def test_no_signal_beyond_its_tolerance_is_nobodys_signature() -> None:
    """A vector of noise has a direction, too; it says that nothing is wrong."""
    calm = _finding(Measure(signal="ttft", value=0.48, baseline=0.47, unit="s"))

    assert nearest_signature([calm], KNOWN).ranked == (("none", 1.0),)
    assert nearest_signature([], KNOWN).first == "none"


FRAME = Frame(
    at=synthetic.END,
    baseline_start=synthetic.END - timedelta(minutes=38),
    baseline_end=synthetic.END - timedelta(minutes=18),
)


@pytest.mark.parametrize(
    ("scenario", "hints"),
    [
        ("S01", {"S01", "S02", "S03", "S04"}),
        ("S03", {"S01", "S02", "S03", "S04"}),
        ("S04", {"S04"}),
        ("S07", {"S01", "S02", "S03", "S04", "S07"}),
    ],
)
async def test_fixed_thresholds_see_what_is_far_out(scenario: str, hints: set[str]) -> None:
    """Queue, first token, full cache and imbalance are seen; why they are so, thresholds do not tell apart."""
    telemetry = load_openmetrics(synthetic.openmetrics(scenario, history=timedelta(minutes=40)))

    said = await fixed_thresholds(synthetic.target(), telemetry, FRAME, KNOWN)

    assert {cause for cause, _ in said.ranked} == hints
    assert sum(probability for _, probability in said.ranked) <= 1 + 1e-9


async def test_fixed_thresholds_do_not_know_what_is_normal_here() -> None:
    """A healthy service whose prompts share two fifths of their prefix is reported by a rule that wants half."""
    telemetry = load_openmetrics(synthetic.openmetrics("none", history=timedelta(minutes=40)))

    said = await fixed_thresholds(synthetic.target(), telemetry, FRAME, KNOWN)

    assert said.ranked == (("S04", 0.4),)


async def test_a_threshold_without_its_metric_does_not_fire() -> None:
    """No telemetry at all: no rule fires, and thresholds then say that all is well."""
    said = await fixed_thresholds(synthetic.target(), load_openmetrics("# EOF\n"), FRAME, KNOWN)

    assert said.ranked == (("none", 1.0),)


def test_every_rule_hints_at_a_cause_of_the_catalogue() -> None:
    """Ten rules, as the tool has."""
    assert len(RULES) == 10
    assert {rule.cause for rule in RULES} <= KNOWN.causes.keys()
