# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Cordon a node, so that no new pod comes to it, and uncordon it; each takes the other back.

Both set one field and move nothing, hence R1. Who cordons too many nodes leaves the replacements of failed pods
without a place, so a cordon is refused that would leave no GPUs, or most of a workload on cordoned nodes.
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
    gpus_of,
    is_serving,
    name_of,
    short_of_half,
    takes_pods,
    workload_of,
)
from runbooks.engine.actions.parameters import ConfigName
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, Tier

CORDONED = "watchkeeper/cordoned"
"""Our mark on a node that we cordoned; its value is the intent's token."""


class NodeRef(BaseModel):
    """One node of one of the configured clusters; `namespace` is where the pods are whose capacity is watched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: ConfigName
    namespace: Namespace
    node: ObjectName


class CordonParams(NodeRef):
    """`even_if_others` allows a second node while another one is still cordoned by Watchkeeper."""

    even_if_others: bool = False


class _Schedulability:
    """Cordon and uncordon: the same field, read and written in the same way."""

    tier = Tier.R1
    dry_run = DryRun.READS_AND_SERVER
    can_undo = True
    subject: type[BaseModel] = NodeRef
    wanted: bool  # of `spec.unschedulable`

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = clusters

    def target(self, params: NodeRef) -> str:
        return f"kubernetes/node/{params.cluster}/{params.node}"

    async def act(self, params: NodeRef, before: JsonObject, token: str) -> JsonObject:
        cluster = cluster_named(self._clusters, params.cluster)
        node = node_named(await cluster.nodes(), params.node)
        if is_cordoned(node) != before["cordoned"]:
            raise ActionError(f"somebody changed the node {params.node} since: nothing was changed")
        # The version that was read makes a change in between a conflict. A null removes what it names.
        patch = {
            "metadata": {
                "resourceVersion": at(node, "metadata", "resourceVersion"),
                "annotations": {CORDONED: token if self.wanted else None},
            },
            "spec": {"unschedulable": True if self.wanted else None},
        }
        answer = await cluster.patch_node(params.node, patch)
        if is_cordoned(answer) != self.wanted:
            raise OutcomeUnknownError(f"the cluster answered, but {params.node} is not as it should be")
        return {"node": params.node, "cordoned": self.wanted}

    async def happened(self, params: NodeRef, before: JsonObject, token: str) -> Happened:
        """A cordon is ours by its mark: somebody else's must neither count as ours nor be taken back as ours."""
        try:
            node = node_named(await cluster_named(self._clusters, params.cluster).nodes(), params.node)
        except ActionError:
            return Happened.CANNOT_TELL
        if is_cordoned(node) != self.wanted:
            return Happened.NO
        mark = _mark(node)
        is_ours = not self.wanted or (mark == token if token else mark is not None)
        return Happened.YES if is_ours else Happened.CANNOT_TELL


class Cordon(_Schedulability):
    """`kubernetes.cordon`; `kubernetes.uncordon` takes it back."""

    name = "kubernetes.cordon"
    undone_by = "kubernetes.uncordon"
    params: type[BaseModel] = CordonParams
    wanted = True
    rights = (
        Right(group="", resource="nodes", verbs=("list", "patch"), cluster_wide=True),
        Right(group="", resource="pods", verbs=("list",)),
    )

    def effect(self, params: NodeRef, before: JsonObject) -> str:
        return (
            f"In the cluster {params.cluster}, the node {params.node} is cordoned: no new pod is put on it, and those "
            "that run there stay."
        )

    def refusal(self, params: CordonParams, before: JsonObject) -> str | None:
        if before["cordoned"]:
            return f"{params.node} is cordoned already"
        return next(iter(before["against"]), None)

    def undo(self, params: NodeRef, before: JsonObject) -> JsonObject | None:
        return params.model_dump(mode="json", include=set(NodeRef.model_fields))

    async def read(self, params: NodeRef) -> JsonObject:
        """`{"cordoned": bool, "against": [str]}`: the node's state, and what speaks against a cordon now."""
        cluster = cluster_named(self._clusters, params.cluster)
        nodes = await cluster.nodes()
        node = node_named(nodes, params.node)
        others = isinstance(params, CordonParams) and params.even_if_others
        against = [] if others else cordoned_by_us(nodes, params.node)
        against += short_of_gpus(nodes, node)
        places = {name_of(each) for each in nodes if takes_pods(each)} - {params.node}
        serving = [pod for pod in await cluster.pods(params.namespace) if is_serving(pod)]
        here = {workload_of(pod) for pod in serving if at(pod, "spec", "nodeName") == params.node}
        watched = [pod for pod in serving if workload_of(pod) in here]
        kept = [workload_of(pod) for pod in watched if at(pod, "spec", "nodeName") in places]
        against += [f"{text} on nodes that take pods" for text in short_of_half(map(workload_of, watched), kept)]
        return {"cordoned": is_cordoned(node), "against": against}


class Uncordon(_Schedulability):
    """`kubernetes.uncordon`; `kubernetes.cordon` takes it back."""

    name = "kubernetes.uncordon"
    undone_by = "kubernetes.cordon"
    params: type[BaseModel] = NodeRef
    wanted = False
    rights = (Right(group="", resource="nodes", verbs=("list", "patch"), cluster_wide=True),)

    def effect(self, params: NodeRef, before: JsonObject) -> str:
        whose = "" if before["by_us"] else ", which somebody else cordoned,"
        return f"In the cluster {params.cluster}, the node {params.node}{whose} takes new pods again."

    def refusal(self, params: NodeRef, before: JsonObject) -> str | None:
        return None if before["cordoned"] else f"{params.node} is not cordoned"

    def undo(self, params: NodeRef, before: JsonObject) -> JsonObject | None:
        return {**params.model_dump(mode="json"), "even_if_others": True}  # as it was a moment ago

    async def read(self, params: NodeRef) -> JsonObject:
        """`{"cordoned": bool, "by_us": bool}`."""
        node = node_named(await cluster_named(self._clusters, params.cluster).nodes(), params.node)
        return {"cordoned": is_cordoned(node), "by_us": _mark(node) is not None}


def node_named(nodes: list[JsonObject], name: str) -> JsonObject:
    """Raises NotThereError."""
    found = next((node for node in nodes if name_of(node) == name), None)
    if found is None:
        raise NotThereError(f"the cluster has no node {name}")
    return found


def is_cordoned(node: JsonObject) -> bool:
    return bool(at(node, "spec", "unschedulable"))


def _mark(node: JsonObject) -> str | None:
    mark: str | None = at(node, "metadata", "annotations", CORDONED)
    return mark


def cordoned_by_us(nodes: list[JsonObject], except_for: str) -> list[str]:
    """A sentence when Watchkeeper has cordoned other nodes that nobody uncordoned since."""
    names = [
        name_of(node) for node in nodes if is_cordoned(node) and _mark(node) is not None and name_of(node) != except_for
    ]
    return [f"Watchkeeper has cordoned {', '.join(sorted(names))} already: uncordon first"] if names else []


def short_of_gpus(nodes: list[JsonObject], node: JsonObject) -> list[str]:
    """A sentence when no other node with GPUs takes pods."""
    others = [each for each in nodes if name_of(each) != name_of(node) and takes_pods(each) and gpus_of(each)]
    return [] if others or not gpus_of(node) else [f"{name_of(node)} is the last node with GPUs that takes pods"]
