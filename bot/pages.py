"""
Plain Markdown of a team as documents for search: pages, Agent Skills, pages with a section for each alert.

A page is read by people and never by the machine: it has no steps that run. What is wrong with one is told, and all
of its text that can be read is found nevertheless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from bot.config import RunbookFolder
from retrieval.documents import Document, Origin, Section
from retrieval.markdown import documents_from_page
from runbooks.engine.fields import Fields
from runbooks.engine.library import MOST_BYTES, NOT_A_RUNBOOK, Objection, claims_format, read_file, refused
from runbooks.engine.parse import STEP_INFO
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.yaml_block import Entry, YamlBlockError, load_mapping


def markdown_files(folder: Path) -> list[str]:
    """The names of all Markdown files in and below the folder, with `/`; none that is hidden, and no README.md."""
    found = (file.relative_to(folder) for file in folder.rglob("*.md") if file.is_file() and file.name != NOT_A_RUNBOOK)
    return sorted(name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts))


@dataclass(frozen=True, kw_only=True)
class Page:
    """One file: the documents that it is, where it came from, and what is wrong with it."""

    origin: Origin
    documents: Sequence[Document]
    problems: Sequence[Problem]


def read_pages(
    folder: RunbookFolder,
    objection: Objection | None = None,
    commit: str = "",
    known: Mapping[str, Page] | None = None,
) -> tuple[dict[str, Page], list[Problem]]:
    """
    Each page by its file's name without `.md`, and what is wrong with some. Blocks.

    What is directly in the folder and claims our format is a runbook and no page; further down all are pages. A page
    that is in `known` as it is now is not taken apart again.
    """
    pages: dict[str, Page] = {}
    problems: list[Problem] = []
    for name in markdown_files(folder.path):
        try:
            content = read_file(folder.path / name)
            if "/" not in name and claims_format(content):
                continue
            _refuse_a_dump(name, content)
            refused(name, content, objection)
        except RunbookError as error:
            problems += error.problems
            continue
        origin = Origin(
            file=str(folder.path / name),
            folder=str(folder.path),
            commit=commit,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        page_id = name.removesuffix(".md")
        page = (known or {}).get(page_id)
        if page is None or page.origin != origin:
            page = _page(folder, name, content, origin)
        pages[page_id] = page
        problems += page.problems
    return pages, problems


def _page(folder: RunbookFolder, name: str, content: bytes, origin: Origin) -> Page:
    problems: list[Problem] = []
    url = f"{folder.url.rstrip('/')}/{quote(name)}" if folder.url else ""
    document, text = _Reading(name=name, problems=problems).read(content, origin, url)
    return Page(origin=origin, documents=documents_from_page(document, text, folder.split), problems=problems)


def _refuse_a_dump(name: str, content: bytes) -> None:
    """To take a page apart costs several seconds a megabyte."""
    if len(content) > MOST_BYTES:
        message = f"more than {MOST_BYTES} bytes: none of it is searched"
        raise RunbookError([Problem(path=name, line=1, message=message, remedy="split it into several files")])


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """One page being read; adds to `problems` instead of stopping."""

    name: str
    problems: list[Problem]

    def read(self, content: bytes, origin: Origin, url: str) -> tuple[Document, str]:
        """What the page declares, as a document that has no more than its description yet; and its text."""
        text = self._decoded(content).replace("\r\n", "\n").replace("\r", "\n")
        front, body = _apart(text)
        fields = Fields(entries=self._entries(front), complain=self._complain, start=0)
        if f"```{STEP_INFO}" in body:
            self._complain(0, "a step that is never offered", "put the file into the folder itself, with `format: 1`")
        description = fields.text("description")
        document = Document(
            doc_id=self.name.removesuffix(".md"),
            title=fields.text("title") or fields.text("name"),
            sections=(Section(heading="", text=description),) if description else (),
            alerts=fields.words("alerts"),
            causes=fields.words("causes"),
            services=fields.words("services"),
            labels=_labels(fields),
            signals=fields.words("signals"),
            url=url,
            origin=replace(origin, owner=fields.text("owner")),
        )
        return document, body

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n")
            self._complain(line, "not UTF-8: what cannot be read is left out", "save the file as UTF-8")
            return content.decode("utf-8-sig", errors="replace")

    def _entries(self, front: str) -> Mapping[str, Entry]:
        try:
            return load_mapping(front) if front.strip() else {}
        except YamlBlockError as error:
            remedy = f"{error.remedy}; until then its text alone is searched"
            self._complain(error.line + 1, f"front matter: {error.message}", remedy)
            return {}

    def _complain(self, index: int, message: str, remedy: str) -> None:
        """`index` is a line counted from 0."""
        self.problems.append(Problem(path=self.name, line=index + 1, message=message, remedy=remedy))


def _apart(text: str) -> tuple[str, str]:
    """Front matter and the text beneath; a page that starts with `---` and has no second one is all text."""
    lines = text.split("\n")
    end = next((at for at, line in enumerate(lines) if at and line.rstrip() == "---"), 0)
    if not end or lines[0].rstrip() != "---":
        return "", text
    return "\n".join(lines[1:end]), "\n".join(lines[end + 1 :])


def _labels(fields: Fields) -> tuple[str, ...]:
    """A list of words, or a mapping such as `{team: chat}`, of which the values are kept."""
    entry = fields.entries.get("labels")
    if entry is None or not isinstance(entry.value, dict):
        return fields.words("labels")
    return tuple(dict.fromkeys(value for values in fields.words_by_name("labels").values() for value in values))
