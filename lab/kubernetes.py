"""
A stand-in for the Kubernetes API that the official client talks to.

It serves one namespace's deployments (with their scale), replica sets, pods, disruption budgets, autoscalers and
events, and the nodes. What a write would lead to is checked whole against Kubernetes' own schemas before it is
accepted, so that a client that gets an object wrong learns it here. Bearer tokens: one may read, one may also change
what the actions change. Every write that came with a valid token is remembered with its outcome under `/_lab/writes`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request

from lab.cluster import Cluster, NotFoundError
from lab.cluster_objects import NAMESPACE, Json
from lab.cluster_selectors import SelectorError, matcher
from lab.kubernetes_access import Doorman, verb_of
from lab.kubernetes_answers import (
    KUBERNETES_VERSION,
    ApiError,
    answer_refusal,
    answer_unknown_path,
    changed,
    invalid,
    is_dry_run,
    refuse_stale,
    validate,
)
from lab.kubernetes_nodes import NodeApi

_KINDS = {
    "deployments": ("apps/v1", "Deployment"),
    "replicasets": ("apps/v1", "ReplicaSet"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "nodes": ("v1", "Node"),
    "poddisruptionbudgets": ("policy/v1", "PodDisruptionBudget"),
    "horizontalpodautoscalers": ("autoscaling/v2", "HorizontalPodAutoscaler"),
}
_IN_NO_NAMESPACE = frozenset({"nodes"})


class KubernetesApi:
    """The API over a cluster. `now` is lab time."""

    def __init__(self, *, cluster: Cluster, now: Callable[[], datetime], read_token: str, action_token: str) -> None:
        self.cluster = cluster
        self.now = now
        self.doorman = Doorman(now=now, read_token=read_token, action_token=action_token)

    @property
    def writes(self) -> list[Json]:
        """Every write that came with a valid token, with its outcome."""
        return self.doorman.writes

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for Kubernetes", docs_url=None, redoc_url=None, openapi_url=None)
        for path in ("/version", "/version/"):  # the official client asks for the second
            app.add_api_route(path, self.version, methods=["GET"])
        for kind, (api_version, _) in _KINDS.items():
            root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            app.add_api_route(f"{root}/{kind}", self._lister(kind), methods=["GET"])
            place = root if kind in _IN_NO_NAMESPACE else f"{root}/namespaces/{{namespace}}"
            if place != root:
                app.add_api_route(f"{place}/{kind}", self._lister(kind), methods=["GET"])
            app.add_api_route(f"{place}/{kind}/{{name}}", self._getter(kind), methods=["GET"])
        one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        app.add_api_route(one, self.write_deployment, methods=["PATCH", "PUT"])
        app.add_api_route(f"{one}/scale", self.get_scale, methods=["GET"])
        app.add_api_route(f"{one}/scale", self.write_scale, methods=["PATCH", "PUT"])
        NodeApi(cluster=self.cluster, now=self.now, doorman=self.doorman, find=self._find).add_to(app)
        self.doorman.add_to(app)
        app.add_exception_handler(ApiError, answer_refusal)
        app.add_exception_handler(404, answer_unknown_path)
        return app

    async def version(self) -> Json:
        major, minor = KUBERNETES_VERSION.split(".")
        build = {"gitCommit": "0" * 40, "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z"}
        made = {"goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64"}
        return {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES_VERSION}.0", **build, **made}

    def _lister(self, kind: str) -> Callable[..., Any]:
        async def list_items(request: Request, namespace: str = NAMESPACE) -> Json:
            self.doorman.admit(request, "list", _group(kind), kind, namespace=namespace)
            self.cluster.advance(self.now())
            try:
                labels = matcher(request.query_params.get("labelSelector", ""))
                fields = matcher(request.query_params.get("fieldSelector", ""))
            except SelectorError as error:
                raise ApiError(400, str(error)) from None
            here = self.cluster.kinds[kind].values() if namespace == NAMESPACE else ()
            items = [i for i in here if labels(i["metadata"].get("labels", {})) and fields(_fields(i))]
            api_version, name = _KINDS[kind]
            meta = {"resourceVersion": self.cluster.version}
            return {"apiVersion": api_version, "kind": f"{name}List", "metadata": meta, "items": items}

        return list_items

    def _getter(self, kind: str) -> Callable[..., Any]:
        async def get_item(request: Request, name: str, namespace: str = NAMESPACE) -> Json:
            self.doorman.admit(request, "get", _group(kind), kind, namespace=namespace)
            self.cluster.advance(self.now())
            return self._find(kind, name, namespace)

        return get_item

    async def get_scale(self, request: Request, namespace: str, name: str) -> Json:
        self.doorman.admit(request, "get", "apps", "deployments/scale", namespace=namespace)
        self.cluster.advance(self.now())
        return scale_of(self._find("deployments", name, namespace))

    async def write_deployment(self, request: Request, namespace: str, name: str) -> Json:
        """PATCH or PUT of a deployment; what comes out must be a valid Deployment."""
        who = self.doorman.admit(request, verb_of(request), "apps", "deployments")
        return await self.doorman.recorded(request, who, 200, lambda: self._written(request, namespace, name))

    async def _written(self, request: Request, namespace: str, name: str) -> Json:
        before = self._find("deployments", name, namespace)
        after = await changed(request, before)
        validate(after)
        return self._accept(request, before, after)

    async def write_scale(self, request: Request, namespace: str, name: str) -> Json:
        """PATCH or PUT of the scale subresource: only the number of replicas can change."""
        who = self.doorman.admit(request, verb_of(request), "apps", "deployments/scale")
        return await self.doorman.recorded(request, who, 200, lambda: self._scaled(request, namespace, name))

    async def _scaled(self, request: Request, namespace: str, name: str) -> Json:
        deployment = self._find("deployments", name, namespace)
        after = await changed(request, scale_of(deployment))
        validate(after)
        wanted = copy.deepcopy(deployment)
        wanted["metadata"]["resourceVersion"] = after["metadata"].get("resourceVersion")
        wanted["spec"]["replicas"] = after["spec"].get("replicas", 0)
        validate(wanted)
        return scale_of(self._accept(request, deployment, wanted))

    def _accept(self, request: Request, before: Json, after: Json) -> Json:
        """Compare-and-set on the resource version; what cannot change is refused."""
        refuse_stale(before, after, "deployments.apps")
        if after["spec"]["selector"] != before["spec"]["selector"]:
            raise invalid(before, "spec.selector", "field is immutable")
        wanted = after["spec"]["selector"].get("matchLabels", {})
        labels = after["spec"]["template"].get("metadata", {}).get("labels", {})
        if not wanted.items() <= labels.items():
            raise invalid(before, "spec.template.metadata.labels", "`selector` does not match template `labels`")
        if after["spec"].setdefault("replicas", 1) < 0:
            raise invalid(before, "spec.replicas", "must be greater than or equal to 0")
        after["metadata"] = {**before["metadata"], **after["metadata"]}
        if is_dry_run(request):
            return after
        return self.cluster.update_deployment(after, self.now())

    def _find(self, kind: str, name: str, namespace: str) -> Json:
        full = f"{kind}.{_group(kind)}" if _group(kind) else kind
        missing = ApiError(404, f'{full} "{name}" not found', {"name": name, "kind": kind})
        if namespace != NAMESPACE:
            raise missing
        try:
            return self.cluster.get(kind, name)
        except NotFoundError:
            raise missing from None


def _group(kind: str) -> str:
    """The API group as rules have it; "" for the core."""
    group, slash, _ = _KINDS[kind][0].partition("/")
    return group if slash else ""


def scale_of(deployment: Json) -> Json:
    """The scale subresource of a deployment."""
    meta = deployment["metadata"]
    selector = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    wanted = deployment["spec"]["replicas"]
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": wanted} if wanted else {},  # Kubernetes leaves a zero out
        "status": {"replicas": deployment["status"]["replicas"], "selector": selector},
    }


def _fields(item: Json) -> Mapping[str, str]:
    """What a field selector may ask for, over all kinds."""
    about = item.get("involvedObject", {})
    return {
        "metadata.name": item["metadata"]["name"],
        "metadata.namespace": item["metadata"].get("namespace", ""),
        "status.phase": str(item.get("status", {}).get("phase", "")),
        "spec.nodeName": str(item.get("spec", {}).get("nodeName", "")),
        **{f"involvedObject.{key}": str(value) for key, value in about.items()},
        "reason": str(item.get("reason", "")),
        "type": str(item.get("type", "")),
    }
