"""Engines that speak other names than vLLM's: the checks ask the same and get their answers."""

from __future__ import annotations

import pytest

from diagnostics.checks import CHECKS
from diagnostics.engines import ENGINES, Alias, EngineTelemetry, speaking
from diagnostics.findings import Finding, Status
from diagnostics.telemetry.model import Function, Query
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.application_signals import Series, counter, gauge, has, of_service, text
from tests.diagnosed import HISTORY, frame_of, recorded

CHAT = {"namespace": "chat", "pod": "a"}


def telemetry(*series: Series) -> EngineTelemetry:
    return speaking(load_openmetrics(text(series, selector=CHAT)), synthetic.target())


async def ask(check: str, *series: Series) -> Finding:
    return await CHECKS[check](synthetic.target(), telemetry(*series), frame_of())


def mean(name: str, before: float, since: float, *, rps: float = 6.0) -> list[Series]:
    """A histogram's sum and count whose mean changes at the onset."""
    return [counter(f"{name}_sum", rps * before, rps * since), counter(f"{name}_count", rps, rps)]


@pytest.mark.parametrize("prefix", ["ray_vllm_", "ray_vllm:", "kserve_vllm:"])
async def test_a_prefixed_vllm_is_still_vllm(prefix: str) -> None:
    """Ray Serve and KServe rename every metric; the slower tokens are found all the same."""
    whole = synthetic.openmetrics("S09", history=HISTORY).replace("vllm:", prefix)
    finding = await CHECKS["inter_token_latency"](synthetic.target(), load_openmetrics(whole), frame_of())
    assert finding.status is Status.BAD
    assert of_service(finding, "itl").value == pytest.approx(0.0304, rel=0.02)


async def test_old_vllm_names_are_read() -> None:
    """Version 0 called the KV cache gpu_cache_usage_perc, and the time between tokens time_per_output_token."""
    whole = (
        synthetic.openmetrics("S03", history=HISTORY)
        .replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
        .replace("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
        .replace("vllm:prefix_cache_", "vllm:gpu_prefix_cache_")
    )
    old = load_openmetrics(whole)
    full = await CHECKS["kv_cache"](synthetic.target(), old, frame_of())
    assert of_service(full, "kv_usage").value == pytest.approx(0.99, abs=0.02)
    tokens = await CHECKS["inter_token_latency"](synthetic.target(), old, frame_of())
    assert tokens.status is not Status.UNKNOWN
    hits = await CHECKS["prefix_cache"](synthetic.target(), old, frame_of())
    assert of_service(hits, "prefix_hit_ratio").value == pytest.approx(0.4, abs=0.01)


async def test_sglang_tells_queue_cache_and_prefill() -> None:
    """Its own names, a ratio from two counters, and one stage of a histogram that holds all stages."""
    series = [
        gauge("sglang:num_running_reqs", 30, 30),
        gauge("sglang:num_queue_reqs", 0, 40),
        gauge("sglang:token_usage", 0.3, 0.97),
        counter("sglang:prompt_tokens_total", 1000, 1000),
        counter("sglang:cached_tokens_total", 400, 50),
        *mean("sglang:queue_time_seconds", 0.02, 4.0),
    ]
    queue = await ask("queue", *series)
    assert queue.status is Status.BAD
    assert of_service(queue, "queue").value == pytest.approx(4.0, rel=0.05)
    assert (await ask("kv_cache", *series)).status is Status.BAD
    assert of_service(await ask("prefix_cache", *series), "prefix_hit_ratio").value == pytest.approx(0.05, rel=0.05)
    stage = [
        counter("sglang:per_stage_req_latency_seconds_sum", 2.4, 2.4, stage="prefill_forward"),
        counter("sglang:per_stage_req_latency_seconds_sum", 60.0, 60.0, stage="decode_forward"),
    ]
    query = Query(metric="vllm:request_prefill_time_seconds_sum", function=Function.RATE, window=frame_of().recent)
    found = await telemetry(*series, *stage).vector(query, synthetic.END)
    assert found[()] == pytest.approx(2.4)


async def test_what_an_engine_does_not_measure_is_unknown_and_says_so() -> None:
    """TGI has no time to first token; the reason names the engine, not a switch that it does not have."""
    series = [gauge("tgi_batch_current_size", 8, 8), gauge("tgi_queue_size", 0, 20)]
    finding = await ask("time_to_first_token", *series)
    assert finding.status is Status.UNKNOWN
    assert "TGI measures no such thing" in finding.summary
    assert (await ask("queue", *series)).status is Status.BAD


async def test_tgis_requests_are_broken_down_as_far_as_it_measures() -> None:
    """Without a first token: queue, prefill and decode (tokens at their pace), and no frontend."""
    series = [
        gauge("tgi_batch_current_size", 8, 8),
        *mean("tgi_request_queue_duration", 0.02, 3.0),
        *mean("tgi_request_mean_time_per_token_duration", 0.02, 0.02),
        *mean("tgi_request_generated_tokens", 201, 201),
    ]
    finding = await ask("latency_breakdown", *series)
    assert finding.status is Status.BAD
    assert "queue carries the change: 3.00 s" in finding.summary
    assert of_service(finding, "decode").value == pytest.approx(4.0, rel=0.01)
    assert not has(finding, "frontend") or of_service(finding, "frontend").value is None


@pytest.mark.parametrize(("since", "status"), [(80, Status.BAD), (1, Status.UNKNOWN)])
async def test_cpu_throttling_is_told_without_a_first_token(since: float, status: Status) -> None:
    """TGI's own time in front of the engine is not known, but what the kernel holds back is."""
    series = [
        gauge("tgi_batch_current_size", 8, 8),
        counter("container_cpu_cfs_periods_total", 100, 100, container="tgi"),
        counter("container_cpu_cfs_throttled_periods_total", 1, since, container="tgi"),
    ]
    finding = await ask("api_server_cpu", *series)
    assert finding.status is status
    assert of_service(finding, "cpu_throttled_ratio").value == pytest.approx(since / 100, rel=0.05)
    assert "CPU throttling" in finding.summary


async def test_tritons_microseconds_become_seconds() -> None:
    """Triton counts microseconds beside requests; their quotient is the mean queue time."""
    series = [
        counter("nv_inference_request_success_total", 6, 6),
        counter("nv_inference_queue_duration_us_total", 6 * 20_000, 6 * 900_000),
        gauge("nv_inference_pending_request_count", 0, 12),
    ]
    whole = text(series, selector=CHAT).replace("_success_total", "_success").replace("_us_total", "_us")
    whole = whole.replace("_success counter", "_success gauge").replace("_us counter", "_us gauge")
    finding = await CHECKS["queue"](synthetic.target(), load_openmetrics(whole), frame_of())
    assert of_service(finding, "queue").value == pytest.approx(0.9, rel=0.05)
    assert of_service(finding, "queue").baseline == pytest.approx(0.02, rel=0.05)


async def test_a_triton_histogram_in_milliseconds_is_scaled_but_not_its_count() -> None:
    """The sum is time and becomes seconds; the count stays a count."""
    sign = gauge("nv_inference_request_success", 1, 1)
    spoken = telemetry(sign, *mean("nv_inference_first_response_histogram_ms", 400, 400))
    window = frame_of().recent
    for part, expected in (("sum", 2.4), ("count", 6.0)):
        query = Query(metric=f"vllm:time_to_first_token_seconds_{part}", function=Function.RATE, window=window)
        assert (await spoken.vector(query, synthetic.END))[()] == pytest.approx(expected, rel=0.01)
        points = (await spoken.matrix(query, synthetic.END - window, synthetic.END, window))[()]
        assert points[-1][1] == pytest.approx(expected, rel=0.01)


async def test_a_triton_buckets_edge_is_in_seconds() -> None:
    """Its edges are milliseconds: held against a promise in seconds, every answer would be late."""
    name = "nv_inference_first_response_histogram_ms_bucket"
    buckets = [counter(f"{name}_total", rate, rate, le=edge) for edge, rate in (("100", 1), ("500", 6), ("+Inf", 6))]
    whole = text([gauge("nv_inference_request_success", 1, 1), *buckets], selector=CHAT).replace(
        "_bucket_total", "_bucket"
    )
    spoken = speaking(load_openmetrics(whole.replace("_bucket counter", "_bucket gauge")), synthetic.target())
    query = Query(
        metric="vllm:time_to_first_token_seconds_bucket",
        function=Function.RATE,
        window=frame_of().recent,
        by=("le", "pod"),
    )
    found = await spoken.vector(query, synthetic.END)
    assert {key: round(rate) for key, rate in found.items()} == {("0.1", "a"): 1, ("0.5", "a"): 6, ("inf", "a"): 6}


async def test_nim_without_a_prefix_is_recognised() -> None:
    """NVIDIA NIM exports vLLM's words without the prefix."""
    series = [
        gauge("num_requests_running", 8, 8),
        gauge("num_requests_waiting", 0, 30),
        *mean("time_to_first_token_seconds", 0.4, 1.2),
    ]
    assert (await ask("queue", *series)).status is Status.BAD


async def test_an_engine_without_steps_is_stalled_when_its_tokens_stop() -> None:
    """SGLang counts no steps; with requests running and no token for minutes it hangs like any other."""
    series = [gauge("sglang:num_running_reqs", 30, 30), counter("sglang:generation_tokens_total", 1800, 0)]
    finding = await ask("engine_progress", *series)
    assert finding.status is Status.BAD
    assert of_service(finding, "stalled_pods").value == 1


async def test_vllm_itself_is_asked_without_detours() -> None:
    """Where the names are the engine's own, a question goes through as it is."""
    plain = recorded("none")
    spoken = speaking(plain, synthetic.target())
    query = Query(metric="vllm:num_requests_running", by=("pod",))
    assert await spoken.vector(query, synthetic.END) == await plain.vector(query, synthetic.END)
    assert speaking(spoken, synthetic.target()) is spoken


async def test_no_engine_at_all_stays_unknown() -> None:
    """Where nothing is recognised the names stay vLLM's, and their remedy is named."""
    finding = await ask("queue", gauge("something_else", 1, 1))
    assert finding.status is Status.UNKNOWN
    assert "vllm:num_requests_waiting is not exported; scrape" in finding.summary


def test_every_engine_can_be_told_apart() -> None:
    """No two engines share a sign, and a name maps to something."""
    signs = [engine.sign for engine in ENGINES]
    assert len(set(signs)) == len(signs)
    for engine in ENGINES:
        for alias in engine.names.values():
            assert all(one.metric for one in ((alias,) if isinstance(alias, Alias) else alias))
