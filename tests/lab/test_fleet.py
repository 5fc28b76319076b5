"""The fleet against its published figures: at rest, under scenario S04, and when somebody changes something."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import numpy as np
import pytest

from diagnostics.telemetry.model import Aggregation, Function, Query
from diagnostics.telemetry.recorder import Recorder
from lab.engine_physics import Load, means
from lab.exposition import STEP
from lab.fleet import Fleet, hit_ratio
from lab.history import kept_steps
from lab.prompt_store import PRODUCTION
from lab.prompt_texts import CHAT_SUMMARY, CHAT_SYSTEM_TIMESTAMPED, chat_system
from tests.lab.played_worlds import LIVE_START, SmallWorld, prepared_world

RECENT = timedelta(minutes=4)  # the onset was six minutes ago, and clients need one to fetch the prompt
BASELINE = timedelta(minutes=60)
BEFORE = LIVE_START - timedelta(minutes=20)


class Readings:
    """Means read from the history the way an on-call engineer reads them: rate of sum by rate of count."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    async def total(self, metric: str, *, incident: bool, **where: str) -> float:
        at, window = (LIVE_START, RECENT) if incident else (BEFORE, BASELINE)
        query = Query(metric=metric, where=where, function=Function.RATE, window=window)
        return (await self.recorder.vector(query, at))[()]

    async def mean(self, histogram: str, *, incident: bool, **where: str) -> float:
        total = await self.total(f"{histogram}_sum", incident=incident, **where)
        return total / await self.total(f"{histogram}_count", incident=incident, **where)

    async def gauge(self, metric: str, *, incident: bool, **where: str) -> float:
        at, window = (LIVE_START, RECENT) if incident else (BEFORE, BASELINE)
        query = Query(
            metric=metric, where=where, function=Function.AVG_OVER_TIME, window=window, aggregation=Aggregation.AVG
        )
        return (await self.recorder.vector(query, at))[()]


@pytest.fixture(scope="module")
def readings() -> Readings:
    recorder = Recorder(clock="samples", history=prepared_world().history_path)
    asyncio.run(recorder.open())
    return Readings(recorder)


MEANS = [  # histogram, at rest, incident, relative tolerance: the reference fleet's figures for S04
    ("vllm:request_queue_time_seconds", 0.020, 0.050, 0.18),
    ("vllm:request_prefill_time_seconds", 0.426, 0.670, 0.18),
    ("vllm:time_to_first_token_seconds", 0.466, 0.740, 0.18),
    ("vllm:inter_token_latency_seconds", 0.0160, 0.0184, 0.10),
    ("vllm:e2e_request_latency_seconds", 5.25, 6.24, 0.18),
    ("vllm:request_prompt_tokens", 3000, 3000, 0.18),
    ("vllm:request_generation_tokens", 300, 300, 0.18),
    ("litellm_overhead_latency_metric", 0.030, 0.030, 0.18),
]


@pytest.mark.parametrize(("histogram", "at_rest", "incident", "tolerance"), MEANS)
async def test_latencies_are_those_of_the_reference(
    readings: Readings, histogram: str, at_rest: float, incident: float, tolerance: float
) -> None:
    """Means from the histograms match the reference fleet at rest and six minutes into S04."""
    assert await readings.mean(histogram, incident=False) == pytest.approx(at_rest, rel=tolerance)
    assert await readings.mean(histogram, incident=True) == pytest.approx(incident, rel=tolerance)


async def test_the_prefix_cache_collapses(readings: Readings) -> None:
    """Hits per looked-up token fall from .40 to about .03, and locally cached prompt tokens with them."""
    for incident, expected in ((False, 0.40), (True, 0.03)):
        queries = await readings.total("vllm:prefix_cache_queries_total", incident=incident)
        hits = await readings.total("vllm:prefix_cache_hits_total", incident=incident)
        cached = await readings.total("vllm:prompt_tokens_by_source_total", incident=incident, source="local_cache_hit")
        assert hits / queries == pytest.approx(expected, abs=0.03)
        assert cached == pytest.approx(hits)


@pytest.mark.parametrize(
    ("metric", "at_rest", "incident", "tolerance"),
    [
        ("vllm:num_requests_running", 31.3, 37.0, 0.18),
        ("vllm:kv_cache_usage_perc", 0.23, 0.27, 0.18),
        ("DCGM_FI_DEV_GPU_UTIL", 92, 92, 0.18),
        ("DCGM_FI_DEV_POWER_USAGE", 480, 480, 0.12),
        ("DCGM_FI_DEV_SM_CLOCK", 1900, 1900, 0.18),
        ("DCGM_FI_DEV_GPU_TEMP", 62, 62, 0.08),
        ("llm_app_input_drift_auc", 0.5, 0.5, 0.1),
    ],
)
async def test_gauges_are_those_of_the_reference(
    readings: Readings, metric: str, at_rest: float, incident: float, tolerance: float
) -> None:
    """What S04 leaves alone stays flat, and the batch grows by what slower tokens make of it."""
    where = {"namespace": "chat"} if metric.startswith("DCGM") else {}
    assert await readings.gauge(metric, incident=False, **where) == pytest.approx(at_rest, rel=tolerance)
    assert await readings.gauge(metric, incident=True, **where) == pytest.approx(incident, rel=tolerance)


@pytest.mark.parametrize(
    ("part", "whole", "where", "expected", "tolerance"),
    [
        ("llm_app_requests_total", "llm_app_requests_total", {"status": "5xx"}, 0.001, 0.01),
        ("llm_app_requests_total", "llm_app_requests_total", {"status": "4xx"}, 0.005, 0.02),
        ("llm_app_responses_total", "llm_app_responses_total", {"outcome": "refusal"}, 0.015, 0.015),
        ("llm_app_format_checks_total", "llm_app_format_checks_total", {"result": "invalid"}, 0.008, 0.02),
        ("llm_app_feedback_total", "llm_app_feedback_total", {"rating": "down"}, 0.04, 0.03),
        ("llm_app_retrieval_total", "llm_app_retrieval_total", {"outcome": "empty"}, 0.02, 0.02),
        ("llm_app_guardrail_total", "llm_app_guardrail_total", {"decision": "block"}, 0.008, 0.01),
        ("vllm:request_success_total", "vllm:request_success_total", {"finished_reason": "length"}, 0.03, 0.02),
        ("llm_app_sessions_total", "llm_app_requests_total", {}, 1 / 1.01, 0.01),
    ],
)
@pytest.mark.parametrize("incident", [False, True])
async def test_quality_and_errors_stay_flat(
    readings: Readings,
    part: str,
    whole: str,
    where: dict[str, str],
    expected: float,
    tolerance: float,
    *,
    incident: bool,
) -> None:
    """A broken prefix cache makes answers slow, not wrong: shares are the reference's before and after."""
    some = await readings.total(part, incident=incident, **where)
    everything = await readings.total(whole, incident=incident)
    assert some / everything == pytest.approx(expected, abs=tolerance)


async def test_traffic_is_six_requests_per_second_and_replica(readings: Readings) -> None:
    """Requests finish as fast as they come, 24 per second over four replicas, before and after the onset."""
    for incident in (False, True):
        assert await readings.total("vllm:e2e_request_latency_seconds_count", incident=incident) == pytest.approx(
            24, rel=0.1
        )
        own = await readings.total("llm_app_requests_total", incident=incident, model="llama-3.1-8b-instruct")
        assert own == pytest.approx(24, rel=0.1)


async def test_traffic_moves_to_the_new_version(readings: Readings) -> None:
    """Per-version counters tell who is on which prompt: the dose for every dose-response comparison."""
    where = {"prompt_name": "chat-system", "model": "llama-3.1-8b-instruct"}
    new = await readings.total("llm_app_requests_total", incident=True, prompt_version="8", **where)
    old = await readings.total("llm_app_requests_total", incident=True, prompt_version="7", **where)
    assert new == pytest.approx(24 * 0.96, rel=0.1)
    assert old == 0


def test_the_history_is_small_and_every_histogram_is_sound() -> None:
    """At most 1,500 series and 60 MB; buckets are cumulative, +Inf equals the count, and no counter ever falls."""
    world = prepared_world()
    registry = world.fleet.registry
    assert len(registry.series) <= 1500
    assert world.history_path.stat().st_size < 60e6

    for histogram in registry._histograms.values():
        buckets = registry.values[histogram.buckets]
        assert (np.diff(buckets) >= 0).all()
        assert buckets[-1] == registry.values[histogram.count]

    lines: dict[str, list[float]] = {}
    for line in world.history_path.read_text().splitlines():
        if line.startswith("vllm:time_to_first_token_seconds"):
            text, value, _ = line.rsplit(" ", 2)
            lines.setdefault(text, []).append(float(value))
    assert lines
    assert all((np.diff(values) >= 0).all() for values in lines.values())


def test_live_samples_carry_lab_time_and_render_quickly() -> None:
    """Every line has the lab's own milliseconds; a scrape must not slow a fleet that runs twenty times as fast."""
    small = SmallWorld()
    small.fleet.step()
    text = small.fleet.metrics()
    stamps = {line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("vllm:")}
    assert stamps == {str(int((LIVE_START + STEP).timestamp() * 1000))}
    gpus = {line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith("DCGM")}
    assert gpus == {str(int(LIVE_START.timestamp() * 1000))}  # renewed every 30 s only


def test_the_same_seed_gives_the_same_telemetry() -> None:
    """A drill can be repeated exactly."""
    first, second, other = SmallWorld(seed=1), SmallWorld(seed=1), SmallWorld(seed=2)
    assert first.fleet.metrics() == second.fleet.metrics()
    assert first.fleet.metrics() != other.fleet.metrics()


def test_only_the_guilty_prompt_heals() -> None:
    """Rolling back the harmless change does nothing; rolling back the guilty one brings the cache back."""
    small = SmallWorld()
    small.pass_time(timedelta(minutes=1))
    assert small.hit_ratio() == pytest.approx(0.40, abs=0.03)
    small.break_it()
    small.pass_time(timedelta(minutes=2))
    assert small.hit_ratio() < 0.10
    assert not small.scenario.is_healthy(small.stage)

    small.prompts.add_labels("chat-summary", 3, [PRODUCTION], at=small.fleet.now)
    small.pass_time(timedelta(minutes=5))
    assert small.hit_ratio() < 0.10
    assert not small.scenario.is_healthy(small.stage)

    small.prompts.add_labels("chat-system", 7, [PRODUCTION], at=small.fleet.now)
    small.pass_time(timedelta(minutes=2))
    assert small.hit_ratio() == pytest.approx(0.40, abs=0.03)
    assert small.scenario.is_healthy(small.stage)


def test_clients_keep_a_prompt_for_a_minute() -> None:
    """After a label moved both versions serve for up to 60 s, one more client on the new one every 15 s."""
    small = SmallWorld()
    small.break_it()
    seen = []
    for _ in range(5):
        small.fleet.step()
        seen.append(small.fleet.clients.shares("chat-system").get(8, 0))
    assert seen == [0.25, 0.5, 0.75, 1, 1]


def test_repairing_forward_heals_too() -> None:
    """The fault is in the text, not in the version's number: a version with the time at its end is healthy."""
    small = SmallWorld()
    small.break_it()
    repaired = chat_system(7) + "\n\nCurrent time: {{current_time}}"
    small.prompts.create("chat-system", repaired, at=small.fleet.now, created_by="bob", labels=[PRODUCTION])
    assert small.scenario.is_healthy(small.stage)


@pytest.mark.parametrize("text", [*map(chat_system, range(1, 8)), *CHAT_SUMMARY, "no variable at all"])
def test_fixed_text_first_is_cacheable(text: str) -> None:
    """Every version that anybody ever shipped, but the broken one, starts with what all requests share."""
    assert hit_ratio(text) == pytest.approx(0.40, abs=0.02)


@pytest.mark.parametrize("text", [CHAT_SYSTEM_TIMESTAMPED, "{{user}}, hello. " + chat_system(7), "{{all}}", ""])
def test_a_variable_first_line_is_not(text: str) -> None:
    """Nothing after the first difference can be reused; an empty text has at least nothing to lose."""
    assert hit_ratio(text) <= 0.05 or not text


def test_more_replicas_share_the_traffic_once_they_are_ready() -> None:
    """Two more pods need four minutes to load their weights; then each of six gets a sixth."""
    small = SmallWorld()
    deployment = small.cluster.get("deployments", "chat-vllm")
    small.cluster.update_deployment({**deployment, "spec": {**deployment["spec"], "replicas": 6}}, small.fleet.now)
    small.pass_time(timedelta(minutes=3, seconds=45))
    assert len(small.fleet._replicas) == 4

    small.pass_time(timedelta(minutes=1))
    assert len(small.fleet._replicas) == 6
    assert {round(load.rps, 1) for load in small.fleet._loads().values()} == {4.0}


def test_a_pod_that_is_gone_takes_its_series_along() -> None:
    """A scraper must see vanished series vanish, not freeze."""
    small = SmallWorld()
    deployment = small.cluster.get("deployments", "chat-vllm")
    before = {p["metadata"]["name"] for p in small.cluster.pods_of("chat-vllm")}
    small.cluster.update_deployment({**deployment, "spec": {**deployment["spec"], "replicas": 3}}, small.fleet.now)
    small.pass_time(timedelta(seconds=30))

    [gone] = before - {p["metadata"]["name"] for p in small.cluster.pods_of("chat-vllm")}
    text = small.fleet.metrics()
    assert gone not in text
    assert all(name in text for name in before - {gone})


def test_the_equations_hold_at_the_reference_points() -> None:
    """Little's law and the load curve: 31 running at 16 ms, 37 at 18.4 ms without the cache, 61 at 9.6 requests/s."""
    rest = means(Load(rps=6))
    assert rest.running == pytest.approx(31.3, rel=0.02)
    assert rest.itl_s == pytest.approx(0.016, rel=0.02)
    assert rest.ttft_s == pytest.approx(0.466, rel=0.001)
    broken = means(Load(rps=6, hit=0.03))
    assert broken.running == pytest.approx(37.0, rel=0.02)
    assert broken.itl_s == pytest.approx(0.0184, rel=0.02)
    busy = means(Load(rps=9.6))
    assert busy.running == pytest.approx(61, rel=0.05)
    assert busy.itl_s == pytest.approx(0.0195, rel=0.05)


def test_thinning_keeps_what_a_rate_needs() -> None:
    """Around a change both neighbours stay, of a flat stretch one sample per four minutes, and both ends."""
    flat = np.full(41, 7.0)
    assert kept_steps(flat, every=1).tolist() == [0, 16, 32, 40]
    stepped = np.where(np.arange(41) < 21, 7.0, 8.0)
    assert kept_steps(stepped, every=1).tolist() == [0, 16, 20, 21, 32, 40]
    late = np.where(np.arange(41) < 21, np.nan, 8.0)
    assert kept_steps(late, every=1).tolist() == [21, 32, 40]


def test_a_drill_is_as_busy_on_a_sunday() -> None:
    """A fault that needs the day's load would not bite at weekends; only cases have those."""
    small = SmallWorld()
    sunday = small.fleet.start + timedelta(days=(6 - small.fleet.start.weekday()) % 7 + 7)
    plain, weekly = (
        Fleet(start=sunday, peak=sunday, stage=small.stage, has_weekends=has_weekends)._organic_rps()
        for has_weekends in (False, True)
    )
    assert plain == pytest.approx(small.stage.normal.fleet_rps, rel=0.01)
    assert weekly == pytest.approx(0.9 * plain, rel=0.02)
