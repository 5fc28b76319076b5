"""The knowledge base as values: signals and causes, read once from the TOML files beside this module and validated."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

FAMILIES = {"G": "gpu", "S": "serving", "I": "integration", "Q": "quality", "X": "security"}
CAUSE_FILES = ("gpu", "serving", "integration", "quality", "security")


class KnowledgeError(Exception):
    """A knowledge file is wrong; the text names the file and the entry."""


class Expected(StrEnum):
    """How a cause moves a signal; what a cause does not mention stays flat under it."""

    UP = "up"
    MAYBE_UP = "maybe_up"
    FLAT = "flat"
    MAYBE_DOWN = "maybe_down"
    DOWN = "down"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """
    What a measure is called, and when it counts as moved; exactly one of the four rules is set.

    It may follow from another: whatever moves that one explains it too.
    """

    name: str
    words: str
    unit: str
    group: str
    relative: float | None = None
    absolute: float | None = None
    above: float | None = None
    is_event: bool = False
    follows: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cause:
    """
    One way in which a service fails.

    `decisive` signals tell it from its look-alikes and weigh more. `scope` is the dimension on which it is bounded,
    `scope_or` are others on which it may be bounded instead, where that one shows nothing.
    A control is real but hurts nobody. `change_kinds` are the kinds of change that bring it about.
    """

    id: str
    title: str
    family: str
    prior: float
    scope: str
    expects: Mapping[str, Expected]
    decisive: frozenset[str]
    change_kinds: frozenset[str]
    next_check: str
    is_control: bool = False
    scope_or: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Everything the engine reasons with."""

    signals: Mapping[str, Signal]
    causes: Mapping[str, Cause]

    def without(self, *ids: str) -> Knowledge:
        """The same, but for these causes: how an evaluation asks what happens with a fault that nobody described."""
        return replace(self, causes={name: cause for name, cause in self.causes.items() if name not in ids})


@cache
def load() -> Knowledge:
    """Read and validate the packaged files. Raises KnowledgeError."""
    signals = {name: _signal(name, entry) for name, entry in read_file("signals").items()}
    for signal in signals.values():
        if signal.follows is not None and signal.follows not in signals:
            raise KnowledgeError(f"signals.toml: [{signal.name}] follows {signal.follows}, which is no signal")
    causes: dict[str, Cause] = {}
    for file in CAUSE_FILES:
        for entry in read_file(file).get("cause", []):
            cause = _cause(file, entry, signals)
            if cause.id in causes:
                raise KnowledgeError(f"{file}.toml: the cause {cause.id} is there twice")
            causes[cause.id] = cause
    return Knowledge(signals=signals, causes=causes)


def read_file(name: str) -> dict[str, Any]:
    """One of the packaged files. Raises KnowledgeError."""
    try:
        return tomllib.loads(files("diagnostics.causes").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise KnowledgeError(f"{name}.toml cannot be read: {error}") from error


def _signal(name: str, entry: Mapping[str, Any]) -> Signal:
    rules = [rule for rule in ("relative", "absolute", "above", "event") if rule in entry]
    if len(rules) != 1 or not {"words", "unit", "group"} <= entry.keys():
        raise KnowledgeError(f"signals.toml: [{name}] needs words, unit, group and exactly one rule, not {rules}")
    return Signal(
        name=name,
        words=entry["words"],
        unit=entry["unit"],
        group=entry["group"],
        relative=entry.get("relative"),
        absolute=entry.get("absolute"),
        above=entry.get("above"),
        is_event=bool(entry.get("event", False)),
        follows=entry.get("follows"),
    )


def _cause(file: str, entry: Mapping[str, Any], signals: Mapping[str, Signal]) -> Cause:
    identity = str(entry.get("id", "?"))
    missing = {"id", "title", "prior", "scope", "decisive", "next_check"} - entry.keys()
    if missing:
        raise KnowledgeError(f"{file}.toml: the cause {identity} lacks {', '.join(sorted(missing))}")
    expects: dict[str, Expected] = {}
    for expected in Expected:
        for name in entry.get(expected.value, []):
            if name in expects:
                raise KnowledgeError(f"{file}.toml: {identity} expects {name} twice")
            expects[name] = expected
    unknown = {*expects, *entry["decisive"]} - signals.keys()
    if unknown:
        raise KnowledgeError(f"{file}.toml: {identity} names unknown signals {', '.join(sorted(unknown))}")
    if identity[:1] not in FAMILIES:
        raise KnowledgeError(f"{file}.toml: {identity} has no family")
    return Cause(
        id=identity,
        title=entry["title"],
        family=FAMILIES[identity[0]],
        prior=float(entry["prior"]),
        scope=entry["scope"],
        expects=expects,
        decisive=frozenset(entry["decisive"]),
        change_kinds=frozenset(entry.get("change_kinds", ())),
        next_check=entry["next_check"],
        is_control=bool(entry.get("is_control", False)),
        scope_or=tuple(entry.get("scope_or", ())),
    )
