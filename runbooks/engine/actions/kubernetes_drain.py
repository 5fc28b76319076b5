# ruff: noqa: ARG002 - the protocol `Action` says which parameters there are
"""
Move the pods off a cordoned node by evictions, so that disruption budgets count; nothing is ever deleted.

Evictions cost the requests in flight, hence R2. A budget may let the next pod go only when the last one's replacement
has loaded its weights, minutes later. What it still holds back after `wait_s` is reported with what was evicted; the
same step, planned anew, goes on with the pods that are left.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from runbooks.engine.actions.cluster import Cluster, NotNowError, NotThereError, cluster_named
from runbooks.engine.actions.kubernetes_nodes import (
    NodeRef,
    cordoned_by_us,
    is_cordoned,
    node_named,
    short_of_gpus,
)
from runbooks.engine.actions.kubernetes_objects import (
    Right,
    at,
    controller_of,
    is_leaving,
    is_serving,
    items_at,
    name_of,
    short_of_half,
    workload_of,
)
from runbooks.engine.actions.parameters import Whole
from runbooks.engine.values import ActionError, DryRun, Happened, JsonObject, OutcomeUnknownError, PartlyDoneError, Tier

ASK_AGAIN_S = 5.0
_BESIDES_WAITING_S = 30.0  # the reads before, and the last call
MOST_PODS = 64
_MIRROR = "kubernetes.io/config.mirror"


class DrainParams(NodeRef):
    """
    Only the pods of `namespace` move, unless `all_namespaces`. `wait_s` is how long to ask again for those that a
    budget refuses.

    `delete_emptydir_data` allows pods whose scratch volumes on disk are lost with them; those in memory (vLLM's
    shared memory) hold no data. `even_if_others` as for a cordon.
    """

    all_namespaces: bool = False
    delete_emptydir_data: bool = False
    even_if_others: bool = False
    wait_s: Annotated[Whole, Field(ge=0, le=900)] = 60


class Drain:
    """`kubernetes.drain`: cannot be taken back, since pods do not return; what let it happen is the cordon."""

    name = "kubernetes.drain"
    tier = Tier.R2
    dry_run = DryRun.READS_AND_SERVER
    params: type[BaseModel] = DrainParams
    subject: type[BaseModel] = NodeRef
    can_undo = False
    rights = (
        Right(group="", resource="nodes", verbs=("list",), cluster_wide=True),
        Right(group="", resource="pods", verbs=("list",)),
        Right(group="", resource="pods/eviction", verbs=("create",)),
    )

    def __init__(self, clusters: Mapping[str, Cluster], *, ask_again_s: float = ASK_AGAIN_S) -> None:
        self._clusters = clusters
        self._ask_again_s = ask_again_s

    def patience_s(self, params: DrainParams) -> float:
        return params.wait_s + _BESIDES_WAITING_S

    def effect(self, params: DrainParams, before: JsonObject) -> str:
        pods = [_full_name(pod) for pod in before["pods"]]
        scratch = " What they keep in emptyDir volumes is deleted with them." if params.delete_emptydir_data else ""
        return (
            f"In the cluster {params.cluster}, {len(pods)} pod{'s' * (len(pods) != 1)} "
            f"{'are' if len(pods) != 1 else 'is'} evicted from the node {params.node}: {', '.join(pods)}. "
            "Disruption budgets decide when; requests in flight are lost, and the pods start anew on other nodes. "
            f"An eviction cannot be taken back.{scratch}"
        )

    def target(self, params: NodeRef) -> str:
        # Not the node itself: a plan cordons that first, and each of its steps has a target of its own.
        return f"kubernetes/pods-of-node/{params.cluster}/{params.node}"

    def refusal(self, params: DrainParams, before: JsonObject) -> str | None:
        if not before["pods"] and not before["against"]:
            return f"no pod of {_where(params)} has to leave {params.node}"
        return next(iter(before["against"]), None)

    def undo(self, params: DrainParams, before: JsonObject) -> JsonObject | None:
        return None

    async def read(self, params: NodeRef) -> JsonObject:
        """`{"pods": [{namespace, name, uid}], "against": [str]}`: whom it would evict, and what speaks against it."""
        cluster = cluster_named(self._clusters, params.cluster)
        chosen = DrainParams.model_validate(params.model_dump())
        nodes = await cluster.nodes()
        node = node_named(nodes, params.node)
        pods = await cluster.pods(None if chosen.all_namespaces else params.namespace)
        leaving = [pod for pod in pods if at(pod, "spec", "nodeName") == params.node and _must_leave(pod)]
        against = [] if chosen.even_if_others else cordoned_by_us(nodes, params.node)
        against += short_of_gpus(nodes, node)
        against += [text for pod in leaving for text in _holds(pod, chosen)]
        against += _too_many(pods, leaving)
        if len(leaving) > MOST_PODS:
            against.append(f"{len(leaving)} pods are on {params.node}: drain it by hand")
        return {"pods": sorted(map(_ref, leaving), key=_full_name), "against": against}

    async def act(self, params: DrainParams, before: JsonObject, token: str) -> JsonObject:
        cluster = cluster_named(self._clusters, params.cluster)
        if not is_cordoned(node_named(await cluster.nodes(), params.node)):
            raise ActionError(f"{params.node} is not cordoned, so the pods could come straight back: nothing was done")
        if await self.read(params) != before:
            raise ActionError(f"the pods on {params.node} are not as they were when the plan was made: nothing done")
        if (reason := self.refusal(params, before)) is not None:
            raise ActionError(reason)
        return await self._evict_all(cluster, params, before["pods"])

    async def _evict_all(self, cluster: Cluster, params: DrainParams, pods: Sequence[JsonObject]) -> JsonObject:
        """Round after round; whoever uncordons the node meanwhile stops it."""
        until = time.monotonic() + params.wait_s
        waiting, evicted, why = list(pods), list[JsonObject](), ""
        while waiting:
            held = list[JsonObject]()
            for pod in waiting:
                try:
                    is_gone = await _evict(cluster, pod)
                except NotNowError as error:
                    is_gone, why = False, str(error)
                except (ActionError, OutcomeUnknownError) as error:
                    raise _broken_off(error, evicted, pod) from error
                (evicted if is_gone else held).append(pod)
            waiting = held
            if waiting and time.monotonic() + self._ask_again_s > until:
                raise _held_back(evicted, waiting, why)
            if waiting:
                await asyncio.sleep(self._ask_again_s)
                try:
                    is_open = not is_cordoned(node_named(await cluster.nodes(), params.node))
                except ActionError as error:
                    raise _broken_off(error, evicted, waiting[0]) from error
                if is_open:
                    raise _held_back(evicted, waiting, f"somebody uncordoned {params.node}")
        return {"evicted": ", ".join(map(_full_name, evicted))}

    async def happened(self, params: DrainParams, before: JsonObject, token: str) -> Happened:
        """Pods go by their uids: a new one of the same name is another one."""
        try:
            cluster = cluster_named(self._clusters, params.cluster)
            pods = await cluster.pods(None if params.all_namespaces else params.namespace)
        except ActionError:
            return Happened.CANNOT_TELL
        there = {at(pod, "metadata", "uid") for pod in pods if not is_leaving(pod)}
        left = [pod for pod in before["pods"] if pod["uid"] in there]
        if not left:
            return Happened.YES
        return Happened.NO if len(left) == len(before["pods"]) else Happened.CANNOT_TELL


async def _evict(cluster: Cluster, pod: JsonObject) -> bool:
    """True when it leaves; a pod that is not there any more has left. Raises NotNowError, as every change."""
    with contextlib.suppress(NotThereError):
        await cluster.evict(pod["namespace"], pod["name"], pod["uid"])
    return True


def _must_leave(pod: JsonObject) -> bool:
    """All but the pods of DaemonSets and mirrors of static ones, which would come back, and those that leave anyway."""
    owner = controller_of(pod)
    is_daemon = owner is not None and owner.get("kind") == "DaemonSet"
    is_mirror = _MIRROR in (at(pod, "metadata", "annotations") or {})
    return not is_daemon and not is_mirror and not is_leaving(pod)


def _holds(pod: JsonObject, params: DrainParams) -> list[str]:
    """Why this pod must not be evicted, if anything."""
    name = _full_name(_ref(pod))
    if controller_of(pod) is None:
        return [f"{name} has no controller, so nothing would start it again"]
    on_disk = [
        volume
        for volume in items_at(pod, "spec", "volumes")
        if "emptyDir" in volume and at(volume, "emptyDir", "medium") != "Memory"
    ]
    if on_disk and not params.delete_emptydir_data:
        return [f"{name} keeps data in an emptyDir that would be lost; say `delete_emptydir_data: true` if it may be"]
    return []


def _too_many(pods: Sequence[JsonObject], leaving: Sequence[JsonObject]) -> list[str]:
    moved = {at(pod, "metadata", "uid") for pod in leaving}
    touched = {_of(pod) for pod in leaving}
    serving = [pod for pod in pods if is_serving(pod) and _of(pod) in touched]
    kept = [_of(pod) for pod in serving if at(pod, "metadata", "uid") not in moved]
    return short_of_half(map(_of, serving), kept)


def _of(pod: JsonObject) -> str:
    return f"{at(pod, 'metadata', 'namespace')}/{workload_of(pod)}"


def _ref(pod: JsonObject) -> JsonObject:
    meta = at(pod, "metadata")
    return {"namespace": str(at(meta, "namespace")), "name": name_of(pod), "uid": str(at(meta, "uid"))}


def _full_name(pod: Mapping[str, Any]) -> str:
    return f"{pod['namespace']}/{pod['name']}"


def _where(params: DrainParams) -> str:
    return "any namespace" if params.all_namespaces else params.namespace


def _held_back(evicted: Sequence[JsonObject], waiting: Sequence[JsonObject], why: str) -> ActionError:
    names = ", ".join(map(_full_name, waiting))
    if not evicted:
        return ActionError(f"nothing was evicted; held back: {names}: {why}")
    done = ", ".join(map(_full_name, evicted))
    return PartlyDoneError(f"evicted {done}; still held back: {names}; plan it again for these: {why}")


def _broken_off(error: Exception, evicted: Sequence[JsonObject], pod: JsonObject) -> Exception:
    """The same kind of error, with what was done before it; a refusal after evictions is no clean refusal."""
    if not evicted:
        return error
    text = f"evicted {', '.join(map(_full_name, evicted))}, then at {_full_name(pod)}: {error}"
    return OutcomeUnknownError(text) if isinstance(error, OutcomeUnknownError) else PartlyDoneError(text)
