"""Markdown to a document: one section per heading, prose kept as it is."""

from __future__ import annotations

from markdown_it import MarkdownIt

from retrieval.documents import Document, Section


def document_from_markdown(doc_id: str, markdown: str, *, title: str = "", url: str = "") -> Document:
    """
    A document without declared alerts or causes, from Markdown of any origin.

    The title is the first heading's unless given; text before any heading becomes a section without a heading.
    Headings inside fences are not headings.
    """
    lines = markdown.splitlines()
    tokens = MarkdownIt("commonmark").parse(markdown)
    headings = [
        (token.map[0], token.map[1], tokens[at + 1].content.strip())
        for at, token in enumerate(tokens)
        if token.type == "heading_open" and token.map is not None and token.level == 0
    ]
    ends = [start for start, _, _ in headings] + [len(lines)]

    preamble = "\n".join(lines[: ends[0]]).strip()
    sections = [Section(heading="", text=preamble)] if preamble else []
    sections += [
        Section(heading=heading, text="\n".join(lines[body:end]).strip())
        for (_, body, heading), end in zip(headings, ends[1:], strict=True)
    ]
    first = headings[0][2] if headings else doc_id
    return Document(doc_id=doc_id, title=title or first, sections=tuple(sections), url=url)


def anchor(heading: str) -> str:
    """A heading as the fragment of an address, the way GitHub and GitLab write it; empty without a heading."""
    kept = "".join(letter for letter in heading.strip().lower() if letter.isalnum() or letter in " -_")
    return f"#{kept.replace(' ', '-')}" if kept else ""
