"""
watchkeeper.toml: services, where to look, who may approve what; the only reader of that file.

`load_config` finds everything that is wrong at once and says for each where it stands and what to do about it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bot.config.bounds import Freeze, Limit
from bot.config.changed import AutomationAction, InferenceEngine, SecretStore, VectorStore, Workflow
from bot.config.entries import (
    DATASOURCES,
    ArgoSource,
    Cluster,
    Command,
    Datasource,
    FlagSource,
    Gateway,
    GitSource,
    HttpEndpoint,
    LangfuseSource,
    MlflowSource,
    Person,
    PhoenixSource,
    PolicyRule,
    PrometheusSource,
    RecorderSource,
    RunbookFolder,
    Service,
    TraceSource,
    paths_below,
)
from bot.config.errors import ConfigError, Problem, did_you_mean, problems_of
from bot.config.fields import Entry
from bot.config.lines import TomlLines, TomlPath, shown
from bot.config.references import NAMED_BY, metrics_sources, misfits
from bot.config.trust import BreakGlass, CheckpointPlace, RoleSource

__all__ = [
    "ArgoSource",
    "AutomationAction",
    "BreakGlass",
    "CheckpointPlace",
    "Cluster",
    "Command",
    "Config",
    "ConfigError",
    "Datasource",
    "FlagSource",
    "Freeze",
    "Gateway",
    "GitSource",
    "HttpEndpoint",
    "InferenceEngine",
    "LangfuseSource",
    "Limit",
    "MlflowSource",
    "Person",
    "PhoenixSource",
    "PolicyRule",
    "PrometheusSource",
    "RecorderSource",
    "RoleSource",
    "RunbookFolder",
    "SecretStore",
    "Service",
    "TraceSource",
    "VectorStore",
    "Workflow",
    "load_config",
]

FORMAT = 1
SEAL_KEY = "WATCHKEEPER_SEAL_KEY"
"""The variable with the secret that checkpoints are signed with."""

_KINDS: Mapping[str, type[Entry]] = {
    "service": Service,
    "cluster": Cluster,
    "gateway": Gateway,
    "engine": InferenceEngine,
    "vector_store": VectorStore,
    "secret_store": SecretStore,
    "http_endpoint": HttpEndpoint,
    "command": Command,
    "workflow": Workflow,
    "automation_action": AutomationAction,
    "runbooks": RunbookFolder,
    "policy": PolicyRule,
    "freeze": Freeze,
    "limit": Limit,
    "break_glass": BreakGlass,
    "role_source": RoleSource,
    "checkpoint": CheckpointPlace,
    "person": Person,
}
_DECIDING = ("environment", "team", "mode", "auto", "undo_on_failure", "owners", "approvers")
"""What of a service says who may approve, and what an approval includes."""

_KEYS = ("format", "datasource", *_KINDS)


class Config(Entry):
    """The whole configuration, checked; policy rules stand in file order."""

    path: Path
    services: tuple[Service, ...] = ()
    datasources: tuple[Datasource, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    engines: tuple[InferenceEngine, ...] = ()
    vector_stores: tuple[VectorStore, ...] = ()
    secret_stores: tuple[SecretStore, ...] = ()
    http_endpoints: tuple[HttpEndpoint, ...] = ()
    commands: tuple[Command, ...] = ()
    workflows: tuple[Workflow, ...] = ()
    automation_actions: tuple[AutomationAction, ...] = ()
    runbooks: tuple[RunbookFolder, ...] = ()
    policy: tuple[PolicyRule, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    limits: tuple[Limit, ...] = ()
    break_glass: tuple[BreakGlass, ...] = ()
    role_sources: tuple[RoleSource, ...] = ()
    checkpoints: tuple[CheckpointPlace, ...] = ()
    people: tuple[Person, ...] = ()

    def service(self, name: str) -> Service | None:
        return next((service for service in self.services if service.name == name), None)

    def service_for_pagerduty(self, service_id: str) -> Service | None:
        """The service that PagerDuty pages for under this id; None when it is not configured."""
        return next((service for service in self.services if service.pagerduty_service == service_id), None)

    def datasource(self, name: str) -> Datasource | None:
        return next((source for source in self.datasources if source.name == name), None)

    def cluster(self, name: str) -> Cluster | None:
        return next((cluster for cluster in self.clusters if cluster.name == name), None)

    def person(self, person_id: str) -> Person | None:
        return next((person for person in self.people if person.id == person_id), None)

    def person_for_slack(self, team: str, user: str) -> Person | None:
        """Whom a click in Slack comes from; None for strangers, guests and bots, who have no entry."""
        return next((person for person in self.people if f"{team}/{user}" in person.slack), None)

    def credentials(self) -> tuple[str, ...]:
        """The names of all variables that the entries name as credentials, and of what signs checkpoints."""
        named = [getattr(entry, "credential", None) for entry in (*self._far_ends(), *self.checkpoints)]
        named += [SEAL_KEY] if self.checkpoints else []
        return tuple(dict.fromkeys((*filter(None, named), *self.action_credentials())))

    def action_credentials(self) -> tuple[str, ...]:
        """The names of those that change production; a process that only receives must not have them."""
        named = [getattr(entry, "action_credential", None) for entry in self._far_ends()]
        named += [name for command in self.commands for name in command.environment]
        return tuple(dict.fromkeys(filter(None, named)))

    def _far_ends(self) -> tuple[Entry, ...]:
        """Every entry with an address of its own, in an order that stays."""
        return (
            *self.clusters,
            *self.gateways,
            *self.engines,
            *self.vector_stores,
            *self.secret_stores,
            *self.datasources,
            *self.http_endpoints,
        )

    @property
    def summary(self) -> str:
        """What was read, in a line."""
        counts = {
            "services": self.services,
            "datasources": self.datasources,
            "clusters": self.clusters,
            "gateways": self.gateways,
            "folders of runbooks": self.runbooks,
            "policy rules": self.policy,
            "people": self.people,
        }
        found = ", ".join(f"{len(entries)} {kind}" for kind, entries in counts.items())
        return f"{self.path}: {found}; policy version {self.policy_version}"

    @property
    def policy_version(self) -> str:
        """Twelve hex digits that change whenever anything changes that says who may approve what, or what it does."""
        deciding = {
            "policy": [rule.model_dump(mode="json") for rule in self.policy],
            "freezes": [freeze.model_dump(mode="json") for freeze in self.freezes],
            "limits": [limit.model_dump(mode="json") for limit in self.limits],
            "break_glass": [rule.model_dump(mode="json") for rule in self.break_glass],
            "role_sources": [source.model_dump(mode="json") for source in self.role_sources],
            "people": {person.id: person.model_dump(mode="json") for person in self.people},
            "services": {
                service.name: service.model_dump(mode="json", include=set(_DECIDING)) for service in self.services
            },
            "commands": [command.model_dump(mode="json") for command in self.commands],
            "workflows": [workflow.model_dump(mode="json") for workflow in self.workflows],
            "automation_actions": [each.model_dump(mode="json") for each in self.automation_actions],
            "far_ends": [
                entry.model_dump(mode="json", exclude={"ca_file", "path"})  # whose place differs between machines
                for entry in self._far_ends()
                if hasattr(entry, "action_credential")
            ],
        }
        text = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_config(path: Path, *, prometheus_url: str | None = None) -> Config:
    """
    Read and check the file at `path`; its relative paths count from its folder.

    `prometheus_url` is shorthand for one more `[[datasource]]` of kind and name `prometheus`. A service that names no
    datasource takes the only one that has metrics. Raises ConfigError with every problem found.
    """
    text = _read(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [_toml_problem(str(error), text)]) from None
    lines = TomlLines(text)
    if prometheus_url is not None:
        document = _with_prometheus(document, prometheus_url)
    entries: dict[str, dict[int, Any]] = {}
    problems = [*_top_level(document), *_validated(document, entries)]
    problems += misfits(entries, {kind: _names(document, kind) for kind in _KEYS[1:]})
    problems += _take_the_only_source(entries)
    if problems:
        raise ConfigError(path, [(lines.line_of(p.path), _sentence(p, document)) for p in problems])
    folder = path.resolve().parent
    return Config(
        path=path,
        services=tuple(entries["service"].values()),
        datasources=tuple(paths_below(source, folder) for source in entries["datasource"].values()),
        clusters=tuple(paths_below(cluster, folder) for cluster in entries["cluster"].values()),
        gateways=tuple(paths_below(gateway, folder) for gateway in entries["gateway"].values()),
        engines=tuple(paths_below(engine, folder) for engine in entries["engine"].values()),
        vector_stores=tuple(paths_below(store, folder) for store in entries["vector_store"].values()),
        secret_stores=tuple(paths_below(store, folder) for store in entries["secret_store"].values()),
        http_endpoints=tuple(paths_below(endpoint, folder) for endpoint in entries["http_endpoint"].values()),
        commands=tuple(entries["command"].values()),
        workflows=tuple(entries["workflow"].values()),
        automation_actions=tuple(entries["automation_action"].values()),
        runbooks=tuple(paths_below(folder_of_runbooks, folder) for folder_of_runbooks in entries["runbooks"].values()),
        policy=tuple(entries["policy"].values()),
        freezes=tuple(entries["freeze"].values()),
        limits=tuple(entries["limit"].values()),
        break_glass=tuple(entries["break_glass"].values()),
        role_sources=tuple(entries["role_source"].values()),
        checkpoints=tuple(paths_below(place, folder) for place in entries["checkpoint"].values()),
        people=tuple(entries["person"].values()),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        remedy = "copy watchkeeper.example.toml there, or name another file in WATCHKEEPER_CONFIG"
        raise ConfigError(path, [(1, f"there is no such file; {remedy}")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [(1, f"cannot be read: {error}; it must be a readable UTF-8 text")]) from None


def _toml_problem(message: str, text: str) -> tuple[int, str]:
    """tomllib says `... (at line 3, column 7)`, or `(at end of document)`."""
    said, _, place = message.rpartition(" (at ")
    words = place.replace(",", "").split()
    line = int(words[1]) if words[:1] == ["line"] else text.count("\n") + 1
    return line, f"not valid TOML: {said or message}; correct the syntax of this line or the one before"


def _with_prometheus(document: dict[str, Any], url: str) -> dict[str, Any]:
    sources = document.get("datasource", [])
    if not isinstance(sources, list) or "prometheus" in _names(document, "datasource"):
        return document  # an entry of the file says more than the shorthand
    return {**document, "datasource": [*sources, {"name": "prometheus", "kind": "prometheus", "url": url}]}


def _top_level(document: Mapping[str, Any]) -> Iterator[Problem]:
    found = document.get("format")
    if found != FORMAT or isinstance(found, bool):
        what = "format is missing" if found is None else f"format {found!r} is not known to this version"
        yield Problem(path=("format",), what=what, remedy=f"write format = {FORMAT} at the top")
    for key in document:
        if key not in _KEYS:
            remedy = did_you_mean(key, _KEYS, f"known are {', '.join(_KEYS)}")
            yield Problem(path=(key,), what=f"unknown key {key}", remedy=remedy)
    for kind in _KEYS[1:]:
        if not isinstance(document.get(kind, []), list):
            yield Problem(path=(kind,), what="this is one table", remedy=f"write [[{kind}]] with double brackets")


def _validated(document: Mapping[str, Any], entries: dict[str, dict[int, Any]]) -> Iterator[Problem]:
    """Fills `entries` with what is right for itself, and yields what is not."""
    for kind in _KEYS[1:]:
        valid = entries.setdefault(kind, {})
        raw = document.get(kind, [])
        for position, value in enumerate(raw if isinstance(raw, list) else []):
            at: TomlPath = (kind, position)
            model = _KINDS.get(kind) or _datasource_model(value)
            if model is None:
                known = ", ".join(DATASOURCES)
                given = value.get("kind") if isinstance(value, dict) else value
                near = did_you_mean(str(given), DATASOURCES, f"write kind = one of {known}")
                yield Problem(path=(*at, "kind"), what=f"kind {given!r} is not known", remedy=near)
                continue
            try:
                valid[position] = model.model_validate(value)
            except ValidationError as error:
                yield from problems_of(error, model, at)


def _datasource_model(value: Any) -> type[Entry] | None:
    return DATASOURCES.get(str(value.get("kind"))) if isinstance(value, dict) else None


def _take_the_only_source(entries: Mapping[str, dict[int, Any]]) -> Iterator[Problem]:
    """Gives services without a datasource the only one there is."""
    sources = metrics_sources(entries["datasource"].values())
    for position, service in entries["service"].items():
        if service.datasource is None and len(sources) == 1:
            entries["service"][position] = service.model_copy(update={"datasource": sources[0]})
        elif service.datasource is None:
            yield Problem(
                path=("service", position),
                what=f"no datasource is named, and there are {len(sources)} with metrics",
                remedy='write datasource = "NAME"' if sources else "add a [[datasource]] or set PROMETHEUS_URL",
            )


def _names(document: Mapping[str, Any], kind: str) -> frozenset[str]:
    raw = document.get(kind, [])
    key = NAMED_BY.get(kind, "name")
    return (
        frozenset(str(entry.get(key)) for entry in raw if isinstance(entry, dict))
        if isinstance(raw, list)
        else frozenset()
    )


def _sentence(problem: Problem, document: Mapping[str, Any]) -> str:
    return f"{shown(problem.path, document)}: {problem.what}; {problem.remedy}"
