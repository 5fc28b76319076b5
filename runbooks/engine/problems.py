"""What is wrong with a runbook: where, and what its author can do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One fault of a runbook. `line` counts from 1 in the file; `remedy` is an instruction to its author."""

    path: str
    line: int
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message} ({self.remedy})"


class RunbookError(Exception):
    """
    A runbook cannot be used; `problems` holds all that is wrong with it, in the order of its lines.

    `path`, `line`, `message` and `remedy` are those of the first problem.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        first = self.problems[0]
        self.path, self.line, self.message, self.remedy = first.path, first.line, first.message, first.remedy
        super().__init__("\n".join(str(problem) for problem in self.problems))
