"""
Other people's Markdown as runbooks of ours: Agent Skills (`SKILL.md`) and runme's annotated blocks.

The prose stays as it is, line by line. A block that a program ran there becomes a step that a person does here: what a
stranger's file wants to run is text, and only an author of ours can turn it into an action. What our format has no
place for is told, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

from runbooks.engine.markdown import headings
from runbooks.engine.parse import MAX_CHARS
from runbooks.engine.scaffold import front_matter, plain, quoted, slug
from runbooks.engine.yaml_block import Entry, YamlBlockError, load_mapping

SHELLS = frozenset({"sh", "bash", "zsh", "fish", "shell", "console", "shell-session", "powershell", "pwsh", "ps1"})
_NAME = re.compile(r"[\"']?\bname[\"']?\s*[:=]\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s,}\"']+))")
_ATTRIBUTE = re.compile(r"[\"']?([A-Za-z_][\w.-]*)[\"']?\s*[:=]\s*(\"[^\"]*\"|'[^']*'|[^\s,}]+)")
_KEPT = ("name", "description", "title")


class ImportRefusedError(Exception):
    """The text cannot be imported; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Something of the source that the runbook does not have; `line` counts from 1 in the source."""

    line: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The runbook's name and text, and what was lost on the way, in the order of the source's lines."""

    runbook_id: str
    text: str
    steps: int
    lost: tuple[Lost, ...]


def imported(text: str, file_name: str) -> Imported:
    """
    The text as a runbook; `file_name` without its ending names it where the text does not.

    Raises ImportRefusedError.
    """
    if len(text) > MAX_CHARS // 2:
        raise ImportRefusedError(f"{len(text)} characters are too many: split it into files under {MAX_CHARS // 2}")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    source = _Source(lines=lines)
    front, start = source.front_matter()
    name = slug(_text_of(front, "name") or file_name)
    if not name:
        raise ImportRefusedError("neither the file nor its `name` has letters or digits: rename the file")
    first = next((words for _, level, words in headings("\n".join(lines[start:])) if level == 1), "")
    title = _text_of(front, "title") or plain(first) or name.replace("-", " ")
    body = source.body(start)
    description = _text_of(front, "description")
    parts = [front_matter(name=name, title=title), f"What this is for: {description}\n" if description else "", body]
    result = "\n".join(filter(None, parts))
    if len(result) > MAX_CHARS:
        raise ImportRefusedError(f"{source.steps} blocks make it too long: split it into several files")
    lost = tuple(sorted(source.lost, key=lambda each: (each.line, each.what)))
    return Imported(runbook_id=name, text=result, steps=source.steps, lost=lost)


def _text_of(front: dict[str, Entry], name: str) -> str:
    value = front[name].value if name in front else None
    return plain(value) if isinstance(value, str) else ""


@dataclass(kw_only=True)
class _Source:
    """One reading of one file."""

    lines: list[str]
    lost: list[Lost] = field(default_factory=list)
    steps: int = 0

    def lose(self, index: int, what: str) -> None:
        """`index` is a line counted from 0."""
        self.lost.append(Lost(line=index + 1, what=what))

    def front_matter(self) -> tuple[dict[str, Entry], int]:
        """Its entries, and the index of the first line behind it. What we have no field for is lost."""
        if self.lines[0].rstrip() != "---":
            return {}, 0
        end = next((i for i, line in enumerate(self.lines) if i and line.rstrip() == "---"), None)
        if end is None:
            return {}, 0
        try:
            entries = load_mapping("\n".join(self.lines[1:end]))
        except YamlBlockError as error:
            self.lose(1 + error.line, f"the whole front matter: {error.message}")
            return {}, end + 1
        for name, entry in entries.items():
            if name not in _KEPT or not isinstance(entry.value, str):
                self.lose(1 + entry.line, f"`{name[:60]}` of the front matter has no place here")
        return entries, end + 1

    def body(self, start: int) -> str:
        """The body with a manual step for each block that was run."""
        tokens = MarkdownIt("commonmark").parse("\n" * start + "\n".join(self.lines[start:]))
        before: dict[int, list[str]] = {}
        after: dict[int, list[str]] = {}
        for block, outer in _fences(tokens):
            first, end = block.map or (0, 0)
            if outer is None and not _is_closed(self.lines[first + 1 : end], block.markup):
                after.setdefault(end, []).append(block.markup)
            rest = self._plain_info(block, first)
            name = _run_name(block, rest)
            if not name:
                continue
            self.steps += 1
            self.lose(first, f"a program ran `{name}` there; here a person does")
            heading = ["", f"### {self.steps}. {name}", ""]
            if outer is None:
                before.setdefault(first, []).extend(heading)
                after.setdefault(end, []).extend(_step(name))
            else:  # a step stands at the left margin, so it follows the list that its block is in
                after.setdefault(outer, []).extend([*heading, f"The block `{name}` above.", *_step(name)])
        result: list[str] = []
        for index in range(start, len(self.lines)):
            result += [*after.get(index, ()), *before.get(index, ()), self.lines[index]]
        return "\n".join([*result, *after.get(len(self.lines), ())]).strip("\n") + "\n"

    def _plain_info(self, block: Token, index: int) -> str:
        """Leave the block its language only; what else stood there, of which all but a name is lost."""
        language = _language(block)
        rest = block.info.strip()[len(language) :].strip()
        if rest:
            line = self.lines[index]
            self.lines[index] = line[: line.index(block.markup)] + block.markup + language
            attributes = [found for found in _ATTRIBUTE.findall(rest) if found[0] != "name"]
            for key, value in attributes:
                self.lose(index, f"`{key}={value}` of the block has no place here"[:200])
            if not attributes and not _NAME.search(rest):
                self.lose(index, f"`{rest}` of the block has no place here"[:200])
        return rest


def _fences(tokens: Sequence[Token]) -> Iterator[tuple[Token, int | None]]:
    """Each fenced block, with the line behind the list or quotation that it stands in; None at the left margin."""
    outer: int | None = None
    for token in tokens:
        if token.level == 0 and token.map:
            outer = token.map[1]
        if token.type == "fence":
            yield token, outer if token.level else None


def _is_closed(inside: Sequence[str], markup: str) -> bool:
    last = inside[-1].strip() if inside else ""
    return last.startswith(markup) and not last.strip(markup[0])


def _language(block: Token) -> str:
    found = re.match(r"[A-Za-z0-9_+#.-]+(?=\s|\{|$)", block.info.strip(), re.ASCII)
    return found[0] if found else ""


def _run_name(block: Token, rest: str) -> str:
    """What a program ran this block as; "" for a block that is there to be read."""
    if found := _NAME.search(rest):
        return (
            " ".join(re.findall(r"[A-Za-z0-9_.-]+", next(filter(None, found.groups()), ""), re.ASCII))[:80] or "block"
        )
    return "shell commands" if _language(block).lower() in SHELLS else ""


def _step(name: str) -> list[str]:
    instruction = f"Do the block {name} of this runbook by hand, and say what came of it."
    return ["", "```yaml step", "action: manual", f"with: {{instruction: {quoted(instruction)}}}", "```", ""]
