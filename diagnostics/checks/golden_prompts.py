"""
Does every pod give the same answers to the same prompts?

Reads what a probe measures: the share of fixed prompts (temperature 0) whose answer differs from the majority of pods.
Bad when a pod differs on more than 5 %: one pod alone computes wrong results (a GPU, or weights that were damaged when
they were loaded), several have another model or tokenizer. Requests whose results were not numbers are bad as well;
vLLM counts them with VLLM_COMPUTE_NANS_IN_LOGITS=1.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.places import Places, places, where_found
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import number

MISMATCH = "watchkeeper_probe_golden_prompt_mismatch_ratio"
CORRUPTED = "vllm:corrupted_requests_total"
MOST = 0.05


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    where, nans, known = await asyncio.gather(_probed(look), _corrupted(look), places(look))
    if where is None and not nans:
        raise CannotTellError(f"{MISMATCH} is not exported; {remedy_for(MISMATCH)}")
    ratios = await look.levels(MISMATCH, "serving", by=("pod",), where=where, alone=True) if where else {}
    now = {pod: cell.now for (pod,), cell in ratios.items() if cell.now is not None}
    if not now and not nans:
        raise CannotTellError("no pod was probed with the fixed prompts in the recent window")
    wrong = {pod: ratio for pod, ratio in sorted(now.items()) if ratio > MOST}
    measures = [*_differing(ratios, wrong, known), *_not_numbers(nans, known)]
    said = [f"Answers to fixed prompts differ on {pod} ({number(ratio, 'ratio')})." for pod, ratio in wrong.items()]
    said += [f"{pod} computed results that are not numbers." for pod, count in (nans or {}).items() if count]
    if said:
        return Finding.bad("golden_prompts", " ".join(said[:4]), *measures)
    if not now:
        reason = f"No result was not a number, but {MISMATCH} is not exported; {remedy_for(MISMATCH)}"
        return Finding.unknown("golden_prompts", reason, *measures)
    top = number(max(now.values()), "ratio")
    return Finding.ok("golden_prompts", f"Pods differ on at most {top} of the fixed prompts.", *measures)


async def _probed(look: Look) -> dict[str, str] | None:
    return await where_found(look, "serving", MISMATCH, "pod", (await places(look)).pods)


async def _corrupted(look: Look) -> dict[str, float] | None:
    """Requests with NaN results per pod since the baseline; None when no engine counts them."""
    if await look.exported("serving", CORRUPTED) is None:
        return None
    grew = await look.increase(CORRUPTED, "serving", by=("pod",))
    return {pod: float(round(count)) for (pod,), count in sorted(grew.items())}


def _differing(ratios: dict[Key, Compared], wrong: dict[str, float], known: Places) -> list[Measure]:
    now = [cell.now for cell in ratios.values() if cell.now is not None]
    if not now:
        return []
    before = [cell.baseline for cell in ratios.values() if cell.baseline is not None]
    return [
        measure("golden_mismatch", Compared(now=max(now), baseline=max(before) if before else None), "ratio"),
        Measure(signal="golden_wrong_pods", value=float(len(wrong)), baseline=0.0, unit="pods"),
        *(measure("golden_mismatch", Compared(now=r), "ratio", *known.where(pod)) for pod, r in wrong.items()),
    ]


def _not_numbers(nans: dict[str, float] | None, known: Places) -> list[Measure]:
    """Nothing for a count of zero: vLLM exports one whether it looks for them or not."""
    if not any((nans or {}).values()):
        return []
    signal, unit = "corrupted_requests", "requests"
    return [
        Measure(signal=signal, value=sum((nans or {}).values()), baseline=0.0, unit=unit),
        *(
            Measure(signal=signal, value=count, baseline=0.0, unit=unit, scope=known.where(pod))
            for pod, count in (nans or {}).items()
            if count
        ),
    ]
