"""The fields of a block of YAML, read one by one; what is wrong becomes a complaint with a line and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from runbooks.engine.yaml_block import Entry

Complain = Callable[[int, str, str], None]
"""A line's index in the file (from 0), what is wrong, and what its author can do about it."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The entries of one block; `start` is the line that a missing entry is reported at."""

    entries: Mapping[str, Entry]
    complain: Complain
    start: int

    def refuse_unknown(self, known: Sequence[str]) -> None:
        for name, entry in self.entries.items():
            if name not in known:
                self.complain(entry.line, f"`{name[:60]}` is not known here", f"use {', '.join(known)}")

    def text(self, name: str, *, required: bool = False) -> str:
        """A text without the spaces around it; "" when there is none."""
        entry = self.entries.get(name)
        if entry is None:
            if required:
                self.complain(self.start, f"`{name}` is missing", f"write `{name}: ...` in the front matter")
            return ""
        if not isinstance(entry.value, str) or not entry.value.strip():
            self.complain(entry.line, f"`{name}` is not a text", f"write `{name}: a few words`")
            return ""
        return entry.value.strip()

    def words(self, name: str) -> tuple[str, ...]:
        """One word or a list of words."""
        entry = self.entries.get(name)
        if entry is None:
            return ()
        words = _listed(entry.value)
        if not _are_words(words):
            self.complain(entry.line, f"`{name}` is not a list of names", f"write `{name}: [First, Second]`")
            return ()
        if len(set(words)) < len(words):
            self.complain(entry.line, f"`{name}` names something twice", "keep one of them")
        return tuple(words)

    def words_by_name(self, name: str) -> dict[str, tuple[str, ...]]:
        """A mapping of names to one word or a list of words."""
        entry = self.entries.get(name)
        if entry is None:
            return {}
        if not isinstance(entry.value, dict) or not all(_are_words(_listed(value)) for value in entry.value.values()):
            self.complain(entry.line, f"`{name}` does not map names to texts", f"write `{name}: {{team: chat}}`")
            return {}
        return {key: tuple(_listed(value)) for key, value in entry.value.items()}

    def day(self, name: str) -> date | None:
        """A date such as 2026-11-22."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        if isinstance(entry.value, str) and _DATE.fullmatch(entry.value):
            try:
                return date.fromisoformat(entry.value)
            except ValueError:
                pass  # 2026-02-30
        self.complain(entry.line, f"`{name}` is not a date", f"write `{name}: 2026-11-22`")
        return None

    def value(self, name: str, shape: TypeAdapter[_Value], given: Any, remedy: str, *, part: str = "") -> _Value | None:
        """`given`, the field's value or a `part` of it, as this shape; None after a complaint."""
        try:
            return shape.validate_python(given)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(each) for each in (name, part, *fault["loc"]) if each != "")
            self.complain(self.entries[name].line, f"`{where[:80]}`: {_plain(fault['msg'])}", remedy)
            return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _are_words(words: list[Any]) -> bool:
    return all(isinstance(word, str) and word.strip() for word in words)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")[:200]
