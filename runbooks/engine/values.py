"""Runbooks, plans and their steps as values; the shapes that are frozen, hashed, approved and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, TypeAdapter

from runbooks.engine.declared import Condition, Parameter, Range, Sign
from runbooks.engine.problems import Problem

JsonObject = Mapping[str, Any]


class Tier(IntEnum):
    """How much an action can hurt; a property of the action, never of a runbook's text."""

    R0 = 0  # reads or asks a person; changes nothing
    R1 = 1  # reversible within five minutes, no data loss
    R2 = 2  # reversible at a cost: requests in flight are lost, capacity drops
    R3 = 3  # irreversible


class Happened(StrEnum):
    """What a probe can say about an action whose outcome was lost."""

    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot_tell"


class DryRun(StrEnum):
    """What a rehearsal asks of the system that the action would change. No change is sent, not even a tried one."""

    NOTHING_TO_READ = "nothing is read: what it would send is rendered"
    READS = "the present state is read, and what would change is rendered"
    READS_AND_SERVER = "the present state is read; by hand, kubectl --dry-run=server lets the API server try it"


class ActionError(Exception):
    """The action was refused or failed, and certainly changed nothing (a 4xx, a refused connection)."""


class PartlyDoneError(ActionError):
    """It failed on the way: the message says what was done and what was not. Nothing is still under way."""


class OutcomeUnknownError(Exception):
    """The call was sent and its answer lost (time-out, 5xx, reset connection): it may have happened."""


class CannotPlanError(Exception):
    """A runbook's step cannot be resolved to literals here and now; the message says what is missing."""


class Action(Protocol):
    """
    One way to change production.

    `params` is a pydantic model with `extra="forbid"` that types every parameter. `read` fetches the state that the
    action would change, as JSON literals; it runs when the plan is made, before the step starts, and as the probe.
    `dry_run` is what rehearsing it takes: `effect` renders the change either way, and nothing is sent.
    """

    name: str
    tier: Tier
    dry_run: DryRun
    params: type[BaseModel]

    def effect(self, params: Any, before: JsonObject) -> str:
        """One sentence with literals: exactly what will change, from what to what."""

    def target(self, params: Any) -> str:
        """What is locked while it runs: `<system>/<kind>/<name>`."""

    async def read(self, params: Any) -> JsonObject:
        """The current state, JSON. Raises ActionError."""

    async def act(self, params: Any, before: JsonObject, token: str) -> JsonObject:
        """
        Change it; returns what the system answered. `token` is unique per intent.

        Raises ActionError, OutcomeUnknownError.
        """

    async def happened(self, params: Any, before: JsonObject, token: str) -> Happened:
        """The probe after a crash: did `act` take place? Must be able to say CANNOT_TELL."""

    def undo(self, params: Any, before: JsonObject) -> JsonObject | None:
        """The parameters that restore `before`, of the same action or of its `undone_by`; None: it is impossible."""


@runtime_checkable
class GuardedAction(Action, Protocol):
    """
    An action that knows its own limits; the planner asks what it offers beyond `Action`.

    `subject` is the part of `params` that says what is read, so that a parameter can be computed from the state
    (`{replicas_now + 2}`). `can_undo` is False when `undo` never has an answer.
    """

    subject: type[BaseModel]
    can_undo: bool

    def refusal(self, params: Any, before: JsonObject) -> str | None:
        """Why this must not be done from this state, in words for a person; None when it may."""


@runtime_checkable
class UndoneByAnother(Protocol):
    """An action whose `undo` gives the parameters of another one: a cordon is taken back by an uncordon."""

    undone_by: str


@runtime_checkable
class TieredAction(Action, Protocol):
    """An action whose parameters name an entry of the configuration, and that entry says how much it can hurt."""

    def tier_of(self, params: Any) -> Tier:
        """The tier with these parameters; `tier` is the highest there is."""


@runtime_checkable
class VerifiedAtWill(Action, Protocol):
    """An action that says whether a check of the service must turn ok after it: telling people changes none."""

    verify_at_will: bool


def only_tells(action: Action) -> bool:
    """Does it change nothing that runs, so that neither a check nor an undo has to be named?"""
    return action.tier is Tier.R0 or (isinstance(action, VerifiedAtWill) and action.verify_at_will)


@runtime_checkable
class PatientAction(Action, Protocol):
    """An action that may take longer than a call to an API does."""

    def patience_s(self, params: Any) -> float:
        """After how many seconds `act` has answered, whatever happened."""


@dataclass(frozen=True, kw_only=True)
class StepTemplate:
    """A `yaml step` block of a runbook, as its author wrote it; `line` is where the block starts."""

    title: str
    action: str
    params: JsonObject
    verify: tuple[str, ...] = ()
    verify_ranges: tuple[Range, ...] = ()
    undo: str = "none"  # previous | none
    irreversible: str = ""  # why there is no undo
    check: Sign | None = None  # shows that it has happened
    when: Condition | None = None  # decided when the plan is made
    settle_s: float = 120.0  # how long the change needs to take effect, in telemetry time
    timeout_s: float | None = None  # after how long the call's answer counts as lost; None: the action's own
    otherwise: str = ""  # what a person is asked to do where the step cannot be planned
    prose: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)  # of each key of the block, from 1

    def line_of(self, key: str) -> int:
        """Where the block says this; where it starts, if it does not."""
        return self.lines.get(key, self.line)


@dataclass(frozen=True, kw_only=True)
class Runbook:
    """
    A parsed runbook; `runbook_id` is its file name without `.md`, `revision` the SHA-256 of its bytes.

    `labels` sort it for people and search. `reviewed` is when somebody last held it against the world, `review_by`
    when that is due again. `params` are what a person may choose when a plan is made. `text` is all of the file.
    """

    runbook_id: str
    title: str
    revision: str
    alerts: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    owner: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reviewed: date | None = None
    review_by: date | None = None
    params: Mapping[str, Parameter] = field(default_factory=dict)
    sections: tuple[tuple[str, str], ...] = ()  # heading, text
    steps: tuple[StepTemplate, ...] = ()
    text: str = field(default="", repr=False)

    def line_of(self, key: str) -> int:
        """The line, from 1, on which the front matter has this key; 1 where it has not."""
        front = self.text.partition("\n---")[0].split("\n")
        return next((number for number, line in enumerate(front, 1) if line.startswith(f"{key}:")), 1)

    def problem(self, line: int, message: str, remedy: str) -> Problem:
        """What is wrong on this line of the file, from 1."""
        return Problem(path=f"{self.runbook_id}.md", line=line, message=message, remedy=remedy)


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step with nothing left to decide: literals only. `undone_by` is the action that undoes it, "" for its own."""

    index: int
    title: str
    action: str
    tier: Tier
    target: str
    params: JsonObject
    before: JsonObject
    effect: str
    undo: JsonObject | None
    verify: tuple[str, ...]
    settle_s: float
    undone_by: str = ""
    verify_ranges: tuple[Range, ...] = ()
    timeout_s: float | None = None
    check: Sign | None = None

    @property
    def is_verified(self) -> bool:
        """Does anything prove afterwards that it helped?"""
        return bool(self.verify or self.verify_ranges)

    @property
    def undo_action(self) -> str:
        """The name of the action that `undo` holds the parameters of."""
        return self.undone_by or self.action


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    What a person approves: rendered, resolved and frozen.

    `digest` covers every field, so that an approval of this plan is an approval of nothing else. `suspect` is the id
    of the change that it takes back, if any. `requester` is the person who asked for it or edited it; None for an
    unedited plan of Watchkeeper's own. `undoes` is the id of the plan that this one takes back. `params` are the values
    of the parameters that the runbook declares. `undoes_itself`: its undo runs without a click if it does not verify.
    `mends` are those of the checks which it verifies that were bad when it was made: with none of them nothing can show
    that it helped. None: nobody looked.
    """

    plan_id: str
    incident_id: str
    service: str
    environment: str
    runbook_id: str
    runbook_revision: str
    title: str
    steps: tuple[PlannedStep, ...]
    policy_version: str
    nonce: str
    made_at: datetime
    expires_at: datetime
    suspect: str | None = None
    requester: str | None = None
    undoes: str | None = None
    frame: JsonObject = field(default_factory=dict)  # the diagnosis' frame: what "verified" compares with
    params: JsonObject = field(default_factory=dict)
    undoes_itself: bool = False
    mends: tuple[str, ...] | None = None

    @property
    def tier(self) -> Tier:
        return max((step.tier for step in self.steps), default=Tier.R0)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of every field."""
        return hashlib.sha256(canonical(plan_json(self))).hexdigest()


_PLAN = TypeAdapter(Plan)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON; `plan_from_json` is its inverse."""
    result: dict[str, Any] = _PLAN.dump_python(plan, mode="json")
    for name in ("params", "undoes_itself"):
        if not result[name]:
            del result[name]
    if result["mends"] is None:
        del result["mends"]
    for step in result["steps"]:
        for name in ("undone_by", "verify_ranges", "timeout_s", "check"):
            if not step[name]:  # younger than plans that are stored already, whose digests must stay
                del step[name]
    return result


def plan_from_json(value: Any) -> Plan:
    """Raises pydantic.ValidationError when the value is not a plan."""
    return _PLAN.validate_python(value)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
