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
from yaml.composer import Composer
from yaml.resolver import BaseResolver

MAX_CHARS = 16 * 1024
MAX_DEPTH = 6
MAX_DOCUMENT_CHARS = 256 * 1024
MAX_DOCUMENT_DEPTH = 12
_EVENTS = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[+-]?[0-9]{1,15}", re.ASCII)
_BOOLS = {"true": True, "false": False}


class YamlBlockError(Exception):
    """A block is not the YAML we take; `line` counts from 0 within the block."""

    def __init__(self, line: int, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.message, self.remedy = line, message, remedy


class _Composer(Composer, BaseResolver):
    """
    Nodes from the events of libyaml's parser, or of PyYAML's own where that is not built in.

    What is exotic is refused as soon as it comes by, before a node is made of it.
    """

    def __init__(self, text: str, deepest: int) -> None:
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._events = yaml.parse(text, Loader=_EVENTS)
        self._next: Any = next(self._events, None)
        self._depth, self._deepest = 0, deepest

    def check_event(self, *choices: type[yaml.Event]) -> bool:
        return isinstance(self._next, choices) if choices else self._next is not None

    def peek_event(self) -> Any:
        return self._next

    def get_event(self) -> Any:
        event, self._next = self._next, None
        self._refuse_exotic(event)
        self._next = next(self._events, None)
        return event

    def _refuse_exotic(self, event: Any) -> None:
        line = event.start_mark.line if event.start_mark else 0
        if getattr(event, "anchor", None):  # an alias names its anchor here, too
            raise YamlBlockError(line, "anchors and aliases are not taken", "write the value out")
        if tag := getattr(event, "tag", None):
            raise YamlBlockError(line, f"the tag `{tag}` is not taken"[:120], "write a plain value")
        if isinstance(event, yaml.DocumentStartEvent) and event.explicit:
            raise YamlBlockError(line, "a second document starts here", "remove the `---`")
        self._depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if self._depth > self._deepest:
            raise YamlBlockError(line, f"nested deeper than {self._deepest}", "flatten it")


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
    node = _composed(text, MAX_DOCUMENT_CHARS, MAX_DOCUMENT_DEPTH)
    if node is None:
        raise YamlBlockError(0, "the file is empty", "write `format: 1` and what belongs to it")
    return Document(value=_value(node), _root=node)


def load_mapping(text: str) -> dict[str, Entry]:
    """The top level as a mapping of names. Raises YamlBlockError and nothing else, whatever the text."""
    node = _composed(text, MAX_CHARS, MAX_DEPTH)
    if not isinstance(node, yaml.MappingNode):
        raise YamlBlockError(0, "not a list of `name: value` lines", "write `name: value` on each line")
    return _entries(node)


def _composed(text: str, most: int, deepest: int) -> yaml.Node | None:
    if len(text) > most:
        raise YamlBlockError(0, f"the block has {len(text)} characters", f"keep it under {most}")
    try:
        node: yaml.Node | None = _Composer(text, deepest).get_single_node()
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
    return _scalar(node.value, is_quoted=bool(getattr(node, "style", None)))


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
