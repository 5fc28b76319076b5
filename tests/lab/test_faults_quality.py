"""Faults of quality and security: what moves, at which prompt, model, pod, key or source; what stays, what heals."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from datetime import timedelta

import pytest

from lab.cluster import ENGINE
from lab.scenarios.changed_models import RolloutSkew
from lab.scenarios.fault import Shape
from lab.scenarios.faults_quality import FAULTS
from tests.lab.integration_readings import FaultyWorld, Growth
from tests.lab.played_worlds import LIVE_START, SmallWorld
from tests.lab.quality_readings import judged, refused, signals, valid

_ENGINE = ("rps", "ptok", "otok", "prefill", "ttft", "itl", "e2e")
_SAFE = ("inj", "sens", "unapproved")
_NEAR = {
    "judge": 0.04, "fmt": 0.02, "refusal": 0.015, "gblock": 0.01, "inj": 0.004, "sens": 0.01, "toolerr": 0.03,
    "rscore": 0.05, "auc": 0.1, "flen": 0.06, "cut": 0.06, "tdown": 0.04, "unapproved": 0.05, "5xx": 0.01, "4xx": 0.02,
}  # fmt: skip
"""How far a signal may be off and still count as flat; one that is not named: 18 % of itself."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """A world before its fault, during it, and after the state was healed."""

    world: FaultyWorld
    before: Growth
    during: Growth
    after: Growth
    truth: tuple[str, list[str]]


def run_deeds(world: SmallWorld, fault: RolloutSkew, until: timedelta) -> None:
    """What the fault does from the next step on, each at its time."""
    end = world.fleet.next_step + until
    waiting = list(fault.deeds(world.fleet.next_step, end, Shape.STEP, world.stage))
    while world.fleet.next_step <= end:
        while waiting and waiting[0].at <= world.fleet.next_step:
            waiting.pop(0).do(world.stage)
        world.fleet.step()


@functools.cache
def played(cause: str, seed: int = 5) -> Played:
    """Five minutes of each, at the usual strength."""
    fault = FAULTS[cause](1.0)
    world = FaultyWorld(fault, seed=seed)
    world.pass_time(timedelta(minutes=2))
    before = Growth(world)
    if isinstance(fault, RolloutSkew):
        run_deeds(world, fault, timedelta(minutes=6))
    else:
        world.begin()
    during = Growth(world)
    truth = fault.scope(world.stage)
    world.heal(timedelta(minutes=13 if isinstance(fault, RolloutSkew) else 2))
    return Played(world=world, before=before, during=during, after=Growth(world), truth=truth)


MOVES = {  # the way that the reference's figures go, for the whole service unless a test below looks closer
    "Q01": {"fmt": -0.282, "judge": -0.06, "toolerr": 0.043},
    "Q02": {"refusal": 0.155, "otok": -170, "e2e": -2.72, "running": -16, "judge": -0.12, "tdown": 0.08},
    "Q05": {"flen": 0.35, "cut": 0.35, "fmt": -0.192, "otok": -150, "e2e": -2.4, "running": -14},
    "Q06": {"rscore": -0.08, "judge": -0.05},
    "Q08": {"judge": -0.12},
    "Q09": {"gblock": 0.112, "tdown": 0.06},
    "X01": {"inj": 0.058, "gblock": 0.037},
    "X02": {"inj": 0.033, "gblock": 0.022},
    "X03": {"sens": 0.029},
    "X06": {"inj": 0.004},
}


@pytest.mark.parametrize("cause", MOVES)
def test_its_signals_move_as_the_reference_says(cause: str) -> None:
    """In the right direction, by half of the stated way or more and not more than twice it."""
    before, during = signals(played(cause).before), signals(played(cause).during)
    for name, way in MOVES[cause].items():
        moved = (during[name] - before[name]) / way
        assert 0.5 <= moved <= 2.0, f"{name}: {before[name]:.4g} -> {during[name]:.4g}, {moved:.2f} of the way"


@pytest.mark.parametrize("cause", ["Q01", "Q02", "Q05", "Q08", "Q09", "X01", "X02"])
def test_strength_scales_the_magnitude(cause: str) -> None:
    """A strong case is further from normal than a mild one; both are on the same side."""
    name = next(iter(MOVES[cause]))
    moved = []
    for strength in (0.5, 1.6):
        world = FaultyWorld(FAULTS[cause](strength))
        before = signals(Growth(world, timedelta(minutes=2)))[name]
        world.begin(timedelta(minutes=1, seconds=30))
        moved.append((signals(Growth(world, timedelta(minutes=2)))[name] - before) / MOVES[cause][name])
    assert 0 < moved[0] < moved[1] / 1.5


FLAT = {
    "Q01": (*_ENGINE, *_SAFE, "refusal", "gblock", "flen", "rscore", "auc"),
    "Q02": (*_SAFE, "rps", "ptok", "ttft", "fmt", "gblock", "flen", "toolerr", "auc"),
    "Q03": (*_ENGINE, *_SAFE, "gblock", "flen", "toolerr", "auc", "judge"),
    "Q04": (*_SAFE, "rps", "ptok", "ttft", "refusal", "gblock", "flen", "toolerr", "auc"),
    "Q05": (*_SAFE, "rps", "ptok", "ttft", "refusal", "gblock", "judge", "toolerr", "spend"),
    "Q06": (*_ENGINE, *_SAFE, "fmt", "refusal", "gblock", "toolerr", "flen"),
    "Q08": (*_ENGINE, *_SAFE, "fmt", "refusal", "gblock", "tdown", "flen", "cut", "toolerr", "rscore", "auc"),
    "Q09": (*_ENGINE, *_SAFE, "fmt", "refusal", "judge", "toolerr", "rscore"),
    "X01": (*_ENGINE, "fmt", "refusal", "judge", "sens", "tdown", "toolrate", "unapproved"),
    "X02": (*_ENGINE, "fmt", "refusal", "judge", "sens", "tdown", "rscore"),
    "X03": (*_ENGINE, "fmt", "refusal", "judge", "inj", "tdown", "toolrate", "gblock"),
    "X06": ("rps", "otok", "itl", "fmt", "refusal", "judge", "sens", "tdown", "toolerr", "gblock", "unit"),
}


@pytest.mark.parametrize("cause", FLAT)
def test_everything_else_stays(cause: str) -> None:
    """Signals that the cause does not touch stay within a normal day's variation."""
    before, during = signals(played(cause).before), signals(played(cause).during)
    for name in FLAT[cause]:
        allowed = _NEAR.get(name, 0.18 * before[name])
        assert during[name] == pytest.approx(before[name], abs=allowed), name


@pytest.mark.parametrize("cause", sorted(FAULTS))
def test_a_healed_state_heals_the_telemetry(cause: str) -> None:
    """Minutes later answers, blocks, detections, tools and spend are what they were."""
    before, after = signals(played(cause).before), signals(played(cause).after)
    for name in (*_ENGINE, "toolrate", "spend"):
        assert after[name] == pytest.approx(before[name], rel=0.2 if name == "e2e" else 0.15), name
    for name in ("judge", "fmt", "refusal", "gblock", "inj", "sens", "toolerr", "flen", "cut", "auc", "unapproved"):
        assert after[name] == pytest.approx(before[name], abs=_NEAR[name]), name


# -- Where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["Q01", "Q02"])
def test_only_the_new_prompt_version_is_bad(cause: str) -> None:
    """The version that the truth names is the one that nobody used before; the other prompt is as good as ever."""
    fault = played(cause)
    assert fault.truth == ("prompt_version", ["8"])
    assert not fault.before.of("llm_app_responses_total", prompt_version="8")
    worst = refused(fault.during, prompt_version="8") if cause == "Q02" else 1 - valid(fault.during, prompt_version="8")
    assert worst > 0.09
    assert refused(fault.during, prompt_name="chat-summary") < 0.05
    [change] = fault.world.stage.log
    assert (change.kind, change.is_guilty, change.scope["prompt_version"]) == ("prompt", True, ("8",))
    assert change.after == fault.world.prompts.get("chat-system", 8).prompt


def test_only_one_providers_model_changes() -> None:
    """Its answers are shorter, worse in form and refuse more; our own engines' and the other model's are not."""
    fault = played("Q03")
    dimension, [model] = fault.truth
    assert dimension == "model"
    per_answer = [
        growth.of("llm_app_tokens_total", model=model, direction="output")
        / growth.of("llm_app_responses_total", model=model)
        for growth in (fault.before, fault.during)
    ]
    assert 0.45 <= per_answer[1] / per_answer[0] <= 0.8
    assert valid(fault.during, model=model) < 0.98
    assert refused(fault.during, model=model) > 0.022
    own = {"model": "llama-3.1-8b-instruct"}
    assert valid(fault.during, **own) == pytest.approx(valid(fault.before, **own), abs=0.01)
    assert judged(fault.during, **own) == pytest.approx(judged(fault.before, **own), abs=0.03)
    assert fault.world.stage.answering.outside == {}


def test_pods_of_two_revisions_answer_differently() -> None:
    """Those with the new arguments write more and worse; they are fewer than all, and bear another template hash."""
    fault = played("Q04")
    dimension, pods = fault.truth
    assert dimension == "pod"
    everyone = {
        labels["pod"]: labels["revision"]
        for name, labels, grown, _ in fault.during._rows
        if name == "vllm:request_generation_tokens_count" and grown > 0
    }
    assert len(everyone) == 4
    assert 0 < len(pods) < 4
    assert {everyone[pod] for pod in pods}.isdisjoint(everyone[pod] for pod in everyone.keys() - pods)
    for pod in everyone:
        usual = judged(fault.before)
        expected = usual - 0.15 if pod in pods else usual
        assert judged(fault.during, pod=pod) == pytest.approx(expected, abs=0.07), pod
        tokens = fault.during.mean("vllm:request_generation_tokens", pod=pod)
        assert tokens == pytest.approx(360 if pod in pods else 300, rel=0.1), pod
    [change] = fault.world.stage.log
    assert change.kind in {"model", "adapter"}


def test_a_paused_rollout_stands_still_until_it_goes_on() -> None:
    """Pods of both templates serve for as long as nobody resumes; then the new template gets them all."""
    small = SmallWorld("I01")
    fault = RolloutSkew()
    run_deeds(small, fault, timedelta(minutes=15))
    assert len(fault.scope(small.stage)[1]) == 2
    assert len(small.cluster.pods_of(ENGINE)) == 4

    deployment = copy.deepcopy(small.cluster.get("deployments", ENGINE))
    del deployment["spec"]["paused"]
    small.cluster.update_deployment(deployment, small.fleet.now)
    small.pass_time(timedelta(minutes=6))
    assert len(fault.scope(small.stage)[1]) == 4


def test_a_flag_is_what_cuts_answers_off() -> None:
    """The route's own limit is in the log as it was and as it is."""
    fault = played("Q05")
    [change] = fault.world.stage.log
    assert (change.kind, change.before, change.scope) == ("flag", "1024", {"route": ("chat",)})
    assert int(change.after or 0) < 300
    assert fault.world.stage.flags.max_tokens == 1024


def test_one_segment_drifts() -> None:
    """Its questions can be told from those of the reference week, all others' cannot; nobody changed anything."""
    fault = played("Q06")
    _, [segment] = fault.truth
    auc = {
        labels["segment"]: level for name, labels, _, level in fault.during._rows if name == "llm_app_input_drift_auc"
    }
    assert auc.pop(segment) > 0.66
    assert all(other == pytest.approx(0.5, abs=0.04) for other in auc.values())
    assert not fault.world.stage.log


def test_a_new_judge_scores_and_nothing_else_moves() -> None:
    """The control: scores by the judge's new version are lower, under the same prompts, models and pods."""
    fault = played("Q08")
    dimension, [version] = fault.truth
    assert (dimension, FAULTS["Q08"].is_control) == ("evaluator", True)
    assert judged(fault.during, evaluator_version=version) < 0.8
    assert not fault.during.of("llm_app_judge_score_count", evaluator_version="judge-7")
    assert fault.after.of("llm_app_judge_score_count", evaluator_version="judge-7") > 0


def test_a_strict_policy_blocks_on_every_surface() -> None:
    """Under the new version only, of everybody, and no model is asked: the edge has as many requests as before."""
    fault = played("Q09")
    _, [version] = fault.truth
    for surface in ("user", "retrieved", "tool", "output"):
        block = {"decision": "block"}
        then = fault.before.share("llm_app_guardrail_total", block, surface=surface)
        now = fault.during.share("llm_app_guardrail_total", block, surface=surface, policy_version=version)
        assert now > 4 * then
    edge = [signals(growth)["rps"] / growth.of("llm_app_requests_total") for growth in (fault.before, fault.during)]
    assert edge[1] < 0.96 * edge[0]
    assert fault.during.of("llm_app_requests_total") == pytest.approx(
        fault.before.of("llm_app_requests_total"), rel=0.05
    )


def test_few_keys_attack_and_a_block_ends_it() -> None:
    """The truth's keys have four fifths of the hits, all in what users write; the gateway's block is enough."""
    fault = played("X01")
    dimension, keys = fault.truth
    assert dimension == "api_key"
    hits = "llm_app_injection_detections_total"
    named = sum(fault.during.of(hits, principal=key) for key in keys)
    assert named >= 0.8 * fault.during.of(hits)
    assert fault.during.of(hits, surface="user") > 0.9 * fault.during.of(hits)

    world = FaultyWorld(FAULTS["X01"](1.0))
    world.begin()
    for key in world.fault.scope(world.stage)[1]:
        world.gateway.key(key).blocked = True
    assert signals(Growth(world))["inj"] < 0.006


def test_one_source_carries_the_orders() -> None:
    """Nine tenths of the hits are in the content of one source; agents write more, and some of it unasked."""
    fault = played("X02")
    dimension, [source] = fault.truth
    hits = "llm_app_injection_detections_total"
    content = sum(fault.during.of(hits, surface=surface) for surface in ("retrieved", "tool"))
    assert fault.during.of(hits, data_source=source) >= 0.9 * content
    assert fault.during.of(hits, surface="user") == pytest.approx(fault.before.of(hits, surface="user"), abs=15)
    before, during = signals(fault.before), signals(fault.during)
    assert 1.2 <= during["toolrate"] / before["toolrate"] <= 1.8
    assert fault.world.stage.log[0].kind == "index"
    assert dimension == "data_source"


def leaking(growth: Growth, **where: str) -> float:
    return growth.of("llm_app_sensitive_output_total", **where)


@pytest.mark.parametrize("where", ["prompt_version", "tenant", "tool"])
def test_leaks_show_where_they_are(where: str) -> None:
    """A prompt's under its version, a tenant's under its name, and a tool's under everybody's, with its change."""
    seed = next(seed for seed in range(5, 60) if _place(seed) == where)
    fault = played("X03", seed)
    dimension, [value] = fault.truth
    assert dimension == where
    whole = leaking(fault.during)
    assert whole > 10 * leaking(fault.before) / 2
    log = fault.world.stage.log
    if where == "tool":
        assert (log[0].kind, log[0].scope) == ("tool", {"tool": (value,)})
        assert sum(leaking(fault.during, tenant=f"tenant-{place:02d}") > 4 for place in range(1, 6)) >= 4
    else:
        assert leaking(fault.during, **{dimension: value}) > 0.9 * whole
        assert [change.kind for change in log] == (["prompt"] if where == "prompt_version" else [])


@functools.cache
def _place(seed: int) -> str:
    return FaultyWorld(FAULTS["X03"](1.0), seed=seed).fault.scope(SmallWorld("I01").stage)[0]


@pytest.mark.parametrize("is_prompt", [True, False])
def test_an_agent_writes_unasked(is_prompt: bool) -> None:  # noqa: FBT001 - the two stories of one fault
    """Its writes grow sixfold and most lack approval; a prompt that makes it ask, or an end to it, heals."""
    seed = next(seed for seed in range(5, 40) if _has_prompt(seed) is is_prompt)
    fault = played("X06", seed)
    dimension, [agent] = fault.truth
    assert dimension == "agent"
    calls = "llm_app_tool_calls_total"
    before, during = (growth.of(calls, agent=agent, verb="write") for growth in (fault.before, fault.during))
    assert 3.5 <= during / before <= 9
    assert fault.during.share(calls, {"approved": "no"}, agent=agent, verb="write") > 0.5
    assert fault.during.of(calls, verb="read") == pytest.approx(fault.before.of(calls, verb="read"), rel=0.2)
    assert [change.kind for change in fault.world.stage.log] == (["prompt"] if is_prompt else [])
    spend = [signals(growth)["spend"] for growth in (fault.before, fault.during)]
    assert 1.12 <= spend[1] / spend[0] <= 1.6


@functools.cache
def _has_prompt(seed: int) -> bool:
    world = FaultyWorld(FAULTS["X06"](1.0), seed=seed)
    world.fault.begin(world.stage, LIVE_START)
    return bool(world.stage.log)


@pytest.mark.parametrize("cause", sorted(FAULTS))
def test_the_truth_is_in_the_words_of_a_case(cause: str) -> None:
    """Cause, class, control and a scope with values; at most one change is guilty."""
    fault = played(cause)
    truth = fault.world.fault.truth(fault.world.stage, LIVE_START, None)
    assert (truth["cause"], truth["class"], truth["control"]) == (cause, cause[0], cause == "Q08")
    assert fault.truth[1]
    assert sum(change.is_guilty for change in fault.world.stage.log) <= 1
    assert all(series.labels.get("service", "chat") == "chat" for series in fault.world.fleet.registry.series)
