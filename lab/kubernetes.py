"""
A stand-in for the Kubernetes API that the official client talks to.

It serves one namespace's deployments (with their scale), replica sets, pods and events, and the nodes. What a write
would lead to is checked whole against Kubernetes' own schemas before it is accepted, so that a client that gets an
object wrong learns it here. Bearer tokens: one may read, one may also patch deployments. Every write that came with a
valid token is remembered with its outcome under `/_lab/writes`.
"""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import kubernetes_validate
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from lab import cluster_objects as objects
from lab import patches
from lab.cluster import Cluster, NotFoundError
from lab.cluster_objects import NAMESPACE, Json
from lab.cluster_selectors import SelectorError, matcher

KUBERNETES_VERSION = "1.33"

_KINDS = {
    "deployments": ("apps/v1", "Deployment"),
    "replicasets": ("apps/v1", "ReplicaSet"),
    "pods": ("v1", "Pod"),
    "events": ("v1", "Event"),
    "nodes": ("v1", "Node"),
}
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}
_REASONS |= {409: "Conflict", 415: "UnsupportedMediaType", 422: "Invalid"}


class ApiError(Exception):
    """An answer that is not a success, as a Kubernetes Status."""

    def __init__(self, code: int, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": _REASONS[code],
            "code": code,
        }
        if details:
            self.status["details"] = details


@dataclass(kw_only=True)
class KubernetesApi:
    """The API over a cluster. `now` is lab time."""

    cluster: Cluster
    now: Callable[[], datetime]
    read_token: str
    action_token: str
    writes: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI(title="Lab stand-in for Kubernetes", docs_url=None, redoc_url=None, openapi_url=None)
        for path in ("/version", "/version/"):  # the official client asks for the second
            app.add_api_route(path, self.version, methods=["GET"])
        app.add_api_route("/_lab/writes", self.remembered, methods=["GET"])
        for root, kinds in (("/apis/apps/v1", ("deployments", "replicasets")), ("/api/v1", ("pods", "events"))):
            for kind in kinds:
                app.add_api_route(f"{root}/{kind}", self._lister(kind), methods=["GET"])
                app.add_api_route(f"{root}/namespaces/{{namespace}}/{kind}", self._lister(kind), methods=["GET"])
                app.add_api_route(
                    f"{root}/namespaces/{{namespace}}/{kind}/{{name}}", self._getter(kind), methods=["GET"]
                )
        app.add_api_route("/api/v1/nodes", self._lister("nodes"), methods=["GET"])
        app.add_api_route("/api/v1/nodes/{name}", self._getter("nodes"), methods=["GET"])
        one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        app.add_api_route(one, self.write_deployment, methods=["PATCH", "PUT"])
        app.add_api_route(f"{one}/scale", self.get_scale, methods=["GET"])
        app.add_api_route(f"{one}/scale", self.write_scale, methods=["PATCH", "PUT"])
        app.add_exception_handler(ApiError, _refuse)
        app.add_exception_handler(404, _unknown_path)
        return app

    async def version(self) -> Json:
        major, minor = KUBERNETES_VERSION.split(".")
        build = {"gitCommit": "0" * 40, "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z"}
        made = {"goVersion": "go1.24", "compiler": "gc", "platform": "linux/amd64"}
        return {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES_VERSION}.0", **build, **made}

    async def remembered(self) -> list[Json]:
        return self.writes

    def _lister(self, kind: str) -> Callable[..., Any]:
        async def list_items(request: Request, namespace: str = NAMESPACE) -> Json:
            self._authorize(request, kind)
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
            self._authorize(request, kind)
            self.cluster.advance(self.now())
            return self._find(kind, name, namespace)

        return get_item

    async def get_scale(self, request: Request, namespace: str, name: str) -> Json:
        self._authorize(request, "deployments")
        self.cluster.advance(self.now())
        return scale_of(self._find("deployments", name, namespace))

    async def write_deployment(self, request: Request, namespace: str, name: str) -> Json:
        """PATCH or PUT of a deployment; what comes out must be a valid Deployment."""
        who = self._authorize(request, "deployments", to_write=True)
        try:
            before = self._find("deployments", name, namespace)
            after = await _changed(request, before)
            validate(after)
            result = self._accept(request, before, after)
        except ApiError as refusal:
            self._remember(request, who, refusal.status["code"], await request.body())
            raise
        self._remember(request, who, 200, await request.body())
        return result

    async def write_scale(self, request: Request, namespace: str, name: str) -> Json:
        """PATCH or PUT of the scale subresource: only the number of replicas can change."""
        who = self._authorize(request, "deployments/scale", to_write=True)
        try:
            deployment = self._find("deployments", name, namespace)
            after = await _changed(request, scale_of(deployment))
            validate(after)
            wanted = copy.deepcopy(deployment)
            wanted["metadata"]["resourceVersion"] = after["metadata"].get("resourceVersion")
            wanted["spec"]["replicas"] = after["spec"].get("replicas", 0)
            validate(wanted)
            result = scale_of(self._accept(request, deployment, wanted))
        except ApiError as refusal:
            self._remember(request, who, refusal.status["code"], await request.body())
            raise
        self._remember(request, who, 200, await request.body())
        return result

    def _accept(self, request: Request, before: Json, after: Json) -> Json:
        """Compare-and-set on the resource version; names and identity cannot change."""
        name = before["metadata"]["name"]
        if after["metadata"].get("resourceVersion") not in {None, "", before["metadata"]["resourceVersion"]}:
            changed = "the object has been modified; please apply your changes to the latest version and try again"
            message = f'Operation cannot be fulfilled on deployments.apps "{name}": {changed}'
            raise ApiError(409, message, {"name": name, "group": "apps", "kind": "deployments"})
        for key in ("name", "namespace", "uid"):
            if after["metadata"].get(key, before["metadata"][key]) != before["metadata"][key]:
                raise _invalid(before, f"metadata.{key}", "field is immutable")
        if after["spec"]["selector"] != before["spec"]["selector"]:
            raise _invalid(before, "spec.selector", "field is immutable")
        wanted = after["spec"]["selector"].get("matchLabels", {})
        labels = after["spec"]["template"].get("metadata", {}).get("labels", {})
        if not wanted.items() <= labels.items():
            raise _invalid(before, "spec.template.metadata.labels", "`selector` does not match template `labels`")
        if after["spec"].setdefault("replicas", 1) < 0:
            raise _invalid(before, "spec.replicas", "must be greater than or equal to 0")
        after["metadata"] = {**before["metadata"], **after["metadata"]}
        if request.query_params.get("dryRun") == "All":
            return after
        return self.cluster.update_deployment(after, self.now())

    def _find(self, kind: str, name: str, namespace: str) -> Json:
        group = f"{kind}.apps" if _KINDS[kind][0] == "apps/v1" else kind
        missing = ApiError(404, f'{group} "{name}" not found', {"name": name, "kind": kind})
        if namespace != NAMESPACE:
            raise missing
        try:
            return self.cluster.get(kind, name)
        except NotFoundError:
            raise missing from None

    def _authorize(self, request: Request, kind: str, *, to_write: bool = False) -> str:
        """The account of the token. Raises ApiError 401 for none of ours and 403 when it may only read."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = token.strip().encode() if scheme.lower() == "bearer" else b""
        if hmac.compare_digest(known, self.action_token.encode()):
            return "watchkeeper-action"
        if not hmac.compare_digest(known, self.read_token.encode()):
            raise ApiError(401, "Unauthorized")
        if to_write:
            self._remember(request, "watchkeeper-read", 403, b"")
            user = f"system:serviceaccount:{NAMESPACE}:watchkeeper-read"
            what = f'cannot patch resource "{kind}" in API group "apps" in the namespace "{NAMESPACE}"'
            raise ApiError(403, f'deployments.apps is forbidden: User "{user}" {what}')
        return "watchkeeper-read"

    def _remember(self, request: Request, who: str, status: int, body: bytes) -> None:
        written = {"method": request.method, "path": request.url.path, "by": who, "status": status}
        dry = request.query_params.get("dryRun") == "All"
        self.writes.append(
            {"at": objects.stamp(self.now()), **written, "dry_run": dry, "body": body.decode(errors="replace")}
        )


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


def validate(item: Json) -> None:
    """Check a whole object against Kubernetes' own schema. Raises ApiError 422 that names the field."""
    try:
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(step) for step in error.path) or "the object"
        raise _invalid(item, where, str(error.message)) from None


async def _changed(request: Request, before: Json) -> Json:
    """The object that the request asks for. Raises ApiError 400, 415 or 422."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise ApiError(400, "the body of the request is not JSON") from None
    if request.method == "PUT":
        if not isinstance(body, dict) or (body.get("kind"), body.get("apiVersion")) != (
            before["kind"],
            before["apiVersion"],
        ):
            raise ApiError(400, f"the body of the request is no {before['apiVersion']} {before['kind']}")
        return body
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    try:
        after = patches.apply(content_type, before, body)
    except KeyError:
        raise ApiError(415, f"the body of the request was in an unknown format: {content_type}") from None
    except patches.PatchError as error:
        raise _invalid(before, "patch", str(error)) from None
    if not isinstance(after.get("metadata"), dict) or not isinstance(after.get("spec"), dict):
        raise _invalid(before, "spec", "metadata and spec must be objects")
    return after


def _invalid(item: Json, where: str, why: str) -> ApiError:
    name = str((item.get("metadata") or {}).get("name", ""))
    details = {
        "name": name,
        "kind": item["kind"],
        "causes": [{"reason": "FieldValueInvalid", "message": why, "field": where}],
    }
    return ApiError(422, f'{item["kind"]} "{name}" is invalid: {where}: {why}', details)


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


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.status, status_code=error.status["code"])


async def _unknown_path(_: Request, __: Exception) -> Response:
    return JSONResponse(ApiError(404, "the server could not find the requested resource").status, status_code=404)
