# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
vLLM engines by their admin API: load and unload a LoRA adapter, empty the prefix cache, sleep and wake up.

An engine is one address: behind a load balancer a call would reach one of several, so each has an entry of its own.
Facts: POST /v1/load_lora_adapter and /v1/unload_lora_adapter (VLLM_ALLOW_RUNTIME_LORA_UPDATING), GET /v1/models names
an adapter with its path as `root`; POST /reset_prefix_cache, /sleep, /wake_up and GET /is_sleeping exist in
VLLM_SERVER_DEV_MODE only, and vLLM's own API key guards /v1 alone: a proxy has to guard the others. Successes are
answered with a sentence or with nothing. Sleep of level 1 keeps the weights in the host's memory; of level 2, which
drops them, an engine does not wake up well by itself, so nobody can ask for it here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runbooks.engine.actions.json_api import look, object_of, open_client, reason, send
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_SYSTEM = "vLLM"
_CALLS = 3  # of one act: look, change, look again


def _lora_path(value: str) -> str:
    if ".." in value.split("/"):
        raise ValueError("a path that climbs")
    return value


AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
LoraPath = Annotated[str, Field(pattern=r"^[A-Za-z0-9/._@:+-]{1,300}$"), AfterValidator(_lora_path)]


class OnEngine(BaseModel):
    """An `[[engine]]` of the configuration; `service` is the plan's own, and has to be one that the engine serves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: ConfigName
    service: ConfigName


class AdapterRef(OnEngine):
    """A LoRA adapter by the name that requests call it."""

    name: AdapterName


class LoadLoraParams(AdapterRef):
    """`path` is where the engine finds it: a folder on its machine, or a repository's name."""

    path: LoraPath


@dataclass(frozen=True, kw_only=True)
class EngineAccess:
    """
    One engine, the services whose fixes may change it, and what a LoRA adapter's whole path may look like.

    `token` is a bearer token, `timeout_s` how long one call may take; loading and sleeping move gigabytes.
    """

    url: str
    services: tuple[str, ...]
    lora_paths: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    timeout_s: float = 60.0

    def client(self) -> httpx.AsyncClient:
        """Raises ActionError when `ca_file` or `url` cannot be used."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        return open_client(_SYSTEM, self.url, timeout_s=self.timeout_s, ca_file=self.ca_file, headers=headers)

    def allows(self, path: str) -> bool:
        """May an adapter be loaded from there?"""
        return any(re.fullmatch(pattern, path) for pattern in self.lora_paths)


class EngineAction:
    """What all actions on an engine share."""

    subject: type[BaseModel] = OnEngine
    dry_run = DryRun.READS

    def __init__(self, engines: Mapping[str, EngineAccess]) -> None:
        self._engines = dict(engines)

    def access(self, params: OnEngine) -> EngineAccess:
        """Raises ActionError."""
        access = self._engines.get(params.engine)
        if access is None:
            known = ", ".join(sorted(self._engines)) or "none"
            raise ActionError(f"the configuration has no engine {params.engine} (it has: {known})")
        if params.service not in access.services:
            raise ActionError(
                f"the engine {params.engine} serves {', '.join(access.services)} and not {params.service}"
            )
        return access

    def patience_s(self, params: OnEngine) -> float:
        """Seconds; the engine's own limit for each call."""
        access = self._engines.get(params.engine)
        return _CALLS * access.timeout_s + 5.0 if access else 0.0


class LoraAction(EngineAction):
    """What loading and unloading share: they look at where the adapter is loaded from, "" for not at all."""

    subject: type[BaseModel] = AdapterRef
    can_undo = True

    def target(self, params: AdapterRef) -> str:
        return f"vllm/lora/{params.engine}/{params.name}"

    async def read(self, params: AdapterRef) -> JsonObject:
        """`{"path"}`. An adapter may be loaded from an allowed path only."""
        access = self.access(params)
        if isinstance(params, LoadLoraParams) and not access.allows(params.path):
            raise ActionError(f"`lora_paths` of the engine {params.engine} does not allow {params.path}")
        async with access.client() as client:
            return {"path": await _loaded_from(client, params.name)}

    async def _change(self, params: AdapterRef, before: JsonObject, path: str, body: JsonObject, token: str) -> None:
        """Raises ActionError unless all is as it was, OutcomeUnknownError when nobody knows."""
        async with self.access(params).client() as client:
            now = await _loaded_from(client, params.name)
            if now != before["path"]:
                raise ActionError(f"{params.name} was loaded from {before['path'] or 'nowhere'} and is from "
                                  f"{now or 'nowhere'} by now: nothing was changed")  # fmt: skip
            await send(client, _SYSTEM, "POST", path, body, token)

    async def _now(self, params: AdapterRef) -> str | None:
        """Where it is loaded from; None when that cannot be read."""
        try:
            async with self.access(params).client() as client:
                return await _loaded_from(client, params.name)
        except ActionError:
            return None


class LoadLora(LoraAction):
    """`vllm.load_lora`: R1, since nobody could use that name before."""

    name = "vllm.load_lora"
    tier = Tier.R1
    params: type[BaseModel] = LoadLoraParams
    undone_by = "vllm.unload_lora"

    def effect(self, params: LoadLoraParams, before: JsonObject) -> str:
        return f"The engine {params.engine} loads the LoRA adapter {params.name} from {params.path}."

    def refusal(self, params: LoadLoraParams, before: JsonObject) -> str | None:
        return f"{params.name} is loaded already, from {before['path']}" if before["path"] else None

    def undo(self, params: LoadLoraParams, before: JsonObject) -> JsonObject | None:
        return params.model_dump(mode="json", exclude={"path"})

    async def act(self, params: LoadLoraParams, before: JsonObject, token: str) -> JsonObject:
        await self.read(params)  # the path has to be allowed still
        body = {"lora_name": params.name, "lora_path": params.path}
        await self._change(params, before, "/v1/load_lora_adapter", body, token)
        return {"loaded": params.name, "from": params.path}

    async def happened(self, params: LoadLoraParams, before: JsonObject, token: str) -> Happened:
        now = await self._now(params)
        if now == params.path:
            return Happened.YES
        return Happened.NO if now == "" else Happened.CANNOT_TELL


class UnloadLora(LoraAction):
    """`vllm.unload_lora`: R2, since requests for that name fail until it is loaded again."""

    name = "vllm.unload_lora"
    tier = Tier.R2
    params: type[BaseModel] = AdapterRef
    undone_by = "vllm.load_lora"

    def effect(self, params: AdapterRef, before: JsonObject) -> str:
        return (
            f"The engine {params.engine} unloads the LoRA adapter {params.name} (loaded from {before['path']}): "
            "requests for it fail there."
        )

    def refusal(self, params: AdapterRef, before: JsonObject) -> str | None:
        return None if before["path"] else f"{params.name} is not loaded"

    def undo(self, params: AdapterRef, before: JsonObject) -> JsonObject | None:
        """None where the configuration does not let anybody load it from where it was."""
        access = self._engines.get(params.engine)
        if access is None or not access.allows(before["path"]):
            return None
        return {**params.model_dump(mode="json"), "path": before["path"]}

    async def act(self, params: AdapterRef, before: JsonObject, token: str) -> JsonObject:
        await self._change(params, before, "/v1/unload_lora_adapter", {"lora_name": params.name}, token)
        return {"unloaded": params.name}

    async def happened(self, params: AdapterRef, before: JsonObject, token: str) -> Happened:
        now = await self._now(params)
        if now == "":
            return Happened.YES
        return Happened.NO if now == before["path"] else Happened.CANNOT_TELL


class WakefulAction(EngineAction):
    """What the others share: they look at whether the engine sleeps."""

    params: type[BaseModel] = OnEngine

    def target(self, params: OnEngine) -> str:
        return f"vllm/engine/{params.engine}"

    async def read(self, params: OnEngine) -> JsonObject:
        """`{"sleeping"}`."""
        async with self.access(params).client() as client:
            return {"sleeping": await _is_sleeping(client)}


class ResetPrefixCache(WakefulAction):
    """`vllm.reset_prefix_cache`: what is lost comes back with the next prompts, hence R1 though nothing undoes it."""

    name = "vllm.reset_prefix_cache"
    tier = Tier.R1
    can_undo = False

    def effect(self, params: OnEngine, before: JsonObject) -> str:
        return (
            f"The engine {params.engine} forgets its prefix cache, which cannot be taken back: prompts are computed in "
            "full until it has filled again. vLLM leaves it as it is while requests hold parts of it."
        )

    def refusal(self, params: OnEngine, before: JsonObject) -> str | None:
        return f"{params.engine} sleeps: its cache is empty" if before["sleeping"] else None

    def undo(self, params: OnEngine, before: JsonObject) -> JsonObject | None:
        return None

    async def act(self, params: OnEngine, before: JsonObject, token: str) -> JsonObject:
        async with self.access(params).client() as client:
            await _require(client, before)
            await send(client, _SYSTEM, "POST", "/reset_prefix_cache", None, token)
        return {"emptied": params.engine}

    async def happened(self, params: OnEngine, before: JsonObject, token: str) -> Happened:
        """vLLM does not say when its cache was emptied."""
        return Happened.CANNOT_TELL


class SleepAction(WakefulAction):
    """Sleeping and waking up, each taken back by the other."""

    can_undo = True
    puts_to_sleep = False
    path = ""

    def refusal(self, params: OnEngine, before: JsonObject) -> str | None:
        if before["sleeping"] != self.puts_to_sleep:
            return None
        return f"{params.engine} {'sleeps' if self.puts_to_sleep else 'is awake'} already"

    def undo(self, params: OnEngine, before: JsonObject) -> JsonObject | None:
        return params.model_dump(mode="json")

    async def act(self, params: OnEngine, before: JsonObject, token: str) -> JsonObject:
        async with self.access(params).client() as client:
            await _require(client, before)
            await send(client, _SYSTEM, "POST", self.path, None, token)
            try:
                sleeping = await _is_sleeping(client)  # some releases answer before it is done
            except ActionError as error:
                raise OutcomeUnknownError(str(error)) from error
        if sleeping is not self.puts_to_sleep:
            raise OutcomeUnknownError(f"{params.engine} took it, and {'sleeps' if sleeping else 'is awake'} still")
        return {"sleeping": sleeping}

    async def happened(self, params: OnEngine, before: JsonObject, token: str) -> Happened:
        try:
            now = await self.read(params)
        except ActionError:
            return Happened.CANNOT_TELL
        return Happened.YES if now["sleeping"] is self.puts_to_sleep else Happened.NO


class Sleep(SleepAction):
    """`vllm.sleep`: R2, since what runs there is aborted and nothing is answered until it wakes up."""

    name = "vllm.sleep"
    tier = Tier.R2
    undone_by = "vllm.wake_up"
    puts_to_sleep = True
    path = "/sleep?level=1"

    def effect(self, params: OnEngine, before: JsonObject) -> str:
        return (
            f"The engine {params.engine} falls asleep: its requests are aborted, its weights move to the host's "
            "memory, and it answers nothing until it is woken up."
        )


class WakeUp(SleepAction):
    """`vllm.wake_up`: R1, since it only takes back the GPU memory that it had."""

    name = "vllm.wake_up"
    tier = Tier.R1
    undone_by = "vllm.sleep"
    path = "/wake_up"

    def effect(self, params: OnEngine, before: JsonObject) -> str:
        return f"The engine {params.engine} wakes up: its weights move back to the GPU and it answers again."


async def _require(client: httpx.AsyncClient, before: JsonObject) -> None:
    """Raises ActionError unless it sleeps, or not, as it did when the plan was made."""
    if await _is_sleeping(client) is not before["sleeping"]:
        raise ActionError("somebody put it to sleep or woke it up since: nothing was changed")


async def _is_sleeping(client: httpx.AsyncClient) -> bool:
    answer = await look(client, _SYSTEM, "/is_sleeping", {})
    if answer.status_code == 404:
        raise ActionError("this vLLM has no /is_sleeping: start it with VLLM_SERVER_DEV_MODE=1")
    sleeping = _read(answer, "/is_sleeping").get("is_sleeping")
    if not isinstance(sleeping, bool):
        raise ActionError("vLLM did not say whether it sleeps")
    return sleeping


async def _loaded_from(client: httpx.AsyncClient, name: str) -> str:
    """The adapter's path, "" when it is not loaded. Raises ActionError, also for the name of a model."""
    models = _read(await look(client, _SYSTEM, "/v1/models", {}), "/v1/models").get("data")
    if not isinstance(models, list):
        raise ActionError("vLLM did not answer with its models")
    found = [each for each in models if isinstance(each, dict) and each.get("id") == name]
    if not found:
        return ""
    root: Any = found[0].get("root")
    if not found[0].get("parent") or not isinstance(root, str) or not root:
        raise ActionError(f"{name} is a model of this engine and no LoRA adapter")
    return root


def _read(answer: httpx.Response, path: str) -> JsonObject:
    if answer.status_code != 200:
        raise ActionError(f"vLLM answered HTTP {answer.status_code} for {path}{reason(answer)}")
    return object_of(answer, _SYSTEM)
