"""
Markdown to `Runbook`: front matter, sections, and the `yaml step` blocks that the machine can follow.

All that is wrong with a file is reported at once, each with its line and a remedy, so that an author needs one round
and not ten.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

from runbooks.engine.fields import Fields
from runbooks.engine.front_matter import Front, read_front
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.step_block import read_step
from runbooks.engine.values import Runbook, StepTemplate
from runbooks.engine.yaml_block import Entry, YamlBlockError, load_mapping

MAX_CHARS = 256 * 1024
STEP_INFO = "yaml step"
_MARKDOWN = MarkdownIt("commonmark").disable("inline")  # only headings and fences are asked for


def parse(text: str, runbook_id: str) -> Runbook:
    """
    The runbook that this text is; `runbook_id` is the file's name without `.md`.

    Raises RunbookError, and nothing else whatever the text, with everything that is wrong.
    """
    path = f"{runbook_id}.md"
    if len(text) > MAX_CHARS:
        raise RunbookError([_problem(path, 1, f"{len(text)} characters", f"keep a runbook under {MAX_CHARS}")])
    try:
        revision = hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        raise RunbookError([_problem(path, 1, "it holds half a character", "save the file as UTF-8")]) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    reader = _Reader(path=path, lines=text.split("\n"))
    front, body_start = reader.front_matter(runbook_id)
    headings = reader.headings_and_steps(body_start)
    if reader.problems:
        raise RunbookError(reader.problems)
    return Runbook(
        runbook_id=runbook_id,
        title=front.title,
        revision=revision,
        alerts=front.alerts,
        causes=front.causes,
        services=front.services,
        owner=front.owner,
        labels=front.labels,
        reviewed=front.reviewed,
        review_by=front.review_by,
        params=front.params,
        sections=tuple((heading.title, heading.prose) for heading in headings if heading.prose),
        steps=tuple(heading.step for heading in headings if heading.step is not None),
        text=text,
    )


def _problem(path: str, line: int, message: str, remedy: str) -> Problem:
    return Problem(path=path, line=line, message=message, remedy=remedy)


@dataclass(kw_only=True)
class _Heading:
    """A heading and what stands beneath it; `start` and `end` are line indexes from 0."""

    title: str
    level: int
    start: int
    end: int = 0
    prose: str = ""
    fences: list[Token] = field(default_factory=list)
    step: StepTemplate | None = None


@dataclass(kw_only=True)
class _Reader:
    """One reading of one file; collects problems instead of stopping at the first."""

    path: str
    lines: list[str]
    problems: list[Problem] = field(default_factory=list)

    def complain(self, index: int, message: str, remedy: str) -> None:
        """`index` is a line counted from 0."""
        self.problems.append(_problem(self.path, index + 1, message, remedy))

    def load(self, start: int, end: int) -> dict[str, Entry]:
        """The YAML of these lines, with line indexes of the file; empty after a complaint."""
        try:
            entries = load_mapping("\n".join(self.lines[start:end]))
        except YamlBlockError as error:
            self.complain(min(start + error.line, end - 1), error.message, error.remedy)
            return {}
        return {name: Entry(value=entry.value, line=entry.line + start) for name, entry in entries.items()}

    # The front matter.

    def front_matter(self, runbook_id: str) -> tuple[Front, int]:
        """The front matter's fields, complete even after complaints, and the index of the first line behind it."""
        if self.lines[0].rstrip() != "---":
            self.complain(0, "no front matter", "start the file with `---`, `format: 1`, `title: ...`, `---`")
            return Front(), 0
        fence = next((i for i, line in enumerate(self.lines) if i and line.rstrip() == "---"), None)
        if fence is None:
            self.complain(0, "the front matter does not end", "close it with a line `---`")
            return Front(), len(self.lines)
        before = len(self.problems)
        entries = self.load(1, fence)
        if len(self.problems) > before:
            return Front(), fence + 1
        return read_front(Fields(entries=entries, complain=self.complain, start=0), runbook_id), fence + 1

    # The body.

    def headings_and_steps(self, body_start: int) -> list[_Heading]:
        """Every heading with its prose and its step; what stands before the first heading has an empty title."""
        body = "\n" * body_start + "\n".join(self.lines[body_start:])
        tokens = _MARKDOWN.parse(body)
        headings = [_Heading(title="", level=0, start=body_start)]
        for i, token in enumerate(tokens):
            if token.type == "heading_open" and token.level == 0 and token.map:
                title = tokens[i + 1].content.strip()
                headings.append(_Heading(title=title, level=int(token.tag[1:]), start=token.map[0]))
            elif token.type == "fence" and token.map:
                self._take_fence(token, headings[-1])
        for heading, following in zip(headings, [*headings[1:], None], strict=True):
            heading.end = following.start if following else len(self.lines)
            heading.prose = self._prose(heading)
            heading.step = self._step(heading)
        return headings

    def _take_fence(self, token: Token, heading: _Heading) -> None:
        words = token.info.lower().split()
        line = token.map[0] if token.map else 0
        if words != STEP_INFO.split():
            if words[:1] in (["yaml"], ["yml"]) and len(words) > 1:
                self.complain(line, f"a block marked `{token.info.strip()[:40]}`", f"mark a step `{STEP_INFO}`")
            return
        if token.level:
            self.complain(line, "a step inside a list or quotation", "move it to the left margin, under its heading")
        elif heading.level != 3:
            self.complain(line, "a step without a `### heading` of its own", "put `### What it does` above it")
        elif heading.fences:
            self.complain(line, f"a second step under `{heading.title}`", "give it a `### heading` of its own")
        elif self._is_unclosed(token):
            self.complain(line, "the step block does not end", "close it with three backticks")
        else:
            heading.fences.append(token)

    def _is_unclosed(self, token: Token) -> bool:
        end = token.map[1] if token.map else 0
        return not self.lines[min(end, len(self.lines)) - 1].strip().startswith(token.markup)

    def _prose(self, heading: _Heading) -> str:
        """The Markdown beneath the heading, without the heading and without the step's block."""
        skip = set(range(heading.start, heading.start + _heading_lines(self.lines, heading)))
        for fence in heading.fences:
            if fence.map:
                skip |= set(range(*fence.map))
        return "\n".join(self.lines[i] for i in range(heading.start, heading.end) if i not in skip).strip()

    def _step(self, heading: _Heading) -> StepTemplate | None:
        if not heading.fences or not heading.fences[0].map:
            return None
        start, end = heading.fences[0].map
        before = len(self.problems)
        entries = self.load(start + 1, end - 1)
        if len(self.problems) > before:
            return None
        fields = Fields(entries=entries, complain=self.complain, start=start)
        step = read_step(fields, title=heading.title, prose=heading.prose)
        return step if len(self.problems) == before else None


def _heading_lines(lines: list[str], heading: _Heading) -> int:
    """How many lines the heading itself takes: one for `## x`, two for a title underlined with = or -."""
    if not heading.level:
        return 0
    return 1 if lines[heading.start].lstrip().startswith("#") else heading.title.count("\n") + 2
