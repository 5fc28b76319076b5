"""
A runbook's own tests: `NAME.test.yaml` beside `NAME.md`.

Each case gives a diagnosis, parameters and the states that the far ends would answer, and expects what is planned:
steps with their arguments, tier and undo, what is left out, what is refused and why. The planner and the actions are
the real ones; only reading is answered by the file, so a case needs no network and no credential.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from runbooks.engine.context import PlanContext
from runbooks.engine.declared import signs
from runbooks.engine.lint import Vocabulary
from runbooks.engine.placeholders import SCOPE_KEYS
from runbooks.engine.problems import Problem, RunbookError
from runbooks.engine.rehearsal import Rehearsal, first_possible, recorded
from runbooks.engine.values import CannotPlanError, PlannedStep, Runbook
from runbooks.engine.yaml_block import Document, YamlBlockError, load_document

SUFFIX = ".test.yaml"
ONE_OR_THE_OTHER = "correct the runbook, or what the case expects"
_AT = datetime(2026, 1, 1, 3, tzinfo=UTC)

Plain = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Place(_Part):
    """The service as the configuration would have it."""

    name: str = "chat"
    environment: str = "prod"
    namespace: str = "chat"
    cluster: str = "lab"
    gateway: str = "edge"
    deployments: tuple[str, ...] = ("chat-vllm",)
    deployed: Mapping[str, tuple[str, ...]] = Field(default={}, description="{embedder: [chat-embedder]}")
    retrieval: Mapping[str, str] = Field(default={}, description="{store: vectors, alias: manuals}")
    kill_switches: Mapping[str, str] = Field(default={}, description="{tool: 'tool-{tool}'}")


class Suspected(_Part):
    """A change that may be guilty; `undo` is what a step needs to take it back: prompt, label, previous_version, ..."""

    id: str = Field(min_length=1)
    undo: Mapping[str, str | int] = {}


class Given(_Part):
    """The diagnosis, what a person chose, and by target the state that reading it would answer."""

    service: Place = Place()
    cause: str | None = Field(default=None, description="The catalogue's id of the first cause, such as S04.")
    scope: Mapping[str, tuple[str, ...]] = Field(default={}, description="{node: [gpu-3]}")
    answers: Mapping[str, Literal["ok", "bad", "unknown"]] = Field(default={}, description="{queue: bad}")
    suspects: tuple[Suspected, ...] = ()
    params: Mapping[str, Plain] = {}
    states: Mapping[str, Mapping[str, Any]] = Field(
        default={}, description="{kubernetes/deployment/lab/chat/chat-vllm: {replicas: 4, autoscaler: ''}}"
    )


class ExpectedStep(_Part):
    """What is not said is not compared; of `with` and `undo` the named parameters, of `effect` a part of it."""

    action: str
    arguments: Mapping[str, Any] = Field(default={}, alias="with")
    tier: Literal["R0", "R1", "R2", "R3"] | None = None
    undo: Literal["none"] | Mapping[str, Any] | None = None
    verify: tuple[str, ...] | None = None
    check: str | None = Field(
        default=None, description="A check and its answer, `queue is ok`; or a metric and its range."
    )
    effect: str | None = None


class Expected(_Part):
    """Either all `steps` in their order, or a part of the reason why no plan can be made."""

    steps: tuple[ExpectedStep, ...] = ()
    refused: str | None = Field(default=None, min_length=1)
    tier: Literal["R0", "R1", "R2", "R3"] | None = None
    skipped: tuple[str, ...] = Field(default=(), description="Titles of the steps whose `when` does not hold.")

    @model_validator(mode="after")
    def _says_what_happens(self) -> Expected:
        if bool(self.steps) == (self.refused is not None):
            raise ValueError("expect either `steps` or `refused`")
        return self


class Case(_Part):
    name: str = Field(min_length=1)
    given: Given = Given()
    expect: Expected


class Fixture(_Part):
    """A file of cases for the runbook of the same name."""

    format: Literal[1]
    cases: tuple[Case, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class FixtureFile:
    """A fixture with the lines of its file."""

    name: str
    fixture: Fixture
    document: Document

    def problem(self, path: Sequence[str | int], message: str, remedy: str = ONE_OR_THE_OTHER) -> Problem:
        """What is wrong with this part of the file."""
        return Problem(path=self.name, line=self.document.line_of(path) + 1, message=message, remedy=remedy)


def load_fixture(file: Path) -> FixtureFile:
    """Raises RunbookError, with the line, when it is no such file."""
    try:
        document = load_document(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _broken(file, 0, error.strerror or "cannot be read", "check its path and permissions") from error
    except UnicodeDecodeError as error:
        raise _broken(file, 0, "not UTF-8", "save the file as UTF-8") from error
    except YamlBlockError as error:
        raise _broken(file, error.line, error.message, error.remedy) from error
    try:
        return FixtureFile(name=file.name, fixture=Fixture.model_validate(document.value), document=document)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the file"
        message = f"{where}: {fault['msg'].removeprefix('Value error, ')}"
        raise _broken(file, document.line_of(fault["loc"]), message, "see runbooks/README.md for the form") from error


def fixture_schema() -> dict[str, Any]:
    """The form as a JSON Schema (draft 2020-12), for editors."""
    schema = Fixture.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def context_of(given: Given, suspect: Suspected | None) -> PlanContext:
    """The case as the planner would know it."""
    place = given.service
    return PlanContext(
        incident_id="QTEST",
        service=place.name,
        environment=place.environment,
        policy_version="test",
        now=_AT,
        namespace=place.namespace,
        cluster=place.cluster,
        gateway=place.gateway,
        deployments=place.deployments,
        deployed=place.deployed,
        retrieval=place.retrieval,
        kill_switches=place.kill_switches,
        suspect=suspect.id if suspect else None,
        suspect_undo={name: str(value) for name, value in suspect.undo.items()} if suspect else {},
        scope=given.scope,
        answers=given.answers,
        params=given.params,
    )


async def rehearsed(runbook: Runbook, given: Given, vocabulary: Vocabulary) -> Rehearsal:
    """
    As an incident would be: for each suspect and for none, the first of which a plan can be made.

    Raises CannotPlanError when a recorded state is not of the form that its action reads.
    """
    contexts = [context_of(given, suspect) for suspect in (*given.suspects, None)]
    try:
        return await first_possible(runbook, contexts, recorded(vocabulary.actions, given.states))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        fault = f"{type(error).__name__} {error}"
        raise CannotPlanError(f"a recorded state does not fit its action: {fault}") from error


async def failures(runbook: Runbook, file: FixtureFile, vocabulary: Vocabulary) -> list[Problem]:
    """Every expectation that does not hold, with its line."""
    found: list[Problem] = []
    for index, case in enumerate(file.fixture.cases):
        here = ("cases", index)
        found += _unknown_names(runbook, case, file, here, vocabulary)
        try:
            outcome = await rehearsed(runbook, case.given, vocabulary)
        except CannotPlanError as error:
            remedy = "give every field that the action reads; `runbook plan --incident ID --json` shows real ones"
            found.append(file.problem((*here, "given", "states"), f"{case.name}: {error}", remedy))
            continue
        found += _differences(case, outcome, file, here)
    return found


def _unknown_names(
    runbook: Runbook, case: Case, file: FixtureFile, here: tuple[str | int, ...], vocabulary: Vocabulary
) -> Iterator[Problem]:
    given = (*here, "given")
    if case.given.cause is not None and case.given.cause not in runbook.causes:
        message = f"{case.name}: {runbook.runbook_id} is not for the cause {case.given.cause}"
        yield file.problem((*given, "cause"), message, f"it is for {', '.join(runbook.causes) or 'none'}")
    for dimension in case.given.scope:
        if dimension not in SCOPE_KEYS:
            message = f"{case.name}: a diagnosis has no scope `{dimension}`"
            yield file.problem((*given, "scope", dimension), message, f"use one of {', '.join(SCOPE_KEYS)}")
    for check in case.given.answers:
        if check not in vocabulary.checks:
            message = f"{case.name}: the check `{check}` does not exist"
            yield file.problem((*given, "answers", check), message, "use a check that the catalogue has")


def _differences(case: Case, outcome: Rehearsal, file: FixtureFile, here: tuple[str | int, ...]) -> Iterator[Problem]:
    expected, at = case.expect, (*here, "expect")
    skipped = tuple(step.template.title for step in outcome.steps if not step.applies)
    if skipped != expected.skipped:
        told = f"{case.name}: left out were {_listed(skipped)}, and {_listed(expected.skipped)} was expected"
        yield file.problem((*at, "skipped"), told)
    if expected.refused is not None:
        if expected.refused not in outcome.refusal:
            told = outcome.refusal or f"a plan of {len(outcome.plan.steps) if outcome.plan else 0} steps was made"
            yield file.problem((*at, "refused"), f"{case.name}: {told}")
        return
    if outcome.plan is None:
        yield file.problem((*at, "steps"), f"{case.name}: no plan can be made: {outcome.refusal}")
        return
    made = outcome.plan.steps
    if expected.tier is not None and outcome.plan.tier.name != expected.tier:
        yield file.problem((*at, "tier"), f"{case.name}: the tier is {outcome.plan.tier.name}, not {expected.tier}")
    if len(made) != len(expected.steps):
        told = f"{case.name}: {len(made)} steps are planned ({', '.join(step.action for step in made)})"
        yield file.problem((*at, "steps"), told)
    for index, (step, wanted) in enumerate(zip(made, expected.steps, strict=False)):
        for key, message in _unlike(step, wanted):
            yield file.problem((*at, "steps", index, *key), f"{case.name}: step {index + 1}: {message}")


def _unlike(step: PlannedStep, wanted: ExpectedStep) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a planned step is not as expected: the keys that lead there, and what is different."""
    if step.action != wanted.action:
        yield ("action",), f"the action is {step.action}, not {wanted.action}"
        return
    for name, value in wanted.arguments.items():
        if name not in step.params:
            yield ("with", name), f"it has no argument {name}"
        elif step.params[name] != value:
            yield ("with", name), f"{name} is {step.params[name]!r}, not {value!r}"
    if wanted.tier is not None and step.tier.name != wanted.tier:
        yield ("tier",), f"the tier is {step.tier.name}, not {wanted.tier}"
    if wanted.verify is not None and step.verify != wanted.verify:
        yield ("verify",), f"it is verified by {_listed(step.verify)}, not {_listed(wanted.verify)}"
    if wanted.check is not None and signs(step.check) != wanted.check:
        yield ("check",), f"it has happened when {signs(step.check) or 'nothing says so'}, not {wanted.check}"
    if wanted.effect is not None and wanted.effect not in step.effect:
        yield ("effect",), f"its effect is: {step.effect}"
    yield from _unlike_undo(step, wanted.undo)


def _unlike_undo(
    step: PlannedStep, wanted: Literal["none"] | Mapping[str, Any] | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    if wanted == "none" and step.undo is not None:
        yield ("undo",), f"it can be undone: {step.undo_action} {dict(step.undo)}"
    for name, value in wanted.items() if isinstance(wanted, Mapping) else ():
        if step.undo is None:
            yield ("undo", name), "it cannot be undone"
        elif step.undo.get(name) != value:
            yield ("undo", name), f"undo: {name} is {step.undo.get(name)!r}, not {value!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _broken(file: Path, line: int, message: str, remedy: str) -> RunbookError:
    return RunbookError([Problem(path=file.name, line=line + 1, message=message, remedy=remedy)])
