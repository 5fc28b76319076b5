"""What is wrong with a configuration, in words: file, line, place, problem and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bot.config.lines import TomlPath
from bot.incidents import WatchkeeperError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong at `path`, and what to do about it."""

    path: TomlPath
    what: str
    remedy: str


class ConfigError(WatchkeeperError):
    """The configuration cannot be used; the message has one `file:line: place: problem; remedy` line per problem."""

    def __init__(self, file: Path, lines: Iterable[tuple[int, str]]) -> None:
        self.file = file
        self.lines = tuple(sorted(set(lines)))
        super().__init__("\n".join(f"{file}:{line}: {text}" for line, text in self.lines))


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The nearest known word as a question, or `otherwise` when nothing is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else otherwise


def problems_of(error: ValidationError, model: type[BaseModel], at: TomlPath) -> Iterator[Problem]:
    """Pydantic's findings about the entry at `at`, in our words."""
    for found in error.errors(include_url=False):
        path = tuple(part for part in found["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        yield _problem(found["type"], found, model, (*at, *path))


def _problem(kind: str, found: Any, model: type[BaseModel], path: TomlPath) -> Problem:
    key, value = str(path[-1]), found.get("input")
    if kind == "missing":
        return Problem(path=path, what=f"{key} is missing", remedy=f"add it: {key} = ...")
    if kind == "extra_forbidden":
        fields = known_keys(model, found["loc"][:-1])
        return Problem(
            path=path,
            what=f"unknown key {key}",
            remedy=did_you_mean(key, fields, f"known keys are {', '.join(sorted(fields))}"),
        )
    if kind in {"literal_error", "enum"}:
        choices = found["ctx"]["expected"].replace("'", "")
        near = did_you_mean(str(value), choices.replace(" or ", ", ").split(", "), "")
        return Problem(path=path, what=f"{value!r} is not known", remedy=f"write {choices}" + (near and f" ({near})"))
    if kind == "value_error":
        what, _, remedy = str(found["ctx"]["error"]).partition("; ")
        return Problem(path=path, what=what, remedy=remedy)
    return Problem(path=path, what=f"{value!r} does not fit", remedy=found["msg"].replace("Input", "it", 1))


def known_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys of the model that stands at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_within(model.model_fields[part].annotation) or model
    return tuple(model.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, getattr(annotation, "__args__", ()))), None)
