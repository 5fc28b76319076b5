"""Markdown to documents: one section per heading, prose kept as it is; a page of many alerts becomes many documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from retrieval.documents import Document, Section

Split = Literal["alerts", "heading"]
"""
Which headings of a page begin a document of their own.

`alerts`: those of a level on which two or more are the names of alerts, written as one CamelCase word or declared in
the front matter. `heading`: those of the highest level that has two or more headings.
"""

_MARKDOWN = MarkdownIt("commonmark").disable("inline")  # only headings are asked for
_INLINE = MarkdownIt("commonmark")
_CAMEL_CASE = re.compile(r"[A-Za-z0-9]*[a-z0-9][A-Z][A-Za-z0-9]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A section with the level of its heading, 1 to 6; 0 before any heading."""

    level: int
    section: Section


@dataclass(kw_only=True)
class _Anchors:
    """The fragments of one page's addresses: GitHub and GitLab number those that a page has twice."""

    used: dict[str, int] = field(default_factory=dict)

    def of(self, heading: str) -> str:
        name = unique = anchor(heading)
        while name and unique in self.used:
            self.used[name] += 1
            unique = f"{name}-{self.used[name]}"
        self.used[unique] = 0
        return unique


def document_from_markdown(doc_id: str, markdown: str, *, title: str = "", url: str = "") -> Document:
    """
    A document without declared alerts or causes, from Markdown of any origin.

    The title is the first heading's unless given; text before any heading becomes a section without a heading.
    Headings inside fences are not headings.
    """
    sections = tuple(part.section for part in _parts(markdown))
    first = next((section.heading for section in sections if section.heading), doc_id)
    return Document(doc_id=doc_id, title=title or first, sections=sections, url=url)


def documents_from_page(page: Document, markdown: str, split: Split) -> list[Document]:
    """
    The documents that a page is: one for each heading that begins one, and what is left as the page itself.

    `page` has what was declared for all of it, and the sections to put in front. Each document bears its services,
    labels and origin, a title and an anchor of its own, and the headings above it as the path of its sections; causes
    and signals stay with the page, which does not say which alert they belong to. Nothing of the text is left out.
    """
    parts = _parts(markdown)
    title = page.title or next((part.section.heading for part in parts if part.section.heading), page.doc_id)
    page = replace(page, title=title)
    starts = _starts(parts, split, frozenset(page.alerts))
    rest: list[Section] = list(page.sections)
    own: list[list[Section]] = []
    level = 0  # of the document that is being filled; 0: the page itself
    for part in parts:
        if part.level and part.level == starts.level and part.section.heading in starts.names:
            own.append([])
            level = part.level
        elif part.level <= level:
            level = 0
        (own[-1] if level else rest).append(part.section)
    documents = [_own_document(page, sections, split) for sections in own]
    left = replace(page, alerts=tuple(name for name in page.alerts if name not in starts.names), sections=tuple(rest))
    if not documents or any(section.text for section in rest) or left.alerts or left.causes or left.signals:
        documents.insert(0, left)
    return documents


def _own_document(page: Document, sections: Sequence[Section], split: Split) -> Document:
    first = sections[0]
    above = first.path if page.title in first.path else (page.title, *first.path)
    return replace(
        page,
        doc_id=f"{page.doc_id}{first.anchor}",
        title=first.heading,
        alerts=(first.heading,) if split == "alerts" or first.heading in page.alerts else (),
        causes=(),
        signals=(),
        sections=tuple(replace(each, path=(*above, *each.path[len(first.path) :])) for each in sections),
    )


@dataclass(frozen=True, kw_only=True)
class _Starts:
    level: int = 0
    names: frozenset[str] = frozenset()


def _starts(parts: Sequence[_Part], split: Split, declared: frozenset[str]) -> _Starts:
    """The highest level with two headings that may begin a document, and those headings."""
    for level in range(1, 7):
        names = [part.section.heading for part in parts if part.level == level]
        if split == "alerts":
            names = [name for name in names if name in declared or _CAMEL_CASE.fullmatch(name)]
        if len(names) > 1:
            return _Starts(level=level, names=frozenset(names))
    return _Starts()


def _parts(markdown: str) -> list[_Part]:
    text = markdown.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    headings = list(_headings(_MARKDOWN.parse(text)))
    ends = [start for start, _, _, _ in headings] + [len(lines)]

    preamble = "\n".join(lines[: ends[0]]).strip()
    parts = [_Part(level=0, section=Section(heading="", text=preamble))] if preamble else []
    anchors = _Anchors()
    above: Mapping[int, str] = {}
    for (_, body, level, heading), end in zip(headings, ends[1:], strict=True):
        above = {deep: name for deep, name in above.items() if deep < level}
        path = tuple(name for name in above.values() if name)
        section = Section(
            heading=heading, text="\n".join(lines[body:end]).strip(), anchor=anchors.of(heading), path=path
        )
        parts.append(_Part(level=level, section=section))
        above = {**above, level: heading}
    return parts


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[int, int, int, str]]:
    """First line, first line of what is beneath, level and words of each heading at the left margin."""
    for at, token in enumerate(tokens):
        if token.type == "heading_open" and token.map is not None and token.level == 0:
            yield token.map[0], token.map[1], int(token.tag[1:]), _words(tokens[at + 1].content)


def _words(heading: str) -> str:
    """A heading as a reader sees it: `code`, *emphasis* and [links](to) without their marks."""
    [inline] = _INLINE.parseInline(heading)
    shown = [each for each in inline.children or () if each.type != "html_inline"]
    return "".join(" " if each.type.endswith("break") else each.content for each in shown).strip()


def anchor(heading: str) -> str:
    """A heading as the fragment of an address, the way GitHub and GitLab write it; empty without a heading."""
    kept = "".join(letter for letter in heading.strip().lower() if letter.isalnum() or letter in " -_")
    return f"#{kept.replace(' ', '-')}" if kept else ""
