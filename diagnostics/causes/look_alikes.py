"""
What would tell the first cause from the second: the question that nobody could answer yet, else the cause's own.

Before it, what the first cause does not explain and speaks for another: then more than one thing seems to be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostics.causes.evidence import sentence
from diagnostics.causes.knowledge import Cause, Expected, Knowledge
from diagnostics.causes.observation import Observation
from diagnostics.causes.unexplained import unexplained
from diagnostics.diagnosis import RankedCause

_CLOSE = 0.25
"""A second cause with at least this share of the first one's probability is worth telling apart."""

_MOST = 3


def next_check(causes: Sequence[RankedCause], observed: Mapping[str, Observation], knowledge: Knowledge) -> str | None:
    """What to look at next; None where nothing, or nothing known, is wrong."""
    known = [(ranked, knowledge.causes[ranked.cause]) for ranked in causes if ranked.cause in knowledge.causes]
    if not known or causes[0].cause not in knowledge.causes:
        return None
    (first, cause), *others = known
    beyond = _beyond(cause, observed, knowledge)
    if others and others[0][0].probability >= _CLOSE * first.probability:
        rival = others[0][1]
        unseen = _unseen_differences(cause, rival, observed)
        if unseen:
            words = ", ".join(knowledge.signals[name].words for name in unseen[:_MOST])
            apart = f"Not measured, and would tell it from {rival.id} ({rival.title}): {words}."
            return f"{beyond}{apart} {cause.next_check}"
    return f"{beyond}{cause.next_check}"


def _beyond(cause: Cause, observed: Mapping[str, Observation], knowledge: Knowledge) -> str:
    left = unexplained(cause, observed, knowledge)[:_MOST]
    if not left:
        return ""
    said = "; ".join(sentence(seen) for seen in left)
    return f"More than one thing seems to be wrong, since {cause.id} ({cause.title}) does not explain this: {said}. "


def _unseen_differences(cause: Cause, rival: Cause, observed: Mapping[str, Observation]) -> list[str]:
    """Decisive signals of either that nobody measured and that the two move differently."""
    decisive = sorted(cause.decisive | rival.decisive)
    return [name for name in decisive if name not in observed and _differ(cause, rival, name)]


def _differ(cause: Cause, rival: Cause, name: str) -> bool:
    expected = {each.expects.get(name, Expected.FLAT) for each in (cause, rival)}
    return len({one.value.removeprefix("maybe_") for one in expected}) == 2
