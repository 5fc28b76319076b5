"""
The checks, by name: one question each, answered ok, bad or unknown.

Listed by hand so that grep finds them. A check's module docstring is its documentation. What a check raises because it
cannot tell becomes an unknown finding here, in one place.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import ModuleType

from diagnostics.checks import (
    answers_apart,
    api_server_cpu,
    consumers,
    engine_config,
    engine_progress,
    error_ratio,
    evaluator,
    golden_prompts,
    gpu_ecc,
    gpu_health,
    gpu_missing,
    gpu_nvlink,
    gpu_pcie,
    gpu_throttling,
    gpu_xid,
    guardrail_policy,
    guardrails,
    impact,
    injection,
    input_drift,
    inter_token_latency,
    kv_cache,
    latency_breakdown,
    model_answers,
    model_load,
    output_length,
    output_quality,
    prefix_cache,
    prompt_length,
    provider_errors,
    queue,
    replicas,
    retrieval,
    sensitive_output,
    speculative_decoding,
    telemetry_present,
    time_to_first_token,
    token_cost,
    tool_calls,
    trace_breakdown,
    traffic,
)
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry, TelemetryError
from diagnostics.traces.model import TraceSource

Check = Callable[[Target, Telemetry, Frame], Awaitable[Finding]]

_MODULES: dict[str, ModuleType] = {
    "time_to_first_token": time_to_first_token,
    "inter_token_latency": inter_token_latency,
    "latency_breakdown": latency_breakdown,
    "queue": queue,
    "kv_cache": kv_cache,
    "prefix_cache": prefix_cache,
    "prompt_length": prompt_length,
    "output_length": output_length,
    "traffic": traffic,
    "error_ratio": error_ratio,
    "provider_errors": provider_errors,
    "replicas": replicas,
    "engine_progress": engine_progress,
    "gpu_xid": gpu_xid,
    "gpu_ecc": gpu_ecc,
    "gpu_throttling": gpu_throttling,
    "gpu_missing": gpu_missing,
    "gpu_nvlink": gpu_nvlink,
    "gpu_pcie": gpu_pcie,
    "gpu_health": gpu_health,
    "engine_config": engine_config,
    "golden_prompts": golden_prompts,
    "speculative_decoding": speculative_decoding,
    "model_load": model_load,
    "token_cost": token_cost,
    "telemetry_present": telemetry_present,
    "api_server_cpu": api_server_cpu,
    "retrieval": retrieval,
    "guardrails": guardrails,
    "guardrail_policy": guardrail_policy,
    "output_quality": output_quality,
    "answers_apart": answers_apart,
    "evaluator": evaluator,
    "consumers": consumers,
    "tool_calls": tool_calls,
    "injection": injection,
    "sensitive_output": sensitive_output,
    "input_drift": input_drift,
    "model_answers": model_answers,
    "impact": impact,
    "trace_breakdown": trace_breakdown,
}


def _answering(name: str, run: Check) -> Check:
    async def answer(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
        try:
            return await run(target, telemetry, frame)
        except CannotTellError as reason:
            return Finding.unknown(name, str(reason))
        except TelemetryError as error:
            return Finding.unknown(name, f"the telemetry cannot be asked: {error}")

    return answer


CHECKS: Mapping[str, Check] = {name: _answering(name, module.run) for name, module in _MODULES.items()}


TRACES = "trace_breakdown"


def with_traces(checks: Mapping[str, Check], source: TraceSource) -> Mapping[str, Check]:
    """The same checks, where the one about traces asks this source instead of answering that there is none."""
    run = partial(trace_breakdown.run, source=source)
    return {**checks, TRACES: _answering(TRACES, run)}


def documentation(name: str) -> str:
    """What a check asks and how it judges: its module's docstring. Raises KeyError for an unknown check."""
    return inspect.getdoc(_MODULES[name]) or ""
