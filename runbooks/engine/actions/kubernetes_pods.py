# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Delete one pod so that its controller starts a new one: for an engine that hangs and does not recover by itself.

A pod goes by name and uid. A new pod that takes over the name (a StatefulSet's does) is never hit.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from runbooks.engine.actions.cluster import Cluster, NotThereError, cluster_named
from runbooks.engine.actions.kubernetes_objects import (
    Namespace,
    ObjectName,
    Right,
    at,
    is_leaving,
    is_serving,
    workload_of,
)
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, Tier


class PodRef(BaseModel):
    """One pod in one of the configured clusters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: ConfigName
    namespace: Namespace
    pod: ObjectName


class DeletePod:
    """`kubernetes.delete_pod`: what ran in the pod is gone, so there is no undo."""

    name = "kubernetes.delete_pod"
    tier = Tier.R2
    dry_run = DryRun.READS_AND_SERVER
    params: type[BaseModel] = PodRef
    subject: type[BaseModel] = PodRef
    can_undo = False
    rights = (Right(group="", resource="pods", verbs=("get", "list", "delete")),)

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = clusters

    def effect(self, params: PodRef, before: JsonObject) -> str:
        alone = " It is the last one that is ready: nothing answers until its successor does." if before["last"] else ""
        return (
            f"In the cluster {params.cluster}, the pod {params.namespace}/{params.pod} is deleted with its requests, "
            f"and {before['workload']} starts a new one.{alone}"
        )

    def target(self, params: PodRef) -> str:
        return f"kubernetes/pod/{params.cluster}/{params.namespace}/{params.pod}"

    def refusal(self, params: PodRef, before: JsonObject) -> str | None:
        if not before["workload"]:
            return f"{params.pod} has no controller, so nothing would start it again"
        return f"{params.pod} is terminating already" if before["leaving"] else None

    def undo(self, params: PodRef, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: PodRef) -> JsonObject:
        """The pod's uid, workload and node, whether it is leaving, and whether no other one of its kind is ready."""
        cluster = cluster_named(self._clusters, params.cluster)
        pod = await cluster.pod(params.namespace, params.pod)
        workload, uid = workload_of(pod), str(at(pod, "metadata", "uid") or "")
        ready = {at(each, "metadata", "uid") for each in await cluster.pods(params.namespace)
                 if is_serving(each) and workload_of(each) == workload}  # fmt: skip
        return {
            "uid": uid,
            "workload": workload,
            "node": str(at(pod, "spec", "nodeName") or ""),
            "leaving": is_leaving(pod),
            "last": not ready - {uid},
        }

    async def act(self, params: PodRef, before: JsonObject, token: str) -> JsonObject:
        now = await self.read(params)
        if now["uid"] != before["uid"]:
            raise ActionError(f"{params.pod} is another pod by now: nothing was deleted")
        if now["last"] and not before["last"]:
            raise ActionError(f"{params.pod} is the last one that is ready by now: nothing was deleted")
        if (reason := self.refusal(params, now)) is not None:
            raise ActionError(reason)
        cluster = cluster_named(self._clusters, params.cluster)
        await cluster.delete_pod(params.namespace, params.pod, before["uid"])
        return {"deleted": f"{params.namespace}/{params.pod}", "uid": before["uid"]}

    async def happened(self, params: PodRef, before: JsonObject, token: str) -> Happened:
        try:
            pod = await cluster_named(self._clusters, params.cluster).pod(params.namespace, params.pod)
        except NotThereError:
            return Happened.YES
        except ActionError:
            return Happened.CANNOT_TELL
        gone = at(pod, "metadata", "uid") != before["uid"] or is_leaving(pod)
        return Happened.YES if gone else Happened.NO
