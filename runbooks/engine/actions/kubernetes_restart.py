# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Replace all pods of a deployment by new ones of the same template, one after the other, as `kubectl rollout restart`.

R2: requests in flight are lost where the pods do not drain them, and every new engine starts with a cold cache. Beside
kubectl's annotation, which holds a time, the template gets the intent's token: from that the probe can tell.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from runbooks.engine.actions.kubernetes import STOPS_MOST, DeploymentRef, OnDeployment
from runbooks.engine.actions.kubernetes_objects import Right, at, int_at, stops_most
from runbooks.engine.actions.pod_template import digest, own_template
from runbooks.engine.values import ActionError, Happened, JsonObject, OutcomeUnknownError, Tier

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
INTENT = "watchkeeper/intent"


class Restart(OnDeployment):
    """`kubernetes.restart`: the former pods do not come back, so there is no undo."""

    name = "kubernetes.restart"
    tier = Tier.R2
    params: type[BaseModel] = DeploymentRef
    can_undo = False
    rights = (Right(group="apps", resource="deployments", verbs=("get", "patch")),)

    def effect(self, params: DeploymentRef, before: JsonObject) -> str:
        return (
            f"In the cluster {params.cluster}, the {before['replicas']} pods of {params.namespace}/{params.deployment} "
            "are replaced by new ones of the same kind, one after the other, each with a cold cache."
        )

    def refusal(self, params: DeploymentRef, before: JsonObject) -> str | None:
        if before["paused"]:
            return f"the rollout of {params.deployment} is paused: resume it first"
        if before["at_once"]:
            return f"{params.deployment} {STOPS_MOST}"
        return None if before["replicas"] else f"{params.deployment} has no pod to restart"

    def undo(self, params: DeploymentRef, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: DeploymentRef) -> JsonObject:
        """Replicas, a hash of the template, and whether the rollout is paused or takes most pods at once."""
        return _state(await self._cluster(params).deployment(params.namespace, params.deployment))

    async def act(self, params: DeploymentRef, before: JsonObject, token: str) -> JsonObject:
        deployment = await self._cluster(params).deployment(params.namespace, params.deployment)
        if _state(deployment) != before:
            raise ActionError(f"{params.deployment} is not as it was when the plan was made: nothing was changed")
        if (reason := self.refusal(params, before)) is not None:
            raise ActionError(reason)
        template = own_template(deployment)
        marks = {RESTARTED_AT: datetime.now(UTC).isoformat(timespec="seconds"), INTENT: token}
        annotations = {**(at(template, "metadata", "annotations") or {}), **marks}
        version = at(deployment, "metadata", "resourceVersion")
        patch: list[JsonObject] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            # `add` replaces what is there, too; `replace` fails on a template without annotations.
            {"op": "add", "path": "/spec/template/metadata/annotations", "value": annotations},
        ]
        answer = await self._cluster(params).patch_deployment(params.namespace, params.deployment, patch)
        if _intent(answer) != token:
            raise OutcomeUnknownError("the cluster answered, but without the restart's mark")
        return {"restarted": f"{params.namespace}/{params.deployment}"}

    async def happened(self, params: DeploymentRef, before: JsonObject, token: str) -> Happened:
        try:
            deployment = await self._cluster(params).deployment(params.namespace, params.deployment)
        except ActionError:
            return Happened.CANNOT_TELL
        if token and _intent(deployment) == token:
            return Happened.YES
        return Happened.NO if _state(deployment)["template"] == before["template"] else Happened.CANNOT_TELL


def _state(deployment: JsonObject) -> JsonObject:
    return {
        "replicas": int_at(deployment, "spec", "replicas"),
        "template": digest(own_template(deployment)),
        "paused": bool(at(deployment, "spec", "paused")),
        "at_once": stops_most(deployment),
    }


def _intent(deployment: JsonObject) -> str | None:
    mark = at(deployment, "spec", "template", "metadata", "annotations", INTENT)
    return mark if isinstance(mark, str) else None
