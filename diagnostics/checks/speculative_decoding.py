"""
Are the drafts of speculative decoding still accepted?

Reads the share of drafted tokens that the model accepts. Bad when it lost 0.15 and a quarter: every token then costs
more steps, so tokens get slower while clocks and temperatures stay flat. A new engine version or draft model is the
usual reason.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.places import Places, places, where_found
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

DRAFTED = "vllm:spec_decode_num_draft_tokens_total"
ACCEPTED = "vllm:spec_decode_num_accepted_tokens_total"
PROBED = "watchkeeper_probe_spec_decode_acceptance"


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    per_pod, known = await asyncio.gather(_acceptance(look), places(look))
    now = [cell.now for cell in per_pod.values() if cell.now is not None]
    then = [cell.baseline for cell in per_pod.values() if cell.baseline is not None]
    if not now:
        raise CannotTellError("no token was drafted in the recent window")
    ratio = Compared(now=sum(now) / len(now), baseline=sum(then) / len(then) if then else None)
    measures = [measure("draft_acceptance", ratio, "ratio"), *_fallen(per_pod, ratio.baseline, known)]
    text = f"The model accepts {compared(ratio, 'ratio')} of the drafted tokens."
    if ratio.baseline is None:
        return Finding.unknown("speculative_decoding", text, *measures)
    return (Finding.bad if len(measures) > 1 else Finding.ok)("speculative_decoding", text, *measures)


async def _acceptance(look: Look) -> dict[Key, Compared]:
    """Accepted over drafted tokens per pod, from the engine or else from the probe."""
    if await look.exported("serving", DRAFTED) is None:
        where = await where_found(look, "serving", PROBED, "pod", (await places(look)).pods)
        if where is None:
            raise CannotTellError(f"{DRAFTED} is not exported; vLLM exports it when speculative decoding is on")
        return await look.levels(PROBED, "serving", by=("pod",), where=where, alone=True)
    drafted, accepted = await asyncio.gather(
        look.rates(DRAFTED, "serving", by=("pod",)), look.rates(ACCEPTED, "serving", by=("pod",))
    )
    return {
        key: Compared(
            now=_over(accepted[key].now, cell.now) if key in accepted else None,
            baseline=_over(accepted[key].baseline, cell.baseline) if key in accepted else None,
        )
        for key, cell in drafted.items()
    }


def _over(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _fallen(per_pod: dict[Key, Compared], usual: float | None, known: Places) -> list[Measure]:
    """Pods that accept far less than the service did; a pod that is new is held against the others' baseline."""
    found = []
    for (pod,), cell in sorted(per_pod.items()):
        normal = usual if cell.baseline is None else cell.baseline
        if cell.now is not None and normal is not None and cell.now < min(normal - 0.15, 0.75 * normal):
            found.append(
                measure("draft_acceptance", Compared(now=cell.now, baseline=normal), "ratio", *known.where(pod))
            )
    return found
