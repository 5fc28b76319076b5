"""A case folder in, an answer out: the pieces behind `watchkeeper diagnose --case`, and a diagnosis as JSON."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from diagnostics.changes.change import Change, Kind
from diagnostics.diagnosis import Diagnosis
from diagnostics.impact import impact_of, who_is_hurt
from diagnostics.runner import Diagnoser
from diagnostics.target import Budgets, Deployment, PromptRef, Provider, Target
from diagnostics.telemetry.model import Telemetry, TelemetryError
from diagnostics.telemetry.recorded import load_openmetrics

_Value = TypeVar("_Value")


class CaseError(Exception):
    """A case folder cannot be read; the text names the file, the place in it and what is wrong."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Alert(_Shape):
    class Incident(_Shape):
        created_at: AwareDatetime
        title: str = ""

    incident: Incident


class _ChangeShape(_Shape):
    id: str
    at: AwareDatetime
    kind: Kind
    service: str
    summary: str
    source: str = ""
    author: str | None = None
    scope: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    before: str | None = None
    after: str | None = None
    undo: dict[str, str] = Field(default_factory=dict)


class _BudgetShape(_Shape):
    ttft_p95_s: float | None = None
    itl_p95_s: float | None = None
    e2e_p95_s: float | None = None
    error_ratio: float | None = None
    cost_usd_per_hour: float | None = None


class _DeploymentShape(_Shape):
    name: str
    kind: str
    replicas: int | None = None


class _PromptShape(_Shape):
    name: str
    source: str = ""


class _ProviderShape(_Shape):
    name: str
    models: tuple[str, ...] = ()


class _ServiceShape(_Shape):
    name: str
    selectors: dict[Literal["serving", "gpu", "gateway", "application", "kubernetes"], dict[str, str]]
    namespace: str = ""
    environment: str = "prod"
    budgets: _BudgetShape = Field(default_factory=_BudgetShape)
    deployments: tuple[_DeploymentShape, ...] = ()
    prompts: tuple[_PromptShape, ...] = ()
    providers: tuple[_ProviderShape, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case as it was read: who, when, the telemetry and the changes around it."""

    target: Target
    at: datetime
    alert: str
    telemetry: Telemetry
    changes: tuple[Change, ...]


class RecordedChanges:
    """A change source over a list, for cases and drills; what came after the asked time stays hidden."""

    def __init__(self, changes: Sequence[Change], *, name: str = "changes.json") -> None:
        self.name = name
        self._changes = sorted(changes, key=lambda change: change.at)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:  # noqa: ARG002 - ChangeSource
        """All recorded changes of the time: a neighbour's change may be guilty too."""
        return [change for change in self._changes if since <= change.at <= until]


def load_case(folder: Path, telemetry: Telemetry | None = None) -> Case:
    """
    Read alert.json, service.toml, metrics.om (or metrics.om.gz) and changes.json; truth.json is never opened.

    With a `telemetry` that has the metrics already, their file is not read. Blocks while it reads. Raises CaseError.
    """
    alert = _valid(_Alert, _json(folder / "alert.json"), "alert.json")
    return Case(
        target=_target(folder / "service.toml"),
        at=alert.incident.created_at.astimezone(UTC),
        alert=alert.incident.title,
        telemetry=telemetry or _telemetry(folder),
        changes=_changes(folder / "changes.json"),
    )


async def diagnose_case(folder: Path) -> Diagnosis:
    """Diagnose the case in this folder as of its alert's time. Raises CaseError."""
    return await diagnosed(await asyncio.to_thread(load_case, folder))


async def diagnosed(case: Case) -> Diagnosis:
    """Diagnose a case that was read, as of its alert's time."""
    diagnoser = Diagnoser(case.telemetry, [RecordedChanges(case.changes)], patience_s=30.0)
    return await diagnoser.diagnose(case.target, at=case.at, alert=case.alert)


def as_answer(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis in the shape of case.schema.json's answer: plain JSON values."""
    scope = diagnosis.scope
    return {
        "service": diagnosis.service,
        "at": _time(diagnosis.frame.at),
        "since": None if diagnosis.since is None else _time(diagnosis.since),
        "user_impact": diagnosis.user_impact,
        "causes": [
            {
                "cause": cause.cause,
                "title": cause.title,
                "probability": cause.probability,
                "for": list(cause.evidence_for),
                "against": list(cause.evidence_against),
            }
            for cause in diagnosis.causes
        ],
        "impact": _impact(diagnosis),
        "scope": None if scope is None else {"dimension": scope.dimension, "values": list(scope.values)},
        "culprit_change": diagnosis.culprit_change,
        "suspects": [
            {
                "change": suspect.change.id,
                "at": _time(suspect.change.at),
                "kind": suspect.change.kind,
                "summary": suspect.change.summary,
                "score": suspect.score,
                "reasons": list(suspect.reasons),
                "diff": suspect.diff,
            }
            for suspect in diagnosis.suspects
        ],
        "findings": [
            {"check": finding.check, "status": finding.status.value, "summary": finding.summary}
            for finding in diagnosis.findings
        ],
        "blind_spots": [{"check": spot.check, "why": spot.why} for spot in diagnosis.blind_spots],
        "next_check": diagnosis.next_check,
        "seconds": round(diagnosis.seconds, 3),
    }


def _impact(diagnosis: Diagnosis) -> dict[str, Any] | None:
    """Who is hurt and how many; None where nothing measures it."""
    found = impact_of(diagnosis.findings)
    if found is None:
        return None
    shares = {"failing": found.failing, "slow": found.slow, "spoiled": found.spoiled}
    return {
        "sentence": who_is_hurt(diagnosis),
        **{name: {"now": cell.now, "baseline": cell.baseline} for name, cell in shares.items()},
        "tenants": found.tenants,
        "hurt": list(found.hurt),
        "burn_rate": found.burn_rate,
    }


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CaseError(f"{path} is not JSON: {error}") from error


def _target(path: Path) -> Target:
    try:
        entry = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CaseError(f"{path} is not TOML: {error}") from error
    services = entry.get("service")
    if isinstance(services, list) and len(services) == 1:  # the product's own file with its one [[service]]
        entry = services[0]
    shape = _valid(_ServiceShape, entry, path.name)
    return Target(
        service=shape.name,
        namespace=shape.namespace,
        environment=shape.environment,
        selectors={str(family): matchers for family, matchers in shape.selectors.items()},
        budgets=Budgets(**shape.budgets.model_dump()),
        deployments=tuple(Deployment(**one.model_dump()) for one in shape.deployments),
        prompts=tuple(PromptRef(**one.model_dump()) for one in shape.prompts),
        providers=tuple(Provider(**one.model_dump()) for one in shape.providers),
    )


def metrics_file(folder: Path) -> Path:
    """The case's telemetry, packed or not. Raises CaseError."""
    for path in (folder / "metrics.om", folder / "metrics.om.gz"):
        if path.exists():
            return path
    raise CaseError(f"{folder} holds neither metrics.om nor metrics.om.gz")


def _telemetry(folder: Path) -> Telemetry:
    path = metrics_file(folder)
    try:
        return load_openmetrics(path)
    except TelemetryError as error:
        raise CaseError(f"{path.name}: {error}") from error


def _changes(path: Path) -> tuple[Change, ...]:
    if not path.exists():
        raise CaseError(f"{path} is missing; a case without changes holds an empty list")
    shapes = _valid(list[_ChangeShape], _json(path), path.name)
    return tuple(
        Change(**{**shape.model_dump(), "at": shape.at.astimezone(UTC)})  # the field names are the same
        for shape in shapes
    )


def _valid(model: type[_Value], content: Any, file: str) -> _Value:
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(str(part) for part in first["loc"]) or "the top"
        raise CaseError(f"{file}: {place}: {first['msg']}") from error
