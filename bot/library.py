"""The runbooks of this installation: read, checked, and as documents for search."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import runbooks
from bot.config import RunbookFolder
from bot.pages import Page, markdown_files, read_pages
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from retrieval.documents import Document, Hit, Origin, Question, Section
from retrieval.ranking import RunbookSearch
from runbooks.engine.actions import build_actions
from runbooks.engine.library import FolderUnreadableError, Objection, load_file, load_folder, runbook_files
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.reviewed import NotReviewedError, reviewed
from runbooks.engine.signed import UnsignedError, signed
from runbooks.engine.upkeep import upkeep
from runbooks.engine.values import Runbook

FOLDER = Path(runbooks.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a runbook lies (`file` in `folder`), where people read it, and the reviewed commit (hex) that holds it."""

    file: str = ""
    folder: str = ""
    url: str = ""
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """
    The runbooks of an installation by id, where they came from and are read, and what is wrong with some; and by their
    names the plain pages, which are found and read, and have no steps.

    A file that is no runbook is left out. One that `lint` complains about is found and read, and none of its steps is
    ever offered: a check that does not exist would only be missed when the change is made. A shelf never changes:
    `bot.shelf` puts another in its place.
    """

    runbooks: Mapping[str, Runbook]
    places: Mapping[str, Place]
    problems: tuple[Problem, ...]
    pages: Mapping[str, Page] = field(default_factory=dict)

    def documents(self) -> list[Document]:
        """What retrieval searches."""
        books = [document(runbook, self.places[name]) for name, runbook in self.runbooks.items()]
        return [*books, *(each for page in self.pages.values() for each in page.documents)]

    @cached_property
    def sha256(self) -> str:
        """Of all that stands on it (hex): two processes that say the same have the same runbooks."""
        revisions = {name: book.revision for name, book in self.runbooks.items()}
        revisions |= {name: page.origin.sha256 for name, page in self.pages.items()}
        lines = (f"{name} {revision}\n" for name, revision in sorted(revisions.items()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """What one folder gave as it was parsed, what is wrong with some of it, and the reviewed commit."""

    books: Mapping[str, Runbook]
    pages: Mapping[str, Page]
    problems: Sequence[Problem]
    commit: str = ""


class Librarian:
    """
    Reads the folders again and again; a file that did not change is neither parsed nor linted again.

    Of a folder with `reviewed` or `signed`, only what that branch or list holds counts; when neither can be asked,
    nothing of it does. A folder that could be read and now cannot (its volume is away, Git gives no answer) stays as it
    was, and the shelf says so.
    """

    def __init__(self, folders: Sequence[RunbookFolder] = ()) -> None:
        self._folders = (RunbookFolder(path=FOLDER), *folders)
        self._names = vocabulary()
        self._last: dict[int, _Folder] = {}
        self._faults: dict[tuple[str, str], Sequence[Problem]] = {}

    def shelf(self) -> Shelf:
        """The shipped runbooks and the team's own; a team's file of our name takes the place of ours. Blocks."""
        books: dict[str, Runbook] = {}
        pages: dict[str, Page] = {}
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
                at = {"file": str(folder.path / file), "folder": str(folder.path)}
                places[name] = Place(**at, url=url, commit=found.commit)
                pages.pop(name, None)
            for name, page in found.pages.items():
                pages[name] = page
                books.pop(name, None)
        self._faults = faults
        return Shelf(runbooks=books, places=places, problems=tuple(dict.fromkeys(problems)), pages=pages)

    def _read(self, place: int, folder: RunbookFolder) -> _Folder:
        before = self._last.get(place)
        try:
            found = _counting(folder, before or _Folder(books={}, pages={}, problems=()))
        except (FolderUnreadableError, NotReviewedError, UnsignedError) as error:
            return _away(folder, before, error)
        self._last[place] = found
        return found


def open_shelf(folders: Sequence[RunbookFolder] = ()) -> Shelf:
    """The shelf as it is now, read once."""
    return Librarian(folders).shelf()


def _counting(folder: RunbookFolder, before: _Folder) -> _Folder:
    """What counts of the folder. Raises FolderUnreadableError, NotReviewedError, UnsignedError."""
    runbook_files(folder.path)
    objection, commit = _proof(folder)
    books, broken = load_folder(folder.path, objection, before.books)
    pages, torn = read_pages(folder, objection, commit, before.pages)
    return _Folder(
        books={book.runbook_id: book for book in books}, pages=pages, problems=(*broken, *torn), commit=commit
    )


def _proof(folder: RunbookFolder) -> tuple[Objection | None, str]:
    """What tells whether a file was reviewed, and the commit. Raises NotReviewedError, UnsignedError."""
    if folder.signed is not None:
        return signed(folder.path, folder.signed).objection, ""
    if folder.reviewed is not None:
        branch = reviewed(folder.path, folder.reviewed, markdown_files(folder.path))
        return branch.objection, branch.commit
    return None, ""


def _away(folder: RunbookFolder, before: _Folder | None, why: Exception) -> _Folder:
    """The folder as it was when it could be read last; nothing where it never could."""
    message, remedy = str(why), "check the path of the runbooks"
    if isinstance(why, NotReviewedError):
        message = f"what {folder.reviewed} holds cannot be told: {why}"
        remedy = f"make the folder part of a Git work tree that has fetched {folder.reviewed}"
    elif isinstance(why, UnsignedError):
        message, remedy = f"its signed list proves nothing: {why}", "sign it: watchkeeper runbook sign FOLDER --key KEY"
    kept = f"its {len(before.books)} runbooks stay as they were" if before else "none of its files counts"
    problem = Problem(path=str(folder.path), line=1, message=f"{message}; {kept}", remedy=remedy)
    return replace(before or _Folder(books={}, pages={}, problems=()), problems=(problem,))


def document(runbook: Runbook, place: Place = Place()) -> Document:
    """The runbook as retrieval sees it: its prose and what its author declared, without its steps' parameters."""
    return Document(
        doc_id=runbook.runbook_id,
        title=runbook.title,
        sections=tuple(Section(heading=heading, text=text) for heading, text in runbook.sections),
        alerts=runbook.alerts,
        causes=runbook.causes,
        services=runbook.services,
        labels=tuple(dict.fromkeys(value for values in runbook.labels.values() for value in values)),
        url=place.url,
        origin=Origin(
            file=place.file, folder=place.folder, owner=runbook.owner, commit=place.commit, sha256=runbook.revision
        ),
    )


def vocabulary() -> Vocabulary:
    """Every name that a runbook may use; runbooks and diagnostics know each other only through it."""
    return Vocabulary(checks=CHECKS, causes=knowledge.load().causes, actions=build_actions())


def faults(paths: Sequence[Path] = (), *, today: date | None = None) -> tuple[int, list[Problem]]:
    """
    How many runbooks were read from these files and folders (ours when none), and what is wrong with them and with the
    plain pages there.

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
        books, broken = load_folder(path)
        return path, books, (*broken, *read_pages(RunbookFolder(path=path))[1])
    try:
        return path.parent, (load_file(path),), ()
    except RunbookError as error:
        return path.parent, (), error.problems


async def search_runbooks(
    question: Question, folders: Sequence[RunbookFolder], search: RunbookSearch
) -> tuple[Shelf, list[Hit]]:
    """
    The runbooks that fit a person's words, and the shelf they stand on.

    Raises WeightsError when the embedding model is not ours, EmbeddingError when it does not work.
    """
    await search.warm()
    shelf = await asyncio.to_thread(open_shelf, folders)
    await search.refresh(shelf.documents())
    return shelf, await search.search(question, limit=3)
