"""
A Kubernetes cluster through the official client: JSON in and out, one try, a time limit, no redirects.

The client's model classes drop fields that they do not know yet, so objects travel as plain JSON: a template that is
put back must be the template that was. The client blocks; every call runs in a thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import urllib3

from runbooks.engine.values import ActionError, JsonObject, OutcomeUnknownError

CONNECT_S = 3.0
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
FIELD_MANAGER = "watchkeeper"  # names us in the object's managedFields


@dataclass(frozen=True, kw_only=True)
class ClusterAccess:
    """How to reach one cluster with a token that may change deployments; `ca_file` for a private authority."""

    url: str
    token: str = field(repr=False)
    ca_file: str | None = None
    timeout_s: float = 10.0


class Cluster:
    """The few calls that the actions need, with errors told apart by whether the change may have happened."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._apps: Any = None

    async def deployment(self, namespace: str, name: str) -> JsonObject:
        """Raises ActionError."""
        return await self._read(f"deployment {namespace}/{name}", "read_namespaced_deployment", name, namespace)

    async def scale_of(self, namespace: str, name: str) -> JsonObject:
        """The scale subresource. Raises ActionError."""
        return await self._read(f"deployment {namespace}/{name}", "read_namespaced_deployment_scale", name, namespace)

    async def replica_sets(self, namespace: str, selector: str) -> list[JsonObject]:
        """Raises ActionError."""
        what = f"the replica sets of {namespace}"
        answer = await self._read(what, "list_namespaced_replica_set", namespace, label_selector=selector)
        return [item for item in answer.get("items") or [] if isinstance(item, dict)]

    async def patch_scale(self, namespace: str, name: str, patch: JsonObject) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        return await self._change("patch_namespaced_deployment_scale", name, namespace, patch, MERGE_PATCH)

    async def patch_deployment(self, namespace: str, name: str, patch: list[JsonObject]) -> JsonObject:
        """Raises ActionError, OutcomeUnknownError."""
        return await self._change("patch_namespaced_deployment", name, namespace, patch, JSON_PATCH)

    async def _read(self, what: str, call: str, *arguments: str, **options: str) -> JsonObject:
        try:
            status, body = await asyncio.to_thread(self._call, call, *arguments, **options)
        except urllib3.exceptions.HTTPError as error:
            raise ActionError(f"the cluster cannot be read ({_words(error)})") from error
        if status == 404:
            raise ActionError(f"the cluster has no {what}")
        if status != 200:
            raise ActionError(f"the cluster answered HTTP {status} for {what}{_reason(body)}")
        return _object(body)

    async def _change(self, call: str, name: str, namespace: str, patch: Any, content_type: str) -> JsonObject:
        options = {"field_manager": FIELD_MANAGER, "_content_type": content_type}
        try:
            status, body = await asyncio.to_thread(self._call, call, name, namespace, patch, **options)
        except urllib3.exceptions.HTTPError as error:
            if _never_sent(error):
                raise ActionError(f"the cluster cannot be reached ({_words(error)}): nothing was changed") from error
            raise OutcomeUnknownError(f"the cluster did not answer ({_words(error)})") from error
        if status >= 500 or status == 408:
            raise OutcomeUnknownError(f"the cluster answered HTTP {status}{_reason(body)}")
        if not 200 <= status < 300:
            raise ActionError(f"the cluster refused with HTTP {status}{_reason(body)}: nothing was changed")
        try:
            return _object(body)
        except ActionError as error:
            raise OutcomeUnknownError(str(error)) from error

    def _call(self, call: str, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        """Blocks. The status and the raw body of any answer; raises urllib3's errors when there was none."""
        api, refused = self._client()
        method: Callable[..., Any] = getattr(api, call)
        timeout = (min(CONNECT_S, self._access.timeout_s), self._access.timeout_s)
        try:
            answer = method(*arguments, **options, _preload_content=False, _request_timeout=timeout)
        except refused as error:
            body = error.body or b""
            return int(error.status or 0), body.encode() if isinstance(body, str) else body
        return answer.status, answer.data

    def _client(self) -> tuple[Any, Any]:
        """The client is an extra and takes a second to import, so it comes in at the first call."""
        try:
            from kubernetes import client  # noqa: PLC0415 - see above
        except ImportError as error:
            raise ActionError(
                "the Kubernetes client is not installed: pip install 'watchkeeper[kubernetes]'"
            ) from error
        if self._apps is None:
            settings = client.Configuration(host=self._access.url.rstrip("/"))
            settings.api_key = {"authorization": f"Bearer {self._access.token}"}
            settings.ssl_ca_cert = self._access.ca_file
            # No second try and no redirect: a 3xx comes back as it is. False would follow neither, but `total=0`
            # alone raises on a redirect and hides the status.
            settings.retries = urllib3.Retry(total=False, redirect=False)
            settings.client_side_validation = False
            self._apps = client.AppsV1Api(client.ApiClient(settings))
        return self._apps, client.ApiException


def _never_sent(error: urllib3.exceptions.HTTPError) -> bool:
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
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
    """The `message` of a Kubernetes Status, shortened; nothing when it is something else."""
    try:
        message = _object(body).get("message")
    except ActionError:
        return ""
    return f" ({message[:200]})" if isinstance(message, str) and message else ""


def _words(error: urllib3.exceptions.HTTPError) -> str:
    reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return type(reason).__name__
