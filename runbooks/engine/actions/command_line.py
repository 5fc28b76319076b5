"""A command line as a list with holes: which one may stand in the configuration, and what may fill its holes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

_HOLE = re.compile(r"\{([a-z][a-z0-9_]*)\}", re.ASCII)
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "csh", "tcsh"})


def faults(argv: Sequence[str], arguments: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with `argv` and the patterns of its `arguments`: problem and remedy."""
    if not PurePosixPath(argv[0]).is_absolute() or _HOLE.search(argv[0]):
        yield f"{argv[0]!r} is not an absolute path", "write where the program is, such as /usr/bin/env"
    for element in argv:
        if not element or any(char in element for char in "\0\n\r"):
            yield f"{element!r} is no argument", "remove empty elements, line breaks and NUL"
        elif _HOLE.search(element) and not _HOLE.fullmatch(element):
            yield f"the placeholder in {element!r} is not a whole element", 'write "--option", "{name}" as two elements'
    used = set(_holes(argv))
    for name in sorted(used - set(arguments)):
        yield f"nobody says what {{{name}}} may be", f'add it to arguments: {name} = "[a-z0-9-]{{1,40}}"'
    for name in sorted(set(arguments) - used):
        yield f"the argument {name} is not in argv", f'add "{{{name}}}" to argv, or remove it'
    if used and PurePosixPath(argv[0]).name in _SHELLS and any(re.match(r"-\w*c", element) for element in argv[1:]):
        yield f"{argv[0]} -c would read a filled placeholder as a script", "put the script into a file and name that"


def filled(argv: Sequence[str], arguments: Mapping[str, str], values: Mapping[str, str]) -> tuple[str, ...]:
    """`argv` with its placeholders replaced, each by one whole element. Raises ValueError with what does not fit."""
    if unknown := sorted(set(values) - set(arguments)):
        raise ValueError(f"it takes no argument {', '.join(unknown)}")
    if missing := sorted(set(arguments) - set(values)):
        raise ValueError(f"its argument {', '.join(missing)} is missing")
    for name, value in values.items():
        if why := _unfit(value, arguments[name]):
            raise ValueError(f"its argument {name} {why}")
    return tuple(values[hole[1]] if (hole := _HOLE.fullmatch(element)) else element for element in argv)


def _unfit(value: str, pattern: str) -> str:
    """
    Why the value may not stand there, "" when it may.

    A value with a leading dash would be read as an option, so the pattern has to begin with a literal one to let it
    in. Line breaks and NUL are refused whatever the pattern says: they end an argument for too many programs.
    """
    if any(char in value for char in "\0\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):
        return "holds a line break or NUL"
    if value.startswith("-") and not pattern.lstrip("^").startswith(("-", r"\-")):
        return "starts with a dash"
    if not re.fullmatch(pattern, value):
        return f"does not match {pattern}"
    return ""


def _holes(argv: Sequence[str]) -> Iterator[str]:
    for element in argv:
        yield from _HOLE.findall(element)
