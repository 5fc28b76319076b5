"""
A Kubernetes API server that knows deployments and replica sets, with the deployment controller's bookkeeping.

Versions rise with every write. A merge patch with another resourceVersion is a 409, a JSON patch whose `test` fails a
422. A new template makes a replica set, a former one gets the next revision number.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.runbooks.http_server import RememberingServer
from tests.runbooks.kubernetes_nodes import Nodes, status

TOKEN = "kube-test-token"
REVISION = "deployment.kubernetes.io/revision"


def template(image: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "chat-vllm", **labels}, "creationTimestamp": None},
        "spec": {
            "containers": [{"name": "vllm", "image": image, "args": ["--max-num-seqs=256"]}],
            "aFieldOfTomorrow": {"kept": True},  # the client's model classes would drop it
        },
    }


def json_patch(document: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902's add, replace and test; raises ValueError where the RFC says that the patch fails."""
    document = copy.deepcopy(document)
    for operation in operations:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = document
        for part in path:
            if part not in place:
                raise ValueError(f"no {operation['path']}")
            place = place[part]
        if operation["op"] == "test" and place.get(last) != operation["value"]:
            raise ValueError(f"test of {operation['path']} failed")
        if operation["op"] == "replace" and last not in place:
            raise ValueError(f"no {operation['path']}")
        if operation["op"] in ("add", "replace"):
            place[last] = operation["value"]
    return document


@dataclass(kw_only=True)
class KubernetesServer(RememberingServer):
    """
    One namespace `chat`, one deployment `chat-vllm`, and the nodes and pods of `fleet`.

    `twins` are names of further deployments that look like it and can only be read.
    """

    version: int = 100
    deployment: dict[str, Any] = field(default_factory=dict)
    replica_sets: list[dict[str, Any]] = field(default_factory=list)
    autoscalers: list[dict[str, Any]] = field(default_factory=list)
    fleet: Nodes = field(default_factory=Nodes)
    twins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "chat-vllm",
                "namespace": "chat",
                "uid": "uid-1",
                "resourceVersion": "100",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "llm"},
            },
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "chat-vllm"}},
                "template": template("vllm:0.10"),
            },
        }
        self._roll()

    def roll_out(self, new: dict[str, Any]) -> None:
        """Somebody deploys."""
        self.deployment["spec"]["template"] = new
        self._written()

    @property
    def image(self) -> str:
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    @property
    def revision(self) -> int:
        return int(self.deployment["metadata"]["annotations"][REVISION])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized")
        if (answered := await self.fleet.answer(request)) is not None:
            return answered
        if request.path == "/apis/autoscaling/v2/namespaces/chat/horizontalpodautoscalers":
            return web.json_response({"kind": "HorizontalPodAutoscalerList", "items": self.autoscalers})
        return await self._deployments(request)

    async def _deployments(self, request: web.Request) -> web.Response:
        base = "/apis/apps/v1/namespaces/chat"
        if request.path == f"{base}/replicasets" and request.method == "GET":
            return self._list(request.query.get("labelSelector", ""))
        if request.path == f"{base}/deployments/chat-vllm":
            if request.method == "GET":
                return web.json_response(self.deployment)
            if request.method == "PATCH":
                return await self._patch(request)
        if request.path == f"{base}/deployments/chat-vllm/scale":
            return await self._scale(request)
        name = request.path.removeprefix(f"{base}/deployments/")
        if name in self.twins and request.method == "GET":
            return web.json_response({**self.deployment, "metadata": {**self.deployment["metadata"], "name": name}})
        return status(404, f'the server could not find "{request.path}"')

    def _list(self, selector: str) -> web.Response:
        wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
        items = [one for one in self.replica_sets if wanted.items() <= one["metadata"]["labels"].items()]
        return web.json_response({"kind": "ReplicaSetList", "apiVersion": "apps/v1", "items": items})

    async def _scale(self, request: web.Request) -> web.Response:
        if request.method == "PATCH":
            if request.content_type != "application/merge-patch+json":
                return status(415, "unsupported patch")
            patch = await request.json()
            wanted = patch.get("metadata", {}).get("resourceVersion")
            if wanted not in (None, self.deployment["metadata"]["resourceVersion"]):
                return status(409, "the object has been modified")
            self.deployment["spec"]["replicas"] = patch["spec"]["replicas"]
            self._written()
        replicas = self.deployment["spec"]["replicas"]
        metadata = {name: self.deployment["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        spec = {"replicas": replicas} if replicas else {}  # Go's omitempty
        return web.json_response({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec})

    async def _patch(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json-patch+json":
            return status(415, "unsupported patch")
        try:
            self.deployment = json_patch(self.deployment, await request.json())
        except ValueError as error:
            return status(422, f"the server rejected our request: {error}")
        self._written()
        return web.json_response(self.deployment)

    def _written(self) -> None:
        self.version += 1
        self.deployment["metadata"]["resourceVersion"] = str(self.version)
        self._roll()

    def _roll(self) -> None:
        """The deployment controller: the template's replica set gets the highest revision."""
        now = self.deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()[:10]
        name = f"chat-vllm-{digest}"
        newest = max((int(one["metadata"]["annotations"][REVISION]) for one in self.replica_sets), default=0)
        found = next((one for one in self.replica_sets if one["metadata"]["name"] == name), None)
        if found is None:
            labelled = copy.deepcopy(now)
            labelled["metadata"]["labels"]["pod-template-hash"] = digest
            found = {
                "metadata": {
                    "name": name,
                    "namespace": "chat",
                    "uid": f"uid-{name}",
                    "labels": dict(labelled["metadata"]["labels"]),
                    "annotations": {REVISION: "0", "kubernetes.io/change-cause": f"deploy {self.version}"},
                    "ownerReferences": [{"uid": "uid-1", "controller": True, "kind": "Deployment"}],
                },
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "chat-vllm"}}, "template": labelled},
            }
            self.replica_sets.append(found)
        if int(found["metadata"]["annotations"][REVISION]) < max(newest, 1):
            found["metadata"]["annotations"][REVISION] = str(newest + 1)
        self.deployment["metadata"].setdefault("annotations", {})[REVISION] = found["metadata"]["annotations"][REVISION]
