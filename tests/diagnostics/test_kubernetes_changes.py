"""Rollouts as changes: read over HTTP, from made-up clusters and from the lab's."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.changes.diff import short_diff
from diagnostics.changes.kubernetes import KubernetesRollouts
from diagnostics.changes.pod_facts import as_text, compared
from diagnostics.target import Deployment, Target
from lab.kubernetes import KubernetesApi
from tests.lab.played_worlds import CREDENTIALS, LIVE_START, SmallWorld

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(
    service="chat",
    namespace="chat",
    deployments=(Deployment(name="chat-vllm", kind="engine"), Deployment(name="chat-gateway", kind="gateway")),
)


def template(*args: str, image: str = "vllm:0.11", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {}},
        "spec": {"containers": [{"name": "vllm", "image": image, "args": list(args), **more}]},
    }


@dataclass
class Cluster:
    """Deployments and their replica sets as the API lists them."""

    deployments: list[dict[str, Any]] = field(default_factory=list)
    replica_sets: list[dict[str, Any]] = field(default_factory=list)
    broken: httpx.Response | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.broken is not None:
            return self.broken
        items = self.replica_sets if request.url.path.endswith("/replicasets") else self.deployments
        return httpx.Response(200, json={"kind": "List", "items": items})

    def deploy(self, name: str, *templates: tuple[float, dict[str, Any]], cause: str = "") -> None:
        """A deployment whose revisions began so many minutes before noon."""
        present = {"deployment.kubernetes.io/revision": str(len(templates))}
        about = {"name": name, "uid": f"uid-{name}", "creationTimestamp": _ago(9999), "annotations": present}
        self.deployments.append({"metadata": about, "spec": {"template": templates[-1][1]}})
        for number, (minutes, each) in enumerate(templates, 1):
            annotations = {"deployment.kubernetes.io/revision": str(number), "kubernetes.io/change-cause": cause}
            meta = {
                "name": f"{name}-{number}",
                "uid": f"uid-{name}-{number}",
                "creationTimestamp": _ago(minutes),
                "labels": {"pod-template-hash": f"hash{number}"},
                "annotations": annotations,
                "ownerReferences": [{"uid": f"uid-{name}", "controller": True}],
            }
            self.replica_sets.append({"metadata": meta, "spec": {"template": each}})


def _ago(minutes: float) -> str:
    return (NOON - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def source(cluster: Cluster) -> AsyncIterator[KubernetesRollouts]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(cluster.answer)) as client:
        yield KubernetesRollouts(name="prod", url="http://cluster", client=client)


async def only(source: KubernetesRollouts, target: Target = CHAT) -> Change:
    [change] = await source.changes(target, SINCE, UNTIL)
    return change


async def test_a_rollout_says_what_it_changed(cluster: Cluster, source: KubernetesRollouts) -> None:
    """One line a flag, so that the diff is what a person would point at; the literals of its undo are texts."""
    flags = ("--model", "llama", "--gpu-memory-utilization", "0.90", "--enable-prefix-caching")
    smaller = ("--model", "llama", "--gpu-memory-utilization", "0.50", "--enable-prefix-caching")
    cluster.deploy("chat-vllm", (900, template(*flags)), (8, template(*smaller)), cause="make room")
    change = await only(source)

    assert (change.id, change.kind, change.service, change.source) == ("prod:chat-vllm:2", "config", "chat", "prod")
    assert change.at == NOON - timedelta(minutes=8)
    assert change.summary == "chat-vllm revision 2: --gpu-memory-utilization 0.90 -> 0.50 (make room)"
    diff = short_diff(change.before, change.after)
    assert "---gpu-memory-utilization 0.90\n+--gpu-memory-utilization 0.50" in diff
    assert dict(change.undo) == {"deployment": "chat-vllm", "revision": "2", "to_revision": "1"}
    assert change.scope == {"deployment": ("chat-vllm",), "revision": ("hash2",)}


@pytest.mark.parametrize(
    ("name", "before", "after", "kind"),
    [
        ("chat-vllm", template("--a=1"), template("--a=2"), "config"),
        ("chat-vllm", template(image="vllm:0.10"), template("--a=2"), "engine"),
        ("chat-vllm", template("--model", "a"), template("--model", "b", image="vllm:0.12"), "model"),
        ("chat-gateway", template(image="litellm:1"), template(image="litellm:2"), "gateway"),
    ],
)
async def test_kinds_are_those_that_the_causes_know(
    cluster: Cluster, source: KubernetesRollouts, name: str, before: Any, after: Any, kind: str
) -> None:
    """An engine's depends on what changed; another deployment's on what it is for."""
    cluster.deploy(name, (900, before), (8, after))
    assert (await only(source)).kind == kind


async def test_a_restart_is_no_new_configuration(cluster: Cluster, source: KubernetesRollouts) -> None:
    """`kubectl rollout restart` makes a revision that differs by a time only."""
    again = template("--a=1")
    again["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "2026-03-02T11:50:00Z"}
    cluster.deploy("chat-vllm", (900, template("--a=1")), (10, again))
    assert (await only(source)).kind == "infra"


async def test_only_the_time_that_was_asked_for(cluster: Cluster, source: KubernetesRollouts) -> None:
    """A revision from before is what the first one in this time is compared with."""
    cluster.deploy(
        "chat-vllm",
        (2000, template("--a=0")),
        (400, template("--a=1")),
        (100, template("--a=2")),
        (3, template("--a=3")),
    )
    found = await source.changes(CHAT, SINCE, NOON - timedelta(minutes=50))
    assert [(change.id, change.before) for change in found] == [("prod:chat-vllm:3", "image vllm:0.11\n--a 1")]


async def test_the_first_revision_is_no_change(cluster: Cluster, source: KubernetesRollouts) -> None:
    """Nothing was replaced, and nothing can be taken back."""
    cluster.deploy("chat-vllm", (5, template("--a=1")))
    assert await source.changes(CHAT, SINCE, UNTIL) == []


async def test_other_peoples_replica_sets_are_not_read(cluster: Cluster, source: KubernetesRollouts) -> None:
    """Neither deployments that the service does not name, nor sets that only have the same labels."""
    cluster.deploy("chat-vllm", (900, template("--a=1")), (8, template("--a=2")))
    cluster.deploy("search-vllm", (900, template("--a=1")), (7, template("--a=2")))
    stranger = copy.deepcopy(cluster.replica_sets[0])
    stranger["metadata"] |= {"creationTimestamp": _ago(5), "ownerReferences": [{"uid": "another", "controller": True}]}
    cluster.replica_sets.append(stranger)
    assert (await only(source)).id == "prod:chat-vllm:2"


async def test_a_rollback_is_dated_by_the_last_write(cluster: Cluster, source: KubernetesRollouts) -> None:
    """Its replica set is old; without a time in managedFields nobody can say when, and nothing is made up."""
    cluster.deploy("chat-vllm", (900, template("--a=1")), (60, template("--a=2")))
    annotations = cluster.replica_sets[0]["metadata"]["annotations"]
    annotations |= {"deployment.kubernetes.io/revision": "3", "deployment.kubernetes.io/revision-history": "1"}
    deployment = cluster.deployments[0]["metadata"]
    deployment["annotations"]["deployment.kubernetes.io/revision"] = "3"
    bad = await only(source)
    assert (bad.id, bad.before, dict(bad.undo)["to_revision"]) == ("prod:chat-vllm:2", "image vllm:0.11\n--a 1", "3")

    deployment["managedFields"] = [
        {"time": _ago(20), "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"time": _ago(2), "fieldsV1": {"f:status": {}}},
    ]
    _, back = await source.changes(CHAT, SINCE, UNTIL)
    assert (back.id, back.at) == ("prod:chat-vllm:3", NOON - timedelta(minutes=20))
    assert (back.before, back.after) == (bad.after, bad.before)


SECRET = "hunter2hunter2"


async def test_no_secret_becomes_a_text(cluster: Cluster, source: KubernetesRollouts) -> None:
    """Variables go by their names, telling flags are hidden; that a value changed is said all the same."""
    args = ("--api-key", SECRET, "--max-num-batched-tokens", "8192", f"--redis=redis://u:{SECRET}@r:6379")
    env = [
        {"name": "HF_TOKEN", "value": SECRET},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": SECRET}}},
    ]
    other = [{"name": "HF_TOKEN", "value": SECRET + "2"}, env[1]]
    changed_args = ("--api-key", SECRET + "3", *args[2:])
    cluster.deploy("chat-vllm", (900, template(*args, env=env)), (8, template(*changed_args, env=other)))
    change = await only(source)

    told = f"{change.summary}\n{change.before}\n{change.after}"
    assert SECRET not in told
    assert "env HF_TOKEN (hidden) -> (hidden), changed" in change.summary
    assert "--api-key (hidden) -> (hidden), changed" in change.summary
    assert "--max-num-batched-tokens 8192" in told
    assert "env KEY from secretKeyRef" in told


@pytest.mark.parametrize(
    "args",
    [
        ("-c", f"API_KEY={SECRET} vllm serve m --max-tokens 10"),
        ("--overrides", f'{{"password": "{SECRET}", "a": 1}}'),
        ("--header", f"Authorization: Bearer {SECRET}"),
        ("--client-secret", SECRET),
        ("--hf-token", SECRET),
        ("--config", "x" * 5000 + SECRET),
        (f"--database=postgres://u:{SECRET}@db",),
    ],
)
async def test_no_argument_gives_a_secret_away(
    cluster: Cluster, source: KubernetesRollouts, args: tuple[str, ...]
) -> None:
    """In a shell's line, in JSON, in a header, behind a telling flag; nor does a recorded command line."""
    cause = f"kubectl set env deployment/chat-vllm HF_TOKEN={SECRET}"
    cluster.deploy("chat-vllm", (900, template("--a=1")), (8, template(*args)), cause=cause)
    change = await only(source)
    assert SECRET not in f"{change.summary}\n{change.before}\n{change.after}"
    assert "(hidden)" in change.summary


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (template("-c", "vllm serve m --a=1"), template("-c", "vllm serve m --a=2"), "--a 2"),
        (template(resources={"limits": {"cpu": "4"}}), template(resources={"limits": {"cpu": "8"}}), "limits cpu 8"),
        (template(livenessProbe={"a": 1}), template(livenessProbe={"a": 2}), "spec.containers changed"),
        (template("--x", "a" * 300), template("--x", "a" * 301), "--x " + "a" * 200 + ", changed"),
        (template("--tokenizer", "a", "--kv-cache-dtype", "b"), template("--tokenizer", "c"), "--tokenizer c"),
        (template("--x=1", "--x=2"), template("--x=1", "--x=3"), "--x 1 3"),
    ],
)
def test_texts_differ_where_templates_do(before: Any, after: Any, line: str) -> None:
    """A shell's whole line, resources, a field without a fact of its own, a value too long to show."""
    old, new = compared(before, after)
    assert line in as_text(new).splitlines()
    assert line not in as_text(old).splitlines()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (httpx.Response(403), "does not let the credential list"),
        (httpx.Response(500), "answered 500"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json={"items": [{"metadata": {"name": "x"}}]}), "malformed at items.0"),
        (httpx.Response(200, json=[]), "malformed"),
    ],
)
async def test_what_cannot_be_read_is_a_blind_spot(
    cluster: Cluster, source: KubernetesRollouts, broken: httpx.Response, words: str
) -> None:
    """Never an absence of changes."""
    cluster.broken = broken
    with pytest.raises(ChangeSourceError, match=words):
        await source.changes(CHAT, SINCE, UNTIL)


@pytest.mark.parametrize("namespace", ["", "chat/../kube-system", "Chat", "chat?x=1"])
async def test_a_namespace_that_is_none_is_not_asked_for(
    cluster: Cluster, source: KubernetesRollouts, namespace: str
) -> None:
    """Nothing but a name goes into the path; what is not looked for is a blind spot, not an absence of changes."""
    target = Target(service="chat", namespace=namespace, deployments=CHAT.deployments)
    with pytest.raises(ChangeSourceError, match="chat has no valid namespace"):
        await source.changes(target, SINCE, UNTIL)
    assert cluster.asked == []


async def test_the_labs_rollout_is_read_with_the_token_that_only_reads() -> None:
    """The shapes that the stand-in checks against Kubernetes' schemas, and a rollback of it."""
    world, now = SmallWorld(), LIVE_START
    api = KubernetesApi(
        cluster=world.cluster,
        now=lambda: now,
        read_token=CREDENTIALS.kube_read,
        action_token=CREDENTIALS.kube_action,
    )
    good = copy.deepcopy(world.cluster.get("deployments", "chat-vllm"))
    bad = copy.deepcopy(good)
    args = bad["spec"]["template"]["spec"]["containers"][0]["args"]
    args[args.index("--gpu-memory-utilization") + 1] = "0.33"
    world.cluster.update_deployment(bad, now)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app()), headers={"Authorization": f"Bearer {CREDENTIALS.kube_read}"}
    ) as client:
        source = KubernetesRollouts(name="lab", url="http://lab", client=client)
        [change] = await source.changes(CHAT, now - timedelta(hours=6), now)
        assert (change.id, change.kind, change.at) == ("lab:chat-vllm:3", "config", now)
        assert "--gpu-memory-utilization 0.90 -> 0.33" in change.summary

        later = now + timedelta(minutes=10)
        rolled_back = copy.deepcopy(world.cluster.get("deployments", "chat-vllm"))
        rolled_back["spec"]["template"] = good["spec"]["template"]
        world.cluster.update_deployment(rolled_back, later)
        _, back = await source.changes(CHAT, now - timedelta(hours=6), later)
        assert (back.id, back.at) == ("lab:chat-vllm:4", later)
