"""Replicas, configuration and progress of the engines: reasons, revisions, pods that came and went."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diagnostics.checks import CHECKS
from diagnostics.findings import Finding, Status
from diagnostics.target import Deployment
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.application_signals import Series, born, counter, gauge, gone, of_service, text, values
from tests.diagnosed import frame_of

READY, WANTED = "kube_deployment_status_replicas_available", "kube_deployment_spec_replicas"
VLLM = {"deployment": "chat-vllm"}
OLD, NEW = "chat-vllm-7f9c4d5b6-abcde", "chat-vllm-5d8f7c6b9-fghij"


async def ask(check: str, *series: Series, labels: dict[str, str] | None = None) -> Finding:
    selector = {"namespace": "chat"} if labels is None else labels
    return await CHECKS[check](synthetic.target(), load_openmetrics(text(series, selector=selector)), frame_of())


def replicas(ready: float, since: float, wanted: float = 4, wanted_since: float = 4) -> list[Series]:
    return [gauge(READY, ready, since, **VLLM), gauge(WANTED, wanted, wanted_since, **VLLM)]


def running(pod: str, revision: str, before: float | None = 30, since: float | None = 30) -> Series:
    return gauge("vllm:num_requests_running", before, since, pod=pod, revision=revision, node="n1")


async def test_a_crash_loop_is_told_with_its_reason_and_revision() -> None:
    """The new revision's pod dies again and again, killed for memory; the old one has nothing to do with it."""
    restarts = "kube_pod_container_status_restarts_total"
    finding = await ask(
        "replicas",
        *replicas(4, 2),
        running(OLD, "v1"),
        running(NEW, "v2", None, 3),
        counter(restarts, 0, 6 / 720, pod=NEW),
        counter(restarts, 0, 0, pod=OLD),
        gauge("kube_pod_container_status_last_terminated_reason", 0, 1, pod=NEW, reason="OOMKilled"),
        gauge("kube_pod_container_status_waiting_reason", 0, 1, pod=NEW, reason="CrashLoopBackOff"),
    )
    assert finding.status is Status.BAD
    assert "CrashLoopBackOff (1)" in finding.summary
    assert "OOMKilled (1)" in finding.summary
    assert of_service(finding, "oom_killed").value == 1
    assert of_service(finding, "repeated_restarts").value == 1
    assert values(finding, "revision") == {"v2"}
    assert values(finding, "pod") == {NEW}


async def test_a_verification_counts_only_the_restarts_after_the_fix() -> None:
    """Pods crashed until a moment ago and are gone; with the former revision none has restarted since."""
    crashed = counter("kube_pod_container_status_restarts_total", 6 / 720, 0, pod=NEW)
    recorded = load_openmetrics(
        text([*replicas(4, 4), running(OLD, "v1"), running(NEW, "v2"), crashed], selector={"namespace": "chat"})
    )
    diagnosing = frame_of()
    verifying = replace(diagnosing, recent=timedelta(minutes=2), events_from=diagnosing.at - timedelta(minutes=4))

    before, after = [await CHECKS["replicas"](synthetic.target(), recorded, frame) for frame in (diagnosing, verifying)]

    assert (before.status, after.status) == (Status.BAD, Status.OK)


async def test_another_deployments_restarts_are_not_the_engines() -> None:
    """The namespace's gateway restarts; no engine does."""
    gateway = counter("kube_pod_container_status_restarts_total", 0, 3 / 720, pod="chat-gateway-6b7c8d9f5-zzzzz")
    finding = await ask("replicas", *replicas(4, 4), running(OLD, "v1"), gateway)
    assert finding.status is Status.OK
    assert of_service(finding, "restarts").value == 0


async def test_a_blocked_scale_out_is_told_though_all_wanted_replicas_are_ready() -> None:
    """The autoscaler wants eight, the cluster has no GPU for them: four are ready and four are pending."""
    scaler = gauge("kube_horizontalpodautoscaler_status_desired_replicas", 4, 8, horizontalpodautoscaler="chat-vllm")
    pending = gauge("watchkeeper_probe_pending_pods", 0, 4, **VLLM, reason="Unschedulable")
    finding = await ask("replicas", *replicas(4, 4), scaler, pending)
    assert finding.status is Status.BAD
    assert "wants 8 replicas; 4 are ready" in finding.summary
    assert "Unschedulable" in finding.summary
    assert of_service(finding, "scale_gap").value == 4
    assert of_service(finding, "pending_pods").value == 4


async def test_another_deployments_autoscaler_and_pods_are_not_the_engines() -> None:
    """The gateway scales out and a nightly job waits for a place: no engine is missing."""
    others = (*synthetic.target().deployments, Deployment(name="chat-gateway", kind="gateway"))
    desired = "kube_horizontalpodautoscaler_status_desired_replicas"
    job = gauge("kube_pod_status_phase", None, 1, pod="nightly-report-29384-x7k2p", phase="Pending")
    whole = text(
        [*replicas(4, 4), running(OLD, "v1"), job, gauge(desired, 4, 10, horizontalpodautoscaler="chat-gateway")],
        selector={"namespace": "chat"},
    )
    target = replace(synthetic.target(), deployments=others)
    finding = await CHECKS["replicas"](target, load_openmetrics(whole), frame_of())
    assert finding.status is Status.OK, finding.summary
    assert of_service(finding, "scale_gap").value == 0
    assert of_service(finding, "pending_pods").value == 0


async def test_an_engines_pod_that_waits_for_a_place_is_pending() -> None:
    """It has never run, so no engine has told of it; its name does."""
    waiting = gauge("kube_pod_status_phase", None, 1, pod=NEW, phase="Pending")
    finding = await ask("replicas", *replicas(4, 3), running(OLD, "v1"), waiting)
    assert of_service(finding, "pending_pods").value == 1


async def test_pods_that_never_start_are_pending_and_not_crashing() -> None:
    """An image that cannot be pulled restarts nothing."""
    waiting = gauge("kube_pod_container_status_waiting_reason", None, 1, pod=NEW, reason="ImagePullBackOff")
    info = gauge("kube_pod_info", None, 1, pod=NEW, node="n2", created_by_name="chat-vllm-5d8f7c6b9")
    finding = await ask("replicas", *replicas(4, 3), running(OLD, "v1"), info, waiting)
    assert of_service(finding, "pending_pods").value == 1
    assert of_service(finding, "repeated_restarts").value == 0


async def test_a_deployment_that_reports_nothing_is_unknown() -> None:
    """kube-state-metrics went away: replicas are not zero, they are unknown."""
    finding = await ask("replicas", gauge(READY, 4, None, **VLLM), gauge(WANTED, 4, None, **VLLM))
    assert finding.status is Status.UNKNOWN


def config(pod: str, blocks: int, *, caching: str = "True", before: bool = True, since: bool = True) -> Series:
    labels = {"num_gpu_blocks": str(blocks), "enable_prefix_caching": caching, "gpu_memory_utilization": "0.9"}
    return gauge("vllm:cache_config_info", 1 if before else None, 1 if since else None, pod=pod, **labels)


async def test_a_new_revision_with_fewer_blocks_is_named() -> None:
    """The info metric's labels are the engine's own report of a change that nobody announced."""
    finding = await ask(
        "engine_config",
        running(OLD, "v1"),
        running(NEW, "v2", None, 20),
        config(OLD, 26500),
        config(NEW, 4400, before=False),
    )
    assert finding.status is Status.BAD
    blocks = of_service(finding, "kv_blocks")
    assert (blocks.value, blocks.baseline) == (4400, 26500)
    assert values(finding, "revision", "kv_blocks") == {"v2"}


async def test_prefix_caching_that_went_off_is_bad() -> None:
    """As many blocks as before, but nothing is reused any more."""
    finding = await ask(
        "engine_config", config(OLD, 26500, since=False), config(NEW, 26500, caching="False", before=False)
    )
    assert finding.status is Status.BAD
    assert "enable_prefix_caching was True and is False" in finding.summary


async def test_a_replaced_pod_with_the_same_settings_is_ok() -> None:
    """Pods come and go; their configuration is the same."""
    finding = await ask("engine_config", config(OLD, 26500, since=False), config(NEW, 26500, before=False))
    assert finding.status is Status.OK
    assert of_service(finding, "kv_blocks").value == 26500


async def test_a_sleeping_engine_is_bad() -> None:
    """It gave its weights or its cache up and serves nobody."""
    awake = gauge("vllm:engine_sleep_state", 1, 0, pod=OLD, sleep_state="awake")
    asleep = gauge("vllm:engine_sleep_state", 0, 1, pod=OLD, sleep_state="weights_offloaded")
    finding = await ask("engine_config", config(OLD, 26500), awake, asleep)
    assert finding.status is Status.BAD
    assert of_service(finding, "engines_asleep").value == 1


async def test_lost_drafts_are_named_by_revision() -> None:
    """Acceptance fell from .7 to .25 on the new revision, and stayed on the old one."""
    drafted, accepted = "vllm:spec_decode_num_draft_tokens_total", "vllm:spec_decode_num_accepted_tokens_total"
    finding = await ask(
        "speculative_decoding",
        running(OLD, "v1"),
        running(NEW, "v2", None, 20),
        counter(drafted, 100, 100, pod=OLD),
        counter(accepted, 70, 70, pod=OLD),
        born(drafted, 100, pod=NEW),
        born(accepted, 25, pod=NEW),
    )
    assert finding.status is Status.BAD
    assert values(finding, "revision", "draft_acceptance") == {"v2"}


async def test_the_probes_acceptance_stands_in_for_the_engines() -> None:
    """An engine that does not count drafts may have a probe that does; without either it is unknown."""
    probed = [gauge("watchkeeper_probe_spec_decode_acceptance", 0.7, 0.3, pod=pod) for pod in (OLD, NEW)]
    assert (await ask("speculative_decoding", *probed)).status is Status.BAD
    unknown = await ask("speculative_decoding", running(OLD, "v1"))
    assert unknown.status is Status.UNKNOWN
    assert "speculative decoding is on" in unknown.summary


async def test_the_one_pod_that_answers_otherwise_is_named() -> None:
    """Probes know pods and not our labels: they are found by the pods' names."""
    name = "watchkeeper_probe_golden_prompt_mismatch_ratio"
    pods = [running(pod, "v1") for pod in (OLD, NEW)]
    whole = text(pods, selector={"namespace": "chat"}).replace("# EOF\n", "")
    probed = text([gauge(name, 0, 0, pod=OLD), gauge(name, 0, 0.4, pod=NEW)], selector={"job": "probe"})
    finding = await CHECKS["golden_prompts"](synthetic.target(), load_openmetrics(whole + probed), frame_of())
    assert finding.status is Status.BAD
    assert values(finding, "pod") == {NEW}
    assert of_service(finding, "golden_wrong_pods").value == 1


async def test_results_that_are_no_numbers_are_bad_without_a_probe() -> None:
    """vLLM counts NaN logits itself where that is switched on."""
    corrupted = [
        counter("vllm:corrupted_requests_total", 0, 0.05, pod=NEW),
        counter("vllm:corrupted_requests_total", 0, 0, pod=OLD),
    ]
    finding = await ask("golden_prompts", *corrupted)
    assert finding.status is Status.BAD
    assert values(finding, "pod", "corrupted_requests") == {NEW}


@pytest.mark.parametrize(("seconds", "status"), [(80, Status.OK), (400, Status.BAD)])
async def test_slow_weights_are_held_against_the_peers(seconds: float, status: Status) -> None:
    """A new pod has no past; 75 s is what its peers took."""
    name = "watchkeeper_probe_weight_load_seconds"
    finding = await ask("model_load", gauge(name, 75, 75, pod=OLD), gauge(name, None, seconds, pod=NEW))
    assert finding.status is status


async def test_a_pod_that_left_is_not_stalled() -> None:
    """Its steps and requests ended with it; only who still has requests can hang."""
    steps = "vllm:iteration_tokens_total_count"
    finding = await ask(
        "engine_progress",
        counter(steps, 60, 60, pod=OLD),
        gone(steps, 60, pod=NEW),
        running(OLD, "v1"),
        running(NEW, "v1", 30, None),
    )
    assert finding.status is Status.OK


async def test_a_stalled_pod_is_named_with_its_node() -> None:
    """The node is what tells a hung engine from a node whose driver hangs."""
    finding = await ask(
        "engine_progress", counter("vllm:iteration_tokens_total_count", 60, 0, pod=OLD), running(OLD, "v1")
    )
    assert finding.status is Status.BAD
    assert values(finding, "node", "stalled_pods") == {"n1"}


async def test_the_queue_tells_what_is_waited_for() -> None:
    """Newer engines give reasons; the LoRA report with the newest time is the one that counts."""
    waiting = gauge("vllm:num_requests_waiting", 0, 12, pod=OLD)
    reason = gauge("vllm:num_requests_waiting_by_reason", 0, 12, pod=OLD, reason="capacity")
    lora = [
        gauge("vllm:lora_requests_info", 1000, 1000, pod=OLD, waiting_lora_adapters="gone"),
        gauge("vllm:lora_requests_info", 2000, 2000, pod=OLD, waiting_lora_adapters="legal,sales"),
    ]
    finding = await ask("queue", waiting, reason, *lora)
    assert finding.status is Status.BAD
    assert "12 for capacity" in finding.summary
    assert "LoRA adapters waited for: legal, sales" in finding.summary


@pytest.mark.parametrize(("engine", "exporter", "status"), [(1.0, 0.0, Status.OK), (0.0, 1.0, Status.BAD)])
async def test_only_the_engines_scrapes_count(engine: float, exporter: float, status: Status) -> None:
    """Another exporter in the same namespace may be down; the engines' telemetry is there all the same."""
    series = [
        gauge("up", 1, engine, pod="chat-0", job="vllm"),
        gauge("up", 1, exporter, pod="dcgm-1", job="dcgm"),
        gauge("vllm:num_requests_running", 5, 5, pod="chat-0", job="vllm"),
    ]
    finding = await ask("telemetry_present", *series)
    assert finding.status is status, finding.summary
