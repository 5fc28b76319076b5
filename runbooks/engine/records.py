"""What is written down while a plan runs, and what may be done next; plain values that travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from runbooks.engine.values import Happened


@dataclass(frozen=True, kw_only=True)
class Intent:
    """About to act, written before the call; `token` is unique."""

    step: int
    token: str
    kind: Literal["intent"] = "intent"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """
    The action answered: `ok`, or it was refused and certainly nothing changed; where a part of it was done, `detail`
    says which.

    A refusal may stand without an intent (the world had moved before the call). A lost answer leaves no outcome.
    """

    step: int
    ok: bool
    detail: str = ""
    kind: Literal["outcome"] = "outcome"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """
    What the action's probe and the step's check said about an intent without an outcome.

    `already`: no call is open, and none was made: the step's check shows that it has happened.
    """

    step: int
    happened: Happened
    already: bool = False
    kind: Literal["probed"] = "probed"


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What the step's checks said after it settled; `unknown` is not `ok`."""

    step: int
    status: Literal["ok", "bad", "unknown"]
    summary: str = ""
    kind: Literal["verified"] = "verified"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a person said about a step that only a person can answer for, or about one that is in doubt."""

    step: int
    answer: Literal["ran", "did_not_run", "stop"]
    person: str
    kind: Literal["settled"] = "settled"


Record = Intent | Outcome | Probed | Verified | Settled


@dataclass(frozen=True, kw_only=True)
class Act:
    """Write a new Intent, then act, then write the Outcome (none if the answer was lost)."""

    step: int
    kind: Literal["act"] = "act"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An intent has no outcome: ask the action's `happened` and write Probed. Do not act."""

    step: int
    kind: Literal["probe"] = "probe"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Let the step's time pass, counted from its Intent (write that first), then write the Outcome."""

    step: int
    kind: Literal["wait"] = "wait"


@dataclass(frozen=True, kw_only=True)
class AskPerson:
    """Wait for a Settled. `why` is `manual` (the step is a person's work) or `in_doubt` (nobody can prove it ran)."""

    step: int
    why: Literal["manual", "in_doubt"]
    kind: Literal["ask_person"] = "ask_person"


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Let the step settle, ask its checks, write Verified."""

    step: int
    kind: Literal["verify"] = "verify"


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The plan is over. `step` is where it ended; None when all of it is done."""

    result: Literal["done", "failed", "not_verified", "in_doubt", "stopped"]
    step: int | None = None
    reason: str = ""
    kind: Literal["finish"] = "finish"


Move = Act | Probe | Wait | AskPerson | Verify | Finish

_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def record_json(record: Record) -> dict[str, Any]:
    """The record as plain JSON; `record_from_json` is its inverse."""
    result: dict[str, Any] = _RECORD.dump_python(record, mode="json")
    return result


def record_from_json(value: Any) -> Record:
    """Raises pydantic.ValidationError when the value is not a record."""
    return _RECORD.validate_python(value)
