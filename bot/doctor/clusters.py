"""
Clusters: does the API answer, may the reader read, and may the actor do what the runbooks' actions need?

Asked with SelfSubjectAccessReview, which changes nothing. A reader that may write is a finding, too: whoever steals the
credential of diagnosis must not be able to change production.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from bot.config import Cluster, Config
from bot.connections import MissingCredentialError, UnusableSettingError, http_client
from bot.doctor.advice import Advice
from bot.library import open_shelf
from bot.rights import DIAGNOSIS, rights
from bot.settings import Settings
from runbooks.engine.actions.kubernetes_objects import Right

_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WRITES = Right(group="apps", resource="deployments", verbs=("patch",))


class _AskingError(Exception):
    """The cluster does not say what a token may do."""


async def examine(settings: Settings, config: Config) -> list[Advice]:
    found = await asyncio.gather(*(_cluster(settings, config, cluster) for cluster in config.clusters))
    return [advice for several in found for advice in several]


async def _cluster(settings: Settings, config: Config, cluster: Cluster) -> list[Advice]:
    namespaces = sorted({each.namespace for each in config.services if each.cluster == cluster.name and each.namespace})
    if not namespaces:
        says = "no service names it together with a namespace"
        return [Advice.unknown(f"cluster {cluster.name}", says, "add cluster and namespace to its services")]
    try:
        return [
            *await _reader(settings, cluster, namespaces),
            *await _actor(settings, config, cluster, namespaces),
        ]
    except (MissingCredentialError, UnusableSettingError) as error:
        return [Advice.bad(f"cluster {cluster.name}", str(error), "set the credential, or take it out of the entry")]
    except _AskingError as error:
        remedy = "correct url, ca_file, credential or network"
        return [Advice.bad(f"cluster {cluster.name}", str(error), remedy)]


async def _reader(settings: Settings, cluster: Cluster, namespaces: Sequence[str]) -> list[Advice]:
    about = f"cluster {cluster.name}, reading"
    if cluster.credential is None:
        return [Advice.unknown(about, "no `credential`: rollouts are no suspects", "add one that may read")]
    async with http_client(settings, cluster.name, cluster.credential, cluster.ca_file) as client:
        missing = await _missing(client, cluster.url, rights()[DIAGNOSIS], namespaces)
        writes = not await _missing(client, cluster.url, [_WRITES], namespaces[:1])
    found = [
        Advice.bad(about, f"may not {'; '.join(missing)}", _apply(DIAGNOSIS, namespaces))
        if missing
        else Advice.ok(about, f"rollouts of {', '.join(namespaces)} can be read")
    ]
    if writes:
        remedy = "give diagnosis an account of its own that only reads"
        found.append(Advice.bad(about, "this token may also change deployments", remedy))
    return found


async def _actor(settings: Settings, config: Config, cluster: Cluster, namespaces: Sequence[str]) -> list[Advice]:
    """Only for the actions that some runbook of this installation uses."""
    about = f"cluster {cluster.name}, acting"
    if cluster.action_credential is None:
        return [Advice.ok(about, "no `action_credential`: nothing here can be changed")]
    if settings.secret(cluster.action_credential) is None:
        says = f"{cluster.action_credential} is not set here"
        return [Advice.unknown(about, says, "right for `serve --no-work`; run the doctor where a worker runs, too")]
    shelf = await asyncio.to_thread(open_shelf, config.runbooks)
    used = {step.action for book in shelf.runbooks.values() for step in book.steps}
    async with http_client(settings, cluster.name, cluster.action_credential, cluster.ca_file) as client:
        found = []
        for name, needed in rights().items():
            if name not in used:
                continue
            missing = await _missing(client, cluster.url, needed, namespaces)
            found.append(
                Advice.unknown(about, f"{name} cannot run: may not {'; '.join(missing)}", _apply(name, namespaces))
                if missing
                else Advice.ok(about, f"{name} may do what it needs")
            )
    return found


async def _missing(
    client: httpx.AsyncClient, url: str, needed: Sequence[Right], namespaces: Sequence[str]
) -> list[str]:
    """What this token may not do, in words."""
    asked = [
        (right, verb, namespace)
        for right in needed
        for verb in right.verbs
        for namespace in ([""] if right.cluster_wide else namespaces)
    ]
    allowed = await asyncio.gather(*(_may(client, url, *each) for each in asked))
    return [
        f"{verb} {right.resource}" + (f" in {namespace}" if namespace else "")
        for (right, verb, namespace), may in zip(asked, allowed, strict=True)
        if not may
    ]


async def _may(client: httpx.AsyncClient, url: str, right: Right, verb: str, namespace: str) -> bool:
    resource, _, part = right.resource.partition("/")
    wish = {"group": right.group, "resource": resource, "subresource": part, "verb": verb, "namespace": namespace}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in wish.items() if value}},
    }
    try:
        answer = await client.post(url + _REVIEW, json=body)
        answer.raise_for_status()
        return bool(answer.json()["status"]["allowed"])
    except httpx.HTTPStatusError as error:
        raise _AskingError(f"the API answered {error.response.status_code}") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise _AskingError(f"the API cannot be asked: {type(error).__name__}") from error


def _apply(name: str, namespaces: Sequence[str]) -> str:
    where = " ".join(f"--namespace {namespace}" for namespace in namespaces)
    return f"bind the Role that `watchkeeper rights {name} {where}` prints"
