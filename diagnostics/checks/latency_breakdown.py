"""
Which stage of a request carries the slowdown?

Breaks the mean time per request into gateway, guardrail, retrieval, frontend, queue, prefill and decode, now and in
the baseline. A stage is blamed when it carries at least half of the change; when the total moved by less than 10 % (or
twice its standard error) there is no regression, whatever single stages do. Prefill is split into longer prompts,
fewer cache hits and slower compute; decode into longer outputs and slower tokens. Where prompts got longer, the tenants
or routes whose did are named. Calls of outside providers are judged by themselves, a quarter above the baseline being
bad; without an engine of one's own they are a stage. Whose requests got slower (provider, model, key, tenant, route,
prompt version), or whether traffic only moved, is said from what the gateway, the SDK or the application times.
"""

from __future__ import annotations

from diagnostics.attribution import Apart, longer_prompts
from diagnostics.checks.callers import providers, whose_got_slower
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame, Stage
from diagnostics.findings import Finding, Measure
from diagnostics.latency import Breakdown, Part, breakdown
from diagnostics.look import Compared, Look
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared, number


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    result = await breakdown(look)
    provider = providers(result)
    measures = [*_measures(result), *provider.measures]
    if result.total.baseline is None or result.total.now is None:
        reason = "There is no baseline to compare the stages with."
        return Finding.unknown("latency_breakdown", reason, *measures)
    if not result.is_regression and not provider.words:
        return Finding.ok(
            "latency_breakdown", f"No stage got slower: a request takes {compared(result.total, 's')}.", *measures
        )
    slower = await whose_got_slower(look, result)
    whose = await longer_prompts(look) if _is_mostly(result.prefill_parts, "longer prompts") else []
    measures += [
        measure("prefill" if label == "route" else "prompt_tokens", one.mean, "", (label, one.value))
        for label, one in whose
    ]
    stages = f"{_sentence(result)}{_whose(whose)}" if result.is_regression else ""
    said = " ".join(part for part in (stages, provider.words, slower.words) if part)
    return Finding.bad("latency_breakdown", said, *measures, *slower.measures)


def _measures(result: Breakdown) -> list[Measure]:
    measures = [
        measure(stage.stage, Compared(now=stage.now_s, baseline=stage.baseline_s), "s") for stage in result.stages
    ]
    measures.append(measure("request_time", result.total, "s"))
    measures.extend(
        Measure(signal=part.name.replace(" ", "_"), value=part.seconds, unit="s")
        for part in (*result.prefill_parts, *result.decode_parts)
    )
    slowdown = _compute_slowdown(result)
    if slowdown is not None:
        measures.append(slowdown)
    return measures


def _compute_slowdown(result: Breakdown) -> Measure | None:
    """Prefill's time over what its tokens explain: 1 when the compute is as fast as before."""
    prefill = next((stage for stage in result.stages if stage.stage == "prefill"), None)
    parts = {part.name: part.seconds for part in result.prefill_parts}
    if prefill is None or prefill.now_s is None or "slower compute" not in parts:
        return None
    expected = prefill.now_s - parts["slower compute"]
    if expected <= 0:
        return None
    return Measure(signal="prefill_compute", value=prefill.now_s / expected, baseline=1.0, unit="x")


def _sentence(result: Breakdown) -> str:
    words = []
    if result.first_token_reason is not None:
        words.append(f"Until the first token, {_stage(result, result.first_token_reason)}")
    if result.total_reason is not None and result.total_reason != result.first_token_reason:
        words.append(f"Over the whole request, {_stage(result, result.total_reason)}")
    if not words:
        return f"A request takes {compared(result.total, 's')}; no single stage carries half of the change."
    return " ".join(words)


def _is_mostly(parts: tuple[Part, ...], name: str) -> bool:
    return bool(parts) and max(parts, key=lambda part: part.seconds).name == name


def _whose(apart: list[tuple[str, Apart]]) -> str:
    if not apart:
        return ""
    label = apart[0][0]
    named = ", ".join(one.value for _, one in apart[:3])
    return f" It is {label} {named}" + (f" and {len(apart) - 3} more." if len(apart) > 3 else ".")


def _stage(result: Breakdown, name: str) -> str:
    stage: Stage = next(stage for stage in result.stages if stage.stage == name)
    cell = Compared(now=stage.now_s, baseline=stage.baseline_s)
    parts = {"prefill": result.prefill_parts, "decode": result.decode_parts}.get(name, ())
    return f"{name} carries the change: {compared(cell, 's')}{_reason(parts)}."


def _reason(parts: tuple[Part, ...]) -> str:
    if not parts:
        return ""
    top = max(parts, key=lambda part: part.seconds)
    return f", mostly {top.name} ({number(top.seconds, 's')})"
