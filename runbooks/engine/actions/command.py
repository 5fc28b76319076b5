# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Run one of the command lines that the configuration lists, without a shell.

A runbook chooses which one and fills its placeholders; everything else is the operator's, the tier included. The
command line is rendered when the plan is made and is part of it, so people approve exactly what runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from runbooks.engine.actions.command_line import filled
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.actions.subtree import GRACE_S, KEEPER_PATIENCE_S, Ended, Order, SubtreeLostError, run_subtree
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, PartlyDoneError, Tier

Redact = Callable[[str], str]

MOST_CHARACTERS = 2000
"""Of a whole command line: a person has to read it before approving."""

_SHOWN = 1500  # characters of the output that go on record
_SYSTEM = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_HIDDEN = "[redacted]"


def _as_text(value: object) -> object:
    """YAML makes a number of `3`; the command gets the same digits."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class CommandParams(BaseModel):
    """`command` is the name of a `[[command]]`; `arguments` fill its placeholders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: ConfigName
    arguments: dict[str, Annotated[str, BeforeValidator(_as_text), Field(max_length=MOST_CHARACTERS)]] = Field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class CommandAccess:
    """One allowed command line with the variables it gets; `tier` is what its operator says it can hurt."""

    argv: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 60.0
    tier: Tier = Tier.R3


class RunCommand:
    """`command.run`: what it does nobody but its operator knows, hence R3 unless the configuration says less."""

    name = "command.run"
    tier = Tier.R3
    dry_run = DryRun.NOTHING_TO_READ
    params: type[BaseModel] = CommandParams
    subject: type[BaseModel] = CommandParams
    can_undo = False

    def __init__(self, commands: Mapping[str, CommandAccess], redact: Redact) -> None:
        self._commands = dict(commands)
        self._redact = redact

    def tier_of(self, params: CommandParams) -> Tier:
        access = self._commands.get(params.command)
        return access.tier if access else self.tier

    def patience_s(self, params: CommandParams) -> float:
        access = self._commands.get(params.command)
        return (access.timeout_s if access else 0.0) + 2 * (GRACE_S + KEEPER_PATIENCE_S)

    def effect(self, params: CommandParams, before: JsonObject) -> str:
        return f"Runs this on Watchkeeper's machine: {shlex.join(before['argv'])}"

    def target(self, params: CommandParams) -> str:
        return f"command/run/{params.command}"

    def refusal(self, params: CommandParams, before: JsonObject) -> str | None:
        return None

    def undo(self, params: CommandParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: CommandParams) -> JsonObject:
        """`{"argv": [...]}`: the whole command line. What it would change only the command knows."""
        return {"argv": list(self._line(params))}

    async def act(self, params: CommandParams, before: JsonObject, token: str) -> JsonObject:
        argv = self._line(params)
        if list(argv) != before["argv"]:
            raise ActionError("the command line is another one by now: nothing was run")
        access = self._commands[params.command]
        order = Order(argv=argv, environment={**_SYSTEM, **access.environment}, timeout_s=access.timeout_s)
        try:
            ended = await run_subtree(order)
        except SubtreeLostError as error:
            raise OutcomeUnknownError(str(error)) from error
        if ended.refusal:
            raise ActionError(f"{argv[0]} cannot be started ({ended.refusal}): nothing was changed")
        output = self._shown(ended, access.environment.values())
        if ended.status is None:
            left = f"; {ended.left} processes could not be ended" if ended.left else ""
            raise OutcomeUnknownError(f"it took longer than {access.timeout_s:g} s and was ended{left}. {output}")
        if ended.status != 0:
            how = f"exit status {ended.status}" if ended.status > 0 else f"signal {-ended.status}"
            raise PartlyDoneError(f"it ended with {how}; what it had done until then stays done. {output}")
        return {"exit_status": 0, "output": output}

    async def happened(self, params: CommandParams, before: JsonObject, token: str) -> Happened:
        """Nobody but the command could know, and it is not asked twice."""
        return Happened.CANNOT_TELL

    def _line(self, params: CommandParams) -> tuple[str, ...]:
        access = self._commands.get(params.command)
        if access is None:
            known = ", ".join(sorted(self._commands)) or "none"
            raise ActionError(f"the configuration has no command {params.command} (it has: {known})")
        try:
            argv = filled(access.argv, access.arguments, params.arguments)
        except ValueError as error:
            raise ActionError(f"{params.command}: {error}") from error
        shown = shlex.join(argv)
        if len(shown) > MOST_CHARACTERS:
            raise ActionError(f"{params.command}: the command line has more than {MOST_CHARACTERS} characters")
        if self._redact(shown) != shown:  # people must see all that they approve
            raise ActionError(
                f"{params.command}: the command line cannot be shown: it holds invisible characters or a credential"
            )
        return argv

    def _shown(self, ended: Ended, secrets: Iterable[str]) -> str:
        """The output for people: its beginning and its end, without credentials."""
        if ended.dropped:
            pieces = [
                self._safe(ended.head, secrets)[: _SHOWN // 3],
                self._safe(ended.tail, secrets)[-_SHOWN * 2 // 3 :],
            ]
        else:
            text = self._safe(ended.head + ended.tail, secrets)
            pieces = [text] if len(text) <= _SHOWN else [text[: _SHOWN // 3], text[-_SHOWN * 2 // 3 :]]
        return f"It wrote: {' [...] '.join(pieces)}" if any(pieces) else "It wrote nothing."

    def _safe(self, output: bytes, secrets: Iterable[str]) -> str:
        """As text (bytes that are no UTF-8 become U+FFFD), its own credentials hidden first, since we know those."""
        text = output.decode(errors="replace")
        for secret in sorted(secrets, key=len, reverse=True):
            for form in {secret, secret.strip(), quote(secret, safe="")} - {""}:
                text = text.replace(form, _HIDDEN)
        return self._redact(text).strip()
