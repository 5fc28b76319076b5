"""The scenarios: each alert fires from telemetry, the figures are the reference's, and only the right fix heals."""

from __future__ import annotations

import asyncio
import copy
import functools
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from diagnostics.diagnosis import Diagnosis
from diagnostics.runner import Diagnoser
from diagnostics.target import Budgets, Deployment, Target
from diagnostics.telemetry.recorder import Recorder
from lab.alert_rules import RULES
from lab.cluster import ENGINE
from lab.engine_physics import EngineLimits, Load, engine_limits, means
from lab.exposition import STEP
from lab.hardware import Hardware
from lab.history import History
from lab.prompt_store import PRODUCTION
from lab.prompt_texts import CHAT_SYSTEM_FRIENDLY, chat_system
from lab.rule import RuleState
from lab.scenarios import SCENARIOS
from lab.stage import Stage
from lab.world import World
from tests.lab.played_worlds import LIVE_START, SmallWorld, new_world
from tests.real_prometheus import start_prometheus

BROKEN_FOR = timedelta(minutes=3)
each_scenario = pytest.mark.parametrize("scenario_id", sorted(SCENARIOS))


TARGET = Target(
    service="chat",
    namespace="chat",
    selectors={
        "serving": {"namespace": "chat"},
        "gpu": {"namespace": "chat"},
        "application": {"service": "chat"},
        "gateway": {"model_group": "~chat|chat-overflow"},
        "kubernetes": {"namespace": "chat"},
    },
    budgets=Budgets(ttft_p95_s=1.0),
    deployments=(Deployment(name=ENGINE, kind="engine", replicas=4),),
)


@functools.cache
def played(scenario_id: str) -> tuple[World, Path]:
    """A world played until three minutes after its live start, with the history of what its rules read, and of all."""
    world = new_world(Path(tempfile.mkdtemp(prefix="lab-played-")), scenario_id=scenario_id)
    history = History(start=world.fleet.start)
    while world.fleet.next_step <= world.clock.start + BROKEN_FOR:
        world._step()
        history.record(world.fleet.registry)
    world.folder.mkdir(parents=True, exist_ok=True)
    history.write(world.fleet.registry, world.history_path)
    history.write(world.fleet.registry, world._rule_history_path, only=world._rule_metrics)
    return world, world._rule_history_path


# -- alerts ----------------------------------------------------------------------------------------------------------


@each_scenario
async def test_the_alert_fires_right_after_the_live_start(scenario_id: str) -> None:
    """Nothing fires in the quiet past; the page arises from the rule on live telemetry, within three lab minutes."""
    world, history = played(scenario_id)
    recorder = Recorder(clock="samples", history=history)
    await recorder.open()
    states = [RuleState(rule=rule, telemetry=recorder) for rule in world.scenario.rules]
    fired: list[datetime] = []
    at = LIVE_START - timedelta(minutes=30)
    while at <= LIVE_START + BROKEN_FOR:
        for state in states:
            alerts = await state.evaluate(at)
            assert all(alert.annotations["summary"] for alert in alerts)
            fired += [at] * len(alerts)
        at += STEP
    assert fired
    assert -timedelta(minutes=1) <= min(fired) - LIVE_START <= BROKEN_FOR


@pytest.mark.integration
@pytest.mark.parametrize("scenario_id", ["G04", "S03", "Q01"])
async def test_prometheus_finds_the_same_excess(scenario_id: str) -> None:
    """Each rule's expression in PromQL, asked of a real Prometheus over the same history, agrees group by group."""
    world, history = played(scenario_id)
    recorder = Recorder(clock="samples", history=history)
    await recorder.open()
    at = LIVE_START + BROKEN_FOR
    with start_prometheus(history) as url:
        for rule in world.scenario.rules:
            query: dict[str, str | float] = {"query": rule.condition.promql(), "time": at.timestamp()}
            async with httpx.AsyncClient(trust_env=False) as prometheus:
                answer = (await prometheus.get(f"{url}/api/v1/query", params=query)).json()
            theirs = {
                tuple(row["metric"].get(label, "") for label in rule.condition.by): float(row["value"][1])
                for row in answer["data"]["result"]
            }
            ours = await rule.condition.exceeding(recorder, at)
            assert ours
            assert {key: excess.value for key, excess in ours.items()} == pytest.approx(theirs, rel=0.01)


@pytest.mark.integration
async def test_prometheus_takes_every_rule() -> None:
    """The whole pack in PromQL, asked of a real Prometheus over a fleet with one hot node: the same groups exceed."""
    world, _ = played("G04")
    recorder = Recorder(clock="samples", history=world.history_path)
    await recorder.open()
    at = LIVE_START + BROKEN_FOR
    with start_prometheus(world.history_path) as url:
        for rule in RULES.values():
            query: dict[str, str | float] = {"query": rule.condition.promql(), "time": at.timestamp()}
            async with httpx.AsyncClient(trust_env=False) as prometheus:
                answer = (await prometheus.get(f"{url}/api/v1/query", params=query)).json()
            assert answer["status"] == "success", (rule.name, answer)
            theirs = {
                tuple(row["metric"].get(label, "") for label in rule.condition.by) for row in answer["data"]["result"]
            }
            assert set(await rule.condition.exceeding(recorder, at)) == theirs, rule.name


@functools.cache
def diagnosed(scenario_id: str) -> Diagnosis:
    """From the telemetry alone: no change source is asked."""

    async def diagnose() -> Diagnosis:
        recorder = Recorder(clock="samples", history=played(scenario_id)[0].history_path)
        await recorder.open()
        return await Diagnoser(recorder, patience_s=30).diagnose(TARGET)

    return asyncio.run(diagnose())


@pytest.mark.integration
@each_scenario
def test_the_telemetry_tells_the_cause(scenario_id: str) -> None:
    """The true cause comes first, clearly, at the right place and since the right time."""
    world, _ = played(scenario_id)
    diagnosis, truth = diagnosed(scenario_id), world.truth()
    first, second, *_ = diagnosis.causes
    assert first.cause == truth["cause"]
    assert first.probability > 2 * second.probability
    assert diagnosis.scope is not None
    assert diagnosis.scope.dimension == truth["scope"]["dimension"]
    assert set(truth["scope"]["values"]) <= set(diagnosis.scope.values)
    assert diagnosis.since is not None
    assert timedelta(minutes=-2) <= diagnosis.since - world.onset <= timedelta(minutes=6)


@pytest.mark.integration
def test_new_engines_are_held_against_those_before() -> None:
    """After a rollout no pod has a past of its own; the fullest cache and the longest queue of before speak for it."""
    measures = [measure for finding in diagnosed("S03").findings for measure in finding.measures]
    [kv] = [measure for measure in measures if measure.signal == "kv_usage" and not measure.scope]
    [waiting] = [measure for measure in measures if measure.signal == "waiting" and not measure.scope]
    assert kv.value == pytest.approx(0.99, abs=0.02)
    assert kv.baseline == pytest.approx(0.24, abs=0.03)
    assert waiting.baseline == 0


@each_scenario
def test_the_truth_is_told_from_the_start(scenario_id: str) -> None:
    """A judge knows the cause and the decoys; nothing is healed before somebody acts."""
    world, _ = played(scenario_id)
    truth = world.truth()
    assert (truth["cause"], truth["scenario"], truth["healed"]) == (scenario_id, scenario_id, False)
    assert truth["decoys"]
    assert truth["culprit_change"] is None or truth["culprit"]


# -- S03: the KV pool shrinks ----------------------------------------------------------------------------------------


def test_a_small_kv_pool_saturates_as_in_the_reference() -> None:
    """12 s of queue, 40 waiting, 22 running, 18 ms and 0.9 preemptions per second, all within a quarter."""
    small = means(Load(rps=6), engine_limits(["--gpu-memory-utilization", "0.33"]))
    assert small.kv == pytest.approx(0.99)
    assert small.running == pytest.approx(22, rel=0.05)
    assert small.itl_s == pytest.approx(0.018, rel=0.05)
    assert small.queue_s == pytest.approx(12, rel=0.25)
    assert small.waiting == pytest.approx(40, rel=0.25)
    assert small.preemptions_per_s == pytest.approx(0.9, rel=0.1)


def test_a_saturated_replica_loses_what_it_cannot_serve() -> None:
    """What arrives is served or given up, and who waits leaves at the rate of one in so many seconds."""
    load, limits = Load(rps=6), EngineLimits(kv_tokens=70_000)
    full = means(load, limits)
    served = full.running / (full.prefill_s + full.itl_s * (load.output_tokens - 1))
    assert load.rps * (1 - full.given_up) == pytest.approx(served)
    assert full.waiting / 22.0 == pytest.approx(load.rps * full.given_up)


@pytest.mark.parametrize(
    ("args", "blocks"),
    [
        ([], 26_562),
        (["--gpu-memory-utilization", "0.90"], 26_562),
        (["--gpu-memory-utilization=0.33"], 4_296),
        (["--gpu-memory-utilization", "0.90", "--num-gpu-blocks-override", "4400"], 4_400),
        (["--gpu-memory-utilization", "much"], 26_562),
    ],
)
def test_the_arguments_decide_the_cache(args: list[str], blocks: int) -> None:
    """As vLLM computes it: what the share of the GPU leaves beside the weights, or an explicit number of blocks."""
    assert engine_limits(args).kv_blocks == pytest.approx(blocks, abs=1)


def roll_back(stage: Stage, utilization: str, at: datetime) -> None:
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    args[args.index("--gpu-memory-utilization") + 1] = utilization
    stage.cluster.update_deployment(deployment, at)


def test_each_pod_has_the_cache_of_its_own_revision() -> None:
    """A rollout and its undo reach the pods one or two at a time; both take eight minutes of lab time."""
    small = SmallWorld("S03")
    [*_, rollout] = small.scenario.deeds(small.fleet.now)
    rollout.do(small.stage)
    small.pass_time(timedelta(minutes=5))
    assert sorted(replica.limits.kv_blocks for replica in small.fleet._replicas.values()) == [4296, 4296, 26562, 26562]
    small.pass_time(timedelta(minutes=4))
    assert {replica.limits.kv_blocks for replica in small.fleet._replicas.values()} == {4296}
    assert not small.scenario.is_healthy(small.stage)

    roll_back(small.stage, "0.90", small.fleet.now)
    assert small.scenario.is_healthy(small.stage)
    small.pass_time(timedelta(minutes=9))
    assert {replica.limits.kv_blocks for replica in small.fleet._replicas.values()} == {26562}


def test_the_exporters_show_the_saturation() -> None:
    """A full cache, a queue, preemptions, and callers who gave up; the application counts those as aborted."""
    small = SmallWorld("S03")
    roll_back(small.stage, "0.33", small.fleet.now)
    small.pass_time(timedelta(minutes=12))
    names = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc")
    waiting, running, kv = (small.total(name) / 4 for name in names)
    assert waiting > 30
    assert running < 26
    assert kv > 0.95
    assert small.total("vllm:num_preemptions_total") > 0
    text = small.fleet.metrics(only={"llm_app_requests_total"})
    assert 'status="aborted"' in text


# -- G04: a GPU overheats --------------------------------------------------------------------------------------------


def settled(uncooled: set[str], busy: set[str]) -> Hardware:
    hardware = Hardware()
    racks = {"a": "rack-1", "b": "rack-1", "c": "rack-2"}
    hardware.step(racks, busy)
    hardware.uncooled |= dict.fromkeys(uncooled, 1.0)
    for _ in range(60):
        hardware.step(racks, busy)
    return hardware


def test_a_hot_gpu_slows_down_and_warms_its_neighbours() -> None:
    """88 C, 1100 MHz and 350 W; decode 1.43 times as slow; the rack is a little warmer, the next rack is not."""
    hardware = settled({"a"}, {"a", "b", "c"})
    assert hardware.temperature_c("a") == pytest.approx(88, abs=1.5)
    assert (hardware.clock_mhz("a"), hardware.power_w("a")) == (1100, 350)
    assert hardware.slowness("a") == pytest.approx(1.43, abs=0.01)
    assert hardware.clock_events("a", "sw_thermal") == 20
    assert hardware.temperature_c("b") == pytest.approx(66, abs=0.5)
    assert hardware.slowness("b") == 1.0
    assert hardware.temperature_c("c") == pytest.approx(62, abs=0.5)


def test_an_idle_gpu_without_cooling_is_warm_and_not_throttled() -> None:
    """Taking its load away lets it cool, but nothing in software mends a fan."""
    hardware = settled({"a"}, {"b", "c"})
    assert 40 < hardware.temperature_c("a") < 60
    assert hardware.clock_events("a", "sw_thermal") == 0
    assert hardware.temperature_c("b") == pytest.approx(62, abs=0.5)


def test_the_reference_figures_of_a_throttled_pod() -> None:
    """25.6 ms between tokens and 48 running at 6 requests per second; the first token is as quick as ever."""
    hot = means(Load(rps=6, slowness=1.4265))
    assert hot.itl_s == pytest.approx(0.0256, rel=0.02)
    assert hot.running == pytest.approx(48, rel=0.03)
    assert hot.ttft_s == means(Load(rps=6)).ttft_s


def test_only_the_pod_on_the_hot_node_is_slow() -> None:
    """After ten minutes; and with the node's weight at 0 its pod is asked for nothing while the others share."""
    small = SmallWorld("G04")
    [*_, fan] = small.scenario.deeds(small.fleet.now)
    fan.do(small.stage)
    assert not small.scenario.is_healthy(small.stage)
    small.pass_time(timedelta(minutes=10))
    [hot] = small.hardware.uncooled
    loads = {small.fleet._replicas[pod].labels["node"]: load for pod, load in small.fleet._loads().items()}
    assert loads[hot].slowness > 1.4
    assert {load.slowness for node, load in loads.items() if node != hot} == {1.0}

    deployment = next(one for one in small.gateway.deployments.values() if one.node == hot)
    deployment.weight = 0
    loads = {small.fleet._replicas[pod].labels["node"]: load for pod, load in small.fleet._loads().items()}
    assert loads[hot].rps == 0
    assert {round(load.rps) for node, load in loads.items() if node != hot} == {8}
    assert small.scenario.is_healthy(small.stage)


# -- Q01: the output format breaks -----------------------------------------------------------------------------------


def share_valid(small: SmallWorld) -> float:
    """Of the answers of chat-system in the next four minutes."""

    def answers(**result: str) -> float:
        return small.total("llm_app_format_checks_total", prompt_name="chat-system", **result)

    valid, every = answers(result="valid"), answers()
    small.pass_time(timedelta(minutes=4))
    return (answers(result="valid") - valid) / (answers() - every)


def test_answers_without_the_form_fail_the_check() -> None:
    """99.2 % valid before, 71 % after; rolling back the decoy does nothing, the guilty prompt everything."""
    small = SmallWorld("Q01")
    assert share_valid(small) == pytest.approx(0.992, abs=0.01)
    small.break_it()
    small.pass_time(timedelta(minutes=1))
    assert share_valid(small) == pytest.approx(0.71, abs=0.02)

    small.prompts.add_labels("chat-summary", 3, [PRODUCTION], at=small.fleet.now)
    assert not small.scenario.is_healthy(small.stage)

    small.prompts.add_labels("chat-system", 7, [PRODUCTION], at=small.fleet.now)
    assert small.scenario.is_healthy(small.stage)
    small.pass_time(timedelta(minutes=1))
    assert share_valid(small) == pytest.approx(0.992, abs=0.01)


def test_a_version_that_asks_for_json_again_heals() -> None:
    """The fault is in the text, not in the version's number; friendliness is not the fault."""
    small = SmallWorld("Q01")
    small.break_it()
    repaired = CHAT_SYSTEM_FRIENDLY + "\n\nPut the answer into one JSON object."
    small.prompts.create("chat-system", repaired, at=small.fleet.now, created_by="bob", labels=[PRODUCTION])
    assert small.scenario.is_healthy(small.stage)


def test_the_broken_prompt_changes_nothing_else() -> None:
    """Its length and what it shares with other requests stay, so that neither latency nor cost moves."""
    before, after = chat_system(7), CHAT_SYSTEM_FRIENDLY
    assert len(after) == pytest.approx(len(before), rel=0.1)
    assert "JSON" in before
    assert "JSON" not in after
