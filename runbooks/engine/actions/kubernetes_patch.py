# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Set one field of a deployment, of those that `deployment_fields.py` lists: a limit, a size of the engine, a variable.

R2: but for the strategy, every pod is replaced, so requests in flight are lost where pods do not drain them, and each
new engine starts with a cold cache. A value that the new pods cannot start with stops the rollout, not the service:
what would take most pods away before their successors are ready is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from runbooks.engine.actions.cluster import Cluster
from runbooks.engine.actions.deployment_fields import (
    CONTAINERS,
    STRATEGY,
    Shape,
    container_of,
    shape_of,
    value_at,
    with_value,
)
from runbooks.engine.actions.kubernetes import STOPS_MOST, DeploymentRef, OnDeployment
from runbooks.engine.actions.kubernetes_objects import ObjectName, Right, at, int_at, kept_by, stops_most
from runbooks.engine.actions.pod_template import digest, own_template
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, Tier


def _field_name(value: str) -> str:
    shape_of(value)
    return value


def _as_text(value: Any) -> Any:
    """YAML makes a number of `192` and a truth of `true`; Kubernetes gets the same characters."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class FieldRef(DeploymentRef):
    """Which field; `container` may be left out where there is only one."""

    field: Annotated[str, AfterValidator(_field_name)]
    container: ObjectName | None = None


class PatchParams(FieldRef):
    """`value` is what it shall be; null takes the field away."""

    value: Annotated[str, BeforeValidator(_as_text), Field(max_length=200)] | None

    @model_validator(mode="after")
    def _fits(self) -> PatchParams:
        shape = shape_of(self.field)
        if not shape.fits(self.value):
            raise ValueError(f"{self.field} must match {shape.pattern}")
        return self


class Patch(OnDeployment):
    """`kubernetes.patch`."""

    name = "kubernetes.patch"
    tier = Tier.R2
    params: type[BaseModel] = PatchParams
    subject: type[BaseModel] = FieldRef
    rights = (Right(group="apps", resource="deployments", verbs=("get", "patch")),)

    def __init__(self, clusters: Mapping[str, Cluster], redact: Callable[[str], str] = str) -> None:
        super().__init__(clusters)
        self._redact = redact

    def effect(self, params: PatchParams, before: JsonObject) -> str:
        shape = shape_of(params.field)
        place = f"the container {before['container']} in " if shape.replaces_pods else ""
        pods = (
            f"Its {before['replicas']} pods are replaced one after the other, each with a cold cache; requests in "
            "flight on them may be lost."
            if shape.replaces_pods
            else "No pod is replaced."
        )
        return (
            f"In the cluster {params.cluster}, {params.field} of {place}the deployment "
            f"{params.namespace}/{params.deployment} changes from {_shown(before['value'])} to {_shown(params.value)}. "
            f"{pods}"
        )

    def refusal(self, params: PatchParams, before: JsonObject) -> str | None:
        if shape_of(params.field).same(before["value"], params.value):
            return f"{params.field} of {params.deployment} is {_shown(params.value)} already"
        if tool := before["kept_by"]:
            return f"{params.deployment} is kept by {tool}, which would set it back: change it in Git"
        if before["paused"]:
            return f"the rollout of {params.deployment} is paused: resume it first"
        return f"{params.deployment} {STOPS_MOST}" if before["at_once"] else None

    def undo(self, params: PatchParams, before: JsonObject) -> JsonObject | None:
        """None when the strategy that was there is one that would be refused."""
        if before["at_once_before"]:
            return None
        back = {"value": before["value"], "container": before["container"]}
        return params.model_copy(update=back).model_dump(mode="json")

    async def read(self, params: FieldRef) -> JsonObject:
        """`value` and `container`, and what would forbid a change; the template as a hash."""
        return self._state(params, await self._deployment(params))

    async def act(self, params: PatchParams, before: JsonObject, token: str) -> JsonObject:
        deployment = await self._deployment(params)
        if self._state(params, deployment) != before:
            raise ActionError(f"{params.deployment} is not as it was when the plan was made: nothing was changed")
        if (reason := self.refusal(params, before)) is not None:
            raise ActionError(reason)
        shape, container = shape_of(params.field), before["container"]
        changed = with_value(deployment, shape, container, params.value)
        path = CONTAINERS if shape.replaces_pods else STRATEGY
        version = at(deployment, "metadata", "resourceVersion")
        patch: list[JsonObject] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": f"/{'/'.join(path)}", "value": at(changed, *path)},
        ]
        answer = await self._cluster(params).patch_deployment(params.namespace, params.deployment, patch)
        if not _has(answer, shape, container, params.value):
            raise OutcomeUnknownError("the cluster answered, but with another value")
        return {"field": params.field, "value": params.value}

    async def happened(self, params: PatchParams, before: JsonObject, token: str) -> Happened:
        try:
            deployment = await self._deployment(params)
            now = self._state(params, deployment)
        except ActionError:
            return Happened.CANNOT_TELL
        if _has(deployment, shape_of(params.field), before["container"], params.value):
            return Happened.YES
        is_as_before = (now["value"], now["template"]) == (before["value"], before["template"])
        return Happened.NO if is_as_before else Happened.CANNOT_TELL

    async def _deployment(self, params: FieldRef) -> JsonObject:
        self._require_allowed(shape_of(params.field), params)
        return await self._cluster(params).deployment(params.namespace, params.deployment)

    def _state(self, params: FieldRef, deployment: JsonObject) -> JsonObject:
        shape = shape_of(params.field)
        try:
            container = container_of(deployment, params.container)
            value = value_at(deployment, shape, container)
            wanted = params.value if isinstance(params, PatchParams) else value
            changed = with_value(deployment, shape, container, wanted)
        except ActionError as error:
            raise ActionError(f"{params.deployment}: {error}") from error
        for text in (value, wanted):
            if text is not None and self._redact(text) != text:
                raise ActionError(f"{params.deployment}: {params.field} holds a credential, which no plan may show")
        return {
            "value": value,
            "container": container,
            "replicas": int_at(deployment, "spec", "replicas"),
            "template": digest(own_template(deployment)),
            "paused": bool(at(deployment, "spec", "paused")),
            "at_once": stops_most(changed),
            "at_once_before": stops_most(deployment),
            "kept_by": kept_by(deployment),
        }

    def _require_allowed(self, shape: Shape, params: FieldRef) -> None:
        if shape.own and shape.key not in (allowed := self._cluster(params).patch_env):
            raise ActionError(
                f"the variable {shape.key} is none that may be set: the cluster {params.cluster} has "
                f"{', '.join(allowed) or 'nothing'} in `patch_env`"
            )


def _has(deployment: JsonObject, shape: Shape, container: str, value: str | None) -> bool:
    try:
        return shape.same(value_at(deployment, shape, container_of(deployment, container)), value)
    except ActionError:
        return False


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value or "an empty text"
