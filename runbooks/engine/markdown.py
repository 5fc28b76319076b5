"""Plain facts of a Markdown text, line by line: its headings, what they can be linked to by, and its links."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r"\s{0,12}(?:[-*+>]\s+|[0-9]{1,9}[.)]\s+)*(`{3,}|~{3,})")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)|^\s{0,3}\[[^\]^]+\]:\s+<?(\S+?)>?(?:\s|$)")
_ID = re.compile(r"<a\s+(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines outside fenced blocks with their numbers from 1."""
    fence = ""
    for number, line in enumerate(text.split("\n"), start=1):
        mark = _FENCE.match(line)
        if fence:
            closes = mark and mark[1].startswith(fence) and line.strip().strip("`~") == ""
            fence = "" if closes else fence
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Line, level and words of each `# heading`."""
    for number, line in text_lines(text):
        if found := _HEADING.match(line):
            yield number, len(found[1]), found[2]


def anchors(text: str) -> set[str]:
    """What `#...` may name: GitHub's names of the headings, and those of `<a id>`."""
    found: set[str] = set()
    for _, _, words in headings(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", words).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found | set(_ID.findall(text))


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line and target of each link and image."""
    for number, line in text_lines(text):
        for inline, reference in _LINK.findall(_CODE.sub("", line)):
            yield number, inline or reference
