"""Nodes, pods, disruption budgets and rights in the Kubernetes stand-in, asked by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client as k8s

from lab import cluster_objects
from runbooks.engine.actions import Right, build_actions, rights_of
from tests.lab.played_worlds import CREDENTIALS
from tests.lab.served_cluster import Server

pytestmark = pytest.mark.integration

NAMESPACE = "chat"
CORDON = {"spec": {"unschedulable": True}}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


@pytest.fixture
def core(server: Server) -> Any:
    return k8s.CoreV1Api(server.client())


def engine_pods(core: Any) -> list[Any]:
    pods: list[Any] = core.list_namespaced_pod(NAMESPACE, label_selector="app=chat-vllm").items
    return pods


def eviction(name: str, uid: str | None = None) -> dict[str, Any]:
    options = {"preconditions": {"uid": uid}} if uid else {}
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "deleteOptions": options,
    }


def test_an_evicted_pod_starts_anew_elsewhere(server: Server, core: Any) -> None:
    """The cordoned node stays empty; the replacement loads its weights for four minutes on a spare one."""
    victim = engine_pods(core)[0]
    node = victim.spec.node_name
    cordoned = core.patch_node(node, CORDON)
    core.create_namespaced_pod_eviction(victim.metadata.name, NAMESPACE, eviction(victim.metadata.name))

    assert [(taint.key, taint.effect) for taint in cordoned.spec.taints] == [
        ("node.kubernetes.io/unschedulable", "NoSchedule")
    ]
    pods = engine_pods(core)
    assert len(pods) == 4
    assert victim.metadata.name not in {pod.metadata.name for pod in pods}
    assert node not in {pod.spec.node_name for pod in pods}
    assert server.api.cluster.get("deployments", "chat-vllm")["status"]["availableReplicas"] == 3
    server.pass_time(4.5)
    assert server.api.cluster.get("deployments", "chat-vllm")["status"]["availableReplicas"] == 4

    again = core.patch_node(node, {"spec": {"unschedulable": None}})
    assert (again.spec.unschedulable, again.spec.taints) == (None, None)


def test_a_budget_refuses_a_second_eviction(server: Server, core: Any) -> None:
    """Three of four must stay healthy: 429 with the budget's cause until the first replacement is ready."""
    first, second, *_ = engine_pods(core)
    core.create_namespaced_pod_eviction(first.metadata.name, NAMESPACE, eviction(first.metadata.name))
    with pytest.raises(k8s.ApiException) as refusal:
        core.create_namespaced_pod_eviction(second.metadata.name, NAMESPACE, eviction(second.metadata.name))

    assert refusal.value.status == 429
    [cause] = json.loads(refusal.value.body)["details"]["causes"]
    assert cause == {
        "reason": "DisruptionBudget",
        "message": "The disruption budget chat-vllm needs 3 healthy pods and has 3 currently",
    }
    [budget] = k8s.PolicyV1Api(server.client()).list_namespaced_pod_disruption_budget(NAMESPACE).items
    assert (budget.status.current_healthy, budget.status.disruptions_allowed) == (3, 0)
    server.pass_time(4.5)
    core.create_namespaced_pod_eviction(second.metadata.name, NAMESPACE, eviction(second.metadata.name))


def test_a_pod_that_has_not_started_may_go(server: Server, core: Any) -> None:
    """The budget protects what is healthy; a pod that waits for its GPU is not."""
    first = engine_pods(core)[0]
    core.create_namespaced_pod_eviction(first.metadata.name, NAMESPACE, eviction(first.metadata.name))
    [starting] = core.list_namespaced_pod(NAMESPACE, field_selector="status.phase=Pending").items
    name = starting.metadata.name
    core.create_namespaced_pod_eviction(name, NAMESPACE, eviction(name))
    assert name not in server.api.cluster.kinds["pods"]


def test_two_budgets_for_a_pod_are_an_error(server: Server, core: Any) -> None:
    """As the real API: it cannot decide between them."""
    twin = cluster_objects.disruption_budget("chat-vllm", min_available=1, created=server.time)
    twin["metadata"]["name"] = "twin"
    server.api.cluster.put("poddisruptionbudgets", twin)
    name = engine_pods(core)[0].metadata.name
    with pytest.raises(k8s.ApiException) as refusal:
        core.create_namespaced_pod_eviction(name, NAMESPACE, eviction(name))
    assert (refusal.value.status, "more than one" in refusal.value.body) == (500, True)


@pytest.mark.parametrize("way", ["delete", "evict"])
def test_preconditions_hold_for_pods(server: Server, core: Any, way: str) -> None:
    """A pod of the same name with another uid is a conflict; with the right one it goes."""
    pod = engine_pods(core)[0]

    def remove(uid: str) -> None:
        if way == "delete":
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
            core.delete_namespaced_pod(pod.metadata.name, NAMESPACE, body=body)
        else:
            core.create_namespaced_pod_eviction(pod.metadata.name, NAMESPACE, eviction(pod.metadata.name, uid))

    with pytest.raises(k8s.ApiException) as refusal:
        remove("another")
    assert refusal.value.status == 409
    assert "UID in precondition" in refusal.value.body
    remove(pod.metadata.uid)
    assert pod.metadata.name not in server.api.cluster.kinds["pods"]
    assert [write["status"] for write in server.api.writes] == [409, 200 if way == "delete" else 201]


REFUSED = {
    "node with a wrong type": ("patch_node", ("gpu-1", {"spec": {"unschedulable": "yes"}}), 422),
    "node that is not there": ("patch_node", ("gpu-9", CORDON), 404),
    "node by an old version": ("patch_node", ("gpu-1", {"metadata": {"resourceVersion": "1"}, **CORDON}), 409),
    "eviction of another kind": ("create_namespaced_pod_eviction", ("x", NAMESPACE, {"kind": "Pod"}), 400),
    "eviction of an old version": (
        "create_namespaced_pod_eviction",
        ("x", NAMESPACE, {**eviction("x"), "apiVersion": "policy/v1beta1"}),
        400,
    ),
    "pod that is not there": ("delete_namespaced_pod", ("nobody", NAMESPACE), 404),
    "pod of another namespace": ("delete_namespaced_pod", ("nobody", "elsewhere"), 403),
}


@pytest.mark.parametrize(("call", "arguments", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_kubernetes_would_refuse_is_refused(
    server: Server, core: Any, call: str, arguments: tuple[Any, ...], status: int
) -> None:
    """With the status that the real one gives; nothing changes, and the attempt is on record."""
    with pytest.raises(k8s.ApiException) as refusal:
        getattr(core, call)(*arguments)
    assert (refusal.value.status, [write["status"] for write in server.api.writes]) == (status, [status])
    assert not any(node["spec"].get("unschedulable") for node in server.api.cluster.kinds["nodes"].values())


RIGHTS = sorted({right for action in build_actions().values() for right in rights_of(action)}, key=str)


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: f"{right.group}/{right.resource}:{','.join(right.verbs)}")
def test_the_tokens_may_what_their_actions_need(server: Server, right: Right) -> None:
    """SelfSubjectAccessReview: the action token may all that the actions say they need, the other one only look."""
    resource, _, subresource = right.resource.partition("/")
    for verb in right.verbs:
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "verb": verb,
                    "group": right.group,
                    "resource": resource,
                    "subresource": subresource,
                    "namespace": "" if right.cluster_wide else NAMESPACE,
                }
            },
        }
        allowed = {
            token: k8s.AuthorizationV1Api(server.client(token)).create_self_subject_access_review(asked).status.allowed
            for token in (CREDENTIALS.kube_action, CREDENTIALS.kube_read)
        }
        assert allowed == {CREDENTIALS.kube_action: True, CREDENTIALS.kube_read: verb in {"get", "list"}}


def test_the_read_token_changes_no_node_and_no_pod(server: Server) -> None:
    """403 for each of the three, and nothing happened."""
    reader = k8s.CoreV1Api(server.client(CREDENTIALS.kube_read))
    name = engine_pods(reader)[0].metadata.name
    for call, arguments in (
        ("patch_node", ("gpu-1", CORDON)),
        ("delete_namespaced_pod", (name, NAMESPACE)),
        ("create_namespaced_pod_eviction", (name, NAMESPACE, eviction(name))),
    ):
        with pytest.raises(k8s.ApiException) as refusal:
            getattr(reader, call)(*arguments)
        assert refusal.value.status == 403
    assert name in server.api.cluster.kinds["pods"]
    assert "unschedulable" not in server.api.cluster.get("nodes", "gpu-1")["spec"]


def test_autoscalers_can_be_listed(server: Server) -> None:
    """None at rest; one that is there is a valid object."""
    api = k8s.AutoscalingV2Api(server.client(CREDENTIALS.kube_read))
    assert api.list_namespaced_horizontal_pod_autoscaler(NAMESPACE).items == []
    server.api.cluster.put(
        "horizontalpodautoscalers", cluster_objects.autoscaler("chat-vllm", 2, 8, created=server.time)
    )
    [found] = api.list_namespaced_horizontal_pod_autoscaler(NAMESPACE).items
    assert (found.spec.scale_target_ref.name, found.spec.max_replicas) == ("chat-vllm", 8)
