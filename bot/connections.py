"""
What the configuration names, opened: telemetry, change sources and actions.

Reading and writing hold different credentials: diagnostics get `credential`, actions get `action_credential`, and
neither sees the other's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bot.change_sources import authorization, change_source, cluster_sources
from bot.config import (
    Config,
    FlagSource,
    GitSource,
    LangfuseSource,
    MlflowSource,
    PhoenixSource,
    PrometheusSource,
    RecorderSource,
    Service,
    TraceSource,
)
from bot.discretion import DiscreetDiagnoser
from bot.incidents import WatchkeeperError
from bot.redact import safe_text
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
from runbooks.engine.actions import (
    ClusterAccess,
    CommandAccess,
    EngineAccess,
    FlagAccess,
    GitAccess,
    HttpAccess,
    LangfuseAccess,
    LiteLLMAccess,
    MlflowAccess,
    PagerDutyAccess,
    QdrantAccess,
    WorkflowAccess,
    build_actions,
)
from runbooks.engine.values import Action, Tier

READ_TIMEOUT_S = 5.0
Watch = Callable[[str, Telemetry], Telemetry]


class MissingCredentialError(WatchkeeperError):
    """The configuration names a credential that the environment does not hold."""


class UnusableSettingError(WatchkeeperError):
    """A credential or a file is there, and is not what it has to be; its content is never shown."""


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
                sources[source.name] = LangfusePrompts(
                    name=source.name,
                    url=source.url,
                    credential=":".join(_key_pair(settings, source.credential, source.name)),
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
                    secret = _secret(settings, source.credential, source.name)
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


def connect_actions(settings: Settings, config: Config) -> dict[str, Action]:
    """
    The actions with the access that the configuration gives them.

    Raises MissingCredentialError, UnusableSettingError.
    """
    return build_actions(
        langfuse=_langfuse_access(settings, config),
        mlflow=_mlflow_access(settings, config),
        flags=_flag_access(settings, config),
        repositories=_repository_access(settings, config),
        clusters=_cluster_access(settings, config),
        gateways=_gateway_access(settings, config),
        endpoints=_endpoint_access(settings, config),
        commands=_command_access(settings, config),
        engines=_engine_access(settings, config),
        stores=_store_access(settings, config),
        pagerduty=_pagerduty_access(settings),
        workflows={each.name: WorkflowAccess(workflow_id=each.id, tier=Tier[each.tier]) for each in config.workflows},
        redact=safe_text,
    )


def _langfuse_access(settings: Settings, config: Config) -> dict[str, LangfuseAccess]:
    found: dict[str, LangfuseAccess] = {}
    for source in config.datasources:
        if isinstance(source, LangfuseSource) and source.action_credential:
            public, secret = _key_pair(settings, source.action_credential, source.name)
            found[source.name] = LangfuseAccess(
                url=source.url,
                public_key=public,
                secret_key=secret,
                ca_file=_text(source.ca_file),
            )
    return found


def _mlflow_access(settings: Settings, config: Config) -> dict[str, MlflowAccess]:
    return {
        source.name: MlflowAccess(
            url=source.url,
            authorization=authorization(source.kind, _secret(settings, source.action_credential, source.name)),
            ca_file=_text(source.ca_file),
        )
        for source in config.datasources
        if isinstance(source, MlflowSource) and source.action_credential
    }


def _flag_access(settings: Settings, config: Config) -> dict[str, FlagAccess]:
    return {
        source.name: FlagAccess(
            kind=source.kind,
            url=source.url,
            authorization=authorization(source.kind, _secret(settings, source.action_credential, source.name)),
            project=source.project,
            environment=source.environment,
            flags=source.flags,
            ca_file=_text(source.ca_file),
        )
        for source in config.datasources
        if isinstance(source, FlagSource) and source.action_credential
    }


def _repository_access(settings: Settings, config: Config) -> dict[str, GitAccess]:
    return {
        source.name: GitAccess(
            folder=source.path,
            remote=source.remote,
            branch=source.branch,
            credential=_secret(settings, source.action_credential, source.name) if source.action_credential else "",
            ca_file=_text(source.ca_file),
        )
        for source in config.datasources
        if isinstance(source, GitSource) and source.remote
    }


def _cluster_access(settings: Settings, config: Config) -> dict[str, ClusterAccess]:
    return {
        cluster.name: ClusterAccess(
            url=cluster.url,
            token=_secret(settings, cluster.action_credential, cluster.name),
            ca_file=_text(cluster.ca_file),
            patch_env=cluster.patch_env,
        )
        for cluster in config.clusters
        if cluster.action_credential
    }


def _gateway_access(settings: Settings, config: Config) -> dict[str, LiteLLMAccess]:
    return {
        gateway.name: LiteLLMAccess(
            url=gateway.url,
            key=_secret(settings, gateway.action_credential, gateway.name),
            ca_file=_text(gateway.ca_file),
        )
        for gateway in config.gateways
        if gateway.action_credential
    }


def _endpoint_access(settings: Settings, config: Config) -> dict[str, HttpAccess]:
    return {
        endpoint.name: HttpAccess(
            url=endpoint.url,
            methods=endpoint.methods,
            paths=endpoint.paths,
            tier=Tier[endpoint.tier],
            token=_secret(settings, endpoint.action_credential, endpoint.name) if endpoint.action_credential else None,
            ca_file=_text(endpoint.ca_file),
        )
        for endpoint in config.http_endpoints
    }


def _command_access(settings: Settings, config: Config) -> dict[str, CommandAccess]:
    return {
        command.name: CommandAccess(
            argv=command.argv,
            arguments=command.arguments,
            environment={name: _secret(settings, name, command.name) for name in command.environment},
            timeout_s=command.timeout_s,
            tier=Tier[command.tier],
        )
        for command in config.commands
    }


def _engine_access(settings: Settings, config: Config) -> dict[str, EngineAccess]:
    return {
        engine.name: EngineAccess(
            url=engine.url,
            services=engine.services,
            lora_paths=engine.lora_paths,
            token=_secret(settings, engine.action_credential, engine.name) if engine.action_credential else None,
            ca_file=_text(engine.ca_file),
        )
        for engine in config.engines
    }


def _store_access(settings: Settings, config: Config) -> dict[str, QdrantAccess]:
    return {
        store.name: QdrantAccess(
            url=store.url,
            services=store.services,
            collections=store.collections,
            source_field=store.source_field,
            quarantine_key=store.quarantine_key,
            key=_secret(settings, store.action_credential, store.name) if store.action_credential else None,
            ca_file=_text(store.ca_file),
        )
        for store in config.vector_stores
    }


def _pagerduty_access(settings: Settings) -> PagerDutyAccess | None:
    """With the key that notes and resolves are written with; None where it is not set, or nobody to write as."""
    if settings.pagerduty_api_key is None or not settings.pagerduty_from:
        return None
    return PagerDutyAccess(
        key=settings.pagerduty_api_key.get_secret_value(),
        from_email=settings.pagerduty_from,
        url=settings.pagerduty_api_base_url,
    )


def http_client(settings: Settings, owner: str, credential: str | None, ca_file: Path | None) -> httpx.AsyncClient:
    """Redirects are never followed: they could carry a credential elsewhere."""
    headers = {"User-Agent": "watchkeeper"}
    if credential is not None:
        headers["Authorization"] = f"Bearer {_secret(settings, credential, owner)}"
    try:
        context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
    except OSError as error:  # ssl.SSLError is one, too
        raise UnusableSettingError(f"{owner}: {ca_file} holds no certificates: {error.strerror or error}") from error
    return httpx.AsyncClient(headers=headers, timeout=READ_TIMEOUT_S, follow_redirects=False, verify=context)


def _key_pair(settings: Settings, name: str | None, owner: str) -> tuple[str, str]:
    public, _, secret = _secret(settings, name, owner).partition(":")
    if not public or not secret:
        raise UnusableSettingError(f"{owner}: {name} is not of the form public_key:secret_key")
    return public, secret


def _secret(settings: Settings, name: str | None, owner: str) -> str:
    if name is None:
        raise MissingCredentialError(f"{owner} has no credential: name the variable that holds it in watchkeeper.toml")
    secret = settings.secret(name)
    if secret is None:
        raise MissingCredentialError(f"{owner} needs {name}: set {name} or {name}_FILE in the environment")
    return secret.get_secret_value()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
