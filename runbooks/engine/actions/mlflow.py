# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Move an alias of a prompt to another version in MLflow's prompt registry: how a prompt change is rolled back there.

A prompt is a registered model with the tag `mlflow.prompt.is_prompt`; models without it are left alone. An alias sits
on one version only. Clients that load `prompts:/NAME@ALIAS` may cache it for 60 s.
Facts (MLflow 3): GET registered-models/get?name=, GET model-versions/get?name=&version=, and
POST registered-models/alias, which answers `{}`. The version is a text there. `latest` and `v7` are MLflow's own names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import change, look, object_of, open_client
from runbooks.engine.actions.parameters import ConfigName, Whole, chosen_source
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_SYSTEM = "MLflow"
_API = "/api/2.0/mlflow"
_IS_PROMPT = "mlflow.prompt.is_prompt"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}", re.ASCII)
_RESERVED = re.compile(r"latest|v[0-9]+", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def _prompt_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("not the name of a prompt: letters, digits, `_`, `-` and `.`")
    return value


def _alias_name(value: str) -> str:
    if not _ALIAS.fullmatch(value):
        raise ValueError("not an alias: letters, digits, `_` and `-`")
    if _RESERVED.fullmatch(value):
        raise ValueError("`latest` and versions such as `v7` are MLflow's own and cannot be moved")
    return value


class AliasOfPrompt(BaseModel):
    """Which alias of which prompt, and in which of the configured MLflow servers when there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, AfterValidator(_prompt_name)]
    alias: Annotated[str, AfterValidator(_alias_name)]
    source: ConfigName | None = None


class SetAliasParams(AliasOfPrompt):
    """`version` is the one that the alias shall point to."""

    version: Annotated[Whole, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class MlflowAccess:
    """How to reach one MLflow server; `authorization` is the header of somebody who may write."""

    url: str
    authorization: str = field(repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"Authorization": self.authorization}
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


class SetAlias:
    """`mlflow.set_alias`: reversible at once and without loss, hence R1."""

    name = "mlflow.set_alias"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = SetAliasParams
    subject: type[BaseModel] = AliasOfPrompt
    can_undo = True

    def __init__(self, servers: Mapping[str, MlflowAccess]) -> None:
        self._servers = dict(servers)

    def effect(self, params: SetAliasParams, before: JsonObject) -> str:
        return (
            f"In MLflow, the alias {params.alias} of the prompt {params.prompt} moves "
            f"from version {before['version']} to version {params.version}."
        )

    def target(self, params: SetAliasParams) -> str:
        return f"mlflow/prompt-alias/{params.prompt}@{params.alias}"

    def refusal(self, params: SetAliasParams, before: JsonObject) -> str | None:
        if before["version"] == params.version:
            return f"{params.alias} of {params.prompt} is on version {params.version} already"
        return None

    def undo(self, params: SetAliasParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"version": before["version"]}).model_dump(mode="json")

    async def read(self, params: AliasOfPrompt) -> JsonObject:
        """`{"version": int}`: the version that the alias points to. The version to move to must exist."""
        async with self._access(params).client() as client:
            before = {"version": await _pointed_to(client, params)}
            if isinstance(params, SetAliasParams):
                await _require_version(client, params)
        return before

    async def act(self, params: SetAliasParams, before: JsonObject, token: str) -> JsonObject:
        async with self._access(params).client() as client:
            now = await _pointed_to(client, params)
            if now != before["version"]:
                raise ActionError(
                    f"the alias is on version {now} by now, not on {before['version']}: nothing was changed"
                )
            body = {"name": params.prompt, "alias": params.alias, "version": str(params.version)}
            await change(client, _SYSTEM, "POST", f"{_API}/registered-models/alias", body, token)
            await self._confirm(client, params)
        return {"version": params.version}

    async def happened(self, params: SetAliasParams, before: JsonObject, token: str) -> Happened:
        try:
            async with self._access(params).client() as client:
                now = await _pointed_to(client, params)
        except ActionError:
            return Happened.CANNOT_TELL
        if now == params.version:
            return Happened.YES
        return Happened.NO if now == before["version"] else Happened.CANNOT_TELL

    def _access(self, params: AliasOfPrompt) -> MlflowAccess:
        return chosen_source(self._servers, params.source, _SYSTEM)

    async def _confirm(self, client: httpx.AsyncClient, params: SetAliasParams) -> None:
        """MLflow's answer says nothing, so the alias is read back. Raises OutcomeUnknownError."""
        try:
            now = await _pointed_to(client, params)
        except ActionError as error:
            raise OutcomeUnknownError(f"MLflow took the change, but then: {error}") from error
        if now != params.version:
            raise OutcomeUnknownError(f"MLflow took the change, but the alias is on version {now}")


async def _pointed_to(client: httpx.AsyncClient, params: AliasOfPrompt) -> int:
    """Raises ActionError, for a registered model that is no prompt, too."""
    about = f"prompt `{params.prompt}`"
    model = (await _get(client, "registered-models", {"name": params.prompt}, about)).get("registered_model")
    tags = {tag.get("key"): tag.get("value") for tag in _objects(model, "tags")}
    if str(tags.get(_IS_PROMPT)).lower() != "true":
        raise ActionError(f"`{params.prompt}` is a registered model in MLflow and no prompt: its aliases stay")
    versions = [str(one.get("version")) for one in _objects(model, "aliases") if one.get("alias") == params.alias]
    if len(versions) != 1 or not _NUMBER.fullmatch(versions[0]):
        raise ActionError(f"MLflow has no alias `{params.alias}` of {about}")
    return int(versions[0])


async def _require_version(client: httpx.AsyncClient, params: SetAliasParams) -> None:
    about = f"version {params.version} of prompt `{params.prompt}`"
    await _get(client, "model-versions", {"name": params.prompt, "version": str(params.version)}, about)


async def _get(client: httpx.AsyncClient, kind: str, query: dict[str, str], about: str) -> JsonObject:
    """Raises ActionError: reading changes nothing, whatever went wrong."""
    answer = await look(client, _SYSTEM, f"{_API}/{kind}/get", query)
    if answer.status_code == 404:
        raise ActionError(f"MLflow has no {about}")
    if answer.status_code != 200:
        raise ActionError(f"MLflow answered HTTP {answer.status_code} for {about}")
    return object_of(answer, _SYSTEM)


def _objects(value: Any, key: str) -> list[JsonObject]:
    found = value.get(key) if isinstance(value, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
