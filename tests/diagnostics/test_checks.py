"""Every check on synthetic telemetry: calm on a healthy service, bad on the fault it asks about, unknown when blind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diagnostics.checks import CHECKS, documentation
from diagnostics.findings import Finding, Measure, Status
from diagnostics.target import Budgets, Target
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.diagnosed import HISTORY, frame_of, recorded

BAD_UNDER = {
    "time_to_first_token": ("S04", "S02", "S13"),
    "inter_token_latency": ("S09", "G04"),
    "latency_breakdown": ("S04", "S01", "S13"),
    "queue": ("S01", "S03"),
    "kv_cache": ("S03",),
    "prefix_cache": ("S04",),
    "prompt_length": ("S02",),
    "output_length": ("S11",),
    "traffic": ("S01", "S07", "I10"),
    "consumers": ("X04",),
    "error_ratio": ("I01", "I02", "I04", "S05"),
    "provider_errors": ("I01", "I02", "I03", "I04"),
    "replicas": ("S05", "G01"),
    "engine_progress": ("S06", "G09"),
    "gpu_xid": ("G01", "G02", "G03", "G09"),
    "gpu_ecc": ("G02", "G03"),
    "gpu_throttling": ("G04", "G05"),
    "gpu_missing": ("G01",),
    "gpu_nvlink": ("G06",),
    "token_cost": ("S01", "X04"),
    "telemetry_present": ("S14",),
    "api_server_cpu": ("S13",),
    "retrieval": ("I05",),
    "guardrails": ("I09",),
}

MISSING = {
    "time_to_first_token": "vllm:time_to_first_token",
    "inter_token_latency": "vllm:inter_token_latency",
    "latency_breakdown": "vllm:",
    "queue": "vllm:num_requests_waiting",
    "kv_cache": "vllm:kv_cache_usage_perc",
    "prefix_cache": "vllm:prefix_cache_queries",
    "prompt_length": "vllm:request_prompt_tokens",
    "output_length": "vllm:request_generation_tokens",
    "replicas": "kube_deployment_status_replicas_available",
    "gpu_xid": "DCGM_",
    "gpu_ecc": "DCGM_FI_DEV_ECC_DBE",
    "gpu_throttling": "DCGM_FI_DEV_SM_CLOCK",
    "gpu_nvlink": "DCGM_FI_DEV_NVLINK",
    "api_server_cpu": "vllm:time_to_first_token",
    "retrieval": "llm_app_retrieval",
}


async def answer(name: str, scenario: str, target: Target | None = None, without: tuple[str, ...] = ()) -> Finding:
    return await CHECKS[name](target or synthetic.target(), recorded(scenario, without), frame_of())


def service_measure(finding: Finding, signal: str) -> Measure:
    [found] = [measure for measure in finding.measures if measure.signal == signal and not measure.scope]
    return found


def scoped(finding: Finding, signal: str) -> list[tuple[tuple[str, str], ...]]:
    return [measure.scope for measure in finding.measures if measure.signal == signal and measure.scope]


NEED_TELEMETRY_OF_THEIR_OWN = {  # what no serving equation says: see test_checks_answers.py and test_checks_use.py
    "output_quality",
    "answers_apart",
    "evaluator",
    "guardrail_policy",
    "model_answers",
    "tool_calls",
    "injection",
    "sensitive_output",
    "input_drift",
    "trace_breakdown",  # and traces: see test_trace_breakdown.py
}


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in NEED_TELEMETRY_OF_THEIR_OWN])
async def test_a_healthy_service_is_ok(name: str) -> None:
    """No check complains, and none is blind, when nothing is wrong and everything is exported."""
    finding = await answer(name, "none")
    assert (finding.check, finding.status) == (name, Status.OK), finding.summary


@pytest.mark.parametrize(("name", "scenario"), [(name, one) for name, many in BAD_UNDER.items() for one in many])
async def test_its_fault_is_bad(name: str, scenario: str) -> None:
    """A check says bad under the faults it asks about, with a number in its sentence."""
    finding = await answer(name, scenario)
    assert finding.status is Status.BAD, finding.summary
    assert any(character.isdigit() for character in finding.summary) or scenario in {"S06", "G09"}


@pytest.mark.parametrize(("name", "metric"), MISSING.items())
async def test_a_metric_that_is_not_exported_is_unknown(name: str, metric: str) -> None:
    """Missing is not zero: the reason names the metric and what to switch on."""
    finding = await answer(name, "S04", without=(metric,))
    assert finding.status is Status.UNKNOWN
    assert finding.reason is not None
    assert "is not exported; " in finding.reason


@pytest.mark.parametrize("name", CHECKS)
async def test_a_service_without_selectors_is_unknown(name: str) -> None:
    """A family that the service does not configure is not observed, so no check has an opinion."""
    blind = replace(synthetic.target(), selectors={})
    assert (await answer(name, "S04", target=blind)).status is Status.UNKNOWN


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_documents_itself(name: str) -> None:
    """The docstring begins with the check's one question."""
    question = documentation(name).splitlines()[0]
    assert question.endswith("?")


async def test_the_hit_ratio_has_value_and_baseline() -> None:
    """The measure carries the equations' numbers: 0.40 before, 0.03 after."""
    ratio = service_measure(await answer("prefix_cache", "S04"), "prefix_hit_ratio")
    assert ratio.value == pytest.approx(0.03, abs=0.005)
    assert ratio.baseline == pytest.approx(0.40, abs=0.01)
    assert ratio.unit == "ratio"


async def test_a_hot_pod_is_named_though_the_mean_hides_it() -> None:
    """One throttled GPU of four moves the fleet's mean little; the pod's own mean tells."""
    finding = await answer("inter_token_latency", "G04")
    assert (("pod", "chat-vllm-c"),) in scoped(finding, "itl")


async def test_the_budget_convicts_only_with_the_mean() -> None:
    """A percentile is as coarse as its buckets: over budget with an unmoved mean is no complaint."""
    strict = replace(synthetic.target(), budgets=Budgets(ttft_p95_s=0.3))
    assert (await answer("time_to_first_token", "none", target=strict)).status is Status.OK
    assert (await answer("time_to_first_token", "S04", target=strict)).status is Status.BAD


async def test_too_few_requests_are_unknown() -> None:
    """Below thirty completions a mean says more about chance than about the service."""
    quiet = synthetic.Scenario(engine=lambda _, state, __: replace(state, rps=0.02))
    telemetry = load_openmetrics(
        synthetic.openmetrics(quiet, onset=synthetic.END - timedelta(hours=1), history=timedelta(minutes=40))
    )
    finding = await CHECKS["time_to_first_token"](synthetic.target(), telemetry, frame_of())
    assert finding.status is Status.UNKNOWN
    assert "fewer than 30" in finding.summary


async def test_one_key_that_carries_the_growth_is_named() -> None:
    """Tokens doubled and one key carries them: a runaway job, not demand."""
    finding = await answer("consumers", "X04")
    assert (("api_key", "key-1"),) in scoped(finding, "top_key_growth_share")
    carried = [m.value for m in (await answer("consumers", "S01")).measures if m.signal == "top_key_growth_share"]
    assert [value for value in carried if value is not None and value < 0.5]


async def test_an_old_xid_is_not_new() -> None:
    """DCGM's gauge keeps the last code for ever; only a code that appeared since the baseline counts."""
    long_ago = synthetic.END - timedelta(minutes=38)
    telemetry = load_openmetrics(
        synthetic.openmetrics(
            "G11", onset=long_ago, history=timedelta(minutes=40), without=("DCGM_EXP_XID_ERRORS_COUNT",)
        )
    )
    finding = await CHECKS["gpu_xid"](synthetic.target(), telemetry, frame_of())
    assert finding.status is Status.OK
    assert service_measure(finding, "xid_row_remap").value == 0.0


async def test_a_remapped_row_is_ok_and_still_told() -> None:
    """XID 63 asks for nothing now, but the finding says that it was there."""
    finding = await answer("gpu_xid", "G11")
    assert finding.status is Status.OK
    assert "XID 63" in finding.summary


async def test_the_renamed_dcgm_fields_are_read() -> None:
    """DCGM 4.6 spells its fields differently; the checks find them under either name."""
    text = synthetic.openmetrics("G04", history=timedelta(minutes=40))
    for old, new in (
        ("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"),
        ("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"),
    ):
        text = text.replace(old, new)
    finding = await CHECKS["gpu_throttling"](synthetic.target(), load_openmetrics(text), frame_of())
    temperature = service_measure(finding, "gpu_temperature")
    assert temperature.value == pytest.approx(88, abs=2)


async def test_a_blank_dcgm_value_is_dropped() -> None:
    """9223372036854775794 means that the GPU does not support the field, not that it is hot."""
    lines = synthetic.openmetrics("none", history=timedelta(minutes=40)).splitlines()
    blank = [
        " ".join((line.rpartition("} ")[0] + "}", "9223372036854775794", line.split()[-1]))
        if line.startswith("DCGM_FI_DEV_GPU_TEMP{")
        else line
        for line in lines
    ]
    telemetry = load_openmetrics("\n".join(blank) + "\n")
    finding = await CHECKS["gpu_throttling"](synthetic.target(), telemetry, frame_of())
    assert finding.status is Status.OK
    assert not [measure for measure in finding.measures if measure.signal == "gpu_temperature"]


async def test_silence_with_running_requests_is_bad() -> None:
    """A hung engine's latency histograms fall silent; the steps tell that this is not calm."""
    finding = await answer("engine_progress", "S06")
    assert finding.summary == "No engine step while requests run: chat-vllm-b."


async def test_a_quota_is_not_a_rate_limit() -> None:
    """Both come as 429; the provider's own code tells them apart."""
    quota, limit = await answer("provider_errors", "I03"), await answer("provider_errors", "I01")
    assert (service_measure(quota, "provider_quota_ratio").value or 0) > 0.9
    assert (service_measure(limit, "provider_quota_ratio").value or 0) == 0
    assert service_measure(limit, "provider_headroom").value == pytest.approx(0.0)


async def test_a_providers_failures_are_held_against_its_own_requests() -> None:
    """Twice as many requests to our own engines, through the same gateway, dilute nothing."""
    lines = synthetic.openmetrics("I01", history=HISTORY, without=("llm_app_provider_errors",)).splitlines()
    own = [
        line.replace('"openai"', '"hosted_vllm"').replace('"gpt-x"', '"llama"')
        for line in lines
        if line.startswith("litellm_deployment_total_requests_total{")
    ]
    at = next(place for place, line in enumerate(lines) if line.startswith("litellm_deployment_total_requests_total{"))
    telemetry = load_openmetrics("\n".join([*lines[:at], *own, *lines[at:]]) + "\n")
    finding = await CHECKS["provider_errors"](synthetic.target(), telemetry, frame_of())
    assert service_measure(finding, "provider_429_ratio").value == pytest.approx(0.4, rel=0.05)
    assert scoped(finding, "provider_429_ratio") == [(("provider", "openai"),)]
    assert scoped(finding, "provider_headroom") == [(("provider", "openai"),)]
    assert finding.summary.startswith("openai: 40 %")


async def test_what_only_the_gateway_saw_counts() -> None:
    """With a fallback the application sees no refusal; the gateway's own count must not be lost over it."""
    text = synthetic.openmetrics("I01", history=HISTORY)
    unseen = [line for line in text.splitlines() if not ("llm_app_provider_errors" in line and 'code="429"' in line)]
    finding = await CHECKS["provider_errors"](
        synthetic.target(), load_openmetrics("\n".join(unseen) + "\n"), frame_of()
    )
    assert finding.status is Status.BAD
    assert scoped(finding, "provider_429_ratio") == [(("provider", "openai"),)]


async def test_the_gateway_tells_keys_apart_where_the_application_does_not() -> None:
    """LiteLLM counts tokens by the key's alias: enough to find the one that runs away."""
    text = synthetic.openmetrics("X04", history=HISTORY)
    lines = [
        line.replace("llm_app_tokens", "litellm_total_tokens_metric")
        .replace('service="', 'model_group="')
        .replace('api_key="', 'api_key_alias="')
        if "llm_app_tokens" in line
        else line
        for line in text.splitlines()
    ]
    finding = await CHECKS["consumers"](synthetic.target(), load_openmetrics("\n".join(lines) + "\n"), frame_of())
    assert finding.status is Status.BAD
    [[(label, _)]] = scoped(finding, "top_key_growth_share")
    assert label == "api_key"


@pytest.mark.parametrize(
    ("check", "scenario", "missing", "left"),
    [
        ("output_length", "S11", "vllm:request_generation_tokens", "length_finish_ratio"),
        ("kv_cache", "S03", "vllm:kv_cache_usage_perc", "preemptions_per_s"),
    ],
)
async def test_a_missing_family_does_not_take_the_others_along(
    check: str, scenario: str, missing: str, left: str
) -> None:
    """What the check reads beside it is still measured, and healthy is not what it says."""
    finding = await answer(check, scenario, without=(missing,))
    assert finding.status is not Status.OK
    assert service_measure(finding, left).value is not None


async def test_lost_telemetry_is_not_lost_requests() -> None:
    """Engine metrics gone while requests are served is a telemetry fault; with requests gone it is not."""
    finding = await answer("telemetry_present", "S14")
    assert service_measure(finding, "engine_metrics_absent").value == 1.0
    unobserved = replace(synthetic.target(), selectors={"serving": {"namespace": "chat"}})
    assert (await answer("telemetry_present", "S14", target=unobserved)).status is Status.UNKNOWN
