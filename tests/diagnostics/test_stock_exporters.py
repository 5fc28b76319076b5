"""
A cluster as exporters leave it by default: nothing of ours is exported, and no label of ours is set.

The series are made here from the documented names and labels of vLLM, dcgm-exporter's default counters, LiteLLM and
kube-state-metrics. What they do not say must be unknown, with the metric's name, and never a verdict.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from diagnostics.checks import CHECKS
from diagnostics.findings import Status
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests import synthetic
from tests.application_signals import Series, counter, gauge, text
from tests.diagnosed import frame_of

PODS = ("chat-vllm-7f9c4d5b6-abcde", "chat-vllm-7f9c4d5b6-fghij")

ANSWERED = {
    "time_to_first_token",
    "inter_token_latency",
    "latency_breakdown",
    "queue",
    "kv_cache",
    "prefix_cache",
    "prompt_length",
    "output_length",
    "traffic",
    "error_ratio",
    "replicas",
    "engine_progress",
    "engine_config",
    "gpu_xid",
    "gpu_throttling",
    "gpu_missing",
    "gpu_pcie",
    "telemetry_present",
    "api_server_cpu",
}
"""What standard exporters are enough for."""

OFF_BY_DEFAULT = {
    "gpu_ecc": "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
    "gpu_nvlink": "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL",
    "gpu_health": "DCGM_EXP_GPU_HEALTH_STATUS",
}


def vllm(pod: str) -> list[Series]:
    labels = {"pod": pod, "model_name": "llama", "engine": "0"}
    means = {
        "vllm:time_to_first_token_seconds": (6, 0.46),
        "vllm:inter_token_latency_seconds": (1800, 0.016),
        "vllm:e2e_request_latency_seconds": (6, 5.2),
        "vllm:request_queue_time_seconds": (6, 0.02),
        "vllm:request_prefill_time_seconds": (6, 0.42),
        "vllm:request_decode_time_seconds": (6, 4.8),
        "vllm:request_prompt_tokens": (6, 3000),
        "vllm:request_generation_tokens": (6, 300),
        "vllm:iteration_tokens_total": (62, 40),
    }
    counts = {
        "vllm:prompt_tokens_total": 18000,
        "vllm:generation_tokens_total": 1800,
        "vllm:prefix_cache_queries_total": 18000,
        "vllm:prefix_cache_hits_total": 7200,
        "vllm:num_preemptions_total": 0,
    }
    gauges = {"vllm:num_requests_running": 31, "vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0.23}
    finished = {"stop": 5.8, "length": 0.17, "abort": 0.03}
    return [
        *(counter(f"{name}_sum", rate * mean, **labels) for name, (rate, mean) in means.items()),
        *(counter(f"{name}_count", rate, **labels) for name, (rate, _) in means.items()),
        *(counter(name, rate, **labels) for name, rate in counts.items()),
        *(gauge(name, value, value, **labels) for name, value in gauges.items()),
        *(counter("vllm:request_success_total", rate, **labels, finished_reason=why) for why, rate in finished.items()),
        gauge("vllm:cache_config_info", 1, 1, **labels, block_size="16", num_gpu_blocks="26500"),
        *(
            counter("http_requests_total", rate, pod=pod, handler="/v1", method="POST", status=status)
            for status, rate in (("2xx", 5.9), ("4xx", 0.03))
        ),
        gauge("up", 1, 1, pod=pod, job="vllm"),
    ]


def dcgm(number: int, pod: str) -> list[Series]:
    labels = {
        "gpu": "0",
        "UUID": f"GPU-{number}",
        "pci_bus_id": "00000000:3B:00.0",
        "device": "nvidia0",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": f"node-{number}",
        "DCGM_FI_DRIVER_VERSION": "570.86.15",
        "container": "vllm",
        "pod": pod,
    }
    values = {
        "SM_CLOCK": 1900,
        "MEM_CLOCK": 2619,
        "GPU_TEMP": 62,
        "MEMORY_TEMP": 70,
        "POWER_USAGE": 480,
        "GPU_UTIL": 92,
        "MEM_COPY_UTIL": 40,
        "XID_ERRORS": 0,
        "FB_USED": 73420,
        "PCIE_REPLAY_COUNTER": 4,
        "UNCORRECTABLE_REMAPPED_ROWS": 0,
        "CORRECTABLE_REMAPPED_ROWS": 0,
        "ROW_REMAP_FAILURE": 0,
    }
    return [gauge(f"DCGM_FI_DEV_{name}", value, value, **labels) for name, value in values.items()]


def cluster() -> list[Series]:
    deployment, latency = {"deployment": "chat-vllm"}, "litellm_request_total_latency_metric"
    container = [{"pod": pod, "container": "vllm"} for pod in PODS]
    return [
        gauge("kube_deployment_spec_replicas", 2, 2, **deployment),
        gauge("kube_deployment_status_replicas_available", 2, 2, **deployment),
        *(counter("kube_pod_container_status_restarts_total", 0, **one) for one in container),
        *(counter("container_cpu_cfs_periods_total", 10, **one) for one in container),
        *(counter("container_cpu_cfs_throttled_periods_total", 0.1, **one) for one in container),
        *(gauge("kube_pod_info", 1, 1, pod=pod, node=f"node-{n}") for n, pod in enumerate(PODS)),
        counter(f"{latency}_sum", 12 * 5.3, model_group="chat"),
        counter(f"{latency}_count", 12, model_group="chat"),
    ]


@cache
def stock() -> Recorded:
    engines = [one for n, pod in enumerate(PODS) for one in (*vllm(pod), *dcgm(n, pod))]
    return load_openmetrics(text([*engines, *cluster()], selector={"namespace": "chat"}))


@pytest.mark.parametrize("name", CHECKS)
async def test_every_check_answers_or_says_what_it_lacks(name: str) -> None:
    """No crash and no verdict; whoever is blind names a metric or a setting that would help."""
    finding = await CHECKS[name](synthetic.target(), stock(), frame_of())
    assert finding.status is not Status.BAD, finding.summary
    if name in ANSWERED:
        assert finding.status is Status.OK, finding.summary
    if finding.status is Status.UNKNOWN:
        names = r"(llm_app|litellm|DCGM|vllm|watchkeeper_probe|kube|rest_responses)[_:]\w+|\[service\.\w+\]"
        assert re.search(names, finding.summary)


@pytest.mark.parametrize(("name", "metric"), OFF_BY_DEFAULT.items())
async def test_what_dcgm_leaves_out_by_default_is_unknown_and_named(name: str, metric: str) -> None:
    """Not exported is not "no errors": the finding names the line to switch on."""
    finding = await CHECKS[name](synthetic.target(), stock(), frame_of())
    assert finding.status is Status.UNKNOWN
    assert metric in finding.summary
    assert "counters file" in finding.summary


async def test_a_stock_cluster_accuses_nobody() -> None:
    """All checks together, in a diagnosis: nothing is wrong, and the blind spots are listed."""
    found = await Diagnoser(stock(), patience_s=60).diagnose(synthetic.target())
    assert found.causes[0].cause == "none"
    assert {"gpu_ecc", "gpu_nvlink"} <= {spot.check for spot in found.blind_spots}
