"""Cordon and uncordon, drain by evictions, delete a pod: against a server that behaves like Kubernetes."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from runbooks.engine.actions import ClusterAccess, build_actions, rights_of
from runbooks.engine.actions.cluster import Cluster
from runbooks.engine.actions.kubernetes_drain import Drain, DrainParams
from runbooks.engine.actions.kubernetes_nodes import CORDONED, CordonParams, NodeRef
from runbooks.engine.actions.kubernetes_pods import PodRef
from runbooks.engine.values import (
    Action,
    ActionError,
    GuardedAction,
    Happened,
    OutcomeUnknownError,
    PartlyDoneError,
    PatientAction,
    Tier,
)
from tests.runbooks.kubernetes_nodes import Nodes, node, pod
from tests.runbooks.kubernetes_server import TOKEN, KubernetesServer

pytestmark = pytest.mark.integration  # real HTTP

HOT = CordonParams(cluster="lab", namespace="chat", node="gpu-3")
BACK = NodeRef(cluster="lab", namespace="chat", node="gpu-3")
EMPTY = DrainParams(cluster="lab", namespace="chat", node="gpu-3", wait_s=0)
STUCK = PodRef(cluster="lab", namespace="chat", pod="engine-3")


@pytest.fixture
def nodes(cluster: KubernetesServer) -> Nodes:
    return cluster.fleet


@pytest.fixture
def cordon(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.cordon"]


@pytest.fixture
def uncordon(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.uncordon"]


@pytest.fixture
def drain(cluster: KubernetesServer) -> Drain:
    access = ClusterAccess(url=cluster.url, token=TOKEN, timeout_s=1.5)
    return Drain({"lab": Cluster(access)}, ask_again_s=0.01)


@pytest.fixture
def delete(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.delete_pod"]


def refusal(action: Action, params: BaseModel, before: object) -> str:
    assert isinstance(action, GuardedAction)
    return action.refusal(params, before) or ""  # type: ignore[arg-type]  # what `read` answered


async def test_a_cordon_marks_the_node_as_ours(cordon: Action, nodes: Nodes) -> None:
    """One field, and a mark with the intent's token; pods stay where they are."""
    before = await cordon.read(HOT)
    await cordon.act(HOT, before, token="t-1")

    assert before == {"cordoned": False, "against": []}
    assert nodes.cordoned() == ["gpu-3"]
    assert nodes.nodes["gpu-3"]["metadata"]["annotations"] == {CORDONED: "t-1"}
    assert len(nodes.pods) == 4


async def test_an_uncordon_takes_it_back_and_the_other_way_round(
    cordon: Action, uncordon: Action, nodes: Nodes
) -> None:
    """Each names the other's parameters as its undo; nothing of ours stays on the node."""
    before = await cordon.read(HOT)
    await cordon.act(HOT, before, token="t")
    back = uncordon.params.model_validate(cordon.undo(HOT, before))
    await uncordon.act(back, await uncordon.read(back), token="t-2")

    assert (nodes.cordoned(), nodes.nodes["gpu-3"]["metadata"]["annotations"]) == ([], {})
    assert cordon.params.model_validate(uncordon.undo(BACK, {"cordoned": True})).model_dump()["node"] == "gpu-3"


async def test_somebody_elses_cordon_is_not_taken_for_ours(cordon: Action, uncordon: Action, nodes: Nodes) -> None:
    """Neither by the probe of a call whose answer was lost, nor by an undo, which would open their node."""
    before = await cordon.read(HOT)
    nodes.cordon("gpu-3")
    assert await cordon.happened(HOT, before, "t-1") is Happened.CANNOT_TELL
    assert await cordon.happened(HOT, before, "") is Happened.CANNOT_TELL
    assert "which somebody else cordoned" in uncordon.effect(BACK, await uncordon.read(BACK))

    nodes.cordon("gpu-3", **{CORDONED: "t-0"})
    assert await cordon.happened(HOT, before, "t-1") is Happened.CANNOT_TELL
    assert await cordon.happened(HOT, before, "") is Happened.YES
    assert "somebody else" not in uncordon.effect(BACK, await uncordon.read(BACK))


async def test_there_is_nothing_to_do(cordon: Action, uncordon: Action, nodes: Nodes) -> None:
    """What is so already is refused when planning, so that nobody approves a step that does nothing."""
    assert "is not cordoned" in refusal(uncordon, BACK, await uncordon.read(BACK))
    nodes.cordon("gpu-3")
    assert "cordoned already" in refusal(cordon, HOT, await cordon.read(HOT))


async def test_the_last_gpu_node_is_not_cordoned(cordon: Action, nodes: Nodes) -> None:
    """Cordoned nodes and those that are not ready take no pods; a node without GPUs is no replacement."""
    nodes.cordon("gpu-1")
    nodes.cordon("gpu-2")
    nodes.nodes["gpu-4"] = node("gpu-4", ready=False)
    assert "last node with GPUs" in refusal(cordon, HOT, await cordon.read(HOT))

    nodes.nodes["gpu-5"] = node("gpu-5")
    nodes.pods = {"engine-3": nodes.pods["engine-3"], "engine-5": pod("engine-5", "gpu-5")}
    assert refusal(cordon, HOT, await cordon.read(HOT)) == ""


async def test_most_of_a_workload_does_not_end_up_on_cordoned_nodes(cordon: Action, nodes: Nodes) -> None:
    """Half may; with fewer than half of the ready pods on nodes that take pods, the next failure has no place to go."""
    nodes.cordon("gpu-1")
    assert refusal(cordon, HOT, await cordon.read(HOT)) == ""

    nodes.cordon("gpu-2")
    assert "1 of 4 ready pods of Deployment/chat-vllm" in refusal(cordon, HOT, await cordon.read(HOT))


async def test_one_cordon_of_ours_at_a_time(cordon: Action, drain: Drain, nodes: Nodes) -> None:
    """A second node needs a word in the runbook; a node that a person cordoned does not count as ours."""
    nodes.cordon("gpu-1")
    assert refusal(cordon, HOT, await cordon.read(HOT)) == ""

    nodes.cordon("gpu-1", **{CORDONED: "t-0"})
    assert "cordoned gpu-1 already" in refusal(cordon, HOT, await cordon.read(HOT))
    assert "cordoned gpu-1 already" in refusal(drain, EMPTY, await drain.read(EMPTY))
    second = HOT.model_copy(update={"even_if_others": True})
    assert refusal(cordon, second, await cordon.read(second)) == ""


async def test_an_unknown_node_is_named(cordon: Action) -> None:
    """A scope that names a node which is gone by now gives no plan."""
    with pytest.raises(ActionError, match="no node gpu-9"):
        await cordon.read(HOT.model_copy(update={"node": "gpu-9"}))


async def test_a_drain_evicts_the_pods_and_names_them(drain: Drain, cluster: KubernetesServer, nodes: Nodes) -> None:
    """Through the eviction API and by uid; DaemonSets' pods, mirrors and pods that leave anyway are left alone."""
    nodes.cordon("gpu-3")
    for name, kind in (("agent", "DaemonSet"), ("over", "Job"), ("mirror", "Node")):
        nodes.pods[name] = pod(name, "gpu-3", owner=name, kind=kind)
    nodes.pods["over"]["status"]["phase"] = "Succeeded"
    nodes.pods["mirror"]["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    before = await drain.read(EMPTY)
    answer = await drain.act(EMPTY, before, token="t")

    assert before["pods"] == [{"namespace": "chat", "name": "engine-3", "uid": "uid-of-engine-3"}]
    assert "1 pod is evicted from the node gpu-3: chat/engine-3." in drain.effect(EMPTY, before)
    assert "emptyDir" not in drain.effect(EMPTY, before)
    assert "emptyDir" in drain.effect(EMPTY.model_copy(update={"delete_emptydir_data": True}), before)
    assert answer == {"evicted": "chat/engine-3"}
    assert "engine-3" not in nodes.pods
    assert {"agent", "over", "mirror"} <= nodes.pods.keys()
    assert cluster.of("DELETE") == []
    assert await drain.happened(EMPTY, before, "t") is Happened.YES


async def test_a_drain_waits_for_the_cordon(drain: Drain, nodes: Nodes) -> None:
    """Planned before the cordon of the same plan, it reads the same after it; without one it does nothing."""
    before = await drain.read(EMPTY)
    with pytest.raises(ActionError, match="is not cordoned"):
        await drain.act(EMPTY, before, token="t")

    nodes.cordon("gpu-3", **{CORDONED: "t"})
    assert await drain.read(EMPTY) == before
    await drain.act(EMPTY, before, token="t")


async def test_a_budget_is_asked_again(drain: Drain, nodes: Nodes) -> None:
    """429 means not now: the same pod is asked for until its budget lets it go or the wait is over."""
    nodes.cordon("gpu-3")
    nodes.held_back["engine-3"] = 2
    patient = EMPTY.model_copy(update={"wait_s": 5})
    await drain.act(patient, await drain.read(patient), token="t")
    assert "engine-3" not in nodes.pods


async def test_an_uncordon_stops_a_waiting_drain(drain: Drain, cluster: KubernetesServer, nodes: Nodes) -> None:
    """It is how a person says stop, and an evicted pod could come straight back."""
    nodes.cordon("gpu-3")
    nodes.pods["other-3"] = pod("other-3", "gpu-3", owner="other-abc")
    nodes.pods["other-4"] = pod("other-4", "gpu-4", owner="other-abc")
    nodes.held_back["engine-3"] = 1_000_000
    patient = EMPTY.model_copy(update={"wait_s": 60})
    draining = asyncio.create_task(drain.act(patient, await drain.read(patient), token="t"))
    while len(cluster.of("POST")) < 2:
        await asyncio.sleep(0.005)
    nodes.nodes["gpu-3"]["spec"] = {}

    with pytest.raises(PartlyDoneError, match=r"evicted chat/other-3; still held back: .*somebody uncordoned gpu-3"):
        await draining


async def test_what_a_budget_holds_back_is_reported(drain: Drain, nodes: Nodes) -> None:
    """It failed, and says what was evicted and what was not; planned again it goes on with the rest."""
    nodes.cordon("gpu-3")
    nodes.pods["other-3"] = pod("other-3", "gpu-3", owner="other-abc")
    nodes.pods["other-4"] = pod("other-4", "gpu-4", owner="other-abc")
    nodes.held_back["engine-3"] = 1
    before = await drain.read(EMPTY)
    with pytest.raises(PartlyDoneError, match=r"evicted chat/other-3; still held back: chat/engine-3.*4 healthy pods"):
        await drain.act(EMPTY, before, token="t")

    assert await drain.happened(EMPTY, before, "t") is Happened.CANNOT_TELL
    rest = await drain.read(EMPTY)
    assert [each["name"] for each in rest["pods"]] == ["engine-3"]
    await drain.act(EMPTY, rest, token="t-2")
    assert "engine-3" not in nodes.pods


async def test_nothing_evicted_is_a_clean_refusal(drain: Drain, nodes: Nodes) -> None:
    """When the budget lets nobody go, nothing was changed, and that is what is said."""
    nodes.cordon("gpu-3")
    nodes.held_back["engine-3"] = 9
    before = await drain.read(EMPTY)
    with pytest.raises(ActionError, match="nothing was evicted") as refused:
        await drain.act(EMPTY, before, token="t")
    assert not isinstance(refused.value, PartlyDoneError)
    assert await drain.happened(EMPTY, before, "t") is Happened.NO


async def test_a_refusal_after_an_eviction_says_both(drain: Drain, cluster: KubernetesServer, nodes: Nodes) -> None:
    """An answer lost on the way is an unknown outcome, and it names what was done before."""
    nodes.cordon("gpu-3")
    before = await drain.read(EMPTY)
    for fault, error in ((403, ActionError), (503, OutcomeUnknownError), ("hang", OutcomeUnknownError)):
        cluster.faults.before["POST"] = fault
        with pytest.raises(error):
            await drain.act(EMPTY, before, token="t")
    assert "engine-3" in nodes.pods
    assert await drain.happened(EMPTY, before, "t") is Happened.NO

    cluster.faults.before.clear()
    cluster.faults.after["POST"] = "reset"
    with pytest.raises(OutcomeUnknownError):
        await drain.act(EMPTY, before, token="t")
    assert await drain.happened(EMPTY, before, "t") is Happened.YES


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("bare", {"ownerReferences": []}, "bare has no controller"),
        ("disk", {"volumes": [{"name": "scratch", "emptyDir": {}}]}, "disk keeps data in an emptyDir"),
    ],
)
async def test_pods_that_would_be_lost_are_refused(
    drain: Drain, nodes: Nodes, name: str, change: dict[str, object], words: str
) -> None:
    """A pod that nobody starts again, and one with data on the node's disk; shared memory is no data."""
    nodes.pods[name] = pod(name, "gpu-3", owner="other-abc")
    nodes.pods[f"{name}-2"] = pod(f"{name}-2", "gpu-1", owner="other-abc")
    nodes.pods[name]["spec" if "volumes" in change else "metadata"] |= change
    assert words in refusal(drain, EMPTY, await drain.read(EMPTY))

    told = EMPTY.model_copy(update={"delete_emptydir_data": True})
    assert (refusal(drain, told, await drain.read(told)) == "") is (name == "disk")


async def test_a_drain_leaves_half_of_each_workload(drain: Drain, nodes: Nodes) -> None:
    """Pods that are not ready do not count as capacity."""
    nodes.pods["engine-1"] = pod("engine-1", "gpu-1", ready=False)
    nodes.pods["engine-2"] = pod("engine-2", "gpu-3")
    assert "1 of 3 ready pods of chat/Deployment/chat-vllm" in refusal(drain, EMPTY, await drain.read(EMPTY))


async def test_a_drain_of_an_empty_node_is_refused(drain: Drain, nodes: Nodes) -> None:
    """There is nothing to approve."""
    del nodes.pods["engine-3"]
    assert "no pod of chat has to leave" in refusal(drain, EMPTY, await drain.read(EMPTY))


async def test_new_pods_are_not_what_was_approved(drain: Drain, nodes: Nodes) -> None:
    """A pod of the same name with another uid, or one more, and nothing is evicted."""
    nodes.cordon("gpu-3")
    before = await drain.read(EMPTY)
    nodes.pods["engine-3"]["metadata"]["uid"] = "uid-of-its-successor"
    with pytest.raises(ActionError, match="not as they were"):
        await drain.act(EMPTY, before, token="t")
    assert "engine-3" in nodes.pods
    assert await drain.happened(EMPTY, before, "t") is Happened.YES  # the one that was meant is gone


async def test_a_drain_says_how_long_it_takes(drain: Drain) -> None:
    """Longer than a call to an API may, so that nobody gives it up in the middle of its wait."""
    assert isinstance(drain, PatientAction)
    assert drain.patience_s(EMPTY.model_copy(update={"wait_s": 300})) > 300


async def test_a_pod_is_deleted_by_name_and_uid(delete: Action, cluster: KubernetesServer, nodes: Nodes) -> None:
    """The uid that was approved travels along; the sentence says who starts the next one."""
    before = await delete.read(STUCK)
    await delete.act(STUCK, before, token="t")

    assert "engine-3" not in nodes.pods
    [call] = cluster.of("DELETE")
    assert call.json["preconditions"] == {"uid": "uid-of-engine-3"}
    assert "Deployment/chat-vllm starts a new one" in delete.effect(STUCK, before)
    assert delete.undo(STUCK, before) is None
    assert await delete.happened(STUCK, before, "t") is Happened.YES


async def test_a_successor_of_the_same_name_is_not_hit(delete: Action, cluster: KubernetesServer, nodes: Nodes) -> None:
    """Neither when it is there before the call, nor when it takes the name in between."""
    before = await delete.read(STUCK)
    nodes.pods["engine-3"]["metadata"]["uid"] = "uid-of-its-successor"
    with pytest.raises(ActionError, match="another pod by now"):
        await delete.act(STUCK, before, token="t")
    assert cluster.of("DELETE") == []
    assert await delete.happened(STUCK, before, "t") is Happened.YES

    access = Cluster(ClusterAccess(url=cluster.url, token=TOKEN, timeout_s=1.5))
    with pytest.raises(ActionError, match=r"HTTP 409.*nothing was changed"):
        await access.delete_pod("chat", "engine-3", "uid-of-engine-3")
    assert "engine-3" in nodes.pods


async def test_a_pod_that_nobody_replaces_is_not_deleted(delete: Action, nodes: Nodes) -> None:
    """Without a controller it would be gone for good; one that terminates needs no help."""
    nodes.pods["engine-3"]["metadata"]["ownerReferences"] = []
    assert "no controller" in refusal(delete, STUCK, await delete.read(STUCK))
    nodes.pods["engine-3"] = pod("engine-3", "gpu-3")
    nodes.pods["engine-3"]["metadata"]["deletionTimestamp"] = "2026-11-22T03:00:00Z"
    assert "terminating already" in refusal(delete, STUCK, await delete.read(STUCK))


async def test_the_last_ready_pod_is_called_that(delete: Action, nodes: Nodes) -> None:
    """Deleting the only one that answers may be right (it hangs), and the approver reads it."""
    for name in ("engine-1", "engine-2", "engine-4"):
        del nodes.pods[name]
    before = await delete.read(STUCK)
    assert "the last one that is ready" in delete.effect(STUCK, before)
    with pytest.raises(ActionError, match="last one that is ready by now"):
        await delete.act(STUCK, {**before, "last": False}, token="t")


@pytest.mark.parametrize("name", ["kubernetes.cordon", "kubernetes.delete_pod"])
@pytest.mark.parametrize("fault", [400, 401, 403, 409, 422, 429, "redirect"])
async def test_a_refusal_changed_nothing(
    actions: dict[str, Action], cluster: KubernetesServer, name: str, fault: int | str
) -> None:
    """4xx and redirects are ActionError; one request, and the server is as before."""
    action, params = actions[name], HOT if name == "kubernetes.cordon" else STUCK
    before = await action.read(params)
    method = "PATCH" if name == "kubernetes.cordon" else "DELETE"
    cluster.faults.before[method] = fault
    cluster.faults.elsewhere = cluster.url + "/elsewhere"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params, before, token="t")

    assert len(cluster.of(method)) == 1
    assert (cluster.fleet.cordoned(), "engine-3" in cluster.fleet.pods) == ([], True)


@pytest.mark.parametrize("name", ["kubernetes.cordon", "kubernetes.uncordon", "kubernetes.delete_pod"])
@pytest.mark.parametrize("fault", [500, 408, "reset", "hang", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    actions: dict[str, Action], cluster: KubernetesServer, name: str, fault: int | str, when: str
) -> None:
    """A time-out never means run again: one request, OutcomeUnknownError, and the probe reads what is there."""
    if name == "kubernetes.uncordon":
        cluster.fleet.cordon("gpu-3")
    params = {"kubernetes.cordon": HOT, "kubernetes.uncordon": BACK}.get(name, STUCK)
    action = actions[name]
    before = await action.read(params)
    method = "DELETE" if params is STUCK else "PATCH"
    getattr(cluster.faults, when)[method] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, token="t")

    assert len(cluster.of(method)) == 1
    assert await action.happened(params, before, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_somebody_was_faster(cordon: Action, cluster: KubernetesServer, nodes: Nodes) -> None:
    """Cordoned between plan and act: left alone. Changed between look and call: a conflict."""
    before = await cordon.read(HOT)
    nodes.cordon("gpu-3")
    with pytest.raises(ActionError, match="somebody changed"):
        await cordon.act(HOT, before, token="t")

    nodes.nodes["gpu-3"] = node("gpu-3")
    cluster.before_patch = lambda: nodes.nodes["gpu-3"]["metadata"].update(resourceVersion="8")
    with pytest.raises(ActionError, match=r"HTTP 409.*nothing was changed"):
        await cordon.act(HOT, before, token="t")


async def test_a_cluster_that_does_not_answer_cannot_be_told(
    actions: dict[str, Action], drain: Drain, cluster: KubernetesServer
) -> None:
    """Neither yes nor no: a person has to look."""
    cluster.faults.before["GET"] = "reset"
    before = {"cordoned": False, "against": [], "pods": [{"uid": "u"}], "uid": "u"}
    assert await drain.happened(EMPTY, before, "t") is Happened.CANNOT_TELL
    for name, params in (("kubernetes.cordon", HOT), ("kubernetes.delete_pod", STUCK)):
        assert await actions[name].happened(params, before, "t") is Happened.CANNOT_TELL


def test_each_action_says_what_it_may_and_costs() -> None:
    """Tiers belong to the action; the rights are those that a Role must give it, subresources included."""
    actions = build_actions()
    tiers = {name: action.tier for name, action in actions.items() if name.startswith("kubernetes.")}
    assert {name for name, tier in tiers.items() if tier is Tier.R2} == {
        "kubernetes.drain",
        "kubernetes.delete_pod",
        "kubernetes.patch",
        "kubernetes.restart",
    }
    rights = {
        name: {f"{right.group}/{right.resource}:{','.join(right.verbs)}" for right in rights_of(actions[name])}
        for name in tiers
    }
    assert "/pods/eviction:create" in rights["kubernetes.drain"]
    assert "/nodes:list,patch" in rights["kubernetes.cordon"]
    assert all(rights.values())


def test_the_documented_roles_are_the_actions_rights() -> None:
    """Whoever copies the rules gives the token all that the actions need, and nothing more."""
    text = (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text(encoding="utf-8")
    [block] = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: ClusterRole" in each]
    _, *acting = yaml.safe_load_all(block)
    documented = {
        (rule["apiGroups"][0], resource, verb, role["kind"] == "ClusterRole")
        for role in acting
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    needed = {
        (right.group, right.resource, verb, right.cluster_wide)
        for action in build_actions().values()
        for right in rights_of(action)
        for verb in right.verbs
    }
    assert documented == needed


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (CordonParams, HOT, {"node": "gpu-3;reboot"}),
        (CordonParams, HOT, {"node": "../gpu-3"}),
        (CordonParams, HOT, {"node": "GPU-3"}),
        (CordonParams, HOT, {"node": "gpu-3\n"}),
        (CordonParams, HOT, {"even_if_others": "perhaps"}),
        (DrainParams, EMPTY, {"wait_s": 901}),
        (DrainParams, EMPTY, {"force": True}),
        (PodRef, STUCK, {"pod": "engine-3/eviction"}),
        (PodRef, STUCK, {"pod": ""}),
    ],
)
def test_parameters_match_whole_or_not_at_all(model: type[BaseModel], good: BaseModel, bad: dict[str, object]) -> None:
    """A name that would change the path, or a parameter that is none, is refused before anything is read."""
    with pytest.raises(ValidationError):
        model.model_validate(good.model_dump() | bad)


@given(st.text(max_size=300))
def test_a_name_never_leaves_its_place_in_the_path(text: str) -> None:
    """Whatever a label of the telemetry holds: refused, or a plain name that means the same in a URL."""
    try:
        params = NodeRef(cluster="lab", namespace="chat", node=text)
    except ValidationError:
        return
    assert quote(params.node, safe="") == params.node
    assert ".." not in params.node
    assert 1 <= len(params.node) <= 253
