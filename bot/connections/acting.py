"""What actions may change, opened: one function for each kind of far end; with the credentials that act."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from bot.change_sources import authorization
from bot.config import (
    Cluster,
    Command,
    Config,
    FlagSource,
    Gateway,
    GitSource,
    HttpEndpoint,
    InferenceEngine,
    LangfuseSource,
    MlflowSource,
    SecretStore,
    VectorStore,
)
from bot.connections.credentials import key_pair, secret_of
from bot.redact import safe_text
from bot.settings import Settings
from runbooks.engine.actions import (
    AutomationAccess,
    ClusterAccess,
    CommandAccess,
    EngineAccess,
    FlagAccess,
    GitAccess,
    HttpAccess,
    LangfuseAccess,
    LiteLLMAccess,
    MlflowAccess,
    OpenSearchAccess,
    PagerDutyAccess,
    QdrantAccess,
    VaultAccess,
    WorkflowAccess,
    build_actions,
)
from runbooks.engine.values import Action, Tier


class _FarEnd(Protocol):
    """An entry of the configuration that something may be changed at."""

    @property
    def name(self) -> str: ...

    @property
    def action_credential(self) -> str | None: ...


E = TypeVar("E", bound=_FarEnd)
A = TypeVar("A")
StoreAccess = TypeVar("StoreAccess", QdrantAccess, OpenSearchAccess)


def connect_actions(settings: Settings, config: Config) -> dict[str, Action]:
    """
    The actions with the access that the configuration gives them.

    Raises MissingCredentialError, UnusableSettingError.
    """

    def trusted(entries: Iterable[E], opened: Callable[[E, str], A]) -> dict[str, A]:
        """Those that name a credential to act with; the others may only be read."""
        return {
            each.name: opened(each, secret_of(settings, each.action_credential, each.name))
            for each in entries
            if each.action_credential
        }

    def listed(entries: Iterable[E], opened: Callable[[E, str | None], A]) -> dict[str, A]:
        """All of them: their entry alone allows it, and a credential is given where one is named."""
        return {
            each.name: opened(
                each, secret_of(settings, each.action_credential, each.name) if each.action_credential else None
            )
            for each in entries
        }

    sources = config.datasources
    return build_actions(
        langfuse=trusted((each for each in sources if isinstance(each, LangfuseSource)), _langfuse),
        mlflow=trusted((each for each in sources if isinstance(each, MlflowSource)), _mlflow),
        flags=trusted((each for each in sources if isinstance(each, FlagSource)), _flags),
        repositories=listed((each for each in sources if isinstance(each, GitSource) and each.remote), _repository),
        clusters=trusted(config.clusters, _cluster),
        gateways=trusted(config.gateways, _gateway),
        endpoints=listed(config.http_endpoints, _endpoint),
        commands={each.name: _command(each, settings) for each in config.commands},
        engines=listed(config.engines, _engine),
        stores=listed((each for each in config.vector_stores if each.kind == "qdrant"), partial(_store, QdrantAccess)),
        indices=listed(
            (each for each in config.vector_stores if each.kind != "qdrant"), partial(_store, OpenSearchAccess)
        ),
        secrets=trusted(config.secret_stores, _vault),
        pagerduty=_pagerduty(settings),
        workflows={each.name: WorkflowAccess(workflow_id=each.id, tier=Tier[each.tier]) for each in config.workflows},
        automations={
            each.name: AutomationAccess(action_id=each.id, tier=Tier[each.tier]) for each in config.automation_actions
        },
        redact=safe_text,
    )


def _langfuse(source: LangfuseSource, secret: str) -> LangfuseAccess:
    public, private = key_pair(secret, source.action_credential, source.name)
    return LangfuseAccess(url=source.url, public_key=public, secret_key=private, ca_file=_text(source.ca_file))


def _mlflow(source: MlflowSource, secret: str) -> MlflowAccess:
    return MlflowAccess(url=source.url, authorization=authorization(source.kind, secret), ca_file=_text(source.ca_file))


def _flags(source: FlagSource, secret: str) -> FlagAccess:
    return FlagAccess(
        kind=source.kind,
        url=source.url,
        authorization=authorization(source.kind, secret),
        project=source.project,
        environment=source.environment,
        flags=source.flags,
        ca_file=_text(source.ca_file),
    )


def _repository(source: GitSource, secret: str | None) -> GitAccess:
    return GitAccess(
        folder=source.path,
        remote=source.remote or "",
        branch=source.branch,
        credential=secret or "",
        ca_file=_text(source.ca_file),
    )


def _cluster(cluster: Cluster, secret: str) -> ClusterAccess:
    return ClusterAccess(url=cluster.url, token=secret, ca_file=_text(cluster.ca_file), patch_env=cluster.patch_env)


def _gateway(gateway: Gateway, secret: str) -> LiteLLMAccess:
    return LiteLLMAccess(url=gateway.url, key=secret, ca_file=_text(gateway.ca_file))


def _endpoint(endpoint: HttpEndpoint, secret: str | None) -> HttpAccess:
    return HttpAccess(
        url=endpoint.url,
        methods=endpoint.methods,
        paths=endpoint.paths,
        tier=Tier[endpoint.tier],
        token=secret,
        ca_file=_text(endpoint.ca_file),
    )


def _command(command: Command, settings: Settings) -> CommandAccess:
    return CommandAccess(
        argv=command.argv,
        arguments=command.arguments,
        environment={name: secret_of(settings, name, command.name) for name in command.environment},
        timeout_s=command.timeout_s,
        tier=Tier[command.tier],
    )


def _engine(engine: InferenceEngine, secret: str | None) -> EngineAccess:
    return EngineAccess(
        url=engine.url,
        services=engine.services,
        lora_paths=engine.lora_paths,
        token=secret,
        ca_file=_text(engine.ca_file),
    )


def _store(access: type[StoreAccess], store: VectorStore, secret: str | None) -> StoreAccess:
    """What a fix may do to a store is written alike for all kinds of them."""
    return access(
        url=store.url,
        services=store.services,
        collections=store.collections,
        source_field=store.source_field,
        quarantine_key=store.quarantine_key,
        key=secret,
        ca_file=_text(store.ca_file),
    )


def _vault(store: SecretStore, secret: str) -> VaultAccess:
    return VaultAccess(
        url=store.url,
        token=secret,
        services=store.services,
        roles=store.roles,
        mount=store.mount,
        namespace=store.namespace,
        ca_file=_text(store.ca_file),
    )


def _pagerduty(settings: Settings) -> PagerDutyAccess | None:
    """With the key that notes and resolves are written with; None where it is not set, or nobody to write as."""
    if settings.pagerduty_api_key is None or not settings.pagerduty_from:
        return None
    return PagerDutyAccess(
        key=settings.pagerduty_api_key.get_secret_value(),
        from_email=settings.pagerduty_from,
        url=settings.pagerduty_api_base_url,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
