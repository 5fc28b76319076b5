"""A folder of runbooks, read from disk; one that is broken never hides the others."""

from __future__ import annotations

from pathlib import Path

from runbooks.engine.parse import MAX_CHARS, parse
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.values import Runbook

NOT_A_RUNBOOK = "README.md"  # explains the folder


def load_folder(path: Path) -> tuple[tuple[Runbook, ...], tuple[Problem, ...]]:
    """Every runbook that can be read, by name, and what is wrong with the rest. Blocks: call it in a thread."""
    if not path.is_dir():
        problem = Problem(path=str(path), line=1, message="no such folder", remedy="check the path of the runbooks")
        return (), (problem,)
    runbooks: list[Runbook] = []
    problems: list[Problem] = []
    for file in sorted(path.glob("*.md")):
        if file.name == NOT_A_RUNBOOK:
            continue
        try:
            runbooks.append(load_file(file))
        except RunbookError as error:
            problems += error.problems
    return tuple(runbooks), tuple(problems)


def load_file(file: Path) -> Runbook:
    """One runbook. Raises RunbookError, also when the file cannot be read."""
    try:
        with file.open("rb") as stream:
            content = stream.read(4 * MAX_CHARS + 1)  # a character of UTF-8 has at most four bytes
        text = content.decode()
    except OSError as error:
        raise RunbookError(
            [_unreadable(file, error.strerror or "cannot be read", "check its path and permissions")]
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RunbookError([_unreadable(file, "not UTF-8", "save the file as UTF-8", line)]) from error
    return parse(text, file.stem)


def _unreadable(file: Path, message: str, remedy: str, line: int = 1) -> Problem:
    return Problem(path=file.name, line=line, message=message, remedy=remedy)
