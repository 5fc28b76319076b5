"""Who may do what in the lab's cluster: two accounts with bearer tokens, rules as a Role has them, and the record."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import FastAPI, Request

from lab.cluster_objects import NAMESPACE, Json, stamp
from lab.kubernetes_answers import ApiError, is_dry_run, sent

READER, ACTOR = "watchkeeper-read", "watchkeeper-action"
_READING = ("get", "list", "watch")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Verbs on resources of one API group: in the namespace of the service, or with `cluster_wide` everywhere."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...] = _READING
    cluster_wide: bool = True


_EVERYTHING_READ = (
    Rule(group="", resources=("pods", "events", "nodes")),
    Rule(group="apps", resources=("deployments", "deployments/scale", "replicasets")),
    Rule(group="policy", resources=("poddisruptionbudgets",)),
    Rule(group="autoscaling", resources=("horizontalpodautoscalers",)),
)
_RULES = {
    READER: _EVERYTHING_READ,
    ACTOR: (
        *_EVERYTHING_READ,
        Rule(group="", resources=("nodes",), verbs=("patch", "update")),
        Rule(group="", resources=("pods",), verbs=("delete",), cluster_wide=False),
        Rule(group="", resources=("pods/eviction",), verbs=("create",), cluster_wide=False),
        Rule(
            group="apps",
            resources=("deployments", "deployments/scale"),
            verbs=("patch", "update"),
            cluster_wide=False,
        ),
    ),
}


@dataclass(kw_only=True)
class Doorman:
    """Tells the accounts apart by their tokens, lets them do what the rules allow, and remembers every write."""

    now: Callable[[], datetime]
    read_token: str
    action_token: str
    writes: list[Json] = field(default_factory=list)

    def add_to(self, app: FastAPI) -> None:
        app.add_api_route("/_lab/writes", self.remembered, methods=["GET"])
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        app.add_api_route(path, self.review, methods=["POST"], status_code=201)

    async def remembered(self) -> list[Json]:
        return self.writes

    def admit(self, request: Request, verb: str, group: str, resource: str, *, namespace: str = NAMESPACE) -> str:
        """The account of the token. Raises ApiError 401 for none of ours and 403 for what it may not do."""
        account = self._account(request)
        if may(account, verb, group, resource, namespace):
            return account
        if verb not in _READING:
            self.remember(request, account, 403, b"")
        user = f"system:serviceaccount:{NAMESPACE}:{account}"
        what = f'cannot {verb} resource "{resource}" in API group "{group}" in the namespace "{namespace}"'
        full = f"{resource}.{group}" if group else resource
        raise ApiError(403, f'{full} is forbidden: User "{user}" {what}')

    async def review(self, request: Request) -> Json:
        """SelfSubjectAccessReview: may I do this?"""
        account = self._account(request)
        asked = await sent(request, "authorization.k8s.io/v1", "SelfSubjectAccessReview")
        wanted = asked["spec"].get("resourceAttributes") or {}
        resource = wanted.get("resource", "")
        if wanted.get("subresource"):
            resource = f"{resource}/{wanted['subresource']}"
        allowed = may(account, wanted.get("verb", ""), wanted.get("group", ""), resource, wanted.get("namespace", ""))
        return {**asked, "metadata": asked.get("metadata") or {}, "status": {"allowed": allowed}}

    def _account(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = token.strip().encode() if scheme.lower() == "bearer" else b""
        if hmac.compare_digest(known, self.action_token.encode()):
            return ACTOR
        if hmac.compare_digest(known, self.read_token.encode()):
            return READER
        raise ApiError(401, "Unauthorized")

    async def recorded(self, request: Request, who: str, status: int, write: Callable[[], Awaitable[Json]]) -> Json:
        """What the write answers, remembered with its outcome. Raises ApiError, which is remembered, too."""
        try:
            result = await write()
        except ApiError as refusal:
            self.remember(request, who, refusal.status["code"], await request.body())
            raise
        self.remember(request, who, status, await request.body())
        return result

    def remember(self, request: Request, who: str, status: int, body: bytes) -> None:
        written = {"method": request.method, "path": request.url.path, "by": who, "status": status}
        dry = is_dry_run(request)
        self.writes.append({"at": stamp(self.now()), **written, "dry_run": dry, "body": body.decode(errors="replace")})


def verb_of(request: Request) -> str:
    """The verb of a write to an object that is there, as rules have it."""
    return "update" if request.method == "PUT" else "patch"


def may(account: str, verb: str, group: str, resource: str, namespace: str) -> bool:
    return any(
        rule.group == group and resource in rule.resources and verb in rule.verbs
        for rule in _RULES[account]
        if rule.cluster_wide or namespace == NAMESPACE
    )
