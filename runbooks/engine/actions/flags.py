# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Turn a feature flag on or off in one environment, at LaunchDarkly or Unleash.

Project and environment are the configuration's, and so are the flags that count: a runbook names one of them.
LaunchDarkly: GET /api/v2/flags/PROJECT/FLAG?env=ENV, and a PATCH there as a semantic patch, `turnFlagOn` or
`turnFlagOff`. Each write raises the `version` of the flag's environment.
Unleash: GET /api/admin/projects/PROJECT/features/FLAG/environments/ENV, and a POST to /on or /off below it, which
answers nothing. Turning on a flag without an active strategy would give it one for everybody, so that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict

from runbooks.engine.actions.json_api import look, object_of, open_client, send
from runbooks.engine.actions.parameters import ConfigName, chosen_source
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]{0,199}", re.ASCII)
_SEMANTIC_PATCH = {"Content-Type": "application/json; domain-model=launchdarkly.semanticpatch"}
_SYSTEMS = {"launchdarkly": "LaunchDarkly", "unleash": "Unleash"}


def _flag_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("not the key of a flag: letters, digits, `_`, `-`, `.` and `~`")
    return value


class FlagRef(BaseModel):
    """A flag by its key, and in which of the configured sources when there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flag: Annotated[str, AfterValidator(_flag_name)]
    source: ConfigName | None = None


class SetFlagParams(FlagRef):
    """`on` is the state that it shall have."""

    on: bool


@dataclass(frozen=True, kw_only=True)
class FlagAccess:
    """
    How to reach the flags of one project and environment with a token that may switch them.

    `flags` are shell patterns for the keys that may be switched, all when none.
    """

    kind: Literal["launchdarkly", "unleash"]
    url: str
    authorization: str = field(repr=False)
    project: str
    environment: str
    flags: tuple[str, ...] = ()
    ca_file: str | None = None
    timeout_s: float = 10.0

    @property
    def system(self) -> str:
        return _SYSTEMS[self.kind]

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"Authorization": self.authorization}
        return open_client(self.system, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)

    async def state(self, client: httpx.AsyncClient, flag: str) -> JsonObject:
        """`{"on": bool, ...}`, with what else tells that somebody changed the flag. Raises ActionError."""
        path, query = self._place(flag)
        answer = await look(client, self.system, path, query)
        if answer.status_code == 404:
            raise ActionError(f"{self.system} has no flag `{flag}` in {self.project}, {self.environment}")
        if answer.status_code != 200:
            raise ActionError(f"{self.system} answered HTTP {answer.status_code} for the flag `{flag}`")
        told = object_of(answer, self.system)
        state = self._launchdarkly(told) if self.kind == "launchdarkly" else _unleash(told)
        if not isinstance(state["on"], bool):
            raise ActionError(f"{self.system} did not say whether `{flag}` is on in {self.environment}")
        return state

    async def switch(self, client: httpx.AsyncClient, flag: str, *, on: bool, token: str) -> None:
        """Raises ActionError, OutcomeUnknownError."""
        path, _ = self._place(flag)
        if self.kind == "unleash":
            await send(client, self.system, "POST", f"{path}/{'on' if on else 'off'}", None, token)
            return
        patch = {
            "environmentKey": self.environment,
            "instructions": [{"kind": "turnFlagOn" if on else "turnFlagOff"}],
            "comment": f"Watchkeeper {token}",
        }
        await send(client, self.system, "PATCH", path, patch, token, _SEMANTIC_PATCH)

    def _place(self, flag: str) -> tuple[str, dict[str, str]]:
        if self.kind == "launchdarkly":
            return f"/api/v2/flags/{self.project}/{flag}", {"env": self.environment}
        return f"/api/admin/projects/{self.project}/features/{flag}/environments/{self.environment}", {}

    def _launchdarkly(self, told: JsonObject) -> JsonObject:
        environments = told.get("environments")
        here = environments.get(self.environment) if isinstance(environments, dict) else None
        state = here if isinstance(here, dict) else {}
        return {"on": state.get("on"), "version": state.get("version"), "archived": bool(told.get("archived"))}


def _unleash(told: JsonObject) -> JsonObject:
    strategies = told.get("strategies")
    listed = [one for one in strategies if isinstance(one, dict)] if isinstance(strategies, list) else []
    return {"on": told.get("enabled"), "strategies": len([one for one in listed if not one.get("disabled")])}


class SetFlag:
    """`flag.set`: reversible at once and without loss, hence R1."""

    name = "flag.set"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = SetFlagParams
    subject: type[BaseModel] = FlagRef
    can_undo = True

    def __init__(self, sources: Mapping[str, FlagAccess]) -> None:
        self._sources = dict(sources)

    def effect(self, params: SetFlagParams, before: JsonObject) -> str:
        turned = f"is turned {_word(params.on)}"
        if not self._sources:  # a rehearsal without a configuration
            return f"The flag {params.flag} {turned} (before: {_word(before['on'])})."
        access = self._access(params)
        return (
            f"In {access.system}, the flag {params.flag} of the project {access.project} {turned} "
            f"in the environment {access.environment} (before: {_word(before['on'])})."
        )

    def target(self, params: SetFlagParams) -> str:
        if not self._sources:
            return f"flag/{params.flag}"
        access = self._access(params)
        return f"flag/{access.project}/{access.environment}/{params.flag}"

    def refusal(self, params: SetFlagParams, before: JsonObject) -> str | None:
        if before["on"] == params.on:
            return f"the flag {params.flag} is {_word(params.on)} already"
        if before.get("archived"):
            return f"the flag {params.flag} is archived"
        if params.on and before.get("strategies") == 0:
            return f"the flag {params.flag} has no active strategy, so Unleash would turn it on for everybody"
        return None

    def undo(self, params: SetFlagParams, before: JsonObject) -> JsonObject | None:
        """None when going back would itself be refused: a flag that was on without a strategy."""
        back = params.model_copy(update={"on": before["on"]})
        if self.refusal(back, {**before, "on": params.on}) is not None:
            return None
        return back.model_dump(mode="json")

    async def read(self, params: FlagRef) -> JsonObject:
        """`{"on": bool}`; LaunchDarkly adds `version` and `archived`, Unleash the number of active `strategies`."""
        access = self._access(params)
        async with access.client() as client:
            return await access.state(client, params.flag)

    async def act(self, params: SetFlagParams, before: JsonObject, token: str) -> JsonObject:
        access = self._access(params)
        async with access.client() as client:
            if await access.state(client, params.flag) != before:
                raise ActionError(f"somebody changed the flag {params.flag} since: nothing was changed now")
            if (reason := self.refusal(params, before)) is not None:
                raise ActionError(reason)
            await access.switch(client, params.flag, on=params.on, token=token)
            return await _confirmed(access, client, params)

    async def happened(self, params: SetFlagParams, before: JsonObject, token: str) -> Happened:
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        if now["on"] == params.on:
            return Happened.YES
        return Happened.NO if now == before else Happened.CANNOT_TELL

    def _access(self, params: FlagRef) -> FlagAccess:
        access = chosen_source(self._sources, params.source, "source of flags")
        if access.flags and not any(fnmatchcase(params.flag, pattern) for pattern in access.flags):
            allowed = ", ".join(access.flags)
            raise ActionError(f"the configuration lets only {allowed} be switched there, not {params.flag}")
        return access


async def _confirmed(access: FlagAccess, client: httpx.AsyncClient, params: SetFlagParams) -> JsonObject:
    """Not every answer holds the new state, so the flag is read back. Raises OutcomeUnknownError."""
    try:
        now: Any = await access.state(client, params.flag)
    except ActionError as error:
        raise OutcomeUnknownError(f"{access.system} took the change, but then: {error}") from error
    if now["on"] != params.on:
        raise OutcomeUnknownError(f"{access.system} took the change, but the flag is {_word(not params.on)}")
    return {"on": params.on}


def _word(on: bool) -> str:  # noqa: FBT001 - a value and no option
    return "on" if on else "off"
