"""What a cluster tells beside rollouts: ConfigMaps and Secrets that were written, events, restarts, nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from diagnostics.changes.change import ChangeSource, ChangeSourceError
from diagnostics.changes.kubernetes_config import KubernetesConfiguration, references
from diagnostics.changes.kubernetes_events import KubernetesEvents, KubernetesNodes
from diagnostics.target import Deployment, Target
from tests.change_servers import ListServer, rfc3339

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOON - timedelta(hours=6), NOON
CHAT = Target(
    service="chat",
    namespace="chat",
    deployments=(Deployment(name="chat-vllm", kind="engine"), Deployment(name="chat", kind="application")),
)
EVENTS, PODS = "/api/v1/namespaces/chat/events", "/api/v1/namespaces/chat/pods"
NODE_EVENTS = "/api/v1/namespaces/default/events"
CONFIGMAPS, SECRETS = "/api/v1/namespaces/chat/configmaps", "/api/v1/namespaces/chat/secrets"
DEPLOYMENTS = "/apis/apps/v1/namespaces/chat/deployments"

TEMPLATE: dict[str, Any] = {
    "spec": {
        "volumes": [
            {"name": "a", "configMap": {"name": "chat-settings"}},
            {"name": "b", "secret": {"secretName": "chat-tls"}},
            {"name": "c", "projected": {"sources": [{"secret": {"name": "chat-token"}}]}},
        ],
        "containers": [
            {
                "name": "vllm",
                "envFrom": [{"configMapRef": {"name": "chat-env"}}, {"secretRef": {"name": "chat-keys"}}],
                "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "chat-one", "key": "x"}}}],
            }
        ],
    }
}


def ago(minutes: float) -> str:
    return rfc3339(NOON - timedelta(minutes=minutes))


def item(name: str, written: float, *, field: str = "f:data", content: str = "v") -> dict[str, Any]:
    about = {
        "name": name,
        "resourceVersion": "77",
        "creationTimestamp": ago(9000),
        "managedFields": [
            {"manager": "helm", "operation": "Update", "time": ago(8000), "fieldsV1": {"f:data": {"f:a": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": ago(written), "fieldsV1": {field: {}}},
        ],
    }
    return {"metadata": about, "data": {"a": content}}


def event(name: str, kind: str, about: str, reason: str, minutes: float, message: str = "", **more: Any) -> Any:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": ago(minutes)},
        "involvedObject": {"kind": kind, "name": about},
        "reason": reason,
        "message": message,
        "firstTimestamp": ago(minutes),
        "lastTimestamp": ago(minutes),
        "eventTime": None,
        "count": 1,
        "reportingComponent": "",
        **more,
    }


def pod(name: str, node: str = "node-1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {"nodeName": node}, "status": status}


@pytest.fixture
async def cluster() -> AsyncIterator[ListServer]:
    server = ListServer(token="right")
    server.lists[DEPLOYMENTS] = [
        {"metadata": {"name": "chat-vllm"}, "spec": {"template": TEMPLATE}},
        {"metadata": {"name": "other"}, "spec": {"template": {"spec": {"x": [{"configMap": {"name": "theirs"}}]}}}},
    ]
    async with server.running():
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(headers={"Authorization": "right"}) as opened:
        yield opened


def test_every_reference_of_a_template_is_found() -> None:
    """Volumes, projections, whole environments and single variables."""
    assert set(references(TEMPLATE)) == {
        ("ConfigMap", "chat-settings"),
        ("ConfigMap", "chat-env"),
        ("ConfigMap", "chat-one"),
        ("Secret", "chat-tls"),
        ("Secret", "chat-token"),
        ("Secret", "chat-keys"),
    }


async def test_a_written_config_map_is_a_change(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """When, by which program, and who reads it; of those that the service reads, and what is no label or note."""
    cluster.lists[CONFIGMAPS] = [
        item("chat-settings", 8),
        item("chat-env", 700),
        item("chat-one", 8, field="f:metadata"),
        item("theirs", 8),
        item("nobodys", 8),
    ]
    source = KubernetesConfiguration(cluster="prod", url=cluster.url, client=client)

    [change] = await source.changes(CHAT, SINCE, UNTIL)

    assert (change.id, change.kind, change.author) == ("prod:configmap/chat-settings:77", "config", "kubectl-edit")
    assert change.at == NOON - timedelta(minutes=8)
    assert change.summary == "ConfigMap chat-settings was written by kubectl-edit"
    assert change.scope == {"deployment": ("chat-vllm",)}
    assert SECRETS not in {one.path.partition("?")[0] for one in cluster.seen}


async def test_of_a_secret_only_metadata_is_asked_for(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """What it holds is never sent, so it cannot be shown, stored or lost."""
    cluster.lists[SECRETS] = [item("chat-keys", 8, content="hunter2")]
    source = KubernetesConfiguration(cluster="prod", url=cluster.url, client=client, with_secrets=True)

    [change] = await source.changes(CHAT, SINCE, UNTIL)

    assert (change.kind, change.summary) == ("secret", "Secret chat-keys was written by kubectl-edit")
    assert "hunter2" not in repr(change)
    asked = [one.headers["accept"] for one in cluster.seen if one.path.startswith((SECRETS, CONFIGMAPS))]
    assert len(asked) == 2
    assert all("PartialObjectMetadataList" in accept for accept in asked)


async def test_what_the_cluster_did_is_told_and_what_it_suffers_is_a_symptom(
    cluster: ListServer, client: httpx.AsyncClient
) -> None:
    """Deeds may be guilty; a crash loop or a pod without a place is what came of something else."""
    cluster.lists[EVENTS] = [
        event("a", "Pod", "chat-vllm-7d9-x", "Evicted", 9, "The node was low on memory."),
        event("b", "Pod", "chat-vllm-7d9-y", "BackOff", 8, "Back-off restarting failed container"),
        event("c", "HorizontalPodAutoscaler", "chat-vllm", "SuccessfulRescale", 7, "New size: 2"),
        event("d", "Pod", "chat-vllm-7d9-z", "FailedScheduling", 6, firstTimestamp=None, eventTime=ago(6)),
        event("e", "Pod", "chat-vllm-7d9-x", "Pulled", 5),
        event("f", "Pod", "search-7d9-x", "Evicted", 4),
        event("g", "Pod", "chat-vllm-7d9-x", "Evicted", 700),
    ]

    found = await KubernetesEvents(cluster="prod", url=cluster.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert [(each.id, each.is_symptom) for each in found] == [
        ("prod events:uid-a", False),
        ("prod events:uid-b", True),
        ("prod events:uid-c", False),
        ("prod events:uid-d", True),
    ]
    assert {each.kind for each in found} == {"infra"}
    assert found[0].summary == "Pod chat-vllm-7d9-x: Evicted (The node was low on memory.)"
    assert found[0].scope == {"deployment": ("chat-vllm",), "pod": ("chat-vllm-7d9-x",)}


async def test_what_repeats_is_dated_by_what_lies_in_the_time(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """At first where that is asked for, else by its last repetition; core/v1 and events.k8s.io count differently."""
    series = {"count": 40, "lastObservedTime": ago(3)}
    cluster.lists[EVENTS] = [
        event("old", "Pod", "chat-vllm-7d9-x", "BackOff", 700, lastTimestamp=ago(2), count=200),
        event("new", "Pod", "chat-vllm-7d9-y", "BackOff", 30, lastTimestamp=ago(1), count=9),
        event(
            "new-api",
            "Pod",
            "chat-vllm-7d9-z",
            "BackOff",
            500,
            firstTimestamp=None,
            lastTimestamp=None,
            eventTime=ago(500),
            count=None,
            series=series,
        ),
        event("over", "Pod", "chat-vllm-7d9-q", "BackOff", 900, lastTimestamp=ago(800), count=5),
    ]

    found = await KubernetesEvents(cluster="prod", url=cluster.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert {each.id.rpartition("uid-")[2]: (NOON - each.at) / timedelta(minutes=1) for each in found} == {
        "new": 30,
        "new-api": 3,
        "old": 2,
    }
    assert found[-1].summary == "Pod chat-vllm-7d9-x: BackOff, 200 times until 11:58 UTC"


async def test_scaling_by_hand_is_told_apart(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """A rollout scales two replica sets within minutes, and an autoscaler says itself what it did."""

    def scaled(name: str, deployment: str, minutes: float, words: str) -> Any:
        return event(name, "Deployment", deployment, "ScalingReplicaSet", minutes, words)

    cluster.lists[EVENTS] = [
        scaled("hand", "chat-vllm", 200, "Scaled down replica set chat-vllm-1 from 4 to 2"),
        scaled("old words", "chat-vllm", 150, "Scaled down replica set chat-vllm-1 to 1 from 2"),
        scaled("out", "chat", 100, "Scaled down replica set chat-1 from 4 to 3"),
        scaled("in", "chat", 99, "Scaled up replica set chat-2 from 1 to 2"),
        event("hpa", "HorizontalPodAutoscaler", "chat-vllm", "SuccessfulRescale", 50, "New size: 5"),
        scaled("by hpa", "chat-vllm", 50, "Scaled up replica set chat-vllm-1 from 4 to 5"),
        scaled("first", "chat-vllm", 20, "Scaled up replica set chat-vllm-1 from 0 to 4"),
    ]

    found = await KubernetesEvents(cluster="prod", url=cluster.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert [each.id.rpartition("-")[2] for each in found] == ["hand", "old words", "hpa"]


async def test_a_restart_is_known_longer_than_its_event(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """A pod remembers how its container ended; a longer deployment's name is not taken for a shorter one's pod."""
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "finishedAt": ago(90)}}
    container = {"name": "vllm", "restartCount": 3, "lastState": ended}
    fresh = {"name": "vllm", "restartCount": 0, "lastState": {}}
    cluster.lists[PODS] = [
        pod("chat-vllm-7d9-x", containerStatuses=[container]),
        pod("chat-vllm-7d9-y", containerStatuses=[fresh]),
        pod("search-1-x", containerStatuses=[container]),
    ]

    [change] = await KubernetesEvents(cluster="prod", url=cluster.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert change.summary == "container vllm of chat-vllm-7d9-x restarted (OOMKilled, exit code 137)"
    assert (change.is_symptom, change.at) == (True, NOON - timedelta(minutes=90))
    assert change.scope == {"deployment": ("chat-vllm",), "pod": ("chat-vllm-7d9-x",)}


async def test_what_happened_to_its_nodes_is_told(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """Only to those on which it stands, and only what matters."""
    cluster.lists[PODS] = [pod("chat-vllm-7d9-x", "node-1"), pod("search-1-x", "node-2")]
    cluster.lists[NODE_EVENTS] = [
        event("a", "Node", "node-1", "NodeNotSchedulable", 9, "Node node-1 status is now: NodeNotSchedulable"),
        event("b", "Node", "node-1", "NodeHasSufficientMemory", 8),
        event("c", "Node", "node-2", "Rebooted", 7),
        event("d", "Node", "node-1", "SystemOOM", 6),
        event("e", "Pod", "node-1", "Rebooted", 5),
    ]

    found = await KubernetesNodes(cluster="prod", url=cluster.url, client=client).changes(CHAT, SINCE, UNTIL)

    assert [(each.id, each.is_symptom, each.scope) for each in found] == [
        ("prod nodes:uid-a", False, {"node": ("node-1",)}),
        ("prod nodes:uid-d", True, {"node": ("node-1",)}),
    ]


async def test_one_part_that_may_not_be_read_is_named(cluster: ListServer, client: httpx.AsyncClient) -> None:
    """With what the credential lacks; each part is a source of its own, so the others go on."""
    cluster.lists[PODS] = [pod("chat-vllm-7d9-x")]
    cluster.forbidden = (EVENTS, CONFIGMAPS, NODE_EVENTS)
    lacking: dict[str, ChangeSource] = {
        "events": KubernetesEvents(cluster="prod", url=cluster.url, client=client),
        "configmaps": KubernetesConfiguration(cluster="prod", url=cluster.url, client=client),
        "node events": KubernetesNodes(cluster="prod", url=cluster.url, client=client),
    }

    for what, source in lacking.items():
        with pytest.raises(ChangeSourceError, match=f"^prod does not let the credential list {what}$"):
            await source.changes(CHAT, SINCE, UNTIL)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (replace(CHAT, namespace=""), "has no valid namespace"),
        (replace(CHAT, namespace="chat/../kube-system"), "has no valid namespace"),
        (replace(CHAT, deployments=()), "names no deployments"),
    ],
)
async def test_what_is_not_looked_for_is_a_blind_spot(
    cluster: ListServer, client: httpx.AsyncClient, target: Target, words: str
) -> None:
    """Nothing but a name goes into the path, and nothing asked is no absence of changes."""
    for source in (
        KubernetesEvents(cluster="prod", url=cluster.url, client=client),
        KubernetesConfiguration(cluster="prod", url=cluster.url, client=client),
        KubernetesNodes(cluster="prod", url=cluster.url, client=client),
    ):
        with pytest.raises(ChangeSourceError, match=words):
            await source.changes(target, SINCE, UNTIL)

    assert cluster.seen == []
