"""A folder of runbooks, read from disk; one that is broken never hides the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from runbooks.engine.parse import MAX_CHARS, parse
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.values import Runbook

NOT_A_RUNBOOK = "README.md"  # explains the folder


Objection = Callable[[str, bytes], str | None]
"""Given a file's name and content, why it does not count; None when it does."""


class FolderUnreadableError(Exception):
    """A folder is not there or may not be listed; the message says which of it."""


def load_folder(
    path: Path, objection: Objection | None = None, known: Mapping[str, Runbook] | None = None
) -> tuple[tuple[Runbook, ...], tuple[Problem, ...]]:
    """
    Every runbook that can be read, by name, and what is wrong with the rest. Blocks: call it in a thread.

    A file with an objection is not parsed: what was not reviewed says nothing. One whose bytes are those of its runbook
    in `known` (by id) is not parsed again.
    """
    try:
        files = runbook_files(path)
    except FolderUnreadableError as error:
        return (), (Problem(path=str(path), line=1, message=str(error), remedy="check the path of the runbooks"),)
    runbooks: list[Runbook] = []
    problems: list[Problem] = []
    for file in files:
        try:
            runbooks.append(load_file(file, objection, (known or {}).get(file.stem)))
        except RunbookError as error:
            problems += error.problems
    return tuple(runbooks), tuple(problems)


def runbook_files(path: Path) -> list[Path]:
    """The files of a folder that should be runbooks, by name. Raises FolderUnreadableError."""
    try:
        files = sorted(path.iterdir())
    except FileNotFoundError:
        raise FolderUnreadableError("no such folder") from None
    except OSError as error:
        raise FolderUnreadableError(f"the folder cannot be read: {error.strerror or error}") from error
    return [file for file in files if file.suffix == ".md" and file.name != NOT_A_RUNBOOK]


def load_file(file: Path, objection: Objection | None = None, known: Runbook | None = None) -> Runbook:
    """One runbook. Raises RunbookError, also when the file cannot be read or does not count."""
    try:
        with file.open("rb") as stream:
            content = stream.read(4 * MAX_CHARS + 1)  # a character of UTF-8 has at most four bytes
        if objection is not None and (message := objection(file.name, content)):
            raise RunbookError([_unreadable(file, message, "have it reviewed and merged, and update this work tree")])
        if known is not None and known.revision == hashlib.sha256(content).hexdigest():
            return known
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
