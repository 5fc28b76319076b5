"""
The admin API of a LiteLLM proxy: what the actions on it read, and how they change it.

Facts (LiteLLM 1.109): deployments can be changed only when they live in its database, not in its config file; a key
is named by its alias or by the SHA-256 of itself; GET /fallback answers 404 both where there is none and where the
release is too old to know the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

import httpx
from pydantic import AfterValidator

from runbooks.engine.actions.json_api import change, look, object_of, open_client, reason
from runbooks.engine.values import ActionError, JsonObject

_SYSTEM = "the gateway"
_MOST_KEYS = 100
_HASH_CHARS = 12
"""How much of a key's hash people see: enough to find it in LiteLLM, useless to call with."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@ -]{0,199}", re.ASCII)
_KEY_HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or any(part in {"", ".", ".."} for part in value.split("/")):
        raise ValueError("not a name that LiteLLM uses: letters, digits and `_./:@ -`")
    return value


def _alias(value: str) -> str:
    """The value is not repeated: somebody may have written the key itself here."""
    if value.startswith("sk-"):
        raise ValueError("this looks like a key itself: name it by its alias, and rotate it")
    return _name(value)


GatewayObject = Annotated[str, AfterValidator(_name)]
KeyAlias = Annotated[str, AfterValidator(_alias)]


@dataclass(frozen=True, kw_only=True)
class LiteLLMAccess:
    """How to reach one LiteLLM proxy with a key that may change it; `ca_file` for a private authority."""

    url: str
    key: str = field(repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        # LiteLLM writes `litellm-changed-by` into its own audit log.
        headers = {"Authorization": f"Bearer {self.key}", "litellm-changed-by": "watchkeeper"}
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One deployment of a model group; `weight` None is one that was never set."""

    id: str
    group: str
    provider: str
    model: str
    weight: int | None
    in_database: bool


@dataclass(frozen=True, kw_only=True)
class GatewayKey:
    """An API key as the gateway lists it. `token` is its hash and stays in this process; people see `hint`."""

    alias: str
    token: str = field(repr=False)
    tpm: int | None
    rpm: int | None
    blocked: bool

    @property
    def hint(self) -> str:
        return self.token[:_HASH_CHARS]


@dataclass(frozen=True, kw_only=True)
class Guardrail:
    """A guardrail whose policy has versions."""

    id: str
    version: str


class LiteLLMProxy:
    """The few calls that the actions need."""

    def __init__(self, access: LiteLLMAccess) -> None:
        self._access = access

    async def deployments(self) -> list[Deployment]:
        """All of them. Raises ActionError."""
        answer = await self._read("/v1/model/info", {})
        data = answer.get("data")
        if not isinstance(data, list):
            raise ActionError("the gateway did not list its deployments")
        return [_deployment(entry) for entry in data if isinstance(entry, dict)]

    async def set_weight(self, deployment: str, weight: int, token: str) -> JsonObject:
        """The deployment's row. Raises ActionError, OutcomeUnknownError."""
        path = f"/model/{quote(deployment, safe='')}/update"
        return await self._change("PATCH", path, {"litellm_params": {"weight": weight}}, token)

    async def fallbacks(self, group: str) -> list[str]:
        """The groups that a failed request goes on to, in order; empty for none. Raises ActionError."""
        async with self._access.client() as client:
            answer = await look(client, _SYSTEM, _fallback_path(group), {"fallback_type": "general"})
        if answer.status_code == 404 and _is_no_fallback(answer):
            return []
        if answer.status_code == 404:
            raise ActionError("this LiteLLM has no /fallback endpoint: upgrade it, or set fallbacks by hand")
        models = _checked(answer, "the fallbacks").get("fallback_models")
        if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
            raise ActionError(f"the gateway did not say the fallbacks of {group}")
        return models

    async def set_fallbacks(self, group: str, fallbacks: list[str], token: str) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        if not fallbacks:  # LiteLLM refuses an empty list: none is set by deleting
            return await self._change("DELETE", f"{_fallback_path(group)}?fallback_type=general", None, token)
        body = {"model": group, "fallback_models": fallbacks, "fallback_type": "general"}
        return await self._change("POST", "/fallback", body, token)

    async def key(self, alias: str) -> GatewayKey:
        """The one key with this alias. Raises ActionError when there is none, or more than one."""
        # Some releases match a part of the alias, so that others may come along.
        query = {"key_alias": alias, "return_full_object": "true", "page": "1", "size": str(_MOST_KEYS)}
        answer = await self._read("/key/list", query)
        rows = answer.get("keys")
        if not isinstance(rows, list):
            raise ActionError("the gateway did not list its keys")
        found = [row for row in rows if isinstance(row, dict) and row.get("key_alias") == alias]
        pages = answer.get("total_pages")
        if len(found) > 1 or (isinstance(pages, int) and pages > 1):
            raise ActionError(f"more than one API key at the gateway has the alias {alias}: it must be one")
        if not found:
            raise ActionError(f"the gateway has no API key with the alias {alias}")
        return _key(alias, found[0])

    async def limit(self, key: GatewayKey, *, tpm: int | None, rpm: int | None, token: str) -> JsonObject:
        """An explicit null lifts a limit. Raises ActionError, OutcomeUnknownError."""
        return await self._change("POST", "/key/update", {"key": key.token, "tpm_limit": tpm, "rpm_limit": rpm}, token)

    async def block(self, key: GatewayKey, *, blocked: bool, token: str) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        return await self._change("POST", "/key/block" if blocked else "/key/unblock", {"key": key.token}, token)

    async def guardrail(self, name: str) -> Guardrail:
        """The one guardrail of this name. Raises ActionError when its version cannot be said or set."""
        rows = (await self._read("/v2/guardrails/list", {})).get("guardrails")
        if not isinstance(rows, list):
            raise ActionError("the gateway did not list its guardrails")
        found = [row for row in rows if isinstance(row, dict) and row.get("guardrail_name") == name]
        if len(found) != 1:
            raise ActionError(f"the gateway has {len(found) or 'no'} guardrails of the name {name}: it must be one")
        return _guardrail(name, found[0])

    async def set_guardrail_version(self, guardrail: str, version: str, token: str) -> str | None:
        """The version that LiteLLM answered. Raises ActionError, OutcomeUnknownError."""
        path = f"/guardrails/{quote(guardrail, safe='')}"
        answer = await self._change("PATCH", path, {"litellm_params": {"guardrailVersion": version}}, token)
        said = _object(answer.get("litellm_params")).get("guardrailVersion")
        return said if isinstance(said, str) else None

    async def _read(self, path: str, query: Mapping[str, str]) -> JsonObject:
        async with self._access.client() as client:
            answer = await look(client, _SYSTEM, path, query)
        return _checked(answer, path)

    async def _change(self, method: str, path: str, body: JsonObject | None, token: str) -> JsonObject:
        async with self._access.client() as client:
            return await change(client, _SYSTEM, method, path, body, token)


def _checked(answer: httpx.Response, what: str) -> JsonObject:
    if answer.status_code != 200:
        raise ActionError(f"the gateway answered HTTP {answer.status_code} for {what}{reason(answer)}")
    return object_of(answer, _SYSTEM)


def _fallback_path(group: str) -> str:
    return f"/fallback/{quote(group, safe='')}"


def _is_no_fallback(answer: httpx.Response) -> bool:
    """`{"detail": {"error": ...}}` is LiteLLM's own 404; `{"detail": "Not Found"}` means that nobody knows the path."""
    try:
        detail = object_of(answer, _SYSTEM).get("detail")
    except ActionError:
        return False
    return isinstance(detail, dict) and "error" in detail


def _deployment(entry: JsonObject) -> Deployment:
    """Raises ActionError when LiteLLM's entry cannot be understood."""
    params, info = _object(entry.get("litellm_params")), _object(entry.get("model_info"))
    id_, group, model = info.get("id"), entry.get("model_name"), params.get("model")
    if not (isinstance(id_, str) and isinstance(group, str) and isinstance(model, str)):
        raise ActionError("the gateway lists a deployment without an id, a model group or a model")
    provider = info.get("litellm_provider") or params.get("custom_llm_provider") or model.partition("/")[0]
    weight = params.get("weight")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int)):
        raise ActionError(
            f"the deployment {id_} has the weight {weight!r}, which is no whole number: change it by hand"
        )
    return Deployment(
        id=id_,
        group=group,
        provider=str(provider),
        model=model,
        weight=weight,
        in_database=info.get("db_model") is True,
    )


def _key(alias: str, row: JsonObject) -> GatewayKey:
    """Raises ActionError when LiteLLM's row cannot be understood."""
    token = row.get("token")
    if not isinstance(token, str) or not _KEY_HASH.fullmatch(token):
        raise ActionError(f"the gateway did not say the hash of the key {alias}")
    return GatewayKey(
        alias=alias,
        token=token,
        tpm=limit_of(row, "tpm_limit"),
        rpm=limit_of(row, "rpm_limit"),
        blocked=row.get("blocked") is True,
    )


def _guardrail(name: str, row: JsonObject) -> Guardrail:
    """Raises ActionError where its version cannot be set."""
    id_, version = row.get("guardrail_id"), _object(row.get("litellm_params")).get("guardrailVersion")
    if row.get("guardrail_definition_location") != "db":
        raise ActionError(f"the guardrail {name} stands in LiteLLM's config file, where its API cannot change it")
    if not isinstance(id_, str) or not isinstance(version, str):
        raise ActionError(f"the guardrail {name} has no version at the gateway: only those of Amazon Bedrock have one")
    return Guardrail(id=id_, version=version)


def limit_of(row: JsonObject, name: str) -> int | None:
    """Raises ActionError when it is neither a whole number nor nothing."""
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ActionError(f"the gateway says {value!r} as {name}")
    return value


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}
