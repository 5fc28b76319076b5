"""The runbooks of this installation: read, checked, and as documents for search."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import runbooks
from bot.config import RunbookFolder
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from retrieval.documents import Document, Hit, Origin, Question, Section
from retrieval.embedder import Embedder
from retrieval.ranking import RunbookSearch
from runbooks.engine.actions import build_actions
from runbooks.engine.library import load_file, load_folder, runbook_files
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
    ever offered: a check that does not exist would only be missed when the change is made.
    """

    runbooks: Mapping[str, Runbook]
    places: Mapping[str, Place]
    problems: tuple[Problem, ...]

    def documents(self) -> list[Document]:
        """What retrieval searches."""
        return [document(runbook, self.places[name]) for name, runbook in self.runbooks.items()]


def open_shelf(folders: Sequence[RunbookFolder] = ()) -> Shelf:
    """
    The shipped runbooks and the team's own; a team's runbook of the same name takes the place of ours.

    Of a folder with `reviewed`, only what that branch holds counts; when Git cannot say, nothing of it does.
    """
    books: dict[str, Runbook] = {}
    places: dict[str, Place] = {}
    problems: list[Problem] = []
    names = vocabulary()
    for folder in (RunbookFolder(path=FOLDER), *folders):
        found, broken, commit = _counting(folder)
        problems += broken
        for book in found:
            wrong = lint(book, names)
            problems += wrong
            books[book.runbook_id] = replace(book, steps=()) if wrong else book
            file = f"{book.runbook_id}.md"
            url = f"{folder.url.rstrip('/')}/{file}" if folder.url else ""
            places[book.runbook_id] = Place(file=str(folder.path / file), url=url, commit=commit)
    return Shelf(runbooks=books, places=places, problems=tuple(problems))


def _counting(folder: RunbookFolder) -> tuple[Sequence[Runbook], Sequence[Problem], str]:
    """The folder's runbooks that count, what is wrong with the rest, and the reviewed commit, if one was asked for."""
    if folder.reviewed is None or not folder.path.is_dir():
        return *load_folder(folder.path), ""
    try:
        branch = reviewed(folder.path, folder.reviewed, [file.name for file in runbook_files(folder.path)])
    except NotReviewedError as error:
        problem = Problem(
            path=str(folder.path),
            line=1,
            message=f"none of its files counts, as what {folder.reviewed} holds cannot be told: {error}",
            remedy=f"make the folder part of a Git work tree that has fetched {folder.reviewed}",
        )
        return (), (problem,), ""
    return *load_folder(folder.path, branch.objection), branch.commit


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
