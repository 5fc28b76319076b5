"""
A Kubernetes cluster through the official client: JSON in and out, one try, a time limit, no redirects.

The client's model classes drop fields that they do not know yet, so objects travel as plain JSON: a template that is
put back must be the template that was. The client blocks; every call runs in a thread.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

from runbooks.engine.actions.kubernetes_objects import items_at
from runbooks.engine.values import ActionError, JsonObject, OutcomeUnknownError

CONNECT_S = 3.0
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
FIELD_MANAGER = "watchkeeper"  # names us in the object's managedFields


class NotThereError(ActionError):
    """The cluster has no such object (404): nothing was changed."""


class NotNowError(ActionError):
    """The cluster asks to come back later (429): a disruption budget, or its own limit. Nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """
    How to reach one cluster with a token that may do what the enabled actions need; `ca_file` for a private CA.

    `patch_env` names the variables of containers that may be set beside those that we know ourselves.
    """

    url: str
    token: str = field(repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0
    patch_env: tuple[str, ...] = ()


class Cluster:
    """The few calls that the actions need, with errors told apart by whether the change may have happened."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._connection: Any = None

    @property
    def patch_env(self) -> tuple[str, ...]:
        return self._access.patch_env

    async def deployment(self, namespace: str, name: str) -> JsonObject:
        """Raises ActionError."""
        what = f"deployment {namespace}/{name}"
        return await self._read(what, "AppsV1Api.read_namespaced_deployment", name, namespace)

    async def scale_of(self, namespace: str, name: str) -> JsonObject:
        """The scale subresource. Raises ActionError."""
        what = f"deployment {namespace}/{name}"
        return await self._read(what, "AppsV1Api.read_namespaced_deployment_scale", name, namespace)

    async def replica_sets(self, namespace: str, selector: str) -> list[JsonObject]:
        """Raises ActionError."""
        what = f"the replica sets of {namespace}"
        call = "AppsV1Api.list_namespaced_replica_set"
        return items_at(await self._read(what, call, namespace, label_selector=selector), "items")

    async def autoscalers(self, namespace: str) -> list[JsonObject]:
        """Raises ActionError."""
        what = f"the autoscalers of {namespace}"
        call = "AutoscalingV2Api.list_namespaced_horizontal_pod_autoscaler"
        return items_at(await self._read(what, call, namespace), "items")

    async def nodes(self) -> list[JsonObject]:
        """Raises ActionError."""
        return items_at(await self._read("nodes", "CoreV1Api.list_node"), "items")

    async def pod(self, namespace: str, name: str) -> JsonObject:
        """Raises ActionError, NotThereError."""
        return await self._read(f"pod {namespace}/{name}", "CoreV1Api.read_namespaced_pod", name, namespace)

    async def pods(self, namespace: str | None) -> list[JsonObject]:
        """Those of the namespace, or of all of them. Raises ActionError."""
        if namespace is None:
            return items_at(await self._read("pods", "CoreV1Api.list_pod_for_all_namespaces"), "items")
        what = f"the pods of {namespace}"
        return items_at(await self._read(what, "CoreV1Api.list_namespaced_pod", namespace), "items")

    async def patch_scale(self, namespace: str, name: str, patch: JsonObject) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        call = "AppsV1Api.patch_namespaced_deployment_scale"
        return await self._change(call, name, namespace, patch, field_manager=FIELD_MANAGER, _content_type=MERGE_PATCH)

    async def patch_deployment(self, namespace: str, name: str, patch: list[JsonObject]) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        call = "AppsV1Api.patch_namespaced_deployment"
        return await self._change(call, name, namespace, patch, field_manager=FIELD_MANAGER, _content_type=JSON_PATCH)

    async def patch_node(self, name: str, patch: JsonObject) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        call = "CoreV1Api.patch_node"
        return await self._change(call, name, patch, field_manager=FIELD_MANAGER, _content_type=MERGE_PATCH)

    async def delete_pod(self, namespace: str, name: str, uid: str) -> JsonObject:
        """The pod of this uid, never another one of its name. Raises ActionError, OutcomeUnknownError."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        # The client does not say what the body of a DELETE is; nobody between us and the API server has to guess.
        said = {"Content-Type": "application/json"}
        return await self._change("CoreV1Api.delete_namespaced_pod", name, namespace, body=body, _headers=said)

    async def evict(self, namespace: str, name: str, uid: str) -> JsonObject:
        """Ask for the pod's eviction, so that disruption budgets count. Raises NotNowError and as `delete_pod`."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        return await self._change("CoreV1Api.create_namespaced_pod_eviction", name, namespace, body)

    async def _read(self, what: str, call: str, *arguments: str, **options: str) -> JsonObject:
        try:
            status, body = await asyncio.to_thread(self._call, call, *arguments, **options)
        except urllib3.exceptions.HTTPError as error:
            raise ActionError(f"the cluster cannot be read ({_words(error)})") from error
        if status == 404:
            raise NotThereError(f"the cluster has no {what}")
        if status != 200:
            raise ActionError(f"the cluster answered HTTP {status} for {what}{_reason(body)}")
        return _object(body)

    async def _change(self, call: str, *arguments: Any, **options: Any) -> JsonObject:
        try:
            status, body = await asyncio.to_thread(self._call, call, *arguments, **options)
        except urllib3.exceptions.HTTPError as error:
            if _never_sent(error):
                raise ActionError(f"the cluster cannot be reached ({_words(error)}): nothing was changed") from error
            raise OutcomeUnknownError(f"the cluster did not answer ({_words(error)})") from error
        if status >= 500 or status == 408:
            raise OutcomeUnknownError(f"the cluster answered HTTP {status}{_reason(body)}")
        if not 200 <= status < 300:
            refusal = {404: NotThereError, 429: NotNowError}.get(status, ActionError)
            raise refusal(f"the cluster refused with HTTP {status}{_reason(body)}: nothing was changed")
        try:
            return _object(body)
        except ActionError as error:
            raise OutcomeUnknownError(str(error)) from error

    def _call(self, call: str, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        """
        Blocks. The status and the raw body of any answer; raises urllib3's errors when there was none.

        `call` is the client's class and its method. What TLS says the client turns into an answer with the status 0;
        it is none.
        """
        client = _official_client()
        api, _, method = call.partition(".")
        send: Callable[..., Any] = getattr(getattr(client, api)(self._connected(client)), method)
        timeout = (min(CONNECT_S, self._access.timeout_s), self._access.timeout_s)
        try:
            answer = send(*arguments, **options, _preload_content=False, _request_timeout=timeout)
        except client.ApiException as error:
            if isinstance(error.__context__, urllib3.exceptions.SSLError):
                raise error.__context__ from error
            body = error.body or b""
            return int(error.status or 0), body.encode() if isinstance(body, str) else body
        return answer.status, answer.data

    def _connected(self, client: Any) -> Any:
        if self._connection is None:
            settings = client.Configuration(host=self._access.url.rstrip("/"))
            settings.api_key = {"authorization": f"Bearer {self._access.token}"}
            settings.ssl_ca_cert = self._access.ca_file
            # No second try and no redirect: a 3xx comes back as it is. False would follow neither, but `total=0`
            # alone raises on a redirect and hides the status.
            settings.retries = urllib3.Retry(total=False, redirect=False)
            settings.client_side_validation = False
            self._connection = client.ApiClient(settings)
        return self._connection


def cluster_named(clusters: Mapping[str, Cluster], name: str) -> Cluster:
    """Raises ActionError."""
    cluster = clusters.get(name)
    if cluster is None:
        raise ActionError(f"the cluster {name} has no `action_credential` in the configuration")
    return cluster


def _official_client() -> Any:
    """The client is an extra and takes a second to import, so it comes in at the first call."""
    try:
        from kubernetes import client  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ActionError("the Kubernetes client is not installed: pip install 'watchkeeper[kubernetes]'") from error
    return client


def _never_sent(error: urllib3.exceptions.HTTPError) -> bool:
    """True only where it is certain: TLS may break after the request, too, but not over a certificate."""
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
    if isinstance(reason, urllib3.exceptions.SSLError):
        return any(isinstance(each, ssl.SSLCertVerificationError) for each in reason.args)
    return isinstance(
        reason,
        urllib3.exceptions.NewConnectionError
        | urllib3.exceptions.ConnectTimeoutError
        | urllib3.exceptions.LocationValueError,
    )


def _object(body: bytes) -> JsonObject:
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ActionError("the cluster did not answer with JSON") from error
    if not isinstance(value, dict):
        raise ActionError("the cluster did not answer with an object")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _reason(body: bytes) -> str:
    """The `message` of a Kubernetes Status with its causes, shortened; nothing when it is something else."""
    try:
        status = _object(body)
    except ActionError:
        return ""
    said = [status.get("message"), *(cause.get("message") for cause in items_at(status, "details", "causes"))]
    texts = [text for text in said if isinstance(text, str) and text]
    return f" ({' '.join(texts)[:300]})" if texts else ""


def _words(error: urllib3.exceptions.HTTPError) -> str:
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return type(reason).__name__
