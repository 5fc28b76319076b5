# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Shift traffic at a LiteLLM gateway: the weight of a deployment, and where a model group's failed requests go on to.

Both are R1: they change where new requests go and are taken back by the same call. Weights count by their ratios
within a model group. When all are 0, LiteLLM picks by `rpm`, by `tpm` or at random, so that "all 0" would send
requests everywhere; that is refused.

A gateway may have several replicas. Each answers from its own memory, and those that did not take the change follow
within 30 s. So a probe that finds the old state asks again over new connections before it believes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from runbooks.engine.actions.litellm_proxy import Deployment, GatewayObject, LiteLLMProxy
from runbooks.engine.actions.parameters import ConfigName, Whole
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

_LOOKS = 3


class OnGateway(BaseModel):
    """Which of the configured gateways."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gateway: ConfigName


class GatewayAction:
    """What all actions on a gateway share: which proxy, and that they can be taken back."""

    tier = Tier.R1
    dry_run = DryRun.READS
    can_undo = True

    def __init__(self, proxies: Mapping[str, LiteLLMProxy]) -> None:
        self._proxies = proxies

    def proxy(self, params: OnGateway) -> LiteLLMProxy:
        """Raises ActionError."""
        proxy = self._proxies.get(params.gateway)
        if proxy is None:
            raise ActionError(f"the gateway {params.gateway} has no `action_credential` in the configuration")
        return proxy


class DeploymentRef(OnGateway):
    """
    A deployment by its id (LiteLLM's `model_info.id`), or by its provider when there is only one of it.

    `model_group` looks for it in that group only.
    """

    deployment: GatewayObject
    model_group: GatewayObject | None = None


class SetWeightParams(DeploymentRef):
    """`weight` counts against the weights of the same model group; 0 takes the deployment out of traffic."""

    weight: Annotated[Whole, Field(ge=0, le=1_000_000)]


class SetWeight(GatewayAction):
    """`litellm.set_weight`."""

    name = "litellm.set_weight"
    params: type[BaseModel] = SetWeightParams
    subject: type[BaseModel] = DeploymentRef

    def target(self, params: SetWeightParams) -> str:
        # All of the gateway's: weights count against each other, LiteLLM compares nothing when it writes one, and a
        # deployment has two names. Two plans at once could leave a group without any weight.
        return f"litellm/weights/{params.gateway}"

    def effect(self, params: SetWeightParams, before: JsonObject) -> str:
        end = ", so that it gets no more requests" if params.weight == 0 else ""
        return (
            f"At the gateway {params.gateway}, the weight of {before['deployment']} ({before['model']}) in the model "
            f"group {before['group']} goes from {before['weight']} to {params.weight}{end}."
        )

    def refusal(self, params: SetWeightParams, before: JsonObject) -> str | None:
        if params.weight == before["weight"]:
            return f"{before['deployment']} has the weight {params.weight} already"
        if before["others_have_weight"]:
            return None
        if params.weight == 0:
            return (
                f"no deployment of {before['group']} would have a weight left, and LiteLLM then sends requests to "
                "all of them alike"
            )
        if before["weight"] == 0:
            return (
                f"no deployment of {before['group']} has a weight yet, so the first one to get one would draw every "
                "request"
            )
        return None

    def undo(self, params: SetWeightParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"weight": before["weight"]}).model_dump(mode="json")

    async def read(self, params: DeploymentRef) -> JsonObject:
        """`{"deployment", "model", "group", "weight", "others_have_weight"}`; a weight never set counts as 0."""
        listed = await self.proxy(params).deployments()
        one = _meant(params, listed)
        if not one.in_database:
            raise ActionError(f"{one.id} stands in LiteLLM's config file, where its API cannot change it")
        others = [other for other in listed if other.group == one.group and other.id != one.id]
        return {
            "deployment": one.id,
            "model": one.model,
            "group": one.group,
            "weight": one.weight or 0,
            "others_have_weight": any(other.weight for other in others),
        }

    async def act(self, params: SetWeightParams, before: JsonObject, token: str) -> JsonObject:
        now = await self.read(params)
        if now != before:
            raise ActionError(f"{_moved(before, now)}: nothing was changed")
        if (why := self.refusal(params, before)) is not None:
            raise ActionError(why)
        answer = await self.proxy(params).set_weight(before["deployment"], params.weight, token)
        stored = answer.get("litellm_params")
        if not isinstance(stored, dict) or stored.get("weight") != params.weight:
            raise OutcomeUnknownError("the gateway answered, but not with the new weight")
        return {"deployment": before["deployment"], "weight": params.weight}

    async def happened(self, params: SetWeightParams, before: JsonObject, token: str) -> Happened:
        async def look() -> Happened:
            now = await self.read(params)
            if now["deployment"] != before["deployment"]:
                return Happened.CANNOT_TELL
            return told(now["weight"], wanted=params.weight, before=before["weight"])

        return await _of_any_replica(look)


def _group_list(value: Any) -> Any:
    """`chat, chat-large` is a list, too, since a placeholder stands only in a text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _no_twice(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("a model group stands there twice")
    return value


GroupList = Annotated[
    tuple[GatewayObject, ...], BeforeValidator(_group_list), AfterValidator(_no_twice), Field(max_length=8)
]


class ModelGroupRef(OnGateway):
    """A model group: the name that clients ask for."""

    model_group: GatewayObject


class SetFallbacksParams(ModelGroupRef):
    """`fallbacks` are model groups in order of preference; none means that a failed request stays failed."""

    fallbacks: GroupList


class SetFallbacks(GatewayAction):
    """`litellm.set_fallbacks`."""

    name = "litellm.set_fallbacks"
    params: type[BaseModel] = SetFallbacksParams
    subject: type[BaseModel] = ModelGroupRef

    def target(self, params: SetFallbacksParams) -> str:
        return f"litellm/fallbacks/{params.gateway}/{params.model_group}"

    def effect(self, params: SetFallbacksParams, before: JsonObject) -> str:
        as_now = list(params.fallbacks) == list(before["fallbacks"])
        was = "as they do already" if as_now else f"before: {_listed(before['fallbacks'])}"
        return (
            f"At the gateway {params.gateway}, requests to {params.model_group} that fail go on to "
            f"{_listed(params.fallbacks)} ({was})."
        )

    def refusal(self, params: SetFallbacksParams, before: JsonObject) -> str | None:
        """Fallbacks that are set already are none: the other steps of a plan must not fail over them."""
        return f"{params.model_group} cannot be its own fallback" if params.model_group in params.fallbacks else None

    def undo(self, params: SetFallbacksParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"fallbacks": tuple(before["fallbacks"])}).model_dump(mode="json")

    async def read(self, params: ModelGroupRef) -> JsonObject:
        """`{"fallbacks": [...]}`. The group, and those to fall back on, must exist."""
        proxy = self.proxy(params)
        groups = {one.group for one in await proxy.deployments()}
        named = {params.model_group, *(params.fallbacks if isinstance(params, SetFallbacksParams) else ())}
        if missing := sorted(named - groups):
            raise ActionError(f"the gateway {params.gateway} has no model group {', '.join(missing)}")
        return {"fallbacks": await proxy.fallbacks(params.model_group)}

    async def act(self, params: SetFallbacksParams, before: JsonObject, token: str) -> JsonObject:
        now = await self.read(params)
        if now != before:
            raise ActionError(f"{_moved(before, now)}: nothing was changed")
        wanted = list(params.fallbacks)
        answer = await self.proxy(params).set_fallbacks(params.model_group, wanted, token)
        if answer.get("model") != params.model_group or (wanted and answer.get("fallback_models") != wanted):
            raise OutcomeUnknownError("the gateway answered, but not with the new fallbacks")
        return {"fallbacks": wanted}

    async def happened(self, params: SetFallbacksParams, before: JsonObject, token: str) -> Happened:
        async def look() -> Happened:
            now = await self.read(params)
            return told(now["fallbacks"], wanted=list(params.fallbacks), before=before["fallbacks"])

        return await _of_any_replica(look)


def told(now: Any, *, wanted: Any, before: Any) -> Happened:
    """What the present state says about a change whose outcome was lost."""
    if now == wanted:
        return Happened.YES
    return Happened.NO if now == before else Happened.CANNOT_TELL


async def _of_any_replica(look: Callable[[], Awaitable[Happened]]) -> Happened:
    """NO only when every look says so."""
    for _ in range(_LOOKS):
        try:
            said = await look()
        except ActionError:
            return Happened.CANNOT_TELL
        if said is not Happened.NO:
            return said
    return Happened.NO


def _meant(params: DeploymentRef, listed: list[Deployment]) -> Deployment:
    """The deployment with this id, or the provider's only one in the group. Raises ActionError."""
    name = params.deployment
    inside = [one for one in listed if params.model_group in {None, one.group}]
    found = [one for one in inside if one.id == name] or [one for one in inside if one.provider == name]
    if not found:
        raise ActionError(f"the gateway has no deployment {name}, and none of a provider of that name")
    if len(found) > 1:
        ids = ", ".join(sorted(one.id for one in found))
        raise ActionError(f"the gateway has {len(found)} deployments of {name} ({ids}): name one of them")
    return found[0]


def _moved(before: JsonObject, now: JsonObject) -> str:
    differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r} by now" for name in differ)


def _listed(groups: Any) -> str:
    return ", ".join(groups) or "nothing"
