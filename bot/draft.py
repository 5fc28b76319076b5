"""
`watchkeeper init`: a first watchkeeper.toml from what PagerDuty and Prometheus know already.

It guesses which series are which service's by their names, says so beside each guess, and gives nobody any right: every
service observes, and nobody may approve anything until a person writes that down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bot.incidents import WatchkeeperError
from bot.pagerduty_client import PagerDutyClient, PagerDutyError
from bot.redact import clean_text
from diagnostics.telemetry.model import Query, Telemetry, TelemetryError
from diagnostics.telemetry.prometheus import PrometheusTelemetry

_KINDS = {
    "engine": ("vllm", "sglang", "tgi", "triton", "nim", "engine", "inference"),
    "gateway": ("gateway", "litellm", "router", "proxy"),
    "guardrail": ("guardrail", "guard", "moderation"),
    "embedder": ("embed",),
    "retrieval": ("retriev", "rag", "vector", "search"),
}
_COMMON = frozenset(
    {"api", "app", "llm", "prod", "production", "service", "serving", "team", "the", "vllm", "inference"}
)
"""Words that many names share; alone they prove no kinship."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What the telemetry holds about LLM services: label values by what they tell apart."""

    engines: tuple[str, ...] = ()  # namespaces with vLLM series
    gpus: tuple[str, ...] = ()  # namespaces with dcgm-exporter series
    groups: tuple[str, ...] = ()  # LiteLLM model groups
    applications: tuple[str, ...] = ()  # `service` of llm_app_*
    deployments: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # namespace -> deployment -> replicas


@dataclass(frozen=True, kw_only=True)
class Account:
    """PagerDuty's services (id, name) and users (id, name, e-mail)."""

    services: tuple[tuple[str, str], ...] = ()
    users: tuple[tuple[str, str, str], ...] = ()


async def account(client: PagerDutyClient) -> Account:
    """Raises WatchkeeperError."""
    try:
        services, users = await client.services(), await client.users()
    except PagerDutyError as error:
        raise WatchkeeperError(f"PagerDuty cannot be read: {error}") from error
    return Account(
        services=tuple((str(each.get("id")), _name_of(each)) for each in services),
        users=tuple((str(each.get("id")), _name_of(each), str(each.get("email", ""))) for each in users),
    )


def _name_of(each: Mapping[str, Any]) -> str:
    return clean_text(str(each.get("name") or each.get("summary") or each.get("id"))).strip()


async def exported(url: str, *, headers: Mapping[str, str] | None = None) -> Exported:
    """Raises WatchkeeperError when Prometheus cannot be asked."""
    async with httpx.AsyncClient(headers=headers, timeout=10.0, follow_redirects=False) as client:
        telemetry = PrometheusTelemetry(url, client=client)
        try:
            return Exported(
                engines=await _values(telemetry, "vllm:num_requests_running", "namespace"),
                gpus=await _values(telemetry, "DCGM_FI_DEV_GPU_UTIL", "namespace"),
                groups=await _values(telemetry, "litellm_deployment_total_requests_total", "model_group"),
                applications=await _values(telemetry, "llm_app_requests_total", "service"),
                deployments=await _deployments(telemetry),
            )
        except TelemetryError as error:
            raise WatchkeeperError(f"{url} cannot be asked: {error}") from error


async def _values(telemetry: Telemetry, metric: str, label: str) -> tuple[str, ...]:
    found = await telemetry.vector(Query(metric=metric, by=(label,)), await telemetry.now())
    return tuple(sorted(value for (value,) in found if value))


async def _deployments(telemetry: Telemetry) -> dict[str, dict[str, int]]:
    query = Query(metric="kube_deployment_spec_replicas", by=("namespace", "deployment"))
    found: dict[str, dict[str, int]] = {}
    for (namespace, name), replicas in sorted((await telemetry.vector(query, await telemetry.now())).items()):
        if namespace and name:
            found.setdefault(namespace, {})[name] = round(replicas)
    return found


def draft(known: Account, seen: Exported, *, prometheus: str | None) -> str:
    """A watchkeeper.toml that `check-config` takes, with a remark beside everything that was guessed."""
    return "\n".join((*_head(prometheus), *_services(known, seen, prometheus), *_POLICY, *_people(known))) + "\n"


def _head(prometheus: str | None) -> Iterator[str]:
    yield "# Drafted by `watchkeeper init`. Lines with `guessed` are to be checked by somebody who knows the service."
    yield "# docs/configuration.md explains every key; `watchkeeper check-config` and `watchkeeper doctor` check it."
    yield "format = 1"
    if prometheus:
        yield from ("", "[[datasource]]", 'name = "metrics"', 'kind = "prometheus"', f"url = {_quoted(prometheus)}")
        yield '# credential = "PROMETHEUS_TOKEN"   # the NAME of a variable that holds a bearer token'


def _services(known: Account, seen: Exported, prometheus: str | None) -> Iterator[str]:
    taken: set[str] = set()
    for service_id, title in known.services:
        name = slug(title, taken)
        yield from _service(name, service_id, title, seen, prometheus)
    if not known.services:
        yield from ("", "# PagerDuty showed no service. One is described like this:", *_EXAMPLE_SERVICE)


def _service(name: str, service_id: str, title: str, seen: Exported, prometheus: str | None) -> Iterator[str]:
    namespace = closest(title, (*seen.engines, *seen.gpus, *seen.deployments))
    group, application = closest(title, seen.groups), closest(title, seen.applications)
    body = [
        "[[service]]",
        f"name = {_quoted(name)}",
        f"pagerduty_service = {_quoted(service_id)}   # {_remark(title)}",
        'environment = "prod"',
        'mode = "observe"                         # never offers a fix; "approve" once you trust its diagnoses',
        'prompt_diff = "redacted"',
    ]
    if prometheus:
        body.append('datasource = "metrics"')
    if namespace:
        body.append(f"namespace = {_quoted(namespace)}   # guessed from the names")
    selectors = [
        ("serving", "namespace", namespace if namespace in seen.engines else None),
        ("gpu", "namespace", namespace if namespace in seen.gpus else None),
        ("application", "service", application),
        ("gateway", "model_group", group),
        ("kubernetes", "namespace", namespace if namespace in seen.deployments else None),
    ]
    body.append("[service.selectors]")
    body += [
        f"{family} = {{{label} = {_quoted(value)}}}   # guessed from the names"
        for family, label, value in selectors
        if value
    ]
    body += _deployment_lines(seen.deployments.get(namespace or "", {}))
    usable = any(value for _, _, value in selectors)
    yield ""
    if not usable:
        yield f"# No series looks like those of {_remark(title)}. Fill in its selectors if it is an LLM service:"
    yield from (body if usable else (f"# {line}" for line in body))


def _deployment_lines(deployments: Mapping[str, int]) -> Iterator[str]:
    for name, replicas in deployments.items():
        kind = next((kind for kind, words in _KINDS.items() if any(word in name.lower() for word in words)), None)
        if kind is not None:
            yield from ("[[service.deployments]]", f"name = {_quoted(name)}", f'kind = "{kind}"   # guessed')
            yield f"replicas = {replicas}"


def _people(known: Account) -> Iterator[str]:
    taken: set[str] = set()
    for user_id, name, email in known.users:
        yield from ("", "[[person]]", f"id = {_quoted(slug(name, taken))}", f"name = {_quoted(name)}")
        yield f"pagerduty = {_quoted(user_id)}"
        if re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            yield f"email = {_quoted(email)}"
        yield '# slack = ["T01234567/U01234567"]   # TEAM/USER; without it their clicks count for nobody'
        yield "roles = []                          # on-call, service-owner, platform, security, budget, prompt-owner"


def closest(title: str, names: Sequence[str]) -> str | None:
    """The one name that shares a telling word with the title; None when none or several do equally well."""
    wanted = _words(title)
    scores = {name: len(wanted & _words(name)) for name in names}
    best = max(scores.values(), default=0)
    found = [name for name, score in scores.items() if score == best]
    return found[0] if best and len(found) == 1 else None


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", text.lower())) - _COMMON


def slug(text: str, taken: set[str]) -> str:
    """A name as the configuration wants it, and one that nobody has yet."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"
    number, name = 1, plain
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    taken.add(name)
    return name


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _remark(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


_POLICY = (
    "",
    "# Who may approve what. Without a rule nobody may; docs/configuration.md shows more.",
    "# [[policy]]",
    '# tier = "R1"                        # reversible within minutes',
    '# environment = "prod"',
    '# service = "*"',
    '# roles = ["on-call", "service-owner"]',
    "# count = 1",
)
_EXAMPLE_SERVICE = (
    "# [[service]]",
    '# name = "chat"',
    '# pagerduty_service = "PABC123"',
    "# [service.selectors]",
    '# serving = {namespace = "chat"}',
)
