"""
Deployments by Argo CD, read-only: what was synced, when, by whom, from which revision.

An application belongs to a service when it made one of the service's deployments. Argo CD keeps ten entries of history
by default, and a sync is not yet a rollout: the cluster's own record of the same minutes says what changed.
API: GET /api/v1/applications and /api/v1/applications/{name}, bearer token; `status.history[]`, `status.resources[]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S, ReadingApi
from diagnostics.changes.change import Change
from diagnostics.target import Deployment, Target

_KINDS = {"gateway": "gateway", "guardrail": "policy", "embedder": "embedder"}


class _Source(BaseModel):
    repository: str = Field(default="", alias="repoURL")
    path: str = ""
    chart: str = ""


class _Initiator(BaseModel):
    username: str = ""
    automated: bool = False


class _Sync(BaseModel):
    """One entry of an application's history."""

    id: int
    deployed_at: AwareDatetime = Field(alias="deployedAt")
    started_at: AwareDatetime | None = Field(default=None, alias="deployStartedAt")
    revision: str = ""
    revisions: list[str] = Field(default_factory=list)
    initiated_by: _Initiator = Field(default_factory=_Initiator, alias="initiatedBy")
    source: _Source = Field(default_factory=_Source)
    sources: list[_Source] = Field(default_factory=list)

    @property
    def revision_text(self) -> str:
        return ", ".join(self.revisions) or self.revision

    @property
    def origin(self) -> str:
        """Where the manifests came from: a repository with its path or chart."""
        parts = [f"{each.repository} {each.path or each.chart}".strip() for each in self.sources or [self.source]]
        return ", ".join(part for part in parts if part)


class _Resource(BaseModel):
    kind: str
    name: str
    namespace: str = ""


class _Status(BaseModel):
    history: list[_Sync] = Field(default_factory=list)
    resources: list[_Resource] = Field(default_factory=list)


class _Metadata(BaseModel):
    name: str


class _Application(BaseModel):
    metadata: _Metadata
    status: _Status = Field(default_factory=_Status)


class _Applications(BaseModel):
    items: list[_Application] | None = None  # null where the token may see none


class ArgoSyncs:
    """The change source of one Argo CD; `applications` limits it to these, for tokens that may not list them all."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        client: httpx.AsyncClient,
        applications: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s)
        self._applications = tuple(applications)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Syncs in this time of applications that made the target's deployments. Raises ChangeSourceError."""
        found = []
        for application in await self._read():
            deployed = _deployed(application, target)
            history = sorted(application.status.history, key=lambda sync: sync.id)
            for before, sync in zip([None, *history], history, strict=False):
                if deployed and since <= _began(sync) <= until:
                    found.append(self._change(target, application.metadata.name, deployed, before, sync))
        return sorted(found, key=lambda change: change.at)

    async def _read(self) -> list[_Application]:
        if not self._applications:
            return (await self._api.ask(_Applications, "/api/v1/applications")).items or []
        paths = [f"/api/v1/applications/{quote(each, safe='')}" for each in self._applications]
        return list(await asyncio.gather(*(self._api.ask(_Application, path) for path in paths)))

    def _change(
        self, target: Target, application: str, deployed: list[Deployment], before: _Sync | None, sync: _Sync
    ) -> Change:
        who = sync.initiated_by
        was = f"{before.revision_text[:12]} -> " if before else ""
        return Change(
            id=f"{self.name}:{application}:{sync.id}",
            at=_began(sync),
            kind=_kind(deployed),
            service=target.service,
            source=self.name,
            summary=f"Argo CD synced {application}: {was}{sync.revision_text[:12]}",
            author=who.username or ("Argo CD" if who.automated else None),
            scope={"deployment": tuple(each.name for each in deployed)},
            before=_described(before) if before else None,
            after=_described(sync),
            url=f"{self._api.url}/applications/{quote(application, safe='')}",
        )


def _deployed(application: _Application, target: Target) -> list[Deployment]:
    """Which of the target's deployments this application made."""
    made = {
        each.name
        for each in application.status.resources
        if each.kind == "Deployment" and target.namespace in {"", each.namespace}
    }
    return [deployment for deployment in target.deployments if deployment.name in made]


def _began(sync: _Sync) -> datetime:
    """The cluster changes while a sync runs; `deployedAt` is its end."""
    return (sync.started_at or sync.deployed_at).astimezone(UTC)


def _kind(deployed: list[Deployment]) -> str:
    """What a new revision of these is to the causes; which flag changed stands in the cluster's own record."""
    kinds = {_KINDS.get(each.kind, "config") for each in deployed}
    return kinds.pop() if len(kinds) == 1 else "config"


def _described(sync: _Sync) -> str:
    return f"revision {sync.revision_text}\nfrom {sync.origin}" if sync.origin else f"revision {sync.revision_text}"
