# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Move a prompt's label to another version in Langfuse: how a prompt change is rolled back.

Langfuse keeps a label on one version only: setting it on one takes it from the other, in one transaction. Clients
cache a prompt for 60 s by default, so the effect on traffic starts up to a minute later.
Facts: PATCH /api/public/v2/prompts/{name}/versions/{version} with `newLabels`; `latest` is Langfuse's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import change, look, object_of, open_client
from runbooks.engine.actions.parameters import ConfigName, Whole, chosen_source
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_SYSTEM = "Langfuse"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. /-]{0,199}", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,35}", re.ASCII)


def _prompt_name(value: str) -> str:
    if not _NAME.fullmatch(value) or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("not the name of a prompt")
    return value


def _label_name(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError("not a label: lower-case letters, digits, `_`, `-` and `.`")
    if value == "latest":
        raise ValueError("`latest` is Langfuse's own label and cannot be moved")
    return value


class LabelOfPrompt(BaseModel):
    """Which label of which prompt, and in which of the configured Langfuse projects when there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, AfterValidator(_prompt_name)]
    label: Annotated[str, AfterValidator(_label_name)]
    source: ConfigName | None = None


class MoveLabelParams(LabelOfPrompt):
    """`version` is the one that shall carry the label."""

    version: Annotated[Whole, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True, kw_only=True)
class LangfuseAccess:
    """How to reach one Langfuse project with a key pair that may write; `ca_file` for a private authority."""

    url: str
    public_key: str
    secret_key: str = field(repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        auth = httpx.BasicAuth(self.public_key, self.secret_key)
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, auth=auth)


class MoveLabel:
    """`langfuse.move_label`: reversible at once and without loss, hence R1."""

    name = "langfuse.move_label"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = MoveLabelParams
    subject: type[BaseModel] = LabelOfPrompt
    can_undo = True

    def __init__(self, projects: Mapping[str, LangfuseAccess]) -> None:
        self._projects = dict(projects)

    def effect(self, params: MoveLabelParams, before: JsonObject) -> str:
        return (
            f"In Langfuse, the label {params.label} of the prompt {params.prompt} moves "
            f"from version {before['version']} to version {params.version}."
        )

    def target(self, params: MoveLabelParams) -> str:
        return f"langfuse/prompt-label/{params.prompt}:{params.label}"

    def refusal(self, params: MoveLabelParams, before: JsonObject) -> str | None:
        if before["version"] == params.version:
            return f"{params.label} of {params.prompt} is on version {params.version} already"
        return None

    def undo(self, params: MoveLabelParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"version": before["version"]}).model_dump(mode="json")

    async def read(self, params: LabelOfPrompt) -> JsonObject:
        """`{"version": int}`: the version that carries the label. The version to move to must exist."""
        async with self._access(params).client() as client:
            before = {"version": await self._labelled(client, params)}
            if isinstance(params, MoveLabelParams):
                await self._labels(client, params)
        return before

    async def act(self, params: MoveLabelParams, before: JsonObject, token: str) -> JsonObject:
        async with self._access(params).client() as client:
            now = await self._labelled(client, params)
            if now != before["version"]:
                raise ActionError(
                    f"the label is on version {now} by now, not on {before['version']}: nothing was changed"
                )
            # Langfuse adds `newLabels` to those that the version has; a server that replaced them would drop the
            # others, so they are all sent.
            labels = sorted({params.label, *await self._labels(client, params)} - {"latest"})
            path = f"{_path(params.prompt)}/versions/{params.version}"
            answer = await change(client, _SYSTEM, "PATCH", path, {"newLabels": labels}, token)
        if answer.get("version") != params.version or params.label not in _texts(answer.get("labels")):
            raise OutcomeUnknownError("Langfuse answered, but not with the version and its label")
        return {"version": params.version, "labels": _texts(answer.get("labels"))}

    async def happened(self, params: MoveLabelParams, before: JsonObject, token: str) -> Happened:
        try:
            async with self._access(params).client() as client:
                now = await self._labelled(client, params)
        except ActionError:
            return Happened.CANNOT_TELL
        if now == params.version:
            return Happened.YES
        return Happened.NO if now == before["version"] else Happened.CANNOT_TELL

    def _access(self, params: LabelOfPrompt) -> LangfuseAccess:
        return chosen_source(self._projects, params.source, _SYSTEM)

    async def _labelled(self, client: httpx.AsyncClient, params: LabelOfPrompt) -> int:
        answer = await _get(client, params, {"label": params.label})
        version = answer.get("version")
        if isinstance(version, bool) or not isinstance(version, int):
            raise ActionError(f"Langfuse did not say which version of `{params.prompt}` carries `{params.label}`")
        return version

    async def _labels(self, client: httpx.AsyncClient, params: MoveLabelParams) -> list[str]:
        return _texts((await _get(client, params, {"version": str(params.version)})).get("labels"))


async def _get(client: httpx.AsyncClient, params: LabelOfPrompt, query: dict[str, str]) -> JsonObject:
    """Raises ActionError: reading changes nothing, whatever went wrong."""
    wanted = " ".join(f"{name} {value}" for name, value in query.items())
    answer = await look(client, _SYSTEM, _path(params.prompt), query)
    if answer.status_code == 404:
        raise ActionError(f"Langfuse has no prompt `{params.prompt}` with {wanted}")
    if answer.status_code != 200:
        raise ActionError(f"Langfuse answered HTTP {answer.status_code} for `{params.prompt}` with {wanted}")
    return object_of(answer, _SYSTEM)


def _path(prompt: str) -> str:
    """A folder's slash is part of the name, so it travels escaped."""
    return f"/api/public/v2/prompts/{quote(prompt, safe='')}"


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
