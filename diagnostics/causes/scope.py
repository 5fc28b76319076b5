"""Where a cause acts: the values of its dimension, read from the measures that stand out and the guilty change."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.causes.knowledge import Cause, Expected, Knowledge
from diagnostics.changes.change import Change
from diagnostics.diagnosis import Scope
from diagnostics.findings import Finding, Status

_SURELY = frozenset({Expected.UP, Expected.DOWN})


def scope_of(cause_id: str, findings: Sequence[Finding], guilty: Change | None, knowledge: Knowledge) -> Scope | None:
    """
    The scope of the first cause; None where nothing, or nothing known, is wrong.

    Of the dimensions that a cause may be bounded on, the first whose values stand out; without any, its usual one.
    """
    cause = knowledge.causes.get(cause_id)
    if cause is None:
        return None
    for dimension in (cause.scope, *cause.scope_or):
        values = _standing_out(cause, dimension, findings)
        if not values and guilty is not None:
            values = set(guilty.scope.get(dimension, ()))
        if values or dimension == "fleet":
            return Scope(dimension=dimension, values=tuple(sorted(values)) if dimension != "fleet" else ())
    return Scope(dimension=cause.scope)


def _standing_out(cause: Cause, dimension: str, findings: Sequence[Finding]) -> set[str]:
    """The values on which a signal of the cause was measured by itself, in findings that complain."""
    return {
        value
        for finding in findings
        if finding.status is Status.BAD or cause.is_control
        for measure in finding.measures
        if measure.signal in cause.expects
        for label, value in measure.scope
        if label == dimension and value
    }
