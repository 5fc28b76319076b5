"""Kubernetes objects as plain JSON: their names, what stands at a path, who owns them, who keeps them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from runbooks.engine.values import JsonObject

_GPU_RESOURCES = ("nvidia.com/gpu", "nvidia.com/mig-", "amd.com/gpu", "gpu.intel.com/", "habana.ai/gaudi")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_DNS_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", re.ASCII)
_QUANTITY = re.compile(r"[0-9]{1,9}", re.ASCII)
_SHARE = re.compile(r"([0-9]{1,3})%", re.ASCII)

# Argo CD 3 tracks by annotation, older ones by a label that Helm writes, too, so that one proves nothing.
_GITOPS = (
    ("Argo CD", ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"), ("argocd",)),
    (
        "Flux",
        ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"),
        ("kustomize-controller", "helm-controller"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Right:
    """
    What the action's token must be allowed to do, as a rule of a Role has it.

    `resource` may be a subresource (`pods/eviction`). With `cluster_wide` the rule belongs into a ClusterRole, since
    nodes are in no namespace.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    cluster_wide: bool = False


def _namespace(value: str) -> str:
    if not _DNS_LABEL.fullmatch(value):
        raise ValueError("not a Kubernetes namespace")
    return value


def _object_name(value: str) -> str:
    if not _DNS_NAME.fullmatch(value) or ".." in value:
        raise ValueError("not the name of a Kubernetes object")
    return value


Namespace = Annotated[str, AfterValidator(_namespace)]
ObjectName = Annotated[str, AfterValidator(_object_name)]


def at(value: Any, *path: str) -> Any:
    """What stands at the path, or None."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def int_at(value: Any, *path: str) -> int:
    found = at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def items_at(value: Any, *path: str) -> list[JsonObject]:
    """The objects of the list at the path."""
    found = at(value, *path)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def name_of(item: JsonObject) -> str:
    return str(at(item, "metadata", "name") or "")


def controller_of(item: JsonObject) -> JsonObject | None:
    """The owner that would replace it, None when nobody would."""
    return next((owner for owner in items_at(item, "metadata", "ownerReferences") if owner.get("controller")), None)


def workload_of(pod: JsonObject) -> str:
    """
    What its replacements belong to, `kind/name`; "" for a pod without a controller.

    During a rollout a deployment's pods have several replica sets, whose names end in the pods' template hash.
    """
    owner = controller_of(pod)
    if owner is None:
        return ""
    short = at(pod, "metadata", "labels", "pod-template-hash")
    if owner.get("kind") == "ReplicaSet" and isinstance(short, str):
        return f"Deployment/{str(owner.get('name')).removesuffix(f'-{short}')}"
    return f"{owner.get('kind')}/{owner.get('name')}"


def is_true(item: JsonObject, condition: str) -> bool:
    """Does the object's status say that this condition holds?"""
    return any(
        one.get("type") == condition and one.get("status") == "True" for one in items_at(item, "status", "conditions")
    )


def is_leaving(pod: JsonObject) -> bool:
    """Is it terminating, or over?"""
    return bool(at(pod, "metadata", "deletionTimestamp")) or at(pod, "status", "phase") in ("Succeeded", "Failed")


def is_serving(pod: JsonObject) -> bool:
    return is_true(pod, "Ready") and not is_leaving(pod)


def takes_pods(node: JsonObject) -> bool:
    """Would the scheduler put a pod there?"""
    return is_true(node, "Ready") and not at(node, "spec", "unschedulable")


def gpus_of(node: JsonObject) -> int:
    """How many cards, or slices of cards, its pods can have."""
    allocatable: JsonObject = at(node, "status", "allocatable") or {}
    amounts = [str(amount) for name, amount in allocatable.items() if name.startswith(_GPU_RESOURCES)]
    return sum(int(text) for text in amounts if _QUANTITY.fullmatch(text))


def short_of_half(total: Iterable[str], kept: Iterable[str]) -> list[str]:
    """
    Sentences about the workloads of which fewer than half of the ready pods would be kept.

    Both are workloads by name, one entry for each ready pod.
    """
    before, after = list(total), list(kept)
    return [
        f"{after.count(name)} of {before.count(name)} ready pods of {name} would be left"
        for name in sorted(set(before))
        if after.count(name) * 2 < before.count(name)
    ]


def stops_most(deployment: JsonObject) -> bool:
    """
    Would a new template take more than half of its pods away before their successors are ready?

    `maxUnavailable` is a number or a share, which Kubernetes rounds down; without it a quarter.
    """
    strategy = at(deployment, "spec", "strategy")
    if at(strategy, "type") == "Recreate":
        return True
    replicas, most = int_at(deployment, "spec", "replicas"), at(strategy, "rollingUpdate", "maxUnavailable")
    if isinstance(most, str) and (share := _SHARE.fullmatch(most)):
        most = replicas * int(share[1]) // 100
    return isinstance(most, int) and most * 2 > replicas


def kept_by(item: JsonObject) -> str:
    """The tool that would put the object back to what stands in Git ("Argo CD", "Flux"); "" when none can be seen."""
    marks = {*(at(item, "metadata", "labels") or {}), *(at(item, "metadata", "annotations") or {})}
    managers = [str(entry.get("manager", "")) for entry in items_at(item, "metadata", "managedFields")]
    for tool, names, prefixes in _GITOPS:
        if marks.intersection(names) or any(manager.startswith(prefixes) for manager in managers):
            return tool
    return ""
