"""What a change did to a text: a short unified diff for people, and the facts about it that explain a symptom."""

from __future__ import annotations

import difflib
import re

_MOST_LINES = 24
_LONGEST_LINE = 200
_CUT = 0.75

# What makes the start of a prompt differ from request to request: template variables and written-out times.
_VARIABLE = re.compile(
    r"\{\{[^{}]{1,80}\}\}|"
    r"\{[A-Za-z_][A-Za-z0-9_.]{0,60}\}|\$\{[^{}]{1,60}\}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d|<%[^%]{1,80}%>"
)


def short_diff(before: str | None, after: str | None, *, before_name: str = "before", after_name: str = "after") -> str:
    """A unified diff of at most 24 lines of at most 200 characters; "" when a side is unknown or nothing differs."""
    if before is None or after is None or before == after:
        return ""
    lines = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), before_name, after_name, lineterm="", n=1)
    )
    shown = [line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…" for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"… {len(lines) - _MOST_LINES} more lines")
    return "\n".join(shown)


def new_variable_at_start(before: str, after: str) -> str | None:
    """
    A variable part that cuts the text's fixed beginning to three quarters of its share or less; None otherwise.

    A prefix cache keeps what comes before the first part that differs between requests, so this is what breaks it.
    """
    found = _VARIABLE.search(after)
    earlier = _VARIABLE.search(before)
    if found is None or (earlier is not None and earlier.start() <= found.start()):
        return None
    was_fixed = 1.0 if earlier is None else earlier.start() / len(before)
    return found.group(0) if found.start() <= _CUT * was_fixed * len(after) else None


def growth(before: str, after: str) -> float:
    """How many times as long the new text is."""
    return len(after) / max(len(before), 1)
