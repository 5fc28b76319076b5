"""A folder of runbooks, read from disk; one that is broken never hides the others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from runbooks.engine.parse import MAX_CHARS, parse
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.values import Runbook

NOT_A_RUNBOOK = "README.md"  # explains the folder
MOST_BYTES = 4 * MAX_CHARS  # a character of UTF-8 has at most four bytes
_CLAIM = re.compile(rb"(?:\xef\xbb\xbf)?---[ \t]*\r?\n(?:(?!---[ \t]*\r?\n).*\n)*?[\"']?format[\"']?[ \t]*:")


Objection = Callable[[str, bytes], str | None]
"""Given a file's name and content, why it does not count; None when it does."""


class FolderUnreadableError(Exception):
    """A folder is not there or may not be listed; the message says which of it."""


def load_folder(
    path: Path, objection: Objection | None = None, known: Mapping[str, Runbook] | None = None
) -> tuple[tuple[Runbook, ...], tuple[Problem, ...]]:
    """
    Every runbook that can be read, by name, and what is wrong with the rest. Blocks: call it in a thread.

    Markdown that does not claim to be a runbook is none. A file with an objection is not parsed: what was not reviewed
    says nothing. One whose bytes are those of its runbook in `known` (by id) is not parsed again.
    """
    try:
        files = runbook_files(path)
    except FolderUnreadableError as error:
        return (), (Problem(path=str(path), line=1, message=str(error), remedy="check the path of the runbooks"),)
    runbooks: list[Runbook] = []
    problems: list[Problem] = []
    for file in files:
        try:
            content = read_file(file)
            if claims_format(content):
                refused(file.name, content, objection)
                runbooks.append(_parsed(file, content, (known or {}).get(file.stem)))
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


def claims_format(content: bytes) -> bool:
    """Does its front matter have a `format`, as a runbook's has? Other Markdown is a page for people."""
    return _CLAIM.match(content) is not None


def load_file(file: Path) -> Runbook:
    """One runbook. Raises RunbookError, also when the file cannot be read."""
    return _parsed(file, read_file(file))


def read_file(file: Path) -> bytes:
    """A file's content, of a longer one MOST_BYTES and one more. Raises RunbookError."""
    try:
        with file.open("rb") as stream:
            return stream.read(MOST_BYTES + 1)
    except OSError as error:
        message = error.strerror or "cannot be read"
        raise RunbookError([_unreadable(file.name, message, "check its path and permissions")]) from error


def refused(name: str, content: bytes, objection: Objection | None) -> None:
    """Raises RunbookError when there is an objection to this file of this content."""
    if objection is not None and (message := objection(name, content)):
        raise RunbookError([_unreadable(name, message, "have it reviewed, and update this folder")])


def _parsed(file: Path, content: bytes, known: Runbook | None = None) -> Runbook:
    if known is not None and known.revision == hashlib.sha256(content).hexdigest():
        return known
    try:
        return parse(content.decode(), file.stem)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RunbookError([_unreadable(file.name, "not UTF-8", "save the file as UTF-8", line)]) from error


def _unreadable(name: str, message: str, remedy: str, line: int = 1) -> Problem:
    return Problem(path=name, line=line, message=message, remedy=remedy)
