"""How containers end and start again in the lab's cluster, and what kube-state-metrics says of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lab.cluster import ENGINE, is_ready
from lab.cluster_failures import PodFailure
from tests.lab.played_worlds import SmallWorld

RESTARTS = "kube_pod_container_status_restarts_total"
LAST_END = "kube_pod_container_status_last_terminated_reason"
WAITING = "kube_pod_container_status_waiting_reason"


def failing(world: SmallWorld, **more: Any) -> tuple[str, PodFailure]:
    """The name of an engine pod, and a failure of it that begins now."""
    victim = str(world.cluster.pods_of(ENGINE)[1]["metadata"]["name"])
    failure = PodFailure(hits=lambda pod: pod["metadata"]["name"] == victim, **more)
    world.cluster.failures.append(failure)
    return victim, failure


def available(world: SmallWorld) -> int:
    return int(world.cluster.get("deployments", ENGINE)["status"]["availableReplicas"])


def test_a_container_that_ends_once_is_ready_again_after_a_cold_start() -> None:
    """The same pod, one restart, four minutes without it; its counters start again from zero."""
    world = SmallWorld()
    world.pass_time(timedelta(minutes=3))
    victim, _ = failing(world, times=1)
    before = world.total("vllm:e2e_request_latency_seconds_count", pod=victim)
    world.pass_time(timedelta(minutes=1))

    assert available(world) == 3
    assert world.total(RESTARTS, pod=victim) == 1
    assert world.total(LAST_END, pod=victim, reason="Error") == 1
    assert world.total("up", pod=victim) == 0

    world.pass_time(timedelta(minutes=4))
    assert available(world) == 4
    assert world.total(RESTARTS, pod=victim) == 1
    assert world.total("up", pod=victim) == 1
    assert 0 < world.total("vllm:e2e_request_latency_seconds_count", pod=victim) < before


def test_a_container_that_always_ends_waits_longer_each_time() -> None:
    """CrashLoopBackOff doubles from ten seconds; a failure whose cause is gone lets the next container live."""
    world = SmallWorld()
    victim, failure = failing(world, reason="OOMKilled", exit_code=137)
    world.pass_time(timedelta(minutes=8))

    assert 4 <= world.total(RESTARTS, pod=victim) <= 7
    assert world.total(LAST_END, pod=victim, reason="OOMKilled") == 1
    assert world.total(LAST_END, pod=victim, reason="Error") == 0
    assert world.total(WAITING, pod=victim, reason="CrashLoopBackOff") == 1
    assert {event["reason"] for event in world.cluster.kinds["events"].values()} >= {"BackOff"}

    world.cluster.failures.remove(failure)
    world.pass_time(timedelta(minutes=10))
    assert is_ready(world.cluster.get("pods", victim))
    assert world.total(WAITING, pod=victim) == 0


def test_a_pod_that_is_replaced_leaves_its_node() -> None:
    """Taken away a minute after its end; the controller's new pod goes where there is room."""
    world = SmallWorld()
    victim, _ = failing(world, message="no healthy devices present", replaced_after=timedelta(seconds=60))
    world.pass_time(timedelta(minutes=2))

    assert victim not in world.cluster.kinds["pods"]
    assert len(world.cluster.pods_of(ENGINE)) == 4
    assert available(world) == 3
    reasons = {event["reason"] for event in world.cluster.kinds["events"].values()}
    assert "UnexpectedAdmissionError" in reasons
