"""
Placeholders in a step's parameters: `{service}`, `{suspect.prompt}`, `{replicas_now + 2}`.

The grammar is closed on purpose: a name, or a name plus or minus a whole number. There is no expression language,
because every expression language that peers embedded was escaped from sooner or later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Literal = str | int | float | bool | None

_BRACES = re.compile(r"\{([^{}]*)\}")
_GRAMMAR = re.compile(r"\s*([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)\s*(?:([+-])\s*([0-9]{1,9})\s*)?", re.ASCII)

# What the plan's context knows; `suspect.`, `scope.`, `params.`, `before.` and others carry further names.
CONTEXT_NAMES = ("service", "namespace", "cluster", "gateway", "environment", "deployment", "incident")
# The dimensions in which the causes' catalogue says where a cause acts; a test across rooms holds the two together.
SCOPE_KEYS = (
    "account", "agent", "api_key", "data_source", "evaluator", "model", "node", "pod", "policy", "prompt_version",
    "provider", "rack", "revision", "route", "segment", "tenant", "tool",
)  # fmt: skip
SUSPECT_KEYS = (
    "id", "prompt", "label", "alias", "version", "previous_version", "deployment", "revision", "to_revision", "commit",
    "flag", "flag_source", "flag_was_on",
)  # fmt: skip
# What the service's configuration names, once for each.
DEPLOYMENT_KINDS = ("application", "embedder", "engine", "gateway", "guardrail", "retrieval")
RETRIEVAL_KEYS = ("store", "alias")
SWITCH_KEYS = ("agent", "tool")
STATE_NAMES = ("replicas_now",)
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "suspect": SUSPECT_KEYS,
    "scope": SCOPE_KEYS,
    "deployment": DEPLOYMENT_KINDS,
    "retrieval": RETRIEVAL_KEYS,
    "kill_switch": SWITCH_KEYS,
}


class PlaceholderError(Exception):
    """A text's braces do not follow the grammar; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """One `{name}` or `{name + offset}` in a text; `whole` when the text is nothing else, so that a type survives."""

    name: str
    offset: int
    whole: bool

    @property
    def from_state(self) -> bool:
        """Is it known only after the action has read the present state?"""
        return self.name in STATE_NAMES or self.name.startswith("before.")

    @property
    def param(self) -> str:
        """The runbook's own parameter that it stands for, "" if it stands for something else."""
        return self.name.removeprefix("params.") if self.name.startswith("params.") else ""

    @property
    def is_known(self) -> bool:
        group, _, key = self.name.partition(".")
        keys = _GROUPS.get(group, ())
        return self.name in CONTEXT_NAMES or self.from_state or bool(self.param) or key in keys


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a parameter's value, which may be a mapping or a list of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from texts_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from texts_in(member)


def with_texts(value: Any, change: Callable[[str], Literal]) -> Any:
    """The same value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: with_texts(member, change) for name, member in value.items()}
    return [with_texts(member, change) for member in value] if isinstance(value, list) else value


def placeholders(text: str) -> list[Placeholder]:
    """Those in the text, in order. Raises PlaceholderError."""
    return [placeholder for _, placeholder in _parts(text) if placeholder is not None]


def resolve(text: str, value_of: Callable[[str], Literal]) -> Literal:
    """
    The text with its placeholders filled in; a text that is one placeholder keeps the value's type.

    A value goes in as it is and is never read for placeholders again. Raises PlaceholderError when an offset meets
    something that is not a whole number, and what `value_of` raises.
    """
    pieces: list[str] = []
    for literal, placeholder in _parts(text):
        if placeholder is None:
            pieces.append(literal)
            continue
        value = _shifted(placeholder, value_of(placeholder.name))
        if placeholder.whole:
            return value
        pieces.append(str(value))
    return "".join(pieces)


def _parts(text: str) -> Iterator[tuple[str, Placeholder | None]]:
    end = 0
    for match in _BRACES.finditer(text):
        yield _no_braces(text[end : match.start()]), None
        inner = _GRAMMAR.fullmatch(match[1])
        if inner is None:
            raise PlaceholderError(f"`{match[0]}` is not `{{name}}`, `{{name + 2}}` or `{{name - 2}}`")
        name, sign, number = inner.groups()
        offset = int(f"{sign}{number}") if number else 0
        yield "", Placeholder(name=name, offset=offset, whole=match[0] == text)
        end = match.end()
    yield _no_braces(text[end:]), None


def _no_braces(text: str) -> str:
    if "{" in text or "}" in text:
        raise PlaceholderError("a brace stands alone")
    return text


def _shifted(placeholder: Placeholder, value: Literal) -> Literal:
    if not placeholder.offset:
        return value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PlaceholderError(f"`{placeholder.name}` is not a whole number, so nothing can be added to it")
    return value + placeholder.offset
