"""The entries of watchkeeper.toml as frozen values; each is checked here for itself, not against the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bot.config.fields import (
    CredentialName,
    Entry,
    GitBranch,
    GitRemote,
    KillSwitches,
    Matchers,
    Name,
    Pattern,
    PrivateAddress,
    SlackId,
    WebAddress,
    refuse_plain,
)
from diagnostics import target
from runbooks.engine.actions import command_line

Environment = Literal["prod", "staging", "dev"]
Role = Literal["on-call", "secondary", "service-owner", "platform", "security", "budget", "prompt-owner"]
NO_PERSON = frozenset({"policy", "watchkeeper", "pagerduty"})
"""Actors on record that nobody can sign in as."""

Family = Literal["serving", "gpu", "application", "gateway", "kubernetes"]


class _ClusterApi(Entry):
    """An HTTP API for reading that often runs in the same cluster; `credential` names a bearer token."""

    name: Name
    credential: CredentialName | None = None  # before the address, whose check looks at it
    url: WebAddress
    ca_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _is_private(cls, url: str, info: ValidationInfo) -> str:
        """Without a credential plain HTTP is fine: in most clusters Prometheus, Tempo and Jaeger have no TLS."""
        if info.data.get("credential") is not None:
            refuse_plain(url)
        return url


class PrometheusSource(_ClusterApi):
    """Telemetry from a Prometheus-compatible HTTP API."""

    kind: Literal["prometheus"]


class TraceSource(_ClusterApi):
    """Traces from Grafana Tempo or Jaeger."""

    kind: Literal["tempo", "jaeger"]


class RecorderSource(Entry):
    """Telemetry from the built-in recorder, which scrapes and keeps samples itself."""

    name: Name
    kind: Literal["recorder"]
    scrape: tuple[WebAddress, ...] = Field(min_length=1)
    interval_s: float = Field(default=15.0, gt=0)
    clock: Literal["wall", "samples"] = "wall"
    history: Path | None = None
    path: Path = Path("recorder.sqlite")


class LangfuseSource(Entry):
    """Prompt versions from Langfuse; credentials are `public_key:secret_key`."""

    name: Name
    kind: Literal["langfuse"]
    url: PrivateAddress
    credential: CredentialName | None = None
    action_credential: CredentialName | None = None
    ca_file: Path | None = None


class GitSource(Entry):
    """Changes from a Git folder on this machine; with a `remote`, commits to it can be reverted on its `branch`."""

    name: Name
    kind: Literal["git"]
    path: Path
    remote: GitRemote | None = None
    branch: GitBranch = "main"
    action_credential: CredentialName | None = None
    ca_file: Path | None = None


class _Api(Entry):
    """An HTTP API that changes are read from."""

    name: Name
    url: PrivateAddress
    ca_file: Path | None = None


class MlflowSource(_Api):
    """Prompt versions from MLflow's registry; `label` is the alias that production follows."""

    kind: Literal["mlflow"]
    credential: CredentialName | None = None  # `user:password`, or a bearer token
    action_credential: CredentialName | None = None
    label: str = Field(default="production", min_length=1)


class PhoenixSource(_Api):
    """Prompt versions from Arize Phoenix; `label` is the tag that production follows."""

    kind: Literal["phoenix"]
    credential: CredentialName | None = None
    label: str = Field(default="production", min_length=1)


class ArgoSource(_Api):
    """Deployments by Argo CD; `applications` are all that the token may see, unless they are named."""

    kind: Literal["argocd"]
    credential: CredentialName
    applications: tuple[str, ...] = ()


class FlagSource(_Api):
    """Feature flags of one project and environment; `flags` are shell patterns for those that count, all when none."""

    kind: Literal["launchdarkly", "unleash"]
    credential: CredentialName
    action_credential: CredentialName | None = None
    project: Name
    environment: Name
    flags: tuple[str, ...] = ()


Datasource = (
    PrometheusSource
    | RecorderSource
    | LangfuseSource
    | GitSource
    | MlflowSource
    | PhoenixSource
    | ArgoSource
    | FlagSource
    | TraceSource
)
DATASOURCES: Mapping[str, type[Entry]] = {
    "prometheus": PrometheusSource,
    "recorder": RecorderSource,
    "langfuse": LangfuseSource,
    "git": GitSource,
    "mlflow": MlflowSource,
    "phoenix": PhoenixSource,
    "argocd": ArgoSource,
    "launchdarkly": FlagSource,
    "unleash": FlagSource,
    "tempo": TraceSource,
    "jaeger": TraceSource,
}
TELEMETRY = frozenset({"prometheus", "recorder"})
"""Kinds that have metrics."""

PROMPTS = frozenset({"langfuse", "git", "mlflow", "phoenix"})
"""Kinds that know prompts."""

TRACES = frozenset({"tempo", "jaeger"})
"""Kinds that have traces."""


class Cluster(Entry):
    """A Kubernetes API; credentials are bearer tokens, one that reads and one that acts."""

    name: Name
    url: PrivateAddress
    credential: CredentialName | None = None
    action_credential: CredentialName | None = None
    ca_file: Path | None = None
    patch_env: tuple[CredentialName, ...] = ()  # variables of containers that kubernetes.patch may set
    watch_secrets: bool = False  # a token that may list Secrets may read what they hold, so somebody has to say so


class Gateway(Entry):
    """A LiteLLM proxy's admin API; `credential` is a key that reads, `action_credential` one that may change it."""

    name: Name
    url: PrivateAddress
    kind: Literal["litellm"] = "litellm"
    credential: CredentialName | None = None
    action_credential: CredentialName | None = None
    ca_file: Path | None = None


class HttpEndpoint(Entry):
    """
    A host that `http.request` may call, and nothing else: `paths` are regular expressions for whole paths.

    `tier` is how much its worst call can hurt; whoever keeps this file says so, never a runbook.
    """

    name: Name
    url: PrivateAddress
    methods: tuple[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], ...] = Field(min_length=1)
    paths: tuple[Pattern, ...] = Field(min_length=1)
    tier: Literal["R1", "R2", "R3"] = "R3"
    action_credential: CredentialName | None = None
    ca_file: Path | None = None


class Command(Entry):
    """
    A whole command line that `command.run` may run, without a shell.

    `argv` holds literals; an element `{name}` stands for one whole argument that matches `arguments[name]` entirely.
    """

    name: Name
    argv: tuple[str, ...] = Field(min_length=1)
    arguments: Mapping[str, Pattern] = Field(default_factory=dict, validate_default=True)
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    environment: tuple[CredentialName, ...] = ()
    tier: Literal["R1", "R2", "R3"] = "R3"

    @field_validator("arguments")
    @classmethod
    def _fit(cls, arguments: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        if argv := info.data.get("argv"):
            for what, remedy in command_line.faults(argv, arguments):
                raise ValueError(f"{what}; {remedy}")
        return arguments


class Budgets(Entry):
    """What the service promised; absent where nothing was promised. Times in seconds, ratio 0 to 1."""

    ttft_p95_s: float | None = Field(default=None, gt=0)
    itl_p95_s: float | None = Field(default=None, gt=0)
    e2e_p95_s: float | None = Field(default=None, gt=0)
    error_ratio: float | None = Field(default=None, ge=0, le=1)
    cost_usd_per_hour: float | None = Field(default=None, gt=0)


class Deployment(Entry):
    """A Kubernetes deployment of the service."""

    name: Name
    kind: Literal["engine", "gateway", "application", "guardrail", "retrieval", "embedder"]
    replicas: int | None = Field(default=None, ge=0)


class PromptRef(Entry):
    """A prompt that the service uses, and the datasource that knows its versions (None: nobody watches it)."""

    name: str = Field(min_length=1)
    source: str | None = None


class Provider(Entry):
    """An outside model provider."""

    name: str = Field(min_length=1)
    models: tuple[str, ...] = ()


class ServiceTraces(Entry):
    """Where a service's traces are, and the `service.name` it has in them (its own name by default)."""

    source: str
    service: str | None = Field(default=None, min_length=1)


class ServiceRetrieval(Entry):
    """Where a service's passages come from: the vector store, and the alias (or collection) by which it reads there."""

    store: Name
    alias: Name


class Service(Entry):
    """One LLM service: where its telemetry is, what it promised, and who answers for it."""

    name: Name
    selectors: Mapping[Family, Matchers]
    pagerduty_service: str | None = Field(default=None, min_length=1)
    namespace: str = ""
    team: str = ""
    environment: Environment = "prod"
    datasource: str | None = None
    cluster: str | None = None
    gateway: str | None = None
    mode: Literal["observe", "suggest", "approve", "auto"] = "observe"
    auto: tuple[str, ...] = ()  # actions that mode auto may take without a person
    undo_on_failure: Literal["offer", "run"] = "offer"
    prompt_diff: Literal["full", "redacted", "link"] = "redacted"
    owners: tuple[str, ...] = ()
    approvers: Mapping[Role, tuple[str, ...]] = Field(default_factory=dict)
    budgets: Budgets = Budgets()
    deployments: tuple[Deployment, ...] = ()
    prompts: tuple[PromptRef, ...] = ()
    providers: tuple[Provider, ...] = ()
    traces: ServiceTraces | None = None
    retrieval: ServiceRetrieval | None = None
    kill_switches: KillSwitches = Field(default_factory=dict)
    changes: tuple[str, ...] = ()  # datasources beside those of its prompts whose changes may be its trouble

    def target(self) -> target.Target:
        """The service as diagnostics sees it."""
        return target.Target(
            service=self.name,
            namespace=self.namespace,
            environment=self.environment,
            selectors={family: dict(matchers) for family, matchers in self.selectors.items()},
            budgets=target.Budgets(**self.budgets.model_dump()),
            deployments=tuple(target.Deployment(**entry.model_dump()) for entry in self.deployments),
            prompts=tuple(target.PromptRef(name=entry.name, source=entry.source or "") for entry in self.prompts),
            providers=tuple(target.Provider(**entry.model_dump()) for entry in self.providers),
        )


class RunbookFolder(Entry):
    """
    A folder of the team's own runbooks; `url` is where people read it, with the file's name put behind it.

    `reviewed` is a remote-tracking branch of the work tree that the folder is in; only what it holds counts. `signed`
    is a public key instead; only what the list that it signed holds counts. `split` says which headings of a plain page
    begin a document of their own.
    """

    path: Path
    url: WebAddress | None = None
    reviewed: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)+$", max_length=200)
    signed: Path | None = None
    split: Literal["alerts", "heading"] = "alerts"

    @model_validator(mode="after")
    def _reviewed_in_one_way(self) -> Self:
        if self.reviewed is not None and self.signed is not None:
            raise ValueError("`reviewed` and `signed` are two ways to say the same: keep one")
        return self


class PolicyRule(Entry):
    """
    Who may approve: `count` different people, each with any one of `roles`. The first rule that matches decides.

    `other_team`: one of them is of another team than the service and the requester. An R3 action needs two people and
    another team whatever stands here. A fix is offered for `expires_min`, and starts `start_within_min` after its last
    approval or never.
    """

    tier: Literal["R0", "R1", "R2", "R3"]
    environment: Literal["prod", "staging", "dev", "*"]
    service: str
    roles: tuple[Role, ...] = Field(min_length=1)
    count: int = Field(default=1, ge=1)
    other_team: bool = False
    expires_min: int = Field(default=15, ge=1, le=240)
    start_within_min: int = Field(default=10, ge=1, le=60)

    @field_validator("count")
    @classmethod
    def _r3_needs_two(cls, count: int, info: ValidationInfo) -> int:
        """Only where somebody wrote it down; the default is raised where it is too low."""
        if info.data.get("tier") == "R3" and count < 2:
            raise ValueError("one person can never approve an R3 action; write count = 2 or more, or leave it out")
        return count


class Person(Entry):
    """Somebody who may be asked; `slack` holds TEAM/USER ids, `roles` are held for every service."""

    id: Name
    name: str = Field(min_length=1)
    slack: tuple[SlackId, ...] = ()
    pagerduty: str | None = Field(default=None, min_length=1)
    email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    team: str = ""
    roles: tuple[Role, ...] = ()

    @field_validator("id")
    @classmethod
    def _is_nobody_elses(cls, person_id: str) -> str:
        """The record names actors by these."""
        if person_id in NO_PERSON:
            raise ValueError(f"{person_id!r} is what the record calls something that is no person; take another id")
        return person_id


def paths_below(entry: Any, folder: Path) -> Any:
    """The entry with its relative paths taken from the configuration's folder, wherever the process was started."""
    paths = {key: folder / value for key, value in entry if isinstance(value, Path)}
    return entry.model_copy(update=paths) if paths else entry
