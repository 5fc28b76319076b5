"""
The small YAML that a runbook may contain: mappings, lists and plain scalars, each with the line it stands on.

PyYAML's own constructor is not used: it drops the lines, takes the last of two equal keys in silence, makes dates out
of versions, and raises ValueError on some numbers. Anchors, tags, deep nesting and long blocks are refused before
anything is built, since aliases can grow a kilobyte into gigabytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CHARS = 16 * 1024
MAX_DEPTH = 6
MAX_DOCUMENT_CHARS = 256 * 1024
MAX_DOCUMENT_DEPTH = 12
_INT = re.compile(r"[+-]?[0-9]{1,15}", re.ASCII)
_BOOLS = {"true": True, "false": False}


class YamlBlockError(Exception):
    """A block is not the YAML we take; `line` counts from 0 within the block."""

    def __init__(self, line: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.message, self.remedy = line, message, remedy


class _PlainLoader(yaml.SafeLoader):
    """Refuses what is exotic as soon as it comes by, before a node is made of it."""

    depth = 0
    deepest = MAX_DEPTH

    def get_event(self) -> Any:
        event: Any = super().get_event()  # type: ignore[no-untyped-call]  # PyYAML has no types for it
        line = event.start_mark.line if event.start_mark else 0
        if getattr(event, "anchor", None):  # an alias names its anchor here, too
            raise YamlBlockError(line, "anchors and aliases are not taken", "write the value out")
        if tag := getattr(event, "tag", None):
            raise YamlBlockError(line, f"the tag `{tag}` is not taken"[:120], "write a plain value")
        if isinstance(event, yaml.DocumentStartEvent) and event.explicit:
            raise YamlBlockError(line, "a second document starts here", "remove the `---`")
        self.depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if self.depth > self.deepest:
            raise YamlBlockError(line, f"nested deeper than {self.deepest}", "flatten it")
        return event


class _DocumentLoader(_PlainLoader):
    deepest = MAX_DOCUMENT_DEPTH


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A value with the line of its key (from 0, within the block)."""

    value: Any
    line: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole file of YAML: its value, and on which line each part of it stands."""

    value: Any
    _root: yaml.Node = field(repr=False)

    def line_of(self, path: Sequence[str | int]) -> int:
        """The line, from 0, of what these keys and indexes lead to; where they lead nowhere, of the last one found."""
        node, line = self._root, self._root.start_mark.line
        for part in path:
            inner: yaml.Node | None = None
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == part), None)
                line, inner = (found[0].start_mark.line, found[1]) if found else (line, None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                inner = node.value[part]
                line = inner.start_mark.line
            if inner is None:
                return line
            node = inner
        return line


def load_document(text: str) -> Document:
    """A file of the same small YAML. Raises YamlBlockError and nothing else, whatever the text."""
    node = _composed(text, _DocumentLoader, MAX_DOCUMENT_CHARS)
    if node is None:
        raise YamlBlockError(0, "the file is empty", "write `format: 1` and what belongs to it")
    return Document(value=_value(node), _root=node)


def load_mapping(text: str) -> dict[str, Entry]:
    """The top level as a mapping of names. Raises YamlBlockError and nothing else, whatever the text."""
    node = _composed(text, _PlainLoader, MAX_CHARS)
    if not isinstance(node, yaml.MappingNode):
        raise YamlBlockError(0, "not a list of `name: value` lines", "write `name: value` on each line")
    return _entries(node)


def _composed(text: str, loader: type[_PlainLoader], most: int) -> yaml.Node | None:
    if len(text) > most:
        raise YamlBlockError(0, f"the block has {len(text)} characters", f"keep it under {most}")
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlBlockError(
            mark.line if mark else 0, f"not YAML: {error.problem}", "quote placeholders and texts with `: ` or `#`"
        ) from error
    except yaml.YAMLError as error:  # the reader's error for characters that YAML forbids has no mark
        raise YamlBlockError(0, "not YAML: it holds a control character", "remove it") from error
    return node


def _entries(node: yaml.MappingNode) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for key, value in node.value:
        line = key.start_mark.line
        if not isinstance(key, yaml.ScalarNode):
            raise YamlBlockError(line, "a key is not a word", 'quote placeholders: "{service}"')
        if key.value in entries:
            raise YamlBlockError(line, f"`{key.value}` stands twice", "keep one of them")
        entries[key.value] = Entry(value=_value(value), line=line)
    return entries


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {name: entry.value for name, entry in _entries(node).items()}
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _scalar(node.value, is_quoted=getattr(node, "style", None) is not None)


def _scalar(text: str, *, is_quoted: bool) -> str | int | float | bool | None:
    """Quoted is text. Plain is null, true, false, a decimal number, or else text: `on`, `012` and dates stay text."""
    if is_quoted:
        return text
    if text in ("", "~", "null"):
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text) and not re.fullmatch(r"[+-]?0[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[+-]?[0-9]{1,15}\.[0-9]{1,15}", text, re.ASCII) and math.isfinite(float(text)):
        return float(text)
    return text
