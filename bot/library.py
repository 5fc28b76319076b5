"""The runbooks of this installation: read, checked, and as documents for search."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import runbooks
from bot.config import RunbookFolder
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from retrieval.documents import Document, Hit, Origin, Question, Section
from retrieval.embedder import Embedder
from retrieval.ranking import RunbookSearch
from runbooks.engine.actions import build_actions
from runbooks.engine.library import FolderUnreadableError, load_file, load_folder, runbook_files
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.reviewed import NotReviewedError, reviewed
from runbooks.engine.upkeep import upkeep
from runbooks.engine.values import Runbook

FOLDER = Path(runbooks.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a runbook lies (`file`), where people read it (`url`), and the reviewed commit (hex) that holds it."""

    file: str = ""
    url: str = ""
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """
    The runbooks of an installation by id, where they came from and are read, and what is wrong with some.

    A file that is no runbook is left out. One that `lint` complains about is found and read, and none of its steps is
    ever offered: a check that does not exist would only be missed when the change is made. A shelf never changes:
    `bot.shelf` puts another in its place.
    """

    runbooks: Mapping[str, Runbook]
    places: Mapping[str, Place]
    problems: tuple[Problem, ...]

    def documents(self) -> list[Document]:
        """What retrieval searches."""
        return [document(runbook, self.places[name]) for name, runbook in self.runbooks.items()]

    @cached_property
    def sha256(self) -> str:
        """Of all that stands on it (hex): two processes that say the same have the same runbooks."""
        lines = (f"{name} {book.revision}\n" for name, book in sorted(self.runbooks.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """What one folder gave: its runbooks as they were parsed, what is wrong with the rest, and the reviewed commit."""

    books: Mapping[str, Runbook]
    problems: Sequence[Problem]
    commit: str = ""


class Librarian:
    """
    Reads the folders again and again; a file that did not change is neither parsed nor linted again.

    Of a folder with `reviewed`, only what that branch holds counts; when Git cannot say, nothing of it does. A folder
    that could be read and now cannot (its volume is away, Git gives no answer) stays as it was, and the shelf says so.
    """

    def __init__(self, folders: Sequence[RunbookFolder] = ()) -> None:
        self._folders = (RunbookFolder(path=FOLDER), *folders)
        self._names = vocabulary()
        self._last: dict[int, _Folder] = {}
        self._faults: dict[tuple[str, str], Sequence[Problem]] = {}

    def shelf(self) -> Shelf:
        """The shipped runbooks and the team's own; a team's of the same name takes the place of ours. Blocks."""
        books: dict[str, Runbook] = {}
        places: dict[str, Place] = {}
        problems: list[Problem] = []
        faults: dict[tuple[str, str], Sequence[Problem]] = {}
        for place, folder in enumerate(self._folders):
            found = self._read(place, folder)
            problems += found.problems
            for name, book in found.books.items():
                which = (name, book.revision)
                wrong = faults[which] = self._faults[which] if which in self._faults else lint(book, self._names)
                problems += wrong
                books[name] = replace(book, steps=()) if wrong else book
                file = f"{name}.md"
                url = f"{folder.url.rstrip('/')}/{file}" if folder.url else ""
                places[name] = Place(file=str(folder.path / file), url=url, commit=found.commit)
        self._faults = faults
        return Shelf(runbooks=books, places=places, problems=tuple(problems))

    def _read(self, place: int, folder: RunbookFolder) -> _Folder:
        before = self._last.get(place)
        try:
            found = _counting(folder, before.books if before else {})
        except (FolderUnreadableError, NotReviewedError) as error:
            return _away(folder, before, error)
        self._last[place] = found
        return found


def open_shelf(folders: Sequence[RunbookFolder] = ()) -> Shelf:
    """The shelf as it is now, read once."""
    return Librarian(folders).shelf()


def _counting(folder: RunbookFolder, known: Mapping[str, Runbook]) -> _Folder:
    """What counts of the folder. Raises FolderUnreadableError, NotReviewedError."""
    files = runbook_files(folder.path)
    if folder.reviewed is None:
        found, problems = load_folder(folder.path, known=known)
        return _Folder(books={book.runbook_id: book for book in found}, problems=problems)
    branch = reviewed(folder.path, folder.reviewed, [file.name for file in files])
    found, problems = load_folder(folder.path, branch.objection, known)
    return _Folder(books={book.runbook_id: book for book in found}, problems=problems, commit=branch.commit)


def _away(folder: RunbookFolder, before: _Folder | None, why: Exception) -> _Folder:
    """The folder as it was when it could be read last; nothing where it never could."""
    message, remedy = str(why), "check the path of the runbooks"
    if isinstance(why, NotReviewedError):
        message = f"what {folder.reviewed} holds cannot be told: {why}"
        remedy = f"make the folder part of a Git work tree that has fetched {folder.reviewed}"
    kept = f"its {len(before.books)} runbooks stay as they were" if before else "none of its files counts"
    problem = Problem(path=str(folder.path), line=1, message=f"{message}; {kept}", remedy=remedy)
    return replace(before or _Folder(books={}, problems=()), problems=(problem,))


def document(runbook: Runbook, place: Place = Place()) -> Document:
    """The runbook as retrieval sees it: its prose and what its author declared, without its steps' parameters."""
    return Document(
        doc_id=runbook.runbook_id,
        title=runbook.title,
        sections=tuple(Section(heading=heading, text=text) for heading, text in runbook.sections),
        alerts=runbook.alerts,
        causes=runbook.causes,
        services=runbook.services,
        url=place.url,
        origin=Origin(file=place.file, owner=runbook.owner, commit=place.commit, sha256=runbook.revision),
    )


def vocabulary() -> Vocabulary:
    """Every name that a runbook may use; runbooks and diagnostics know each other only through it."""
    return Vocabulary(checks=CHECKS, causes=knowledge.load().causes, actions=build_actions())


def faults(paths: Sequence[Path] = (), *, today: date | None = None) -> tuple[int, list[Problem]]:
    """
    How many runbooks were read from these files and folders (ours when none), and what makes some unusable.

    With a day, also what their authors have to mend by then: `upkeep`.
    """
    names = vocabulary()
    count, problems = 0, list[Problem]()
    for folder, read, broken in map(_read, paths or (FOLDER,)):
        count += len(read)
        wrong = [*broken]
        for each in read:
            wrong += lint(each, names)
            if today is not None:
                wrong += upkeep(each, names.actions, today=today, folder=folder)
        problems += [replace(problem, path=str(folder / problem.path)) for problem in wrong]
    return count, sorted(set(problems))


def _read(path: Path) -> tuple[Path, Sequence[Runbook], Sequence[Problem]]:
    """The folder, and what can and what cannot be read of it; or of a file alone."""
    if path.is_dir():
        return path, *load_folder(path)
    try:
        return path.parent, (load_file(path),), ()
    except RunbookError as error:
        return path.parent, (), error.problems


async def search_runbooks(
    question: Question, folders: Sequence[RunbookFolder], embedder: Embedder
) -> tuple[Shelf, list[Hit]]:
    """
    The runbooks that fit a person's words, and the shelf they stand on.

    Raises WeightsError when the embedding model is not ours, EmbeddingError when it does not work.
    """
    search = RunbookSearch(embedder)
    await search.warm()
    shelf = await asyncio.to_thread(open_shelf, folders)
    await search.refresh(shelf.documents())
    return shelf, await search.search(question, limit=3)
