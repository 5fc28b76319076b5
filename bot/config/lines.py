"""
On which line of a TOML text a value stands, so that an error can point at it.

Python's tomllib gives values without positions. This reads only headers and keys, of a text that tomllib has accepted;
what stands inside an inline table or array is found at the line of the key that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

TomlPath = tuple[str | int, ...]
"""Keys and array positions from the root: ("service", 0, "budgets", "ttft_p95_s")."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
_ONE_KEY = re.compile(_KEY)
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'  # multi-line strings may hold what looks like headers
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*|[\[\]{}\n]",
    re.DOTALL,
)


class TomlLines:
    """The line of every header and key of one TOML text; lines count from 1."""

    def __init__(self, text: str) -> None:
        self._lines: dict[TomlPath, int] = {(): 1}
        table: TomlPath = ()
        counts: dict[TomlPath, int] = {}
        for line, statement in _statements(text):
            if header := _HEADER.match(statement):
                table = self._resolve(_keys(header[2]), counts, appends=header[1] == "[[")
                self._lines.setdefault(table, line)
            elif assignment := _ASSIGNMENT.match(statement):
                path = table
                for key in _keys(assignment[1]):
                    path = (*path, key)
                    self._lines.setdefault(path, line)

    def line_of(self, path: TomlPath) -> int:
        """The line of `path`, or of the nearest thing around it that has a line of its own."""
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    @staticmethod
    def _resolve(keys: tuple[str, ...], counts: dict[TomlPath, int], *, appends: bool) -> TomlPath:
        """`[a.b]` below `[[a]]` means the newest element of a."""
        path: TomlPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            if path in counts:
                path = (*path, counts[path])
        path = (*path, keys[-1])
        if not appends:
            return path
        counts[path] = counts.get(path, -1) + 1
        return (*path, counts[path])


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header or assignment with its first line; brackets and multi-line strings keep a statement together."""
    depth, start, line, first = 0, 0, 1, 1
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in {"[", "{"}:
            depth += 1
        elif word in {"]", "}"}:
            depth -= 1
        line += word.count("\n")
        if word == "\n" and depth == 0:
            yield first, text[start : token.start()]
            start, first = token.end(), line
    yield first, text[start:]


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key.strip("\"'") if key[0] in "\"'" else key for key in _ONE_KEY.findall(dotted))


def shown(path: TomlPath, document: Mapping[str, object]) -> str:
    """The path as people speak of it: `service "chat", budgets.ttft_p95_s`."""
    kind, position = (*path, None, None)[:2]
    if not isinstance(position, int):
        return _tail(path)
    entries = document.get(str(kind))
    entry = entries[position] if isinstance(entries, list) and position < len(entries) else None
    name = entry.get("name") or entry.get("id") if isinstance(entry, dict) else None
    subject = f'{kind} "{name}"' if isinstance(name, str) else f"{kind} number {position + 1}"
    return ", ".join(filter(None, (subject, _tail(path[2:]))))


def _tail(rest: TomlPath) -> str:
    text = ""
    for part in rest:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
