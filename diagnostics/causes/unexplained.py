"""
What the first cause does not explain: far from normal, and what tells another cause from its look-alikes.

One fault may have side effects that nobody wrote down, but not the mark of another fault. Where there is one, more than
one thing may be wrong, or something else than was named, so the first cause is not held for nearly certain.
"""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.causes.knowledge import Cause, Expected, Knowledge
from diagnostics.causes.observation import Observation

_FAR = 2.0
"""Tolerances: at twice its tolerance a signal has moved for sure."""


def unexplained(cause: Cause, observed: Mapping[str, Observation], knowledge: Knowledge) -> tuple[Observation, ...]:
    """The marks of other causes that this one should leave flat or move to the other side, the clearest first."""
    found = [
        seen
        for name, seen in observed.items()
        if seen.state != "flat"
        and seen.distance >= _FAR
        and not _moves(cause, name, seen.state)
        and cause.expects.get(seen.signal.follows or "", Expected.FLAT) is Expected.FLAT
        and any(name in other.decisive and _moves(other, name, seen.state) for other in knowledge.causes.values())
    ]
    return tuple(sorted(found, key=lambda seen: seen.distance, reverse=True))


def _moves(cause: Cause, signal: str, state: str) -> bool:
    return cause.expects.get(signal, Expected.FLAT).value.removeprefix("maybe_") == state
