"""
Did the answers get worse?

Reads the shares of refusals, of answers in a valid format, of thumbs down, and the judge's score. Bad when refusals
doubled and gained three points, valid formats lost two points, thumbs down gained two points by half, or the judge's
score lost 0.04. A prompt version whose answers lost validity is named. A judge that falls while nothing else moves has
probably changed itself.
"""

from __future__ import annotations

import asyncio

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, spread, total
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

RESPONSES = "llm_app_responses_total"
FORMATS = "llm_app_format_checks_total"
FEEDBACK = "llm_app_feedback_total"
JUDGE = "llm_app_judge_score"

ENOUGH_EVENTS = 100
"""At a share of 4 % a hundred events still leave a standard error of two points."""


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    responses, formats, by_pod, by_version, feedback, judge = await asyncio.gather(
        look.rates(RESPONSES, "application", by=("outcome",)),
        look.rates(FORMATS, "application", by=("result",)),
        look.rates(FORMATS, "application", by=("pod", "result")),
        look.rates(FORMATS, "application", by=("prompt_name", "prompt_version", "result")),
        look.rates(FEEDBACK, "application", by=("rating",)),
        look.mean(JUDGE, "application"),
    )
    ratios = {
        "refusal_ratio": _share_of(look, responses, "refusal"),
        "format_valid_ratio": _share_of(look, formats, "valid"),
        "thumbs_down_ratio": _share_of(look, feedback, "down"),
        "judge_score": judge,
    }
    known = {signal: ratio for signal, ratio in ratios.items() if ratio != NOTHING}
    if not known:
        raise CannotTellError(
            "the application exports no responses by outcome, format checks, feedback or judge scores"
        )
    measures = [measure(signal, ratio, "" if signal == "judge_score" else "ratio") for signal, ratio in known.items()]
    measures += _formats_apart(by_pod)
    measures += _broken_versions(look, by_version, ratios["format_valid_ratio"])
    complaints = _complaints(ratios)
    if complaints:
        return Finding.bad("output_quality", " ".join(complaints), *measures)
    return Finding.ok("output_quality", "Answers are as good as usual, as far as they are scored.", *measures)


def _share_of(look: Look, cells: dict[Key, Compared], value: str) -> Compared:
    """The share of one value; nothing where the recent window holds too few events for a share to mean anything."""
    whole = total(cells)
    if (whole.now or 0.0) * look.frame.recent.total_seconds() < ENOUGH_EVENTS:
        return NOTHING
    return share(cells.get((value,), NOTHING), whole)


def _formats_apart(cells: dict[Key, Compared]) -> list[Measure]:
    """How far the worst pod's share of invalid formats is from the middle pod's."""
    ratios = {}
    for pod in sorted({key[0] for key in cells if key[0]}):
        own: dict[Key, Compared] = {(result,): cell for (where, result), cell in cells.items() if where == pod}
        ratios[pod] = share(own.get(("invalid",), NOTHING), total(own)).now
    known = {pod: ratio for pod, ratio in ratios.items() if ratio is not None}
    apart = spread([max(ratio, 0.002) for ratio in known.values()])
    if apart is None:
        return []
    found = [Measure(signal="format_spread", value=apart, unit="x")]
    if apart >= 2.5:
        pod = max(known, key=lambda name: known[name])
        found.append(Measure(signal="format_spread", value=apart, unit="x", scope=(("pod", pod),)))
    return found


def _broken_versions(look: Look, cells: dict[Key, Compared], usual: Compared) -> list[Measure]:
    """The prompt versions whose answers are less often valid than the service's were, each with its own share."""
    found = []
    for name, version in sorted({key[:2] for key in cells if key[0] and key[1]}):
        own: dict[Key, Compared] = {key[2:]: cell for key, cell in cells.items() if key[:2] == (name, version)}
        now = _share_of(look, own, "valid").now
        if now is not None and usual.baseline is not None and now <= usual.baseline - 0.02:
            cell = Compared(now=now, baseline=usual.baseline)
            found.append(
                measure("format_valid_ratio", cell, "ratio", ("prompt_name", name), ("prompt_version", version))
            )
    return found


def _complaints(ratios: dict[str, Compared]) -> list[str]:
    refusal, valid, down = ratios["refusal_ratio"], ratios["format_valid_ratio"], ratios["thumbs_down_ratio"]
    judge = ratios["judge_score"]
    said = []
    if (refusal.factor or 0.0) >= 2 and (refusal.gain or 0.0) >= 0.03:
        said.append(f"Refusals: {compared(refusal, 'ratio')}.")
    if (valid.gain or 0.0) <= -0.02:
        said.append(f"Valid formats: {compared(valid, 'ratio')}.")
    if (down.gain or 0.0) >= 0.02 and (down.factor or 0.0) >= 1.5:
        said.append(f"Thumbs down: {compared(down, 'ratio')}.")
    if (judge.gain or 0.0) <= -0.04:
        said.append(f"Judge's score: {compared(judge)}.")
    return said
