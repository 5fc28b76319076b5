"""
What an author has to mend in a runbook whose steps can be used meanwhile: a dead link, an overdue review, a section
that is missing.

`lint` finds what makes a step unusable. A process that serves asks `lint` alone, so that no fix disappears from a card
overnight because a date passed; `watchkeeper runbook lint` asks both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from urllib.parse import unquote

from runbooks.engine.markdown import anchors, headings, links
from runbooks.engine.problems import Problem
from runbooks.engine.values import Action, GuardedAction, Runbook, only_tells

SECTIONS = ("Meaning", "Impact", "Diagnosis", "Remediation", "Verify", "Escalate")


def upkeep(runbook: Runbook, actions: Mapping[str, Action], *, today: date, folder: Path) -> list[Problem]:
    """Everything that its author should mend by `today`; `folder` is where its relative links start. Reads files."""
    return sorted({*_review(runbook, today), *_sections(runbook), *_undo(runbook, actions), *_links(runbook, folder)})


def _review(runbook: Runbook, today: date) -> Iterator[Problem]:
    reviewed, due = runbook.reviewed, runbook.review_by
    if due is not None and due < today:
        remedy = "hold it against the world, then move `reviewed` and `review_by`"
        yield runbook.problem(runbook.line_of("review_by"), f"its review is overdue since {due}", remedy)
    if reviewed is not None and reviewed > today:
        yield runbook.problem(runbook.line_of("reviewed"), f"{reviewed} is yet to come", "write the day of the review")
    if reviewed is not None and due is not None and due <= reviewed:
        yield runbook.problem(runbook.line_of("review_by"), "it is due before it was reviewed", "write a later day")


def _sections(runbook: Runbook) -> Iterator[Problem]:
    """Whoever opens it at 3 a.m. finds everything where the last one had it."""
    found = {words for _, level, words in headings(runbook.text) if level == 2}
    for name in SECTIONS:
        if name not in found:
            yield runbook.problem(
                1, f"the section `## {name}` is missing", f"write `## {name}`, and say it in few words"
            )


def _undo(runbook: Runbook, actions: Mapping[str, Action]) -> Iterator[Problem]:
    for step in runbook.steps:
        action = actions.get(step.action)
        if action is None or only_tells(action):
            continue
        if step.undo == "none" and not step.irreversible:
            can_undo = isinstance(action, GuardedAction) and action.can_undo
            remedy = "write `undo: previous`, or `irreversible: WHY`" if can_undo else "write `irreversible: WHY`"
            yield runbook.problem(step.line, f"`{step.title}` does not say how it is taken back", remedy)


def _links(runbook: Runbook, folder: Path) -> Iterator[Problem]:
    own = anchors(runbook.text)
    for line, target in links(runbook.text):
        if _is_elsewhere(target):
            continue
        path, _, fragment = unquote(target).partition("#")
        file = folder / path if path else None
        if file is not None and not file.exists():
            yield runbook.problem(line, f"the link {target} leads nowhere", "correct it; paths start at this file")
        elif fragment and fragment not in (own if file is None else _anchors_of(file, fragment)):
            remedy = "use the heading's words in small letters, with - for spaces"
            yield runbook.problem(line, f"the link {target} finds no such heading", remedy)


def _is_elsewhere(target: str) -> bool:
    """An address, or a path that starts where only the web site knows."""
    return target.startswith("/") or ":" in target.split("#", 1)[0].split("/", 1)[0]


def _anchors_of(file: Path, fragment: str) -> set[str]:
    """Of another Markdown file; in any other kind, a fragment is its own business."""
    if file.suffix != ".md":
        return {fragment}
    try:
        return anchors(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {fragment}
