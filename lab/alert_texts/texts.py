"""
The alert texts: four for each of the 48 scenarios of the catalogue, and forty of subjects that no runbook covers.

All are made up for this benchmark, in the form in which each tool words its alerts; none repeats six words of a
runbook (a test holds that). `diagnoses.jsonl` has what the diagnosis answered to simulated cases of each scenario.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent
FAMILIES = ("gpu", "serving", "integration", "quality", "security")
"""The families of the catalogue's causes, one file each."""

UNCOVERED = "uncovered"

Voice = Literal["alertmanager", "datadog", "grafana", "langfuse", "litellm", "pagerduty", "slack"]


class AlertTextsError(Exception):
    """A file of the benchmark cannot be used; the message names file and line."""


class AlertText(BaseModel):
    """
    One alert as it arrives: `alert` is the rule's or monitor's name where that voice has one.

    Either `cause` and the `runbooks` that answer it (two where the text does not tell twin pages apart), or the
    `subject` that none of our runbooks covers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    voice: Voice
    alert: str
    service: str
    text: str = Field(min_length=20)
    cause: str | None = None
    runbooks: tuple[str, ...] = ()
    subject: str | None = None

    @model_validator(mode="after")
    def _covered_or_not(self) -> AlertText:
        if (self.cause is None) != (not self.runbooks) or (self.cause is None) == (self.subject is None):
            raise ValueError("give a cause with its runbooks, or a subject that none covers")
        return self


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str
    truth: str
    ranked: tuple[tuple[str, float], ...]


Line = TypeVar("Line", bound=BaseModel)
Ranked = tuple[tuple[str, float], ...]
"""Causes with probabilities, likeliest first."""

NO_FAULT = "none"


@dataclass(frozen=True, kw_only=True)
class AlertTexts:
    """The texts by family, and by cause what the diagnosis answered to simulated cases of it."""

    families: Mapping[str, Sequence[AlertText]]
    diagnoses: Mapping[str, Sequence[Ranked]]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> AlertTexts:
        """Blocks. Raises AlertTextsError."""
        families = {name: tuple(_lines(folder / f"{name}.jsonl", AlertText)) for name in (*FAMILIES, UNCOVERED)}
        diagnoses: dict[str, list[Ranked]] = {}
        for answer in _lines(folder / "diagnoses.jsonl", _Answer):
            diagnoses.setdefault(answer.truth, []).append(answer.ranked)
        wanted = {text.cause or NO_FAULT for texts in families.values() for text in texts}
        if missing := sorted(wanted - set(diagnoses)):
            raise AlertTextsError(f"{folder / 'diagnoses.jsonl'} has no answer for {', '.join(missing)}")
        return cls(families=families, diagnoses=diagnoses)

    def diagnosed(self) -> Iterator[tuple[str, AlertText, Ranked]]:
        """
        Each text with its family and one of the diagnosis' answers to a case of its cause, taken in turn.

        A text that no runbook covers comes while the service itself is well: with the answer to a case without fault.
        """
        turns: dict[str, int] = {}
        for family, texts in self.families.items():
            for text in texts:
                cause = text.cause or NO_FAULT
                turn = turns[cause] = turns.get(cause, -1) + 1
                yield family, text, self.diagnoses[cause][turn % len(self.diagnoses[cause])]


def _lines(path: Path, shape: type[Line]) -> Iterator[Line]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AlertTextsError(f"cannot read {path}: {error}; reinstall the package") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield shape.model_validate_json(line)
            except ValidationError as error:
                raise AlertTextsError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
