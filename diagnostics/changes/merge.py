"""
The changes of several sources as one list: what is told twice stands there once.

A change that two sources tell of would otherwise be two suspects that share the blame, and neither would lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

from diagnostics.changes.change import Change
from diagnostics.changes.self_report import NAME as SELF_REPORT

SAME_MOMENT = timedelta(minutes=5)
"""A sync, its rollout and the pipeline's own note of it lie within this."""

_TAKES_EFFECT = timedelta(minutes=45)
"""An engine reports a new configuration when its new pods have loaded their weights, a replica after the other."""

_ROLLED_OUT = frozenset({"engine", "config", "model", "adapter", "gateway", "policy", "embedder"})
_EXPLAINS = {
    "config": frozenset({"engine", "config", "model", "adapter"}),
    "model": frozenset({"engine", "config", "model", "adapter", "gateway", "flag"}),
    "infra": frozenset({"infra"}),
}
"""Which declared kinds explain what is reported."""
_TELLING = ("deployment", "prompt", "tool", "policy", "adapter", "data_source")


def distinct(answers: Iterable[Sequence[Change]]) -> list[Change]:
    """
    Each change of these sources' answers once, oldest first; where two tell the same, the earlier answer is preferred.

    The same: one id of one source; or changes of two answers that tell of the same kind of thing about the same object
    within minutes; or an engine's report of what somebody declared before. One answer is never doubted in itself.
    """
    kept: list[Change] = []
    seen: set[tuple[str, str, str]] = set()
    for answer in answers:
        others = len(kept)
        for change in answer:
            key = (change.service, change.source, change.id)
            if key in seen:
                continue
            seen.add(key)
            twin = next((index for index in range(others) if _is_the_same(kept[index], change)), None)
            if twin is None:
                kept.append(change)
            else:
                kept[twin] = _together(kept[twin], change)
    declared = [change for change in kept if change.source != SELF_REPORT]
    left = [change for change in kept if change.source != SELF_REPORT or not _is_declared(change, declared)]
    return sorted(left, key=lambda change: change.at)


def _is_the_same(one: Change, other: Change) -> bool:
    if one.source == other.source or one.service != other.service or one.is_symptom or other.is_symptom:
        return False
    if SELF_REPORT in {one.source, other.source} or abs(one.at - other.at) > SAME_MOMENT:
        return False
    shared = [name for name in _TELLING if set(one.scope.get(name, ())) & set(other.scope.get(name, ()))]
    both_rolled_out = {one.kind, other.kind} <= _ROLLED_OUT and "deployment" in shared
    return both_rolled_out or (one.kind == other.kind and bool(shared) and _may_be_one_text(one, other))


def _may_be_one_text(one: Change, other: Change) -> bool:
    """Two different new texts of one prompt within minutes are two changes."""
    return one.after is None or other.after is None or one.after.strip() == other.after.strip()


def _together(first: Change, second: Change) -> Change:
    """The one that can be taken back or shows a difference, with what only the other one knows."""
    best, rest = (second, first) if _worth(second) > _worth(first) else (first, second)
    return replace(
        best,
        author=best.author or rest.author,
        url=best.url or rest.url,
        scope={**rest.scope, **best.scope},
    )


def _worth(change: Change) -> int:
    shows = change.before is not None and change.after is not None and change.before != change.after
    return 2 * bool(change.undo) + shows


def _is_declared(report: Change, declared: Sequence[Change]) -> bool:
    return any(
        change.kind in _EXPLAINS.get(report.kind, frozenset())
        and not change.is_symptom
        and timedelta(minutes=-2) <= report.at - change.at <= _TAKES_EFFECT
        for change in declared
        if change.service == report.service
    )
