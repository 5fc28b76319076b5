"""
A pod template as short facts by name, `--max-num-seqs` -> `256`, so that two revisions can be compared line by line.

What may be a secret never becomes a fact: values of environment variables, and of flags whose name says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, str]

RESTARTED = "restarted at"
HIDDEN = "(hidden)"
_RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
_LONGEST = 200
_MOST_WORDS = 400

# A name is telling by one of its words, `--api-key`; counts of tokens are what people tune most, `--max-tokens`.
_TELLING = re.compile(
    r"(?:^|[-_.])(?:\w*(?:passw|secret|credential)\w*|api-?keys?|keys?|tokens?|auth|authorization|bearer)(?=$|[-_.])"
)
_COUNT = re.compile(r"[0-9]{1,12}")
_NAME_AND_VALUE = re.compile(
    r"(?<![\w.-])([A-Za-z][\w.-]{0,127})[\"']{0,2}(?:\s{0,8}[=:]\s{0,8}|\s{1,8})(?=[\"']{0,2}([^\s\"',;}]{1,64}))"
)
_LOGIN_IN_ADDRESS = re.compile(r"://[^\s/@]{1,256}@")
_MOST_READ = 4000  # characters; a longer argument is a whole file, and hidden unread


@dataclass(frozen=True)
class _Fact:
    """What is shown, and the value behind it, which is only compared."""

    shown: str
    value: Any


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Facts, Facts]:
    """
    The facts of two templates, which differ wherever the templates do.

    A hidden value that changed is said to have changed; what has no fact of its own (probes, volumes) goes by its
    field.
    """
    old, new = dict(_facts(before)), dict(_facts(after))
    shown = {name: fact.shown for name, fact in new.items()}
    for name in old.keys() & new.keys():
        if old[name].shown == new[name].shown and old[name].value != new[name].value:
            shown[name] = f"{new[name].shown}, changed"
    was = {name: fact.shown for name, fact in old.items()}
    if was == shown:
        shown |= dict.fromkeys(_differing_fields(before, after), "changed")
    return was, shown


def as_text(facts: Facts) -> str:
    """One fact a line, as people would write it on a command line."""
    return "\n".join(f"{name} {value}".rstrip() for name, value in facts.items())


def in_words(before: Facts, after: Facts, *, most: int = 3) -> str:
    """What changed, `--max-num-seqs 256 -> 192; image a -> b`, a few of many."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    said = [f"{name} {before.get(name, 'nothing') or 'on'} -> {after.get(name, 'nothing') or 'on'}" for name in names]
    more = len(said) - most
    return "; ".join(said[:most]) + (f"; and {more} more" if more > 0 else "")


def _facts(template: Mapping[str, Any]) -> Iterator[tuple[str, _Fact]]:
    """Image, arguments, variables and resources of each container, under its name where there are several."""
    containers = [_object(each) for each in _list(_object(template.get("spec")).get("containers"))]
    for container in containers:
        prefix = f"{container.get('name')}: " if len(containers) > 1 else ""
        for name, fact in _container(container):
            yield f"{prefix}{name}", _Fact(fact.shown[:_LONGEST], fact.value)
    restarted = _object(_object(template.get("metadata")).get("annotations")).get(_RESTARTED_AT)
    if restarted:
        yield RESTARTED, _Fact(str(restarted), restarted)


def _container(container: Mapping[str, Any]) -> Iterator[tuple[str, _Fact]]:
    yield "image", _Fact(str(container.get("image", "")), container.get("image"))
    words = [str(word) for word in [*_list(container.get("command")), *_list(container.get("args"))]]
    for name, value in _flags(words).items():
        is_secret = bool(value) and (_is_telling(name, value) or holds_secret(value))
        yield name, _Fact(HIDDEN if is_secret else value, value)
    for variable in map(_object, _list(container.get("env"))):
        reference = _object(variable.get("valueFrom"))
        shown = f"from {', '.join(sorted(reference))}" if reference else HIDDEN
        yield f"env {variable.get('name')}", _Fact(shown, variable)
    for kind, amounts in _object(container.get("resources")).items():
        for name, amount in _object(amounts).items():
            yield f"{kind} {name}", _Fact(str(amount), amount)


def _flags(words: Sequence[str]) -> dict[str, str]:
    """Flags with their values; words before the first flag are the command. A shell's whole line is taken apart."""
    flat = [part for word in words for part in (word.split() if " --" in word or "\n" in word else [word])]
    found: dict[str, str] = {}
    name = "command"
    for word in flat[:_MOST_WORDS]:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            value = value if equals else ""
        else:
            value = word
        if value or name not in found:
            found[name] = f"{found.get(name, '')} {value}".strip()
    return found


def holds_secret(text: str) -> bool:
    """`API_KEY=value vllm serve`, `{"password": "value"}`, `Authorization: Bearer value`, `http://user:value@host`."""
    pairs = _NAME_AND_VALUE.findall(text[:_MOST_READ])
    told = any(_is_telling(name, value) for name, value in pairs)
    return told or len(text) > _MOST_READ or bool(_LOGIN_IN_ADDRESS.search(text))


def _is_telling(name: str, value: str) -> bool:
    return bool(_TELLING.search(name.removeprefix("--").lower())) and not _COUNT.fullmatch(value)


def _differing_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = _object(before.get("spec")), _object(after.get("spec"))
    return sorted(f"spec.{name}" for name in {*old, *new} if old.get(name) != new.get(name)) or ["metadata"]


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
