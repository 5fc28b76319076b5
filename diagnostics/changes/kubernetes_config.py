"""
ConfigMaps and Secrets that a service's deployments read: when each was last written, and by what. Never what they hold.

Only metadata is asked for, so nothing that a Secret holds ever reaches this process; Kubernetes keeps no earlier state
to compare with. Which ones a deployment reads stands in its pod template.
API: GET /api/v1/namespaces/{namespace}/configmaps and .../secrets as PartialObjectMetadataList.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S
from diagnostics.changes.change import Change
from diagnostics.changes.kubernetes_reader import METADATA_ONLY, ClusterReader, ManagedFields, namespace_of
from diagnostics.target import Target

_KINDS = {"ConfigMap": ("configmaps", "config"), "Secret": ("secrets", "secret")}

# Where a pod template names one, by the key that holds its name: in `volumes`, `envFrom`, `env` and projections.
_REFERENCES = {
    "configMap": ("ConfigMap", "name"),
    "configMapRef": ("ConfigMap", "name"),
    "configMapKeyRef": ("ConfigMap", "name"),
    "secret": ("Secret", "secretName"),
    "secretRef": ("Secret", "name"),
    "secretKeyRef": ("Secret", "name"),
}


class _Metadata(BaseModel):
    name: str
    version: str = Field(default="", alias="resourceVersion")
    created_at: AwareDatetime = Field(alias="creationTimestamp")
    managed: list[ManagedFields] = Field(default_factory=list, alias="managedFields")


class _Object(BaseModel):
    metadata: _Metadata


class _Objects(BaseModel):
    items: list[_Object]


class _Template(BaseModel):
    template: dict[str, Any] = Field(default_factory=dict)


class _Named(BaseModel):
    name: str


class _Deployment(BaseModel):
    metadata: _Named
    spec: _Template


class _Deployments(BaseModel):
    items: list[_Deployment]


class KubernetesConfiguration:
    """
    The change source of one cluster's ConfigMaps, and of its Secrets only `with_secrets`.

    Kubernetes cannot grant a token to list Secrets without what they hold, so whoever wants these says so.
    """

    def __init__(
        self,
        *,
        cluster: str,
        url: str,
        client: httpx.AsyncClient,
        with_secrets: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = f"{cluster} configuration"
        self._cluster = cluster
        self._reader = ClusterReader(name=cluster, url=url, client=client, patience_s=patience_s)
        self._kinds = ("ConfigMap", "Secret") if with_secrets else ("ConfigMap",)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """What was last written in this time, oldest first. Raises ChangeSourceError."""
        namespace = namespace_of(target)
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
        deployments = (await self._reader.list(_Deployments, path, "deployments")).items
        wanted = {deployment.name for deployment in target.deployments}
        read_by: dict[tuple[str, str], list[str]] = {}
        for deployment in deployments:
            if deployment.metadata.name in wanted:
                for reference in set(references(deployment.spec.template)):
                    read_by.setdefault(reference, []).append(deployment.metadata.name)
        found = [
            self._change(target, kind, item, read_by[kind, item.metadata.name], at)
            for kind in self._kinds
            if any(each == kind for each, _ in read_by)
            for item in await self._objects(namespace, kind)
            if (kind, item.metadata.name) in read_by
            and (at := _last_write(item.metadata)) is not None
            and since <= at <= until
        ]
        return sorted(found, key=lambda change: change.at)

    async def _objects(self, namespace: str, kind: str) -> list[_Object]:
        plural = _KINDS[kind][0]
        path = f"/api/v1/namespaces/{namespace}/{plural}"
        return (await self._reader.list(_Objects, path, plural, accept=METADATA_ONLY)).items

    def _change(self, target: Target, kind: str, item: _Object, readers: list[str], at: datetime) -> Change:
        about = item.metadata
        writer = next((each.manager for each in about.managed if each.time == at and each.manager), None)
        return Change(
            id=f"{self._cluster}:{kind.lower()}/{about.name}:{about.version}",
            at=at.astimezone(UTC),
            kind=_KINDS[kind][1],
            service=target.service,
            source=self.name,
            summary=f"{kind} {about.name} was written" + (f" by {writer}" if writer else ""),
            author=writer,
            scope={"deployment": tuple(sorted(readers))},
        )


def references(value: Any) -> Iterator[tuple[str, str]]:
    """Every (kind, name) that a pod template reads; Kubernetes names them alike wherever they stand."""
    if isinstance(value, Mapping):
        for key, member in value.items():
            kind, field = _REFERENCES.get(key, ("", ""))
            # A projected volume's `secret` has `name`, a volume's own has `secretName`.
            if (
                kind
                and isinstance(member, Mapping)
                and isinstance(name := member.get(field) or member.get("name"), str)
            ):
                yield kind, name
            yield from references(member)
    elif isinstance(value, list):
        for member in value:
            yield from references(member)


def _last_write(about: _Metadata) -> datetime | None:
    """When its content was last written; None where that was its creation, or where the cluster does not say."""
    times = [
        each.time
        for each in about.managed
        if each.time and any(each.has(field) for field in ("f:data", "f:binaryData", "f:stringData"))
    ]
    last = max(times, default=None)
    return last if last is not None and last > about.created_at else None
