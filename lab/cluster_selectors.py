"""Label and field selectors as the Kubernetes API takes them: `a=b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Matcher = Callable[[Mapping[str, str]], bool]

_NAME = r"[A-Za-z0-9._/-]+"
_EQUAL = re.compile(rf"({_NAME})\s*(==|=|!=)\s*([A-Za-z0-9._-]*)")
_SET = re.compile(rf"({_NAME})\s+(in|notin)\s+\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_NAME})")


class SelectorError(Exception):
    """The text is no selector."""


def matcher(text: str) -> Matcher:
    """A test for labels (or fields); the empty selector takes everything. Raises SelectorError."""
    parts = [part.strip() for part in re.split(r",(?![^()]*\))", text)] if text.strip() else []
    tests = [_requirement(part) for part in parts]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str) -> Matcher:
    if equal := _EQUAL.fullmatch(part):
        key, operator, value = equal.groups()
        return lambda labels: (labels.get(key) == value) == (operator != "!=")
    if among := _SET.fullmatch(part):
        name, word, listed = among.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(name) in values) == (word == "in")
    if exists := _EXISTS.fullmatch(part):
        negated, label = exists.groups()
        return lambda labels: (label in labels) != bool(negated)
    raise SelectorError(f"unable to parse requirement: {part!r}")
