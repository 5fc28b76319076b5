"""The change sources that the configuration names, opened over clients that hold their reading credentials."""

from __future__ import annotations

import base64
from typing import Literal

import httpx

from bot.config import ArgoSource, Cluster, FlagSource, MlflowSource, PhoenixSource
from diagnostics.changes.argocd import ArgoSyncs
from diagnostics.changes.change import ChangeSource
from diagnostics.changes.flags import LaunchDarklyFlags, UnleashFlags
from diagnostics.changes.kubernetes import KubernetesRollouts
from diagnostics.changes.kubernetes_config import KubernetesConfiguration
from diagnostics.changes.kubernetes_events import KubernetesEvents, KubernetesNodes
from diagnostics.changes.labels import Journal
from diagnostics.changes.mlflow import MlflowPrompts
from diagnostics.changes.phoenix import PhoenixPrompts

Kind = Literal["mlflow", "phoenix", "argocd", "launchdarkly", "unleash"]


def authorization(kind: Kind, secret: str) -> str:
    """What each expects in the header: a bare token (flags), user and password or a bearer token (MLflow), a bearer."""
    if kind in {"launchdarkly", "unleash"}:
        return secret
    if kind == "mlflow" and ":" in secret:
        return "Basic " + base64.b64encode(secret.encode()).decode()
    return f"Bearer {secret}"


def change_source(
    source: MlflowSource | PhoenixSource | ArgoSource | FlagSource, client: httpx.AsyncClient, journal: Journal | None
) -> ChangeSource:
    """The source behind this entry; `journal` remembers where labels were."""
    name, url = source.name, source.url
    match source:
        case MlflowSource():
            return MlflowPrompts(name=name, url=url, client=client, label=source.label, journal=journal)
        case PhoenixSource():
            return PhoenixPrompts(name=name, url=url, client=client, label=source.label, journal=journal)
        case ArgoSource():
            return ArgoSyncs(name=name, url=url, client=client, applications=source.applications)
        case FlagSource():
            flags = LaunchDarklyFlags if source.kind == "launchdarkly" else UnleashFlags
            return flags(
                name=name,
                url=url,
                client=client,
                project=source.project,
                environment=source.environment,
                flags=source.flags,
            )


def cluster_sources(cluster: Cluster, client: httpx.AsyncClient) -> tuple[ChangeSource, ...]:
    """What a cluster tells, in parts of their own: one that may not be read does not hide the others."""
    name, url = cluster.name, cluster.url
    return (
        KubernetesRollouts(name=name, url=url, client=client),
        KubernetesConfiguration(cluster=name, url=url, client=client, with_secrets=cluster.watch_secrets),
        KubernetesEvents(cluster=name, url=url, client=client),
        KubernetesNodes(cluster=name, url=url, client=client),
    )
