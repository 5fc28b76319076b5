"""What diagnostics read, opened: telemetry, traces, change sources, clusters; with the credentials that read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from bot.change_sources import authorization, change_source, cluster_sources
from bot.config import (
    Config,
    GitSource,
    LangfuseSource,
    MlflowSource,
    PhoenixSource,
    PrometheusSource,
    RecorderSource,
    Service,
    TraceSource,
)
from bot.connections.credentials import http_client, key_pair, secret_of
from bot.discretion import DiscreetDiagnoser
from bot.settings import Settings
from diagnostics.changes.change import ChangeSource
from diagnostics.changes.git import GitPrompts
from diagnostics.changes.labels import Journal
from diagnostics.changes.langfuse import LangfusePrompts
from diagnostics.changes.self_report import SelfReport
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import Telemetry
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from diagnostics.telemetry.recorder import Recorder
from diagnostics.traces.jaeger import JaegerTraces
from diagnostics.traces.tempo import TempoTraces

Watch = Callable[[str, Telemetry], Telemetry]


@dataclass(frozen=True, kw_only=True)
class Connections:
    """Everything that reads, by the names of the configuration; `close` lets go of it."""

    telemetry: Mapping[str, Telemetry]
    sources: Mapping[str, ChangeSource]
    clusters: Mapping[str, tuple[ChangeSource, ...]]  # what each cluster tells, by its name
    traces: Mapping[str, TempoTraces | JaegerTraces]  # by the names of the services whose they are
    clients: tuple[httpx.AsyncClient, ...] = field(repr=False)

    async def start(self) -> None:
        """Begin to record where we are the recorder. Raises TelemetryError when its file cannot be read."""
        for telemetry in self.telemetry.values():
            if isinstance(telemetry, Recorder):
                await telemetry.start()

    async def close(self) -> None:
        for telemetry in self.telemetry.values():
            if isinstance(telemetry, Recorder):
                await telemetry.stop()
        for client in self.clients:
            await client.aclose()

    def diagnosers(
        self,
        config: Config,
        watch: Watch = lambda _, telemetry: telemetry,
        remembered: tuple[ChangeSource, ...] = (),
    ) -> dict[str, Diagnoser]:
        """
        One for every service that has telemetry; `watch` may stand between, by the datasource's name.

        `remembered` is asked beside each service's own sources: the journal.
        """
        stores = {
            source.name: source.url
            for source in config.datasources
            if isinstance(source, LangfuseSource | MlflowSource | PhoenixSource)
        }
        return {
            service.name: DiscreetDiagnoser(
                watch(service.datasource, self.telemetry[service.datasource]),
                [*self.sources_of(service), *remembered],
                prompt_diff=service.prompt_diff,
                stores=stores,
                traces=self.traces.get(service.name),
            )
            for service in config.services
            if service.datasource is not None and service.datasource in self.telemetry
        }

    def sources_of(self, service: Service) -> list[ChangeSource]:
        """Whoever may tell of a change that is this service's trouble, its own telemetry included."""
        named = {*service.changes, *(prompt.source for prompt in service.prompts)}
        found = [source for name, source in self.sources.items() if name in named]
        found += self.clusters.get(service.cluster or "", ())
        telemetry = self.telemetry.get(service.datasource or "")
        return [*found, SelfReport(telemetry)] if telemetry is not None else found


def connect(settings: Settings, config: Config, journal: Callable[[str], Journal] | None = None) -> Connections:
    """
    Open what diagnostics read; `journal` gives a source its memory.

    Raises MissingCredentialError, UnusableSettingError.
    """
    telemetry: dict[str, Telemetry] = {}
    sources: dict[str, ChangeSource] = {}
    traces: dict[str, TempoTraces | JaegerTraces] = {}
    clients: list[httpx.AsyncClient] = []
    for source in config.datasources:
        match source:
            case PrometheusSource():
                clients.append(client := http_client(settings, source.name, source.credential, source.ca_file))
                telemetry[source.name] = PrometheusTelemetry(source.url, client=client)
            case RecorderSource():
                clients.append(client := http_client(settings, source.name, None, None))
                telemetry[source.name] = Recorder(
                    targets=source.scrape,
                    interval_s=source.interval_s,
                    path=source.path,
                    history=source.history,
                    clock=source.clock,
                    client=client,
                )
            case LangfuseSource():
                clients.append(client := http_client(settings, source.name, None, source.ca_file))
                secret = secret_of(settings, source.credential, source.name)
                sources[source.name] = LangfusePrompts(
                    name=source.name,
                    url=source.url,
                    credential=":".join(
                        key_pair(secret_of(settings, source.credential, source.name), source.credential, source.name)
                    ),
                    client=client,
                    journal=journal(source.name) if journal else None,
                )
            case TraceSource():
                clients.append(client := http_client(settings, source.name, source.credential, source.ca_file))
                traces |= _traces(source, client, config.services)
            case GitSource():
                sources[source.name] = GitPrompts(name=source.name, folder=source.path)
            case _:
                clients.append(client := http_client(settings, source.name, None, source.ca_file))
                if source.credential is not None:
                    secret = secret_of(settings, source.credential, source.name)
                    client.headers["Authorization"] = authorization(source.kind, secret)
                sources[source.name] = change_source(source, client, journal(source.name) if journal else None)
    clusters: dict[str, tuple[ChangeSource, ...]] = {}
    for cluster in config.clusters:
        if cluster.credential:
            clients.append(client := http_client(settings, cluster.name, cluster.credential, cluster.ca_file))
            clusters[cluster.name] = cluster_sources(cluster, client)
    return Connections(telemetry=telemetry, sources=sources, clusters=clusters, traces=traces, clients=tuple(clients))


def _traces(
    source: TraceSource, client: httpx.AsyncClient, services: Sequence[Service]
) -> dict[str, TempoTraces | JaegerTraces]:
    """What each service that names this backend finds in it."""
    kind = TempoTraces if source.kind == "tempo" else JaegerTraces
    return {
        service.name: kind(
            name=source.name, url=source.url, client=client, service=service.traces.service or service.name
        )
        for service in services
        if service.traces is not None and service.traces.source == source.name
    }
