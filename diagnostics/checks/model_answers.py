"""
Did one model's answers change their length, while the others' did not?

Compares the mean number of output tokens per response of each model with its own past, beside that of the other
models. Bad when one model moved by a sixth more than the rest: with no change of ours at that time, its provider has
changed it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from diagnostics.answer_quality import BY_VERSION, REFUSAL, cells_of
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.proportions import ENOUGH_EVENTS, Share, folded
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared

TOKENS = "llm_app_tokens_total"

_APART = 0.15  # in logarithms: a sixth more or less than the others


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", TOKENS)
    answered, rates = await asyncio.gather(
        cells_of(look, REFUSAL, BY_VERSION), look.rates(TOKENS, "application", by=("model", "direction"))
    )
    if not answered:
        raise CannotTellError(f"{REFUSAL.metric} is not exported; {remedy_for(REFUSAL.metric)}")
    responses = {key[0]: cell for key, cell in folded(answered, BY_VERSION.index("model")).items() if key[0]}
    tokens = {model: cell for (model, direction), cell in rates.items() if direction == "output"}
    known = {
        model: length
        for model, cell in responses.items()
        if (length := _length(tokens.get(model, Compared()), cell, look)).factor is not None
    }
    if not known:
        raise CannotTellError(f"no model gave {ENOUGH_EVENTS} answers in each window, with its output tokens counted")
    if len(known) == 1:
        [(model, length)] = known.items()
        return Finding.ok("model_answers", f"Only {model} answers: {compared(length, 'tokens')} on average.")
    apart = _apart(known)
    model = max(apart, key=lambda name: apart[name])
    found = Measure(signal="model_length_shift", value=apart[model], baseline=0.0)
    moved = [name for name in sorted(apart) if apart[name] >= _APART]
    if not moved:
        said = f"No model's answers changed their length alone: {model} has {compared(known[model], 'tokens')}."
        return Finding.ok("model_answers", said, found)
    said = " ".join(f"Answers of {name} have {compared(known[name], 'tokens')}." for name in moved)
    scoped = [
        measure("model_length_shift", Compared(now=apart[name], baseline=0.0), "", ("model", name)) for name in moved
    ]
    return Finding.bad("model_answers", said, found, *scoped)


def _length(tokens: Compared, responses: Share, look: Look) -> Compared:
    """Output tokens per response, where each window holds enough responses."""
    if responses.all_now < ENOUGH_EVENTS or responses.all_then < ENOUGH_EVENTS:
        return Compared()
    now_s, then_s = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    return Compared(
        now=None if tokens.now is None else tokens.now * now_s / responses.all_now,
        baseline=None if tokens.baseline is None else tokens.baseline * then_s / responses.all_then,
    )


def _apart(lengths: Mapping[str, Compared]) -> dict[str, float]:
    """How far each model's change of length (logarithm) is from that of the model that moved least."""
    moves = {model: math.log(cell.factor) for model, cell in lengths.items() if cell.factor}
    calm = min(moves.values(), key=abs, default=0.0)
    return {model: abs(move - calm) for model, move in moves.items()}
