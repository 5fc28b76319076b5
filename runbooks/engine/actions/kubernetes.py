# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Scale a deployment, and roll one back to an earlier revision, as `kubectl` does both.

Both are R1: pods are replaced one by one by the deployment's own rolling update. What would cut capacity by more than
half is refused, since that is an outage of its own and no fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from runbooks.engine.actions.cluster import Cluster, cluster_named
from runbooks.engine.actions.kubernetes_objects import (
    Namespace,
    ObjectName,
    Right,
    at,
    controller_of,
    int_at,
    kept_by,
    name_of,
    stops_most,
)
from runbooks.engine.actions.parameters import ConfigName, Whole
from runbooks.engine.actions.pod_template import differences, digest, own_template
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

REVISION = "deployment.kubernetes.io/revision"
# What belongs to the deployment itself or to its controller and is not rolled back (kubectl keeps the same list).
_KEPT_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
)
STOPS_MOST = "stops most of its pods before new ones are ready: that would be an outage, do it by hand"
_DIGITS = re.compile(r"[0-9]{1,9}", re.ASCII)


class DeploymentRef(BaseModel):
    """One deployment in one of the configured clusters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: ConfigName
    namespace: Namespace
    deployment: ObjectName


class ScaleParams(DeploymentRef):
    """`replicas` is the wanted number of pods."""

    replicas: Annotated[Whole, Field(ge=0, le=64)]


class RolloutUndoParams(DeploymentRef):
    """`to_revision` as in `kubectl rollout history`; none means the revision before the present one."""

    to_revision: Annotated[Whole, Field(ge=1)] | None = None


class OnDeployment:
    """What the actions on a deployment share: which cluster, and the lock on the deployment."""

    tier = Tier.R1
    dry_run = DryRun.READS_AND_SERVER
    can_undo = True
    subject: type[BaseModel] = DeploymentRef

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = clusters

    def target(self, params: DeploymentRef) -> str:
        return f"kubernetes/deployment/{params.cluster}/{params.namespace}/{params.deployment}"

    def _cluster(self, params: DeploymentRef) -> Cluster:
        return cluster_named(self._clusters, params.cluster)


class Scale(OnDeployment):
    """`kubernetes.scale`, through the scale subresource."""

    name = "kubernetes.scale"
    params: type[BaseModel] = ScaleParams
    rights = (
        Right(group="apps", resource="deployments/scale", verbs=("get", "patch")),
        Right(group="autoscaling", resource="horizontalpodautoscalers", verbs=("list",)),
    )

    def effect(self, params: ScaleParams, before: JsonObject) -> str:
        return (
            f"In the cluster {params.cluster}, the deployment {params.namespace}/{params.deployment} is scaled "
            f"from {before['replicas']} to {params.replicas} replicas."
        )

    def refusal(self, params: ScaleParams, before: JsonObject) -> str | None:
        now, wanted = before["replicas"], params.replicas
        if autoscaler := before.get("autoscaler"):
            return f"the autoscaler {autoscaler} sets the replicas of {params.deployment}: change its limits instead"
        if wanted == now:
            return f"{params.deployment} has {now} replicas already"
        if wanted == 0:
            return f"{params.deployment} would have no replica left: switch a service off by hand, never from here"
        if wanted * 2 < now:
            return f"going from {now} to {wanted} replicas takes more than half of the capacity"
        return None

    def undo(self, params: ScaleParams, before: JsonObject) -> JsonObject | None:
        """None when going back would itself be refused (from 1 to 3, say): that stays with a person."""
        back = params.model_copy(update={"replicas": before["replicas"]})
        if self.refusal(back, {"replicas": params.replicas}) is not None:
            return None
        return back.model_dump(mode="json")

    async def read(self, params: DeploymentRef) -> JsonObject:
        """`{"replicas": int, "autoscaler": str}`: how many the deployment asks for, and what sets that, if anything."""
        replicas, _ = await self._scale(params)
        scalers = await self._cluster(params).autoscalers(params.namespace)
        return {"replicas": replicas, "autoscaler": next((name_of(one) for one in scalers if _sets(one, params)), "")}

    async def act(self, params: ScaleParams, before: JsonObject, token: str) -> JsonObject:
        now, version = await self._scale(params)
        if now != before["replicas"]:
            raise ActionError(
                f"{params.deployment} has {now} replicas by now, not {before['replicas']}: nothing was changed"
            )
        if (reason := self.refusal(params, before)) is not None:
            raise ActionError(reason)
        # With the resourceVersion, a change between our look and our call is a conflict and not a surprise.
        patch = {"metadata": {"resourceVersion": version}, "spec": {"replicas": params.replicas}}
        answer = await self._cluster(params).patch_scale(params.namespace, params.deployment, patch)
        if int_at(answer, "spec", "replicas") != params.replicas:
            raise OutcomeUnknownError("the cluster answered, but with another number of replicas")
        return {"replicas": params.replicas}

    async def happened(self, params: ScaleParams, before: JsonObject, token: str) -> Happened:
        try:
            now, _ = await self._scale(params)
        except ActionError:
            return Happened.CANNOT_TELL
        if now == params.replicas:
            return Happened.YES
        return Happened.NO if now == before["replicas"] else Happened.CANNOT_TELL

    async def _scale(self, params: DeploymentRef) -> tuple[int, str]:
        """The wanted replicas and the object's resourceVersion."""
        scale = await self._cluster(params).scale_of(params.namespace, params.deployment)
        version = at(scale, "metadata", "resourceVersion")
        if not isinstance(version, str):
            raise ActionError(f"the cluster did not say the version of {params.deployment}")
        return int_at(scale, "spec", "replicas"), version  # Go leaves a zero out


def _sets(autoscaler: JsonObject, params: DeploymentRef) -> bool:
    target = at(autoscaler, "spec", "scaleTargetRef")
    return (at(target, "kind"), at(target, "name")) == ("Deployment", params.deployment)


class RolloutUndo(OnDeployment):
    """
    `kubernetes.rollout_undo`: the pod template of an earlier revision becomes the present one again.

    Revisions are replica sets. Their template carries `pod-template-hash`, which is not the deployment's. After a
    rollback the earlier template gets a new revision number, while the one that it replaced keeps its own, so the undo
    of a rollback names that number.
    """

    name = "kubernetes.rollout_undo"
    params: type[BaseModel] = RolloutUndoParams
    rights = (
        Right(group="apps", resource="deployments", verbs=("get", "patch")),
        Right(group="apps", resource="replicasets", verbs=("list",)),
    )

    def __init__(self, clusters: Mapping[str, Cluster], redact: Callable[[str], str] = str) -> None:
        super().__init__(clusters)
        self._redact = redact  # what differs between two templates is stored and shown with the plan

    def effect(self, params: RolloutUndoParams, before: JsonObject) -> str:
        return (
            f"In the cluster {params.cluster}, the deployment {params.namespace}/{params.deployment} is rolled back "
            f"from revision {before['revision']} to revision {before['to_revision']} ({before['difference']}). "
            "Its pods are replaced one after the other."
        )

    def refusal(self, params: RolloutUndoParams, before: JsonObject) -> str | None:
        if tool := before.get("kept_by"):
            return f"{params.deployment} is kept by {tool}, which would roll it forward again: revert the commit in Git"
        if before["paused"]:
            return f"the rollout of {params.deployment} is paused: resume it first"
        if before["at_once"]:
            return f"{params.deployment} {STOPS_MOST}"
        if before["template"] == before["to_template"]:
            return f"{params.deployment} runs the template of revision {before['to_revision']} already"
        return None

    def undo(self, params: RolloutUndoParams, before: JsonObject) -> JsonObject | None:
        return params.model_copy(update={"to_revision": before["revision"]}).model_dump(mode="json")

    async def read(self, params: DeploymentRef) -> JsonObject:
        """The present revision and the one to go back to: numbers, a hash of each template, and what differs."""
        return (await self._state(params))[0]

    async def act(self, params: RolloutUndoParams, before: JsonObject, token: str) -> JsonObject:
        now, deployment, earlier = await self._state(params)
        if now != before:
            raise ActionError(f"{params.deployment} is not as it was when the plan was made: nothing was changed")
        if (reason := self.refusal(params, before)) is not None:
            raise ActionError(reason)
        patch: list[JsonObject] = [
            {
                "op": "test",
                "path": "/metadata/resourceVersion",
                "value": at(deployment, "metadata", "resourceVersion"),
            },
            {"op": "replace", "path": "/spec/template", "value": own_template(earlier)},
            # `add`, since `replace` fails on a deployment that has no annotations at all.
            {"op": "add", "path": "/metadata/annotations", "value": _annotations(deployment, earlier)},
        ]
        answer = await self._cluster(params).patch_deployment(params.namespace, params.deployment, patch)
        if digest(own_template(answer)) != before["to_template"]:
            raise OutcomeUnknownError("the cluster answered, but with another pod template")
        return {"from_revision": before["revision"], "to_revision": before["to_revision"]}

    async def happened(self, params: RolloutUndoParams, before: JsonObject, token: str) -> Happened:
        try:
            deployment = await self._cluster(params).deployment(params.namespace, params.deployment)
        except ActionError:
            return Happened.CANNOT_TELL
        now = digest(own_template(deployment))
        if now == before["to_template"]:
            return Happened.YES
        return Happened.NO if now == before["template"] else Happened.CANNOT_TELL

    async def _state(self, params: DeploymentRef) -> tuple[JsonObject, JsonObject, JsonObject]:
        """What `read` answers, the deployment, and the replica set to go back to."""
        cluster = self._cluster(params)
        deployment = await cluster.deployment(params.namespace, params.deployment)
        selector = _selector(deployment)
        owned = _owned(await cluster.replica_sets(params.namespace, selector), deployment)
        wanted = params.to_revision if isinstance(params, RolloutUndoParams) else None
        earlier = _earlier(owned, wanted, params.deployment)
        present, past = own_template(deployment), own_template(earlier)
        state = {
            "revision": _revision(deployment),
            "template": digest(present),
            "paused": bool(at(deployment, "spec", "paused")),
            "at_once": stops_most(deployment),
            "kept_by": kept_by(deployment),
            "to_revision": _revision(earlier),
            "to_template": digest(past),
            "difference": self._redact(differences(present, past)),
        }
        return state, deployment, earlier


def _earlier(owned: list[JsonObject], wanted: int | None, deployment: str) -> JsonObject:
    """The replica set of the wanted revision; without one, of the second highest, as kubectl chooses."""
    by_revision = sorted((one for one in owned if _revision(one) > 0), key=_revision, reverse=True)
    if wanted is not None:
        found = [one for one in by_revision if _revision(one) == wanted]
        if not found:
            raise ActionError(f"{deployment} has no revision {wanted} left")
        return found[0]
    if len(by_revision) < 2:
        raise ActionError(f"{deployment} has no earlier revision to go back to")
    return by_revision[1]


def _owned(replica_sets: list[JsonObject], deployment: JsonObject) -> list[JsonObject]:
    """Those whose controller is this very deployment; a selector alone also finds other people's."""
    uid = at(deployment, "metadata", "uid")
    return [one for one in replica_sets if uid and at(controller_of(one), "uid") == uid]


def _selector(deployment: JsonObject) -> str:
    """The label selector as text. Expressions are rare on deployments; then the labels alone narrow enough."""
    labels = at(deployment, "spec", "selector", "matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _annotations(deployment: JsonObject, earlier: JsonObject) -> dict[str, str]:
    present: Mapping[str, str] = at(deployment, "metadata", "annotations") or {}
    past: Mapping[str, str] = at(earlier, "metadata", "annotations") or {}
    kept = {name: value for name, value in present.items() if name in _KEPT_ANNOTATIONS}
    return kept | {name: value for name, value in past.items() if name not in _KEPT_ANNOTATIONS}


def _revision(owner: JsonObject) -> int:
    value = (at(owner, "metadata", "annotations") or {}).get(REVISION, "")
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else 0
