"""
Did one model's answers change their length, while the others' did not?

Compares the mean number of output tokens per response of each model with its own past, beside that of the other
models. Bad when one model moved by a sixth more than the rest: with no change of ours at that time, its provider has
changed it. Of prompt versions whose answers are cut off more often it measures the length too: shorter means that the
limit was lowered, longer that answers do not stop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from diagnostics.answer_quality import BY_VERSION, TRUNCATED, cells_of, worse
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, total
from diagnostics.proportions import ENOUGH_EVENTS, NO_EVENTS, Share, folded, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

TOKENS = "llm_app_tokens_total"

_APART = 0.15  # in logarithms: a sixth more or less than the others


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", TOKENS)
    answered, rates = await asyncio.gather(
        cells_of(look, TRUNCATED, BY_VERSION),
        look.rates(TOKENS, "application", by=("prompt_version", "model", "direction")),
    )
    if not answered:
        raise CannotTellError(f"{TRUNCATED.metric} is not exported; {remedy_for(TRUNCATED.metric)}")
    tokens = {key[:2]: cell for key, cell in rates.items() if key[2] == "output"}
    cut_off = _cut_off(look, answered, tokens)
    responses, made = folded(answered, BY_VERSION.index("model")), summed(tokens, 1)
    known = {
        key[0]: length
        for key, cell in responses.items()
        if key[0] and (length := _length(made.get(key, NOTHING), cell, look)).factor is not None
    }
    if not known:
        raise CannotTellError(f"no model gave {ENOUGH_EVENTS} answers in each window, with its output tokens counted")
    if len(known) == 1:
        [(model, length)] = known.items()
        return Finding.ok("model_answers", f"Only {model} answers: {compared(length, 'tokens')} on average.", *cut_off)
    apart = _apart(_shared_by_versions(look, answered, tokens, known))
    model = max(apart, key=lambda name: apart[name])
    found = Measure(signal="model_length_shift", value=apart[model], baseline=0.0)
    moved = [name for name in sorted(apart) if apart[name] >= _APART]
    if not moved:
        said = f"No model's answers changed their length alone: {model} has {compared(known[model], 'tokens')}."
        return Finding.ok("model_answers", said, found, *cut_off)
    said = " ".join(f"Answers of {name} have {compared(known[name], 'tokens')}." for name in moved)
    scoped = [
        measure("model_length_shift", Compared(now=apart[name], baseline=0.0), "", ("model", name)) for name in moved
    ]
    return Finding.bad("model_answers", said, found, *scoped, *cut_off)


def _cut_off(look: Look, answered: Mapping[Key, Share], tokens: Mapping[Key, Compared]) -> list[Measure]:
    """The mean length of those versions' answers that are cut off more often; nothing where none are, or none named."""
    versions = folded(answered, BY_VERSION.index("prompt_version"))
    named = {key: cell for key, cell in versions.items() if key[0]}
    guilty = worse(TRUNCATED, named, folded(answered).get((), NO_EVENTS))
    of_version = {key: cell for key, cell in summed(tokens, 0).items() if key in guilty}
    if not of_version:
        return []
    length = _length(total(of_version), sum((versions[key] for key in of_version), NO_EVENTS), look)
    return [] if length.factor is None else [measure("cut_off_answer_length", length, "tokens")]


def _shared_by_versions(
    look: Look, answered: Mapping[Key, Share], tokens: Mapping[Key, Compared], models: Mapping[str, Compared]
) -> dict[str, Compared]:
    """Each model's length, by the version that moved least: one version's new length is not the model's."""
    shared = dict(models)
    by_version = folded(answered, BY_VERSION.index("prompt_version"), BY_VERSION.index("model"))
    for model in models:
        lengths = [
            length
            for key, cell in by_version.items()
            if key[0] and key[1] == model and (length := _length(tokens.get(key, NOTHING), cell, look)).factor
        ]
        if lengths:
            shared[model] = min(lengths, key=lambda length: abs(math.log(length.factor or 1.0)))
    return shared


def _length(tokens: Compared, responses: Share, look: Look) -> Compared:
    """Output tokens per response, where each window holds enough responses."""
    if responses.all_now < ENOUGH_EVENTS or responses.all_then < ENOUGH_EVENTS:
        return NOTHING
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
