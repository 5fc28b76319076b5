"""Where a cause acts: the values of its dimension, read from the measures that stand out and the guilty change."""

from __future__ import annotations

from collections.abc import Sequence

from diagnostics.causes.knowledge import Knowledge
from diagnostics.changes.change import Change
from diagnostics.diagnosis import Scope
from diagnostics.findings import Finding, Status


def scope_of(cause_id: str, findings: Sequence[Finding], guilty: Change | None, knowledge: Knowledge) -> Scope | None:
    """The scope of the first cause; None where nothing, or nothing known, is wrong."""
    cause = knowledge.causes.get(cause_id)
    if cause is None:
        return None
    if cause.scope == "fleet":
        return Scope(dimension="fleet")
    values = {
        value
        for finding in findings
        if finding.status is Status.BAD or cause.is_control
        for measure in finding.measures
        if measure.signal in cause.expects
        for label, value in measure.scope
        if label == cause.scope and value
    }
    if not values and guilty is not None:
        values = set(guilty.scope.get(cause.scope, ()))
    return Scope(dimension=cause.scope, values=tuple(sorted(values)))
