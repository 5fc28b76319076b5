"""The nodes and pods of the tests' Kubernetes API: cordons, deletions by uid, evictions that a budget may refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]


def node(name: str, *, gpus: int = 1, ready: bool = True) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "resourceVersion": "7"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "64", **({"nvidia.com/gpu": str(gpus)} if gpus else {})},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(
    name: str, on: str, *, owner: str | None = "chat-vllm-abc", kind: str = "ReplicaSet", ready: bool = True
) -> Json:
    owners = [] if owner is None else [{"kind": kind, "name": owner, "uid": f"uid-of-{owner}", "controller": True}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "chat",
            "uid": f"uid-of-{name}",
            "resourceVersion": "9",
            "labels": {"pod-template-hash": "abc"},
            "ownerReferences": owners,
        },
        "spec": {"nodeName": on, "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@dataclass(kw_only=True)
class Nodes:
    """
    Four GPU nodes with an engine pod each, and one without GPUs.

    `held_back` says how often a budget refuses the eviction of a pod before it lets it go.
    """

    nodes: dict[str, Json] = field(default_factory=dict)
    pods: dict[str, Json] = field(default_factory=dict)
    held_back: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(1, 5):
            self.nodes[f"gpu-{number}"] = node(f"gpu-{number}")
            self.pods[f"engine-{number}"] = pod(f"engine-{number}", f"gpu-{number}")
        self.nodes["cpu-1"] = node("cpu-1", gpus=0)

    def cordoned(self) -> list[str]:
        return [name for name, item in self.nodes.items() if item["spec"].get("unschedulable")]

    def cordon(self, name: str, **annotations: str) -> None:
        """Somebody, or with an annotation we, did it."""
        self.nodes[name]["spec"]["unschedulable"] = True
        self.nodes[name]["metadata"]["annotations"] = annotations

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """None when the path is none of ours."""
        match request.path.strip("/").split("/"):
            case ["api", "v1", "nodes"]:
                return web.json_response({"kind": "NodeList", "items": list(self.nodes.values())})
            case ["api", "v1", "nodes", name] if request.method == "PATCH" and name in self.nodes:
                return await self._patch(name, request)
            case ["api", "v1", "pods"] | ["api", "v1", "namespaces", "chat", "pods"]:
                return web.json_response({"kind": "PodList", "items": list(self.pods.values())})
            case ["api", "v1", "namespaces", "chat", "pods", name, *rest] if name in self.pods:
                return await self._pod(name, rest, request)
        return None

    async def _pod(self, name: str, rest: list[str], request: web.Request) -> web.Response:
        if rest == ["eviction"] and request.method == "POST":
            return self._evict(name, await request.json())
        if request.method == "DELETE":
            return self._remove(name, await request.json())
        return web.json_response(self.pods[name])

    async def _patch(self, name: str, request: web.Request) -> web.Response:
        if request.content_type != "application/merge-patch+json":
            return status(415, "unsupported patch")
        patch = await request.json()
        item = self.nodes[name]
        if patch.get("metadata", {}).get("resourceVersion") not in (None, item["metadata"]["resourceVersion"]):
            return status(409, "the object has been modified")
        self.nodes[name] = merged(item, patch)
        self.nodes[name]["metadata"]["resourceVersion"] += "0"
        return web.json_response(self.nodes[name])

    def _evict(self, name: str, eviction: Json) -> web.Response:
        if eviction.get("apiVersion") != "policy/v1" or eviction.get("kind") != "Eviction":
            return status(400, "no Eviction of policy/v1")
        if self.held_back.get(name, 0) > 0:
            self.held_back[name] -= 1
            cause = {"reason": "DisruptionBudget", "message": "The disruption budget engines needs 4 healthy pods"}
            words = "Cannot evict pod as it would violate the pod's disruption budget."
            return status(429, words, causes=[cause])
        return self._remove(name, eviction.get("deleteOptions") or {}, created=True)

    def _remove(self, name: str, options: Json, *, created: bool = False) -> web.Response:
        if options.get("preconditions", {}).get("uid") not in (None, self.pods[name]["metadata"]["uid"]):
            return status(409, "Precondition failed: UID in precondition")
        gone = self.pods.pop(name)
        if created:
            return web.json_response({"kind": "Status", "status": "Success"}, status=201)
        return web.json_response(gone)


def status(code: int, message: str, **details: Any) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message, "details": details}
    return web.json_response(body, status=code)
