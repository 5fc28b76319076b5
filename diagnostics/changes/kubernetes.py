"""
Rollouts of a service's deployments, read from a Kubernetes cluster.

Kubernetes keeps the pod template of each revision in a replica set (ten of them by default). A revision began when its
replica set was created; one that came back (a rollback) reuses the old set, and when that was is only known for the
present revision, from the deployment's last write to its template.
API: GET /apis/apps/v1/namespaces/{namespace}/deployments and .../replicasets with a token that may read both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S
from diagnostics.changes.change import Change
from diagnostics.changes.kubernetes_reader import ClusterReader, ManagedFields, namespace_of
from diagnostics.changes.pod_facts import HIDDEN, RESTARTED, Facts, as_text, compared, holds_secret, in_words
from diagnostics.target import Deployment, Target

REVISION = "deployment.kubernetes.io/revision"
_EARLIER_REVISIONS = "deployment.kubernetes.io/revision-history"
_CHANGE_CAUSE = "kubernetes.io/change-cause"
_TEMPLATE_HASH = "pod-template-hash"
_NUMBERS = re.compile(r"[0-9]{1,9}", re.ASCII)

# What a rollout of a deployment of this kind is to the causes; an engine's depends on what changed.
_KINDS = {"gateway": "gateway", "guardrail": "policy", "embedder": "embedder"}
_MODEL_FLAGS = ("--model", "--tokenizer", "--revision", "--served-model-name", "--chat-template", "--quantization")


class _Owner(BaseModel):
    uid: str = ""
    controller: bool = False


class _Metadata(BaseModel):
    name: str
    uid: str = ""
    created_at: AwareDatetime = Field(alias="creationTimestamp")
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owners: list[_Owner] = Field(default_factory=list, alias="ownerReferences")
    managed: list[ManagedFields] = Field(default_factory=list, alias="managedFields")


class _Spec(BaseModel):
    template: dict[str, Any] = Field(default_factory=dict)


class _Item(BaseModel):
    """A deployment or a replica set."""

    metadata: _Metadata
    spec: _Spec

    @property
    def revision(self) -> int:
        return next(iter(_numbers(self.metadata.annotations.get(REVISION, ""))), 0)


class _Listing(BaseModel):
    items: list[_Item]


@dataclass(frozen=True, kw_only=True)
class _Began:
    """A revision that a deployment had: its number then, its replica set, and when it began, if that is known."""

    number: int
    replica_set: _Item
    at: datetime | None


class KubernetesRollouts:
    """The change source of one cluster; a change is a revision of one of the target's deployments."""

    def __init__(self, *, name: str, url: str, client: httpx.AsyncClient, patience_s: float = PATIENCE_S) -> None:
        self.name = name
        self._reader = ClusterReader(name=name, url=url, client=client, patience_s=patience_s)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Revisions that began in this time, oldest first. Raises ChangeSourceError."""
        namespace = namespace_of(target)
        deployments = {item.metadata.name: item for item in await self._list(namespace, "deployments")}
        replica_sets = await self._list(namespace, "replicasets")
        found: list[Change] = []
        for wanted in target.deployments:
            if (deployment := deployments.get(wanted.name)) is not None:
                history = _history(deployment, replica_sets)
                for before, now in pairwise(history):
                    if now.at is not None and since <= now.at <= until:
                        found.append(self._change(target, wanted, before, now, now.at))
        return sorted(found, key=lambda change: change.at)

    def _change(self, target: Target, deployment: Deployment, before: _Began, now: _Began, at: datetime) -> Change:
        old, new = compared(_template(before.replica_set), _template(now.replica_set))
        cause = _said(now.replica_set.metadata.annotations.get(_CHANGE_CAUSE, ""))
        pods = now.replica_set.metadata.labels.get(_TEMPLATE_HASH)
        return Change(
            id=f"{self.name}:{deployment.name}:{now.number}",
            at=at.astimezone(UTC),
            kind=kind_of(deployment, old, new),
            service=target.service,
            source=self.name,
            summary=f"{deployment.name} revision {now.number}: {in_words(old, new)}" + (f" ({cause})" if cause else ""),
            scope={"deployment": (deployment.name,)} | ({"revision": (pods,)} if pods else {}),
            before=as_text(old),
            after=as_text(new),
            undo={
                "deployment": deployment.name,
                "revision": str(now.number),
                "to_revision": str(before.replica_set.revision),  # its number now, which a rollback changes
            },
        )

    async def _list(self, namespace: str, kind: str) -> list[_Item]:
        return (await self._reader.list(_Listing, f"/apis/apps/v1/namespaces/{namespace}/{kind}", kind)).items


def kind_of(deployment: Deployment, before: Facts, after: Facts) -> str:
    """The kind of change that the causes know: a gateway's, a model's, an engine's version, or its configuration."""
    changed = {name.rpartition(": ")[2] for name in {**before, **after} if before.get(name) != after.get(name)}
    if changed == {RESTARTED}:
        return "infra"
    if deployment.kind in _KINDS:
        return _KINDS[deployment.kind]
    if changed.intersection(_MODEL_FLAGS):
        return "model"
    return "engine" if deployment.kind == "engine" and "image" in changed else "config"


def _history(deployment: _Item, replica_sets: list[_Item]) -> list[_Began]:
    """The deployment's revisions in their order, as far as Kubernetes still has them."""
    owned = [item for item in replica_sets if _is_owned(item, deployment) and item.revision]
    return sorted((began for item in owned for began in _beginnings(item, deployment)), key=lambda one: one.number)


def _beginnings(item: _Item, deployment: _Item) -> Iterator[_Began]:
    """Each revision that this replica set was: only the first one began when it was created."""
    numbers = sorted({*_numbers(item.metadata.annotations.get(_EARLIER_REVISIONS, "")), item.revision})
    for number in numbers:
        if number == numbers[0]:
            at: datetime | None = item.metadata.created_at
        else:
            at = _last_write(deployment) if number == deployment.revision else None
        yield _Began(number=number, replica_set=item, at=at)


def _last_write(deployment: _Item) -> datetime | None:
    """When somebody last wrote to the template; None where the cluster does not say."""
    return max(
        (each.time for each in deployment.metadata.managed if each.time and each.has("f:spec", "f:template")),
        default=None,
    )


def _is_owned(item: _Item, deployment: _Item) -> bool:
    return any(owner.controller and owner.uid == deployment.metadata.uid for owner in item.metadata.owners)


def _template(item: _Item) -> Mapping[str, Any]:
    return item.spec.template


def _said(cause: str) -> str:
    """What somebody wrote about the rollout; `--record` wrote the whole command line, `set env TOKEN=...` included."""
    return HIDDEN if holds_secret(cause) else " ".join(cause[:200].split())


def _numbers(text: str) -> Iterator[int]:
    return (int(each) for each in text.split(",") if _NUMBERS.fullmatch(each))
