"""The Kubernetes stand-in, asked by the official client: reads, scale, patches, conflicts, schemas, credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from kubernetes import client as k8s

from lab import cluster_objects
from lab.cluster_selectors import SelectorError, matcher
from lab.kubernetes_answers import KUBERNETES_VERSION, validate
from tests.lab.played_worlds import CREDENTIALS
from tests.lab.served_cluster import Server

pytestmark = pytest.mark.integration

NAME, NAMESPACE = "chat-vllm", "chat"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


@pytest.fixture(scope="module")
def unchanged() -> Iterator[Server]:
    """One server for all tests that are refused: starting and stopping one takes longer than they do."""
    with Server() as started:
        yield started


@pytest.fixture
def apps(server: Server) -> Any:
    return k8s.AppsV1Api(server.client())


def test_everything_that_is_served_is_valid(server: Server) -> None:
    """Each object of each kind passes Kubernetes' own strict schema."""
    for kind in server.api.cluster.kinds.values():
        for item in kind.values():
            validate(item)


def test_the_official_client_reads_all_kinds(server: Server, apps: Any) -> None:
    """Deployments with their status, replica sets with revision and owner, pods on nodes, nodes with GPUs."""
    deployment = apps.read_namespaced_deployment(NAME, NAMESPACE)
    assert (deployment.spec.replicas, deployment.status.available_replicas) == (4, 4)
    assert len(apps.list_namespaced_deployment(NAMESPACE).items) == 3

    sets = apps.list_namespaced_replica_set(NAMESPACE, label_selector=f"app={NAME}").items
    revisions = {s.metadata.annotations["deployment.kubernetes.io/revision"]: s for s in sets}
    assert sorted(revisions) == ["1", "2"]
    assert revisions["2"].metadata.owner_references[0].name == NAME
    assert revisions["1"].spec.template.spec.containers[0].args != revisions["2"].spec.template.spec.containers[0].args

    core = k8s.CoreV1Api(server.client(CREDENTIALS.kube_read))
    pods = core.list_namespaced_pod(NAMESPACE, label_selector=f"app={NAME},pod-template-hash").items
    assert len({pod.spec.node_name for pod in pods}) == 4
    on_node = core.list_namespaced_pod(NAMESPACE, field_selector=f"spec.nodeName={pods[0].spec.node_name}").items
    assert [pod.metadata.name for pod in on_node] == [pods[0].metadata.name]
    assert sum(int(n.status.allocatable.get("nvidia.com/gpu", 0)) for n in core.list_node().items) == 6
    assert k8s.VersionApi(server.client()).get_code().minor == KUBERNETES_VERSION.split(".")[1]
    assert core.list_namespaced_pod("elsewhere").items == []


def test_scaling_up_takes_the_time_that_weights_take(server: Server, apps: Any) -> None:
    """The number changes at once, the pods are ready four minutes later, and events say what happened."""
    scale = apps.patch_namespaced_deployment_scale(NAME, NAMESPACE, {"spec": {"replicas": 6}})
    assert scale.spec.replicas == 6
    assert apps.read_namespaced_deployment_scale(NAME, NAMESPACE).spec.replicas == 6
    server.pass_time(3)
    assert apps.read_namespaced_deployment(NAME, NAMESPACE).status.available_replicas == 4
    server.pass_time(1.5)
    assert apps.read_namespaced_deployment(NAME, NAMESPACE).status.available_replicas == 6

    events = k8s.CoreV1Api(server.client()).list_namespaced_event(NAMESPACE).items
    assert {"SuccessfulCreate", "Scheduled"} <= {event.reason for event in events}
    [write] = httpx.get(server.url + "/_lab/writes").json()
    assert (write["method"], write["status"], write["by"]) == ("PATCH", 200, "watchkeeper-action")


def test_more_pods_than_gpus_stay_pending(server: Server, apps: Any) -> None:
    """Six GPUs carry six pods; the seventh waits, and says for what."""
    apps.patch_namespaced_deployment_scale(NAME, NAMESPACE, {"spec": {"replicas": 7}})
    server.pass_time(5)
    pending = k8s.CoreV1Api(server.client()).list_namespaced_pod(NAMESPACE, field_selector="status.phase=Pending").items
    assert [pod.status.conditions[0].reason for pod in pending] == ["Unschedulable"]
    validate(server.api.cluster.kinds["pods"][pending[0].metadata.name])


def test_scaling_to_nothing_is_a_zero_left_out(apps: Any) -> None:
    """Kubernetes omits a zero from the scale's JSON; a client must cope."""
    apps.patch_namespaced_deployment_scale(NAME, NAMESPACE, {"spec": {"replicas": 0}})
    assert apps.read_namespaced_deployment_scale(NAME, NAMESPACE).spec.replicas is None
    assert apps.read_namespaced_deployment(NAME, NAMESPACE).spec.replicas == 0


def test_a_new_template_rolls_out_without_losing_a_replica(server: Server, apps: Any) -> None:
    """A new revision gets its own replica set; capacity never falls below four on the way."""
    env = [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}]
    apps.patch_namespaced_deployment(
        NAME, NAMESPACE, {"spec": {"template": {"spec": {"containers": [{"name": "vllm", "env": env}]}}}}
    )
    lowest = 4
    for _ in range(120):
        server.pass_time(0.25)
        lowest = min(lowest, server.api.cluster.get("deployments", NAME)["status"]["availableReplicas"])
    assert lowest == 4
    deployment = apps.read_namespaced_deployment(NAME, NAMESPACE)
    assert deployment.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
    assert (deployment.status.updated_replicas, deployment.status.replicas) == (4, 4)
    [container] = deployment.spec.template.spec.containers
    assert (container.env[0].name, container.image) == ("VLLM_LOGGING_LEVEL", "vllm/vllm-openai:v0.11.0")


def test_undoing_a_rollout_reuses_the_old_replica_set(server: Server, apps: Any) -> None:
    """`kubectl rollout undo`: the old template, hash label and all, becomes the newest revision of its own set."""
    sets = apps.list_namespaced_replica_set(NAMESPACE, label_selector=f"app={NAME}").items
    [old] = [s for s in sets if s.metadata.annotations["deployment.kubernetes.io/revision"] == "1"]
    template = server.client().sanitize_for_serialization(old.spec.template)
    del template["metadata"]["labels"]["pod-template-hash"]
    apps.patch_namespaced_deployment(NAME, NAMESPACE, [{"op": "replace", "path": "/spec/template", "value": template}])
    server.pass_time(25)

    after = apps.read_namespaced_replica_set(old.metadata.name, NAMESPACE)
    assert after.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
    assert after.status.ready_replicas == 4
    assert len(apps.list_namespaced_replica_set(NAMESPACE, label_selector=f"app={NAME}").items) == 2


REFUSED = {
    "with unknown field": {"spec": {"template": {"spec": {"containers": [{"name": "vllm", "imagge": "x"}]}}}},
    "with wrong type": [{"op": "replace", "path": "/spec/replicas", "value": "six"}],
    "without image": [{"op": "remove", "path": "/spec/template/spec/containers"}],
    "with another selector": {"spec": {"selector": {"matchLabels": {"app": "other"}}}},
    "with labels that miss the selector": [
        {"op": "replace", "path": "/spec/template/metadata/labels", "value": {"app": "other"}}
    ],
    "with a failing test": [
        {"op": "test", "path": "/spec/replicas", "value": 3},
        {"op": "replace", "path": "/spec/replicas", "value": 9},
    ],
    "at a path that is not there": [{"op": "replace", "path": "/spec/nothing/here", "value": 1}],
    "below zero": {"spec": {"replicas": -1}},
}


@pytest.mark.parametrize("patch", REFUSED.values(), ids=REFUSED.keys())
def test_what_kubernetes_would_refuse_is_refused(unchanged: Server, patch: Any) -> None:
    """422 with a Status that names the field; the deployment stays as it was, and the attempt is on record."""
    apps = k8s.AppsV1Api(unchanged.client())
    unchanged.api.writes.clear()
    before = unchanged.api.cluster.get("deployments", NAME)["metadata"]["resourceVersion"]
    with pytest.raises(k8s.ApiException) as refusal:
        apps.patch_namespaced_deployment(NAME, NAMESPACE, patch)
    assert refusal.value.status == 422
    assert '"kind":"Status"' in refusal.value.body
    assert '"reason":"Invalid"' in refusal.value.body
    assert unchanged.api.cluster.get("deployments", NAME)["metadata"]["resourceVersion"] == before
    assert [write["status"] for write in unchanged.api.writes] == [422]


def test_an_outdated_version_is_a_conflict(apps: Any) -> None:
    """Compare-and-set: what was decided on an older state is refused with 409, by patch and by replace."""
    old = apps.read_namespaced_deployment_scale(NAME, NAMESPACE)
    version = old.metadata.resource_version
    apps.patch_namespaced_deployment_scale(
        NAME, NAMESPACE, {"metadata": {"resourceVersion": version}, "spec": {"replicas": 5}}
    )
    stale = {"metadata": {"resourceVersion": version}, "spec": {"replicas": 6}}
    attempts: list[Callable[[], Any]] = [
        lambda: apps.patch_namespaced_deployment_scale(NAME, NAMESPACE, stale),
        lambda: apps.replace_namespaced_deployment_scale(NAME, NAMESPACE, old),
    ]
    for attempt in attempts:
        with pytest.raises(k8s.ApiException) as refusal:
            attempt()
        assert refusal.value.status == 409
    assert apps.read_namespaced_deployment_scale(NAME, NAMESPACE).spec.replicas == 5


def test_a_replaced_deployment_is_accepted_whole(apps: Any) -> None:
    """PUT of what was read, with one change, works as with the real API."""
    deployment = apps.read_namespaced_deployment(NAME, NAMESPACE)
    deployment.spec.replicas = 5
    assert apps.replace_namespaced_deployment(NAME, NAMESPACE, deployment).spec.replicas == 5


def test_a_dry_run_changes_nothing(server: Server, apps: Any) -> None:
    """The answer shows what would be; the cluster is as before."""
    would = apps.patch_namespaced_deployment(NAME, NAMESPACE, {"spec": {"replicas": 6}}, dry_run="All")
    assert would.spec.replicas == 6
    assert apps.read_namespaced_deployment(NAME, NAMESPACE).spec.replicas == 4
    assert [write["dry_run"] for write in server.api.writes] == [True]


def test_credentials_decide_what_is_allowed(unchanged: Server) -> None:
    """The read token reads and cannot patch (403); another token is nobody (401)."""
    reader = k8s.AppsV1Api(unchanged.client(CREDENTIALS.kube_read))
    assert reader.read_namespaced_deployment(NAME, NAMESPACE).spec.replicas == 4
    with pytest.raises(k8s.ApiException) as refusal:
        reader.patch_namespaced_deployment_scale(NAME, NAMESPACE, {"spec": {"replicas": 6}})
    assert refusal.value.status == 403
    with pytest.raises(k8s.ApiException) as refusal:
        k8s.AppsV1Api(unchanged.client("guess")).read_namespaced_deployment(NAME, NAMESPACE)
    assert refusal.value.status == 401
    assert httpx.get(f"{unchanged.url}/apis/apps/v1/namespaces/chat/deployments").status_code == 401
    assert reader.read_namespaced_deployment(NAME, NAMESPACE).spec.replicas == 4


@pytest.mark.parametrize(("name", "namespace"), [("nobody", "chat"), ("chat-vllm", "elsewhere")])
def test_what_is_not_there_is_404(unchanged: Server, name: str, namespace: str) -> None:
    """For reading and for writing."""
    apps = k8s.AppsV1Api(unchanged.client())
    attempts: list[Callable[[], Any]] = [
        lambda: apps.read_namespaced_deployment(name, namespace),
        lambda: apps.patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": 5}}),
    ]
    for attempt in attempts:
        with pytest.raises(k8s.ApiException) as refusal:
            attempt()
        assert refusal.value.status == 404


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("application/yaml", b"a: 1", 400),
        ("application/json", b"{}", 415),
        ("application/merge-patch+json", b"{", 400),
        ("application/merge-patch+json", b"[]", 422),
        ("application/merge-patch+json", b'{"spec": null}', 422),
        ("application/merge-patch+json", b'{"metadata": {"name": "x"}}', 422),
        ("application/json-patch+json", b'[{"op": "explode", "path": "/spec"}]', 422),
        ("application/json-patch+json", b'["x"]', 422),
        ("application/strategic-merge-patch+json", b'{"spec":{"template":{"spec":{"containers":["x"]}}}}', 422),
    ],
)
def test_bodies_of_any_kind_get_a_status(unchanged: Server, content_type: str, content: bytes, status: int) -> None:
    """What no client of good will sends is answered, too, and changes nothing."""
    before = unchanged.api.cluster.get("deployments", NAME)
    answer = httpx.patch(
        f"{unchanged.url}/apis/apps/v1/namespaces/chat/deployments/{NAME}",
        content=content,
        headers={"content-type": content_type, "authorization": "Bearer action-token"},
    )
    assert (answer.status_code, answer.json()["kind"]) == (status, "Status")
    assert unchanged.api.cluster.get("deployments", NAME) == before


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=chat-vllm", True),
        ("app==chat-vllm,team=llm", True),
        ("app!=chat-vllm", False),
        ("app in (chat-vllm, other)", True),
        ("app notin (other),team", True),
        ("!app", False),
        ("missing", False),
    ],
)
def test_selectors(selector: str, matches: bool) -> None:  # noqa: FBT001  # pytest passes it by name
    """Equality, sets and existence, joined by commas."""
    assert matcher(selector)({"app": "chat-vllm", "team": "llm"}) is matches


@pytest.mark.parametrize("selector", ["app=(", "a in b", "=x", "a b", "a,,b"])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    """A selector that cannot be read must not select everything."""
    with pytest.raises(SelectorError):
        matcher(selector)


def test_a_template_has_one_hash() -> None:
    """The label that the replica set adds to its template does not make it another template."""
    template = cluster_objects.engine_template("image", [])
    labelled = cluster_objects.engine_template("image", [])
    labelled["metadata"]["labels"][cluster_objects.TEMPLATE_HASH] = "abc"
    assert cluster_objects.template_hash(template) == cluster_objects.template_hash(labelled)
    other = cluster_objects.engine_template("image", ["--enforce-eager"])
    assert cluster_objects.template_hash(template) != cluster_objects.template_hash(other)
