"""What the Kubernetes stand-in lets one do to nodes and pods: cordon, delete, evict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI, Request

from lab.cluster import Cluster
from lab.cluster_disruptions import HeldBackError, TooManyBudgetsError
from lab.cluster_objects import NAMESPACE, Json, stamp
from lab.kubernetes_access import Doorman, verb_of
from lab.kubernetes_answers import ApiError, body_of, changed, is_dry_run, refuse_stale, sent, validate

_RETRY_AFTER_S = 10


@dataclass(kw_only=True)
class NodeApi:
    """Writes to nodes and pods; `find` gets an object by kind, name and namespace or raises ApiError 404."""

    cluster: Cluster
    now: Callable[[], datetime]
    doorman: Doorman
    find: Callable[[str, str, str], Json]

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/api/v1/nodes/{name}", self.write_node, methods=["PATCH", "PUT"])
        pod = "/api/v1/namespaces/{namespace}/pods/{name}"
        app.add_api_route(pod, self.delete_pod, methods=["DELETE"])
        app.add_api_route(f"{pod}/eviction", self.evict, methods=["POST"], status_code=201)

    async def write_node(self, request: Request, name: str) -> Json:
        """PATCH or PUT of a node; what comes out must be a valid Node."""
        who = self.doorman.admit(request, verb_of(request), "", "nodes")
        return await self.doorman.recorded(request, who, 200, lambda: self._written(request, name))

    async def _written(self, request: Request, name: str) -> Json:
        before = self.find("nodes", name, NAMESPACE)
        after = await changed(request, before)
        validate(after)
        refuse_stale(before, after, "nodes")
        after["metadata"] = {**before["metadata"], **after["metadata"]}
        return after if is_dry_run(request) else self.cluster.update_node(after, self.now())

    async def delete_pod(self, request: Request, namespace: str, name: str) -> Json:
        """DELETE with the preconditions of its options; the controller starts a new pod at once."""
        who = self.doorman.admit(request, "delete", "", "pods", namespace=namespace)
        return await self.doorman.recorded(request, who, 200, lambda: self._deleted(request, namespace, name))

    async def _deleted(self, request: Request, namespace: str, name: str) -> Json:
        options = await _delete_options(request)
        pod = self._unchanged(self.find("pods", name, namespace), options)
        if not is_dry_run(request):
            self.cluster.remove_pod(name, self.now())
        return {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": stamp(self.now())}}

    async def evict(self, request: Request, namespace: str, name: str) -> Json:
        """POST of an Eviction: 429 where a disruption budget does not allow it now."""
        who = self.doorman.admit(request, "create", "", "pods/eviction", namespace=namespace)
        return await self.doorman.recorded(request, who, 201, lambda: self._evicted(request, namespace, name))

    async def _evicted(self, request: Request, namespace: str, name: str) -> Json:
        eviction = await sent(request, "policy/v1", "Eviction")
        pod = self._unchanged(self.find("pods", name, namespace), eviction.get("deleteOptions") or {})
        if eviction.get("metadata", {}).get("name", name) != name:
            raise ApiError(400, "name in URL does not match name in Eviction object")
        try:
            self.cluster.refuse_disruption(pod, self.now())
        except HeldBackError as held:
            cause = {"reason": "DisruptionBudget", "message": str(held)}
            details = {"causes": [cause], "retryAfterSeconds": _RETRY_AFTER_S}
            words = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, words, details) from None
        except TooManyBudgetsError as error:
            raise ApiError(500, str(error)) from None
        if not is_dry_run(request):
            self.cluster.remove_pod(name, self.now())
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _unchanged(self, pod: Json, options: Json) -> Json:
        """The pod, if the preconditions hold. Raises ApiError 409."""
        wanted, name = options.get("preconditions") or {}, pod["metadata"]["name"]
        for key, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            there = pod["metadata"][key]
            if wanted.get(key) not in {None, there}:
                failed = f"Precondition failed: {label} in precondition: {wanted[key]}, {label} in object meta: {there}"
                message = f'Operation cannot be fulfilled on pods "{name}": {failed}'
                raise ApiError(409, message, {"name": name, "kind": "pods"})
        return pod


async def _delete_options(request: Request) -> Json:
    """Checked as a part of an Eviction: there is no schema for them alone. Raises ApiError 400, 422."""
    if not await request.body():
        return {}
    options = await body_of(request)
    if not isinstance(options, dict) or options.get("kind", "DeleteOptions") != "DeleteOptions":
        raise ApiError(400, "the body of the request is no DeleteOptions")
    validate({"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": options})
    return options
