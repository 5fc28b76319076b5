"""
A small fleet on paper: OpenMetrics text of four engines behind a gateway, from the serving equations.

One scenario changes the state of some pods from the onset on; everything else follows from the equations (prefill from
computed tokens, running from Little's law). Noise comes from a seeded generator, so a text is the same every time.
Independent of the lab's simulator: it exists so that diagnostics can be tested on numbers whose truth is known.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from diagnostics.target import Budgets, Deployment, PromptRef, Provider, Target

END = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)
ONSET = END - timedelta(minutes=12)
PODS = ("chat-vllm-a", "chat-vllm-b", "chat-vllm-c", "chat-vllm-d")
KEYS = ("key-1", "key-2", "key-3", "key-4", "key-5", "key-6")
TTFT_EDGES = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0)
ITL_EDGES = (0.01, 0.025, 0.05, 0.075, 0.1)

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Engine:
    """What one replica does; times in seconds, rates per second, shares 0 to 1."""

    rps: float = 6.0
    prompt_tokens: float = 3000.0
    output_tokens: float = 300.0
    hit: float = 0.40
    queue: float = 0.02
    itl: float = 0.016
    frontend: float = 0.02
    prefill_x: float = 1.0
    kv_tokens: float = 425_000.0
    kv_blocks: int = 26_500
    waiting: float = 0.0
    preemptions: float = 0.0
    length_ratio: float = 0.03
    abort_ratio: float = 0.005
    error_5xx: float = 0.001
    error_4xx: float = 0.005
    throttled: float = 0.01
    clock: float = 1900.0
    temperature: float = 62.0
    power: float = 480.0
    util: float = 92.0
    is_stalled: bool = False
    is_up: bool = True
    gpu_is_visible: bool = True
    xid: int = 0
    clock_event: str = ""
    nvlink_per_min: float = 0.0
    restarts: int = 0
    oom: bool = False
    double_bit: int = 0
    single_bit: int = 0
    remapped: int = 0
    remap_pending: int = 0

    @property
    def prefill(self) -> float:
        return (0.030 + 0.00022 * self.prompt_tokens * (1 - self.hit)) * self.prefill_x

    @property
    def ttft(self) -> float:
        return self.queue + self.prefill + self.frontend

    @property
    def decode(self) -> float:
        return self.itl * (self.output_tokens - 1)

    @property
    def running(self) -> float:
        return self.rps * (self.prefill + self.decode)

    @property
    def kv_usage(self) -> float:
        return min(self.running * (self.prompt_tokens + self.output_tokens / 2) / self.kv_tokens, 0.99)


@dataclass(frozen=True)
class Fleet:
    """What surrounds the replicas."""

    sessions_x: float = 1.0  # sessions per second beside normal
    retry: float = 1.01
    gateway: float = 0.03
    guardrail: float = 0.06
    retrieval: float = 0.12
    retrieval_empty: float = 0.02
    spend_x: float = 1.0
    unit_x: float = 1.0
    key_shares: tuple[float, ...] = (0.35, 0.2, 0.15, 0.12, 0.1, 0.08)
    error_429: float = 0.0005
    error_5xx: float = 0.001
    error_4xx: float = 0.005
    provider_codes: Mapping[str, float] = field(default_factory=lambda: {"429": 0.001, "500": 0.001})
    headroom: float = 0.6
    ready: int = 4
    wanted: int = 4
    pending: int = 0
    serving_scraped: bool = True
    prompt_version: str = "7"


@dataclass(frozen=True)
class Scenario:
    """A fault: what it does to pod number i and to the fleet, once `progress` (0 to 1) of it is there."""

    engine: Callable[[int, Engine, float], Engine] = lambda _, engine, __: engine
    fleet: Callable[[Fleet, float], Fleet] = lambda fleet, _: fleet
    ramp: timedelta = timedelta(0)


def _towards(state: Engine, progress: float, **goal: float) -> Engine:
    """The state on its way from the baseline to the goal."""
    values = {name: getattr(state, name) + progress * (value - getattr(state, name)) for name, value in goal.items()}
    return replace(state, **values)


def _all(**goal: float) -> Callable[[int, Engine, float], Engine]:
    return lambda _, state, progress: _towards(state, progress, **goal)


def _one(number: int, **goal: float) -> Callable[[int, Engine, float], Engine]:
    return lambda pod, state, progress: _towards(state, progress, **goal) if pod == number else state


def _lost(number: int, then: Engine) -> Callable[[int, Engine, float], Engine]:
    """One pod becomes `then`, its peers carry its load."""
    return lambda pod, state, _: then if pod == number else replace(state, rps=8.0, itl=0.018)


def _fleet(**goal: Any) -> Callable[[Fleet, float], Fleet]:
    return lambda state, _: replace(state, **goal)


_DOWN = Engine(is_up=False, util=0.0, power=80.0)
_HANGS = Engine(is_stalled=True, waiting=45.0, power=160.0, util=100.0, error_5xx=0.2)
_RAMP = timedelta(minutes=4)

SCENARIOS: dict[str, Scenario] = {
    "none": Scenario(),
    "S01": Scenario(
        engine=_all(rps=15.0, itl=0.0256, prefill_x=1.5, queue=1.8, waiting=25, preemptions=0.05, util=99),
        fleet=_fleet(sessions_x=2.5, spend_x=2.5),
        ramp=_RAMP,
    ),
    "S02": Scenario(engine=_all(prompt_tokens=6600, itl=0.020, queue=0.12), fleet=_fleet(spend_x=1.8)),
    "S03": Scenario(
        engine=lambda _, state, __: replace(
            state, kv_tokens=70_000, kv_blocks=4_400, preemptions=0.9, queue=12.0, waiting=40, itl=0.018
        )
    ),
    "S04": Scenario(engine=_all(hit=0.03, itl=0.0184, queue=0.05), fleet=_fleet(prompt_version="8")),
    "S05": Scenario(
        engine=lambda pod, state, _: (
            replace(_DOWN, restarts=6, oom=True)
            if pod < 2
            else replace(state, rps=12.0, itl=0.020, queue=0.4, waiting=4.0)
        ),
        fleet=_fleet(ready=2, error_5xx=0.17),
    ),
    "S06": Scenario(engine=_one(1), fleet=_fleet(error_5xx=0.05)),
    "S07": Scenario(
        engine=lambda pod, state, progress: (
            _towards(state, progress, rps=15.5, itl=0.0256, queue=2.4, waiting=22, prefill_x=1.5, preemptions=0.05)
            if pod == 0
            else _towards(state, progress, rps=2.8)
        ),
        ramp=_RAMP,
    ),
    "S08": Scenario(
        engine=_all(rps=9.6, itl=0.020, queue=1.2, waiting=12),
        fleet=_fleet(sessions_x=1.6, spend_x=1.6, wanted=8, pending=4),
        ramp=_RAMP,
    ),
    "S09": Scenario(engine=_all(itl=0.0304, queue=0.05, power=400)),
    "S11": Scenario(
        engine=_all(output_tokens=900, itl=0.020, length_ratio=0.55, queue=0.3, waiting=3, preemptions=0.05),
        fleet=_fleet(spend_x=1.6),
    ),
    "S13": Scenario(engine=_all(frontend=1.6, itl=0.0192, util=55, power=300, throttled=0.4), ramp=_RAMP),
    "S14": Scenario(fleet=_fleet(serving_scraped=False)),
    "G01": Scenario(
        engine=_lost(1, replace(_DOWN, xid=79, gpu_is_visible=False, restarts=1)),
        fleet=_fleet(ready=3, pending=1, error_5xx=0.02),
    ),
    "G02": Scenario(
        engine=_lost(1, replace(_DOWN, xid=95, double_bit=2, remap_pending=1, restarts=4)),
        fleet=_fleet(ready=3, error_5xx=0.02),
    ),
    "G03": Scenario(
        engine=_lost(1, replace(_DOWN, xid=94, remap_pending=1, restarts=1)), fleet=_fleet(ready=3, error_5xx=0.02)
    ),
    "G04": Scenario(
        engine=lambda pod, state, progress: (
            replace(
                _towards(state, progress, itl=0.0256, clock=1100, temperature=88, power=350, util=95, queue=0.03),
                clock_event="hw_thermal",
            )
            if pod == 2
            else state
        ),
        ramp=timedelta(minutes=5),
    ),
    "G05": Scenario(
        engine=lambda pod, state, _: (
            replace(state, itl=0.0304, clock=950, temperature=55, power=290, clock_event="hw_power_brake")
            if pod < 2
            else state
        )
    ),
    "G06": Scenario(
        engine=lambda pod, state, _: (
            replace(state, itl=0.0232, prefill_x=1.5, power=400, queue=0.04, nvlink_per_min=30.0, xid=74)
            if pod == 3
            else state
        )
    ),
    "G09": Scenario(
        engine=lambda pod, state, _: replace(_HANGS, xid=119, util=0.0, power=120.0) if pod == 1 else state,
        fleet=_fleet(error_5xx=0.05),
    ),
    "G11": Scenario(
        engine=lambda pod, state, _: replace(state, xid=63, remapped=1, single_bit=4) if pod == 1 else state
    ),
    "I01": Scenario(fleet=_fleet(error_429=0.22, provider_codes={"429": 0.4, "500": 0.001}, headroom=0.0, retry=1.3)),
    "I02": Scenario(fleet=_fleet(error_5xx=0.35, provider_codes={"429": 0.001, "529": 0.6}, retry=1.6)),
    "I03": Scenario(fleet=_fleet(error_429=0.5, provider_codes={"insufficient_quota": 0.99}, retry=1.9, spend_x=0.05)),
    "I04": Scenario(fleet=_fleet(error_4xx=0.5, provider_codes={"401": 0.97}, spend_x=0.05)),
    "I05": Scenario(engine=_all(prompt_tokens=1400), fleet=_fleet(retrieval=3.0, retrieval_empty=0.4)),
    "I09": Scenario(fleet=_fleet(guardrail=2.5)),
    "I10": Scenario(
        engine=_all(rps=13.2, abort_ratio=0.15, queue=3.5, waiting=60, itl=0.0256, prefill_x=1.5, error_5xx=0.05),
        fleet=_fleet(retry=2.2, error_5xx=0.05, spend_x=1.9),
    ),
    "X04": Scenario(
        engine=_all(rps=7.2, prompt_tokens=6900, output_tokens=480, length_ratio=0.12, queue=0.3, itl=0.020),
        fleet=_fleet(spend_x=2.5, sessions_x=1.2, key_shares=(0.78, 0.07, 0.05, 0.04, 0.03, 0.03)),
    ),
}
SCENARIOS["S06"] = replace(SCENARIOS["S06"], engine=lambda pod, state, _: _HANGS if pod == 1 else state)


def target() -> Target:
    """The service that the texts are about."""
    return Target(
        service="chat",
        namespace="chat",
        selectors={
            "serving": {"namespace": "chat"},
            "gpu": {"namespace": "chat"},
            "application": {"service": "chat"},
            "gateway": {"model_group": "chat"},
            "kubernetes": {"namespace": "chat"},
        },
        budgets=Budgets(ttft_p95_s=1.0),
        deployments=(Deployment(name="chat-vllm", kind="engine", replicas=4),),
        prompts=(PromptRef(name="chat-system", source="prompts"), PromptRef(name="chat-summary", source="prompts")),
        providers=(Provider(name="openai", models=("gpt-x",)),),
    )


def openmetrics(
    scenario: str | Scenario = "none",
    *,
    end: datetime = END,
    onset: datetime = ONSET,
    cure: datetime | None = None,
    history: timedelta = timedelta(minutes=100),
    scrape: timedelta = timedelta(seconds=30),
    without: tuple[str, ...] = (),
    severity: float = 1.0,
    seed: int = 7,
) -> str:
    """
    The telemetry of one run up to `end` as OpenMetrics text with timestamps.

    The fault begins at `onset` and is gone at `cure`; `severity` scales how far a gradual scenario goes. Families
    whose name begins with one of `without` are left out, as if no exporter offered them.
    """
    scene = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
    run = _Run(random.Random(seed), without)
    instant = end - history
    while instant <= end:
        progress = _progress(scene, instant, onset, cure) * severity
        run.step(scene, progress, instant, scrape)
        instant += scrape
    return run.text()


def _progress(scene: Scenario, instant: datetime, onset: datetime, cure: datetime | None) -> float:
    if instant < onset or (cure is not None and instant >= cure):
        return 0.0
    if not scene.ramp:
        return 1.0
    return min((instant - onset) / scene.ramp, 1.0)


class _Run:
    """Counters and samples of one run."""

    def __init__(self, noise: random.Random, without: tuple[str, ...]) -> None:
        self._noise = noise
        self._without = without
        self._counters: dict[tuple[str, str], float] = {}
        self._samples: dict[str, dict[str, list[str]]] = {}
        self._types: dict[str, str] = {}
        self._stamp = ""

    def step(self, scene: Scenario, progress: float, instant: datetime, passed: timedelta) -> None:
        self._stamp = f"{instant.timestamp():.3f}"
        seconds = passed.total_seconds()
        fleet = scene.fleet(Fleet(), progress) if progress > 0 else Fleet()
        engines = [scene.engine(i, Engine(), progress) if progress > 0 else Engine() for i in range(len(PODS))]
        for pod, engine in enumerate(engines):
            self._pod(pod, engine, fleet, seconds)
        self._application(engines, fleet, seconds)
        self._kubernetes(engines, fleet)

    def text(self) -> str:
        lines: list[str] = []
        for family, series in sorted(self._samples.items()):
            lines.append(f"# TYPE {family} {self._types[family]}")
            for points in series.values():
                lines.extend(points)
        return "\n".join([*lines, "# EOF"]) + "\n"

    def _pod(self, number: int, engine: Engine, fleet: Fleet, seconds: float) -> None:
        pod = {"namespace": "chat", "pod": PODS[number], "node": f"node-{number // 2}", "model_name": "chat-8b"}
        if engine.is_up and fleet.serving_scraped:
            self._engine(pod, engine, seconds)
        self._gauge(
            "up",
            {"namespace": "chat", "pod": PODS[number], "job": "vllm"},
            float(engine.is_up and fleet.serving_scraped),
        )
        about = {"namespace": "chat", "pod": PODS[number], "container": "engine"}
        self._count("container_cpu_cfs_periods", about, 10 * seconds)
        self._count("container_cpu_cfs_throttled_periods", about, 10 * seconds * engine.throttled)
        self._set_counter("kube_pod_container_status_restarts", about, float(engine.restarts))
        if engine.oom:
            self._gauge("kube_pod_container_status_last_terminated_reason", {**about, "reason": "OOMKilled"}, 1.0)
        self._gpu(number, engine)

    def _engine(self, pod: Labels, engine: Engine, seconds: float) -> None:
        finished = 0.0 if engine.is_stalled else self._jitter(engine.rps * seconds, 0.03)
        for name, mean in (
            ("vllm:time_to_first_token_seconds", engine.ttft),
            ("vllm:request_queue_time_seconds", engine.queue),
            ("vllm:request_prefill_time_seconds", engine.prefill),
            ("vllm:request_decode_time_seconds", engine.decode),
            ("vllm:e2e_request_latency_seconds", engine.ttft + engine.decode),
            ("vllm:request_prompt_tokens", engine.prompt_tokens),
            ("vllm:request_generation_tokens", engine.output_tokens),
        ):
            edges = TTFT_EDGES if "first_token" in name else ()
            self._observe(name, pod, mean, finished, edges)
        tokens = finished * engine.output_tokens
        self._observe("vllm:inter_token_latency_seconds", pod, engine.itl, tokens, ITL_EDGES)
        self._count("vllm:prompt_tokens", pod, finished * engine.prompt_tokens)
        self._count("vllm:generation_tokens", pod, tokens)
        self._count("vllm:prefix_cache_queries", pod, finished * engine.prompt_tokens)
        self._count("vllm:prefix_cache_hits", pod, finished * engine.prompt_tokens * self._jitter(engine.hit, 0.02))
        for reason, share in (("length", engine.length_ratio), ("abort", engine.abort_ratio), ("stop", 0.0)):
            part = share if reason != "stop" else 1 - engine.length_ratio - engine.abort_ratio
            self._count("vllm:request_success", {**pod, "finished_reason": reason}, finished * part)
        steps = 0.0 if engine.is_stalled else seconds / engine.itl
        self._observe("vllm:iteration_tokens_total", pod, 40.0, steps, ())
        self._gauge(
            "vllm:num_requests_running", pod, self._jitter(engine.running if not engine.is_stalled else 31, 0.05)
        )
        self._gauge("vllm:num_requests_waiting", pod, self._jitter(engine.waiting, 0.05))
        self._gauge("vllm:kv_cache_usage_perc", pod, self._jitter(engine.kv_usage, 0.02))
        self._count("vllm:num_preemptions", pod, engine.preemptions * seconds)
        self._gauge("vllm:cache_config_info", {**pod, "num_gpu_blocks": str(engine.kv_blocks), "block_size": "16"}, 1.0)
        self._probed(pod, seconds)
        for status, share in (("5xx", engine.error_5xx), ("4xx", engine.error_4xx)):
            self._count("http_requests", {**pod, "handler": "/v1", "status": status}, engine.rps * seconds * share)
        self._count("http_requests", {**pod, "handler": "/v1", "status": "2xx"}, engine.rps * seconds * 0.99)

    def _probed(self, pod: Labels, seconds: float) -> None:
        """What a probe and speculative decoding say about a healthy engine."""
        self._count("vllm:corrupted_requests", pod, 0.0)
        self._gauge("vllm:engine_sleep_state", {**pod, "sleep_state": "awake"}, 1.0)
        self._count("vllm:spec_decode_num_draft_tokens", pod, 100 * seconds)
        self._count("vllm:spec_decode_num_accepted_tokens", pod, 70 * seconds)
        self._gauge("watchkeeper_probe_golden_prompt_mismatch_ratio", pod, 0.0)
        self._gauge("watchkeeper_probe_weight_load_seconds", pod, 75.0)

    def _gpu(self, number: int, engine: Engine) -> None:
        gpu = {
            "namespace": "chat",
            "pod": PODS[number],
            "Hostname": f"node-{number // 2}",
            "gpu": str(number % 2),
            "UUID": f"GPU-{number}",
        }
        if not engine.gpu_is_visible:  # what DCGM no longer sees, the kernel log has told
            lost = {"namespace": "chat", "node": gpu["Hostname"], "gpu": gpu["gpu"], "UUID": gpu["UUID"]}
            self._set_counter("watchkeeper_probe_kernel_xid", {**lost, "xid": str(engine.xid)}, 1.0)
            return
        self._gauge("DCGM_FI_DEV_SM_CLOCK", gpu, self._jitter(engine.clock, 0.01))
        self._gauge("DCGM_FI_DEV_GPU_TEMP", gpu, self._jitter(engine.temperature, 0.01))
        self._gauge("DCGM_FI_DEV_POWER_USAGE", gpu, self._jitter(engine.power, 0.03))
        self._gauge("DCGM_FI_DEV_GPU_UTIL", gpu, engine.util)
        self._gauge("DCGM_FI_DEV_XID_ERRORS", gpu, float(engine.xid))
        self._gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", gpu, float(engine.remap_pending))
        self._gauge("DCGM_FI_DEV_ROW_REMAP_FAILURE", gpu, 0.0)
        self._set_gauge_counter("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", gpu, engine.remapped)
        self._set_gauge_counter("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", gpu, 0)
        self._set_gauge_counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", gpu, engine.double_bit)
        self._set_gauge_counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", gpu, engine.single_bit)
        place = ("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", _text(gpu))
        self._counters[place] = self._counters.get(place, 0.0) + engine.nvlink_per_min / 2
        self._gauge(place[0], gpu, self._counters[place])
        self._driver(gpu, engine)
        for event in ("hw_thermal", "hw_power_brake", "power_cap"):
            value = 3.0 if engine.clock_event == event else 0.0
            self._gauge("DCGM_EXP_CLOCK_EVENTS_COUNT", {**gpu, "clock_event": event}, value)
        if engine.xid:
            self._gauge("DCGM_EXP_XID_ERRORS_COUNT", {**gpu, "xid": str(engine.xid)}, 1.0)

    def _driver(self, gpu: Labels, engine: Engine) -> None:
        """What the driver, the fabric manager and the probe on the node say about a GPU."""
        self._set_gauge_counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", gpu, 0)
        self._gauge("DCGM_FI_DEV_PCIE_LINK_WIDTH", gpu, 16.0)
        self._gauge("DCGM_FI_DEV_FABRIC_MANAGER_STATUS", gpu, 3.0)
        self._gauge("DCGM_FI_DEV_GPU_RECOVERY_ACTION", gpu, float(engine.remap_pending))
        self._gauge("DCGM_EXP_GPU_HEALTH_STATUS", {**gpu, "health_watch": "ALL"}, 0.0)
        node = {"namespace": "chat", "node": gpu["Hostname"]}
        self._gauge("watchkeeper_probe_nvidia_smi_ok", node, 1.0)

    def _application(self, engines: list[Engine], fleet: Fleet, seconds: float) -> None:
        service = {"service": "chat"}
        total = self._jitter(sum(e.rps for e in engines if e.is_up) * seconds, 0.02)
        sessions = 24.0 * fleet.sessions_x * seconds / 1.01
        self._count("llm_app_sessions", {**service, "tenant": "t1"}, self._jitter(sessions, 0.02))
        requests = max(total, sessions * fleet.retry) if fleet.retry > 1.05 else total
        bad = {"5xx": fleet.error_5xx, "4xx": fleet.error_4xx, "429": fleet.error_429}
        for status, share in {**bad, "ok": 1 - sum(bad.values())}.items():
            for key, part in zip(KEYS, fleet.key_shares, strict=True):
                labels = {**service, "api_key": key, "prompt_name": "chat-system", "status": status}
                labels["prompt_version"] = fleet.prompt_version
                self._count("llm_app_requests", labels, requests * share * part)
        engine = engines[-1]
        for key, part in zip(KEYS, fleet.key_shares, strict=True):
            for direction, tokens in (("input", engine.prompt_tokens), ("output", engine.output_tokens)):
                labels = {**service, "api_key": key, "direction": direction}
                self._count("llm_app_tokens", labels, requests * tokens * part)
        self._count("llm_app_cost_usd", {**service, "model": "chat-8b"}, 0.005 * seconds * fleet.spend_x * fleet.unit_x)
        for stage, mean in (
            ("gateway", fleet.gateway),
            ("guardrail_in", fleet.guardrail),
            ("retrieval", fleet.retrieval),
        ):
            self._observe("llm_app_stage_seconds", {**service, "stage": stage}, mean, requests, ())
        for outcome, share in (("empty", fleet.retrieval_empty), ("ok", 1 - fleet.retrieval_empty)):
            labels = {**service, "data_source": "docs", "outcome": outcome}
            self._count("llm_app_retrieval", labels, requests * share)
        self._provider(fleet, seconds)

    def _provider(self, fleet: Fleet, seconds: float) -> None:
        outside = {"model_group": "chat", "api_provider": "openai", "litellm_model_name": "gpt-x"}
        asked = self._jitter(5.0 * seconds, 0.02)
        self._count("litellm_deployment_total_requests", outside, asked)
        for code in ("429", "500", "529", "401", "insufficient_quota"):
            share = fleet.provider_codes.get(code, 0.0)
            status = code if code.isdigit() else "429"
            failed = {**outside, "exception_status": status}
            if code.isdigit():
                self._count("litellm_deployment_failure_responses", failed, asked * share)
            labels = {"service": "chat", "provider": "openai", "account": "main", "code": code}
            self._count("llm_app_provider_errors", labels, asked * share)
        self._gauge("litellm_remaining_tokens_metric", outside, fleet.headroom * 100_000)

    def _kubernetes(self, engines: list[Engine], fleet: Fleet) -> None:
        labels = {"namespace": "chat", "deployment": "chat-vllm"}
        self._gauge("kube_deployment_spec_replicas", labels, float(fleet.wanted))
        self._gauge("kube_deployment_status_replicas_available", labels, float(fleet.ready))
        pending = {"namespace": "chat", "pod": "chat-vllm-new", "phase": "Pending"}
        self._gauge("kube_pod_status_phase", pending, float(fleet.pending))
        for node in ("node-0", "node-1"):
            lost = sum(1 for i, e in enumerate(engines) if f"node-{i // 2}" == node and not e.gpu_is_visible)
            resource = {"node": node, "namespace": "chat", "resource": "nvidia_com_gpu"}
            self._gauge("kube_node_status_capacity", resource, 2.0)
            self._gauge("kube_node_status_allocatable", resource, 2.0 - lost)

    def _jitter(self, value: float, sigma: float) -> float:
        return value * math.exp(self._noise.gauss(0.0, sigma))

    def _observe(self, name: str, labels: Labels, mean: float, count: float, edges: tuple[float, ...]) -> None:
        mean = self._jitter(mean, 0.02)
        self._count(name, labels, mean * count, suffix="_sum", kind="histogram")
        self._count(name, labels, count, suffix="_count", kind="histogram")
        for edge in (*edges, math.inf):
            le = "+Inf" if math.isinf(edge) else f"{edge:g}"
            part = count * (1.0 if math.isinf(edge) else _below(edge, mean))
            self._count(name, {**labels, "le": le}, part, suffix="_bucket", kind="histogram")

    def _count(self, name: str, labels: Labels, more: float, *, suffix: str = "_total", kind: str = "counter") -> None:
        place = (name + suffix, _text(labels))
        self._counters[place] = self._counters.get(place, 0.0) + more
        self._write(name, kind, name + suffix, place[1], self._counters[place])

    def _set_counter(self, name: str, labels: Labels, value: float) -> None:
        self._write(name, "counter", f"{name}_total", _text(labels), value)

    def _set_gauge_counter(self, name: str, labels: Labels, value: int) -> None:
        self._gauge(name, labels, float(value))

    def _gauge(self, name: str, labels: Labels, value: float) -> None:
        self._write(name, "gauge", name, _text(labels), value)

    def _write(self, family: str, kind: str, name: str, labels: str, value: float) -> None:
        if name.startswith(self._without):
            return
        self._types[family] = kind
        series = self._samples.setdefault(family, {}).setdefault(name + labels, [])
        series.append(
            f"{name}{labels} {value:.6g} {self._stamp}"
            if abs(value) < 1e5
            else f"{name}{labels} {value:.3f} {self._stamp}"
        )


def _text(labels: Labels) -> str:
    return _label_text(tuple(labels.items()))


@cache
def _label_text(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels)) + "}"


def _below(edge: float, mean: float) -> float:
    """The share of a lognormal (sigma 0.35) with this mean that lies below the edge."""
    middle = math.log(mean) - 0.35**2 / 2
    return 0.5 * (1 + math.erf((math.log(edge) - middle) / (0.35 * math.sqrt(2))))


def scenarios() -> Iterator[str]:
    """The names of all scenarios."""
    yield from SCENARIOS
