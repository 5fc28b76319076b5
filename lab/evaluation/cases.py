"""Case folders with their truths: what was wrong, where, and which change did it. The diagnosis never reads a truth."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from diagnostics.answer import CaseError
from diagnostics.diagnosis import Scope

NONE = "none"
OTHER = "other"
MANIFEST = "cases.json"
HALF_BELOW = 0.6
"""Cases below this share of the stated magnitude are reported apart."""

_CASE_FILES = ("alert.json", "service.toml", "changes.json", "truth.json", "metrics.om", "metrics.om.gz")

_Dimension = Literal[
    "fleet", "pod", "node", "rack", "revision", "model", "provider", "account", "api_key", "tenant", "route", "prompt",
    "prompt_version", "tool", "agent", "data_source", "policy", "evaluator", "segment", "deployment", "adapter",
]  # fmt: skip
_CauseId = Annotated[str, Field(pattern="^([GSIQX][0-9]{2}|none|other)$")]


class _ScopeShape(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dimension: _Dimension
    values: tuple[str, ...]


class _TruthShape(BaseModel):
    cause: _CauseId
    family: Literal["G", "S", "I", "Q", "X", "none"] = Field(alias="class")
    scope: _ScopeShape | None
    culprit_change: str | None
    control: bool
    onset: AwareDatetime | None
    notes: Any = None


class _NotesShape(BaseModel):
    also: tuple[_CauseId, ...] = ()
    strength: float | None = None


class EvaluationError(Exception):
    """The folder cannot be evaluated, or a score would mean nothing; the text is for the person who asked."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """
    What was wrong in one case.

    `also` names the other fault where there were two at once; `strength` is the share of the scenario's stated
    magnitude, if the case says so. `taken_out` is the cause that was taken out of the knowledge base, which makes it
    `other`; where the fault hurts nobody, to say that nothing is wrong is as right then.
    """

    cause: str
    family: str
    scope: Scope | None
    culprit: str | None
    is_control: bool
    also: tuple[str, ...] = ()
    strength: float | None = None
    taken_out: str | None = None

    @property
    def right(self) -> frozenset[str]:
        """The first causes that are right."""
        return frozenset({self.cause, *self.also, *([NONE] if self.taken_out and self.is_control else [])})

    @property
    def name(self) -> str:
        """What it is reported under: the cause, known or taken out."""
        return self.taken_out or self.cause

    @property
    def may_accuse_nobody(self) -> bool:
        """A healthy run or a control: naming another cause is a false accusation."""
        return self.cause == NONE or self.is_control

    def left_out(self) -> Truth:
        """The same case when nobody knows its cause."""
        return replace(self, cause=OTHER, taken_out=self.cause)


@dataclass(frozen=True, kw_only=True)
class CaseFolder:
    """One case: its name (the path below the asked folder), and its truth or why there is none."""

    name: str
    folder: Path
    truth: Truth | None
    fault: str = ""


def find_cases(root: Path) -> list[CaseFolder]:
    """Every folder at or below `root` that holds a file of a case, by name. Raises EvaluationError."""
    if not root.is_dir():
        raise EvaluationError(f"{root} is not a folder")
    folders = {path.parent for name in _CASE_FILES for path in root.rglob(name)}
    return [_case(root, folder) for folder in sorted(folders)]


def sample_of(cases: Sequence[CaseFolder], count: int | None, seed: int) -> list[CaseFolder]:
    """`count` cases at random, the same for the same seed; all of them without a count."""
    if count is None or count >= len(cases):
        return list(cases)
    chosen = random.Random(seed).sample(range(len(cases)), count)
    return [cases[at] for at in sorted(chosen)]


def read_manifests(root: Path) -> list[dict[str, Any]]:
    """
    What the makers of the cases wrote about them (seed, count, command), at or below `root`; not the list of cases.

    Raises EvaluationError.
    """
    found = []
    for path in sorted(root.rglob(MANIFEST)):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path} cannot be read: {error}") from error
        if not isinstance(manifest, dict):
            raise EvaluationError(f"{path} is not an object")
        told = {name: value for name, value in manifest.items() if name != "cases"}
        found.append({"folder": path.parent.relative_to(root).as_posix(), **told})
    return found


def read_truth(folder: Path) -> Truth:
    """Read truth.json and hold it against changes.json. Raises CaseError naming the file and the place in it."""
    try:
        shape = _TruthShape.model_validate_json((folder / "truth.json").read_bytes())
        notes = _NotesShape.model_validate(shape.notes if isinstance(shape.notes, dict) else {})
    except OSError as error:
        raise CaseError(f"truth.json cannot be read: {error.strerror}") from error
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(str(part) for part in first["loc"]) or "the top"
        raise CaseError(f"truth.json: {place}: {first['msg']}") from error
    if shape.cause != OTHER and shape.family != (NONE if shape.cause == NONE else shape.cause[0]):
        raise CaseError(f"truth.json: class: {shape.family} is not the class of {shape.cause}")
    if shape.culprit_change is not None and shape.culprit_change not in _change_ids(folder / "changes.json"):
        raise CaseError(f"truth.json: culprit_change: {shape.culprit_change} is not in changes.json")
    scope = shape.scope
    return Truth(
        cause=shape.cause,
        family=shape.family,
        scope=None if scope is None else Scope(dimension=scope.dimension, values=scope.values),
        culprit=shape.culprit_change,
        is_control=shape.control,
        also=notes.also,
        strength=notes.strength,
    )


def _case(root: Path, folder: Path) -> CaseFolder:
    name = folder.name if folder == root else folder.relative_to(root).as_posix()
    try:
        return CaseFolder(name=name, folder=folder, truth=read_truth(folder))
    except CaseError as error:
        return CaseFolder(name=name, folder=folder, truth=None, fault=str(error))


def _change_ids(path: Path) -> set[str]:
    try:
        changes = json.loads(path.read_text(encoding="utf-8"))
        return {change["id"] for change in changes}
    except OSError as error:
        raise CaseError(f"changes.json cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CaseError(f"changes.json is no list of changes with ids: {type(error).__name__}: {error}") from error
