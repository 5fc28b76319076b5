"""A ranked cause in words: what speaks for it, and what against it, with the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diagnostics.causes.knowledge import Cause, Expected, Knowledge
from diagnostics.causes.observation import Observation
from diagnostics.diagnosis import RankedCause
from diagnostics.wording import change, number

NONE_TITLE = "nothing is wrong that the telemetry shows"
OTHER_TITLE = "something that the knowledge base does not describe"
_SENTENCES = 6


def ranked(name: str, probability: float, observed: Mapping[str, Observation], knowledge: Knowledge) -> RankedCause:
    """The cause (or `none`, or `other`) with its sentences, decisive signals first."""
    cause = knowledge.causes.get(name)
    if cause is not None:
        speaks_for, against = _sentences(cause, observed)
        return RankedCause(
            cause=name,
            title=cause.title,
            probability=probability,
            evidence_for=speaks_for,
            evidence_against=against,
        )
    if name != "none":
        return RankedCause(cause=name, title=OTHER_TITLE, probability=probability)
    moved = tuple(sentence(seen) for seen in _strongest(observed.values()) if seen.flat < 0.5)[:_SENTENCES]
    calm = () if moved else ("every signal that was measured is within its normal range",)
    return RankedCause(cause=name, title=NONE_TITLE, probability=probability, evidence_for=calm, evidence_against=moved)


def _sentences(cause: Cause, observed: Mapping[str, Observation]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ordered = sorted(_strongest(observed.values()), key=lambda seen: seen.signal.name not in cause.decisive)
    speaks_for: list[str] = []
    against: list[str] = []
    for seen in ordered:
        expected = cause.expects.get(seen.signal.name, Expected.FLAT)
        if expected is Expected.FLAT:
            if seen.state != "flat":
                against.append(f"{sentence(seen)}, which it does not explain")
            elif seen.signal.name in cause.decisive:
                speaks_for.append(f"{sentence(seen)}, as it should be then")
        elif seen.state == expected.value.removeprefix("maybe_"):
            speaks_for.append(sentence(seen))
        elif seen.state != "flat" or not expected.value.startswith("maybe_"):
            against.append(f"{sentence(seen)}, but should be {expected.value.removeprefix('maybe_')}")
    return tuple(speaks_for[:_SENTENCES]), tuple(against[:_SENTENCES])


def _strongest(observations: Iterable[Observation]) -> list[Observation]:
    return sorted(observations, key=lambda seen: seen.flat)


def sentence(seen: Observation) -> str:
    """What was measured of a signal, and where, with its numbers."""
    measure, signal = seen.measure, seen.signal
    where = "".join(f" on {label} {value}" for label, value in measure.scope if value)
    if signal.is_event or signal.above is not None:
        return f"{signal.words}: {number(measure.value, '' if signal.unit == 'x' else signal.unit)}{where}"
    if seen.state == "flat":
        return f"{signal.words} stays at {number(measure.value, signal.unit)}{where}"
    return f"{signal.words} {change(measure.value, measure.baseline, signal.unit)}{where}"
