"""
What an author has to mend in a runbook whose steps can be used meanwhile: a dead link, a review that is overdue.

`lint` finds what makes a step unusable. A process that serves asks `lint` alone, so that no fix disappears from a card
overnight because a date passed; `watchkeeper runbook lint` asks both.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import unquote

from runbooks.engine.markdown import anchors, links
from runbooks.engine.problems import Problem
from runbooks.engine.values import Runbook


def upkeep(runbook: Runbook, *, today: date, folder: Path) -> list[Problem]:
    """Everything that its author should mend by `today`; `folder` is where its relative links start. Reads files."""
    return sorted({*_review(runbook, today), *_links(runbook, folder)})


def _review(runbook: Runbook, today: date) -> Iterator[Problem]:
    reviewed, due = runbook.reviewed, runbook.review_by
    if due is not None and due < today:
        remedy = "hold it against the world, then move `reviewed` and `review_by`"
        yield runbook.problem(runbook.line_of("review_by"), f"its review is overdue since {due}", remedy)
    if reviewed is not None and reviewed > today:
        yield runbook.problem(runbook.line_of("reviewed"), f"{reviewed} is yet to come", "write the day of the review")
    if reviewed is not None and due is not None and due <= reviewed:
        yield runbook.problem(runbook.line_of("review_by"), "it is due before it was reviewed", "write a later day")


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
