"""The serving family of faults, each played in a small world: what moves, where, what stays, and that healing shows."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isnan

import numpy as np
import pytest

from lab import autoscaling
from lab.cluster import ENGINE
from lab.cluster_objects import autoscaler
from lab.scenarios.engine_deadlock import EngineDeadlock
from lab.scenarios.fault import Fault, Shape
from lab.scenarios.faults_serving import FAULTS
from lab.scenarios.prefix_cache_collapse import PrefixCacheLost
from lab.scenarios.sticky_sessions import StickySessions
from tests.lab.integration_readings import Growth
from tests.lab.played_worlds import LIVE_START, SmallWorld

WINDOW = timedelta(minutes=3)
SETTLED = timedelta(minutes=9)
"""A ramp has its level, and a rollout of two pods at a time its last pod, so long after the onset."""

# What the reference says: signal -> (at rest, during), at the scope of the fault.
MOVES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "S01": {"rps": (24, 60), "queue": (0.02, 1.8), "prefill": (0.426, 0.639), "itl": (0.016, 0.0256)}
    | {"waiting": (0, 25), "running": (31, 124), "kv": (0.23, 0.92), "ttft": (0.466, 2.46), "e2e": (5.25, 10.1)},
    "S02": {"ptok": (3000, 6600), "prefill": (0.426, 0.90), "ttft": (0.466, 1.04), "kv": (0.23, 0.66)},
    "S03": {"queue": (0.02, 12), "ttft": (0.466, 12.4), "waiting": (0, 40), "kv": (0.23, 0.99), "running": (31, 22)},
    "S04": {"prefill": (0.426, 0.67), "ttft": (0.466, 0.74), "itl": (0.016, 0.0184), "e2e": (5.25, 6.24)},
    "S05": {"queue": (0.02, 0.4), "itl": (0.016, 0.020), "running": (31, 64), "kv": (0.23, 0.47), "5xx": (0.001, 0.17)},
    "S06": {"5xx": (0.001, 0.2)},
    "S08": {"rps": (24, 38.4), "queue": (0.02, 1.2), "waiting": (0, 12), "running": (31, 61), "e2e": (5.25, 7.63)},
    "S09": {"itl": (0.016, 0.0304), "e2e": (5.25, 9.59), "running": (31, 57), "kv": (0.23, 0.42)},
    "S11": {"otok": (300, 900), "e2e": (5.25, 18.7), "running": (31, 110), "kv": (0.23, 0.90), "queue": (0.02, 0.3)},
    "S13": {"ttft": (0.466, 2.05), "itl": (0.016, 0.0192), "e2e": (5.25, 7.79)},
}
FLAT: Mapping[str, tuple[str, ...]] = {
    "S01": ("ptok", "otok", "5xx", "4xx", "retr", "guard", "retry", "fmt"),
    "S02": ("rps", "otok", "queue", "5xx", "4xx", "retr", "guard"),
    "S03": ("ptok", "otok", "5xx", "4xx", "retr", "guard", "retry"),
    "S04": ("rps", "ptok", "otok", "queue", "kv", "5xx", "retr", "guard"),
    "S05": ("ptok", "otok", "4xx", "retr", "guard", "fmt"),
    "S06": ("ptok", "otok", "queue", "prefill", "itl", "4xx", "retr"),
    "S07": ("ptok", "otok", "5xx", "4xx", "retr", "guard"),
    "S08": ("ptok", "otok", "5xx", "4xx", "retr", "guard", "retry"),
    "S09": ("rps", "ptok", "otok", "queue", "prefill", "5xx", "retr"),
    "S11": ("rps", "ptok", "5xx", "4xx", "retr", "guard"),
    "S13": ("rps", "ptok", "otok", "queue", "prefill", "waiting", "5xx"),
    "S14": ("client", "gateway", "5xx", "4xx", "retr", "guard", "fmt"),
}
NEAR = {"queue": 0.1, "waiting": 2.0, "kv": 0.12, "5xx": 0.01, "4xx": 0.02, "fmt": 0.02}
HOT, UTIL, POWER = "vllm:num_requests_running", "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_POWER_USAGE"


@dataclass(frozen=True, kw_only=True)
class Played:
    """A fault of usual strength that a world lives with: what was read before it and what is read during it."""

    world: SmallWorld
    fault: Fault
    before: Growth
    during: Growth


@functools.cache
def played(id_: str) -> Played:
    """Shared by the tests: look, do not touch."""
    return play(FAULTS[id_]())


def play(fault: Fault, *, settled: timedelta = SETTLED) -> Played:
    world = SmallWorld(fault=fault)
    world.pass_time(timedelta(minutes=1))
    before = Growth(world, WINDOW)
    onset = world.fleet.now + timedelta(minutes=4, seconds=15)
    until = onset + settled
    deeds = sorted(fault.deeds(onset, until, fault.shapes[0], world.stage), key=lambda deed: deed.at)
    while world.fleet.next_step <= until:
        while deeds and deeds[0].at <= world.fleet.next_step:
            deeds.pop(0).do(world.stage)
        world.fleet.step()
    return Played(world=world, fault=fault, before=before, during=Growth(world, WINDOW))


def heals(world: SmallWorld, over: timedelta) -> Growth:
    world.pass_time(over)
    return Growth(world, WINDOW)


@pytest.mark.parametrize("id_", MOVES)
def test_its_signals_move_as_the_reference_says(id_: str) -> None:
    """Each by at least half of what is stated, and not by twice as much."""
    now = played(id_).during.signals()
    for name, (at_rest, stated) in MOVES[id_].items():
        moved = (now[name] - at_rest) / (stated - at_rest)
        assert 0.5 <= moved <= 2.0, f"{name}: {now[name]:.4g}, {moved:.2f} of the way to {stated}"


@pytest.mark.parametrize("id_", FLAT)
def test_everything_else_stays(id_: str) -> None:
    """What the reference does not name stays within a normal day's variation."""
    fault = played(id_)
    before, during = fault.before.signals(), fault.during.signals()
    for name in FLAT[id_]:
        allowed = NEAR.get(name, (0.1 if name == "itl" else 0.18) * before[name])
        assert during[name] == pytest.approx(before[name], abs=allowed), name


# -- Discrete evidence, and where it is ------------------------------------------------------------------------------


def at(world: SmallWorld, name: str, **where: str) -> dict[str, float]:
    """A gauge by pod, as somebody who scrapes sees it; what vanished is not among it."""
    visible = world.fleet.registry.visible()
    found = [s for s in world.fleet.registry.series if s.family.name == name and where.items() <= s.labels.items()]
    values = {s.labels.get("pod", ""): float(visible[s.index]) for s in found}
    return {pod: value for pod, value in values.items() if not isnan(value)}


def deploy_before(fault: Played) -> None:
    """Roll the engines back to the template that they had before the fault."""
    stage, now = fault.world.stage, fault.world.fleet.now
    sets = sorted(stage.cluster.sets_of(ENGINE), key=lambda one: int(one["metadata"]["annotations"][_REVISION]))
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    deployment["spec"]["template"] = copy.deepcopy(sets[-2]["spec"]["template"])
    stage.cluster.update_deployment(deployment, now)


_REVISION = "deployment.kubernetes.io/revision"


def test_a_surge_is_everybodys() -> None:
    """At least five tenants ask more than twice as much each, and the providers' headroom stays."""
    fault = played("S01")
    tenants = [f"tenant-{place:02d}" for place in range(1, 6)]
    for tenant in tenants:
        where = {"tenant": tenant, "model": "llama-3.1-8b-instruct"}
        assert fault.during.of("llm_app_requests_total", **where) > 1.8 * fault.before.of(
            "llm_app_requests_total", **where
        )
    left = "litellm_remaining_tokens_metric"
    assert fault.during.level(left) == pytest.approx(fault.before.level(left), rel=0.2)


def test_one_tenants_long_prompts_are_its_own() -> None:
    """Its input tokens grow several times, others' stay, and everybody's time to the first token suffers."""
    fault = FAULTS["S02"]()
    fault.tenant = "tenant-02"  # type: ignore[attr-defined]
    now = play(fault, settled=timedelta(minutes=2))
    tokens = {"direction": "input", "model": "llama-3.1-8b-instruct"}

    def grown(tenant: str) -> float:
        return now.during.of("llm_app_tokens_total", tenant=tenant, **tokens) / now.before.of(
            "llm_app_tokens_total", tenant=tenant, **tokens
        )

    assert grown("tenant-02") > 3
    assert max(grown(f"tenant-{place:02d}") for place in (1, 3, 4, 5)) < 1.3
    assert now.during.signals()["ttft"] > 1.5 * now.before.signals()["ttft"]
    assert now.world.stage.log == []


def test_a_smaller_pool_shows_in_the_configuration() -> None:
    """Every new pod says so few blocks, and requests are preempted."""
    fault = played("S03")
    blocks = {
        int(s.labels["num_gpu_blocks"])
        for s in fault.world.fleet.registry.series
        if s.family.name == "vllm:cache_config_info" and not np.isnan(fault.world.fleet.registry.values[s.index])
    }
    assert max(blocks) < 26_562 / 3
    assert fault.during.of("vllm:num_preemptions_total") / WINDOW.total_seconds() / 4 > 0.45


@pytest.mark.parametrize("is_salted", [False, True])
def test_the_prefix_cache_is_lost_either_way(*, is_salted: bool) -> None:
    """By a variable that stands too early, or by a salt; half of the strength keeps half of the hits."""
    fault = PrefixCacheLost(0.5)
    fault.is_salted = is_salted
    now = play(fault, settled=timedelta(minutes=2))
    hits, asked = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
    assert now.before.of(hits) / now.before.of(asked) == pytest.approx(0.40, abs=0.03)
    assert now.during.of(hits) / now.during.of(asked) == pytest.approx(0.21, abs=0.06)
    [change] = now.world.stage.log
    assert change.kind == ("flag" if is_salted else "prompt")


@pytest.mark.parametrize(("host_limit", "reason"), [(24, "OOMKilled"), (0, "Error")])
def test_pods_without_memory_crash_again_and_again(host_limit: int, reason: str) -> None:
    """Two of the new revision, several restarts each for the one reason, without any XID; the others take over."""
    fault = FAULTS["S05"]()
    fault.host_limit_gib = host_limit  # type: ignore[attr-defined]
    now = play(fault, settled=timedelta(minutes=8))
    ended = at(now.world, "kube_pod_container_status_last_terminated_reason", reason=reason)
    crashing = {pod for pod, value in ended.items() if value}
    assert len(crashing) == 2
    restarts = at(now.world, "kube_pod_container_status_restarts_total")
    assert sum(restarts[pod] for pod in crashing) >= 6
    assert now.world.cluster.get("deployments", ENGINE)["status"]["availableReplicas"] == 2
    assert now.during.level("DCGM_FI_DEV_XID_ERRORS") == 0
    share = now.during.share("http_requests_total", {"status": "5xx"})
    assert 0.08 < share < 0.3


def test_a_deadlocked_engine_takes_no_step() -> None:
    """Its gauges stand, nothing finishes, callers fail; its GPU spins at a third of the power; others serve."""
    fault = play(EngineDeadlock(), settled=timedelta(minutes=2))
    assert isinstance(fault.fault, EngineDeadlock)
    pod = fault.fault.pod
    assert fault.during.of("vllm:iteration_tokens_total_count", pod=pod) == 0
    assert fault.during.of("vllm:e2e_request_latency_seconds_count", pod=pod) == 0
    assert at(fault.world, HOT)[pod] > 0
    assert at(fault.world, "vllm:num_requests_waiting")[pod] == pytest.approx(45, rel=0.5)
    assert at(fault.world, UTIL)[pod] == 100
    assert at(fault.world, POWER)[pod] < 200
    others = [one for one in at(fault.world, HOT) if one != pod]
    assert all(fault.during.of("vllm:iteration_tokens_total_count", pod=one) > 0 for one in others)

    fault.world.cluster.remove_pod(pod, fault.world.fleet.now)
    after = heals(fault.world, timedelta(minutes=5))
    assert after.share("http_requests_total", {"status": "5xx"}) < 0.01
    assert at(fault.world, UTIL)[next(iter(at(fault.world, HOT)))] < 100


@pytest.mark.parametrize("is_configured", [True, False])
def test_one_pod_gets_most_sessions_until_the_gateways_pods_are_others(*, is_configured: bool) -> None:
    """15 requests per second on one pod and half of the usual on the others; the fleet's stay as they are."""
    fault = StickySessions()
    fault.is_configured = is_configured
    now = play(fault, settled=timedelta(minutes=8))
    rates = {
        pod: now.during.of("vllm:time_to_first_token_seconds_count", pod=pod) / WINDOW.total_seconds()
        for pod in at(now.world, HOT)
    }
    hot = rates.pop(fault.pod)
    assert hot > 10
    assert all(rate < 4 for rate in rates.values())
    running = at(now.world, HOT)
    assert running[fault.pod] > 5 * min(running.values())
    assert bool(now.world.stage.log) == is_configured

    deployment = copy.deepcopy(now.world.cluster.get("deployments", "chat-gateway"))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "RESTARTED", "value": "now"}]
    now.world.cluster.update_deployment(deployment, now.world.fleet.now)
    after = heals(now.world, timedelta(minutes=3))
    assert after.of("vllm:time_to_first_token_seconds_count", pod=fault.pod) / WINDOW.total_seconds() < 8


@pytest.mark.parametrize(("is_pull_slow", "reason"), [(False, "Unschedulable"), (True, "ContainerCreating")])
def test_the_autoscaler_wants_pods_that_do_not_start(*, is_pull_slow: bool, reason: str) -> None:
    """It wants six or more and has four; what is missing is pending for one reason; free nodes heal the first."""
    fault = FAULTS["S08"]()
    fault.is_pull_slow = is_pull_slow  # type: ignore[attr-defined]
    now = play(fault)
    assert sum(at(now.world, "kube_horizontalpodautoscaler_status_desired_replicas").values()) >= 6
    assert sum(at(now.world, "watchkeeper_probe_desired_replicas").values()) >= 6
    assert now.world.cluster.get("deployments", ENGINE)["status"]["availableReplicas"] == 4
    assert sum(at(now.world, "watchkeeper_probe_pending_pods", reason=reason).values()) >= 2
    assert sum(at(now.world, "kube_pod_status_phase", phase="Pending").values()) >= 2
    if is_pull_slow:
        return
    for name in ("gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5", "gpu-6"):
        now.world.cluster.get("nodes", name)["spec"].pop("unschedulable", None)
    after = heals(now.world, timedelta(minutes=5))
    assert after.signals()["queue"] < 0.3


def test_an_autoscaler_at_rest_leaves_a_deployment_alone() -> None:
    """A usual day's top is what it aims at; it goes down only after five minutes."""
    world = SmallWorld()
    world.cluster.put("horizontalpodautoscalers", autoscaler(ENGINE, 2, 8, created=LIVE_START))
    world.pass_time(timedelta(minutes=4))
    assert world.cluster.get("deployments", ENGINE)["spec"]["replicas"] == 4
    autoscaling.step(world.cluster, 31.0, 4, 42.0, LIVE_START + timedelta(minutes=30))
    assert world.cluster.get("deployments", ENGINE)["spec"]["replicas"] == 2


@pytest.mark.parametrize("way", ["eager", "drafts", "kernels"])
def test_a_slow_build_is_its_revisions(way: str) -> None:
    """Power falls and clocks stay; only lost drafts show in the acceptance; the revision before is as fast as ever."""
    fault = FAULTS["S09"]()
    fault.way = way  # type: ignore[attr-defined]
    now = play(fault, settled=timedelta(minutes=1))  # half of the pods are new
    itl = {
        pod: now.during.mean("vllm:inter_token_latency_seconds", pod=pod)
        for pod in at(now.world, "vllm:num_requests_running")
    }
    [revision] = now.fault.scope(now.world.stage)[1]
    new = {pod for pod in itl if revision in pod}
    assert 0 < len(new) < len(itl)
    assert min(itl[pod] for pod in new) > 1.5 * max(itl[pod] for pod in itl.keys() - new)
    accepted = at(now.world, "watchkeeper_probe_spec_decode_acceptance")
    assert all((accepted[pod] < 0.4) == (way == "drafts") for pod in new)
    assert all(at(now.world, POWER)[pod] < 440 for pod in new)

    deploy_before(now)
    after = heals(now.world, timedelta(minutes=9))
    assert after.signals()["itl"] == pytest.approx(0.016, rel=0.1)


@pytest.mark.parametrize("is_prompt", [False, True])
def test_endless_answers_are_cut_at_their_limit(*, is_prompt: bool) -> None:
    """Half of them end by length; a prompt's are in use within a minute, a rollout's as the pods come."""
    fault = FAULTS["S11"]()
    fault.is_prompt = is_prompt  # type: ignore[attr-defined]
    now = play(fault, settled=timedelta(minutes=5) if is_prompt else SETTLED)
    cut = {"finished_reason": "length"}
    assert now.before.share("vllm:request_success_total", cut) == pytest.approx(0.03, abs=0.015)
    assert now.during.share("vllm:request_success_total", cut) > 0.3
    assert now.during.signals()["otok"] > 600
    [change] = now.world.stage.log
    assert change.kind == ("prompt" if is_prompt else "model")


def test_starved_api_servers_wait_for_their_processor() -> None:
    """TTFT grows by what neither queue nor prefill has; CFS throttles; the GPU is idle half of the time; no queue."""
    fault = played("S13")
    now = fault.during.signals()
    assert now["ttft"] - now["queue"] - now["prefill"] > 1.0
    assert now["waiting"] < 1
    throttled, periods = "container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_periods_total"
    for pod in at(fault.world, HOT):
        assert fault.during.of(throttled, pod=pod) / fault.during.of(periods, pod=pod) > 0.3
        assert at(fault.world, UTIL)[pod] < 70
        assert at(fault.world, POWER)[pod] < 360


def test_a_lost_scrape_hides_the_engines_and_nothing_else() -> None:
    """No vLLM series is seen while `up` is 0; once it is mended, counters have counted on."""
    fault = play(FAULTS["S14"](), settled=timedelta(minutes=2))
    registry, visible = fault.world.fleet.registry, fault.world.fleet.registry.visible()
    assert all(isnan(visible[s.index]) for s in registry.series if s.family.name.startswith("vllm:"))
    assert set(at(fault.world, "up", job=ENGINE).values()) == {0.0}
    assert set(at(fault.world, "up", job="chat-gateway").values()) == {1.0}
    assert "vllm:" not in fault.world.fleet.metrics()
    assert at(fault.world, "kube_pod_status_ready")
    counted = fault.world.total("vllm:generation_tokens_total")
    fault.fault.apply(fault.world.stage, 0.0, fault.world.fleet.now)
    fault.world.pass_time(timedelta(minutes=1))
    assert set(at(fault.world, "up", job=ENGINE).values()) == {1.0}
    assert fault.world.total("vllm:generation_tokens_total") > counted
    assert "vllm:" in fault.world.fleet.metrics()


@pytest.mark.parametrize("id_", FAULTS)
def test_every_draw_is_another_case(id_: str) -> None:
    """Magnitudes or ways differ from draw to draw; the alert and the control are the reference's."""
    stage, drawn = SmallWorld().stage, []
    for _ in range(6):
        fault = FAULTS[id_](1.0)
        fault.draw(stage)
        drawn.append(repr(vars(fault)))
    assert len(set(drawn)) > 1 or id_ == "S06"  # a deadlock has no magnitude, and its victim is drawn when it happens
    assert FAULTS[id_].shapes[0] in set(Shape)
    assert FAULTS[id_].alert.startswith("LLM")
    assert FAULTS[id_].is_control == (id_ == "S14")
