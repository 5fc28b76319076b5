"""The runbooks of this installation: read, checked, and as documents for search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import runbooks
from bot.config import RunbookFolder
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from retrieval.documents import Document, Hit, Question, Section
from retrieval.embedder import MiniLmEmbedder
from retrieval.ranking import RunbookSearch
from runbooks.engine.actions import build_actions
from runbooks.engine.library import load_file, load_folder
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.upkeep import upkeep
from runbooks.engine.values import Runbook

FOLDER = Path(runbooks.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """
    The runbooks of an installation by id, where people read them, and what is wrong with some.

    A file that is no runbook is left out. One that `lint` complains about is found and read, and none of its steps is
    ever offered: a check that does not exist would only be missed when the change is made.
    """

    runbooks: Mapping[str, Runbook]
    urls: Mapping[str, str]
    problems: tuple[Problem, ...]

    def documents(self) -> list[Document]:
        """What retrieval searches."""
        return [document(runbook, self.urls.get(name, "")) for name, runbook in self.runbooks.items()]


def open_shelf(folders: Sequence[RunbookFolder] = ()) -> Shelf:
    """The shipped runbooks and the team's own; a team's runbook of the same name takes the place of ours."""
    books: dict[str, Runbook] = {}
    urls: dict[str, str] = {}
    problems: list[Problem] = []
    names = vocabulary()
    for path, url in ((FOLDER, None), *((folder.path, folder.url) for folder in folders)):
        found, broken = load_folder(path)
        problems += broken
        for book in found:
            wrong = lint(book, names)
            problems += wrong
            books[book.runbook_id] = replace(book, steps=()) if wrong else book
            urls[book.runbook_id] = f"{url.rstrip('/')}/{book.runbook_id}.md" if url else ""
    return Shelf(runbooks=books, urls=urls, problems=tuple(problems))


def document(runbook: Runbook, url: str = "") -> Document:
    """The runbook as retrieval sees it: its prose and what its author declared, without its steps' parameters."""
    return Document(
        doc_id=runbook.runbook_id,
        title=runbook.title,
        sections=tuple(Section(heading=heading, text=text) for heading, text in runbook.sections),
        alerts=runbook.alerts,
        causes=runbook.causes,
        services=runbook.services,
        revision=runbook.revision,
        url=url,
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


async def search_runbooks(text: str) -> list[Hit]:
    """The shipped runbooks that fit a person's words. Raises WeightsError when the embedding model is not ours."""
    search = RunbookSearch(MiniLmEmbedder())
    await search.warm()
    await search.refresh(open_shelf().documents())
    return await search.search(Question(text=text), limit=3)
