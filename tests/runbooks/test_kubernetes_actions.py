"""Scaling and rolling back with the official client, against a server that behaves like Kubernetes."""

from __future__ import annotations

import copy
from datetime import datetime

import pytest
from pydantic import ValidationError

from runbooks.engine.actions import ClusterAccess, build_actions
from runbooks.engine.actions.kubernetes import DeploymentRef, RolloutUndoParams, ScaleParams
from runbooks.engine.values import Action, ActionError, GuardedAction, Happened, OutcomeUnknownError
from tests.runbooks.kubernetes_server import KubernetesServer, template

pytestmark = pytest.mark.integration  # real HTTP

UP = ScaleParams(cluster="lab", namespace="chat", deployment="chat-vllm", replicas=6)
BACK = RolloutUndoParams(cluster="lab", namespace="chat", deployment="chat-vllm")


@pytest.fixture
def scale(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.scale"]


@pytest.fixture
def undo(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.rollout_undo"]


async def test_scaling_sets_the_number_and_nothing_else(scale: Action, cluster: KubernetesServer) -> None:
    """The scale subresource gets the number, with the version that was read."""
    before = await scale.read(UP)
    await scale.act(UP, before, token="t")

    assert before == {"replicas": 4, "autoscaler": ""}
    assert cluster.deployment["spec"]["replicas"] == 6
    [patch] = cluster.of("PATCH")
    assert patch.path.startswith("/apis/apps/v1/namespaces/chat/deployments/chat-vllm/scale")
    assert patch.json["spec"] == {"replicas": 6}


async def test_a_stopped_deployment_has_zero_replicas(scale: Action, cluster: KubernetesServer) -> None:
    """Kubernetes leaves a zero out of the answer; it is a zero all the same."""
    cluster.deployment["spec"]["replicas"] = 0
    assert (await scale.read(UP))["replicas"] == 0


@pytest.mark.parametrize(
    ("now", "wanted", "words"),
    [(4, 0, "no replica left"), (4, 1, "more than half"), (4, 4, "already"), (5, 2, "more than half")],
)
async def test_a_cut_by_more_than_half_is_refused(
    scale: Action, cluster: KubernetesServer, now: int, wanted: int, words: str
) -> None:
    """An outage of our own making is no fix; the refusal comes when planning, and again when acting."""
    cluster.deployment["spec"]["replicas"] = now
    params = UP.model_copy(update={"replicas": wanted})
    assert isinstance(scale, GuardedAction)
    assert words in (scale.refusal(params, {"replicas": now}) or "")
    with pytest.raises(ActionError, match=words):
        await scale.act(params, {"replicas": now}, token="t")
    assert cluster.of("PATCH") == []


def test_half_is_allowed_and_undo_obeys_the_same_limit() -> None:
    """From 4 to 8 can be taken back; from 1 to 3 cannot, so the plan does not offer it."""
    scale = build_actions()["kubernetes.scale"]
    assert isinstance(scale, GuardedAction)
    assert scale.refusal(UP.model_copy(update={"replicas": 4}), {"replicas": 8}) is None
    assert scale.undo(UP.model_copy(update={"replicas": 8}), {"replicas": 4}) == {**UP.model_dump(), "replicas": 4}
    assert scale.undo(UP.model_copy(update={"replicas": 3}), {"replicas": 1}) is None


async def test_rollout_undo_brings_back_the_earlier_template(undo: Action, cluster: KubernetesServer) -> None:
    """As kubectl does: template of revision 1 without its hash label, unknown fields kept, annotations sorted out."""
    before = await undo.read(BACK)
    await undo.act(BACK, before, token="t")

    assert (before["revision"], before["to_revision"]) == (2, 1)
    wanted = template("vllm:0.10")
    wanted["metadata"].pop("creationTimestamp")
    assert cluster.deployment["spec"]["template"] == wanted
    assert cluster.deployment["metadata"]["annotations"] == {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "kubernetes.io/change-cause": "deploy 100",
        "deployment.kubernetes.io/revision": str(cluster.revision),
    }


async def test_the_effect_says_what_differs(undo: Action, cluster: KubernetesServer) -> None:
    """Who approves a rollback sees the arguments that change, and never the value of an environment variable."""
    newer = template("vllm:0.11")
    newer["spec"]["containers"][0]["args"] = ["--max-num-seqs=64"]
    newer["spec"]["containers"][0]["env"] = [{"name": "HF_TOKEN", "value": "hf_secret"}]
    cluster.roll_out(newer)
    effect = undo.effect(BACK, await undo.read(BACK))

    assert "from revision 3 to revision 2" in effect
    assert "vllm.args[0] --max-num-seqs=64 -> --max-num-seqs=256" in effect
    assert "vllm.env.HF_TOKEN.value changes" in effect
    assert "hf_secret" not in effect


async def test_a_rollback_can_be_undone(undo: Action, cluster: KubernetesServer) -> None:
    """The undo names the revision that the rollback replaced."""
    before = await undo.read(BACK)
    await undo.act(BACK, before, token="t")
    again = undo.params.model_validate(undo.undo(BACK, before))
    await undo.act(again, await undo.read(again), token="t-2")

    assert cluster.image == "vllm:0.11"


async def test_a_revision_can_be_chosen(undo: Action, cluster: KubernetesServer) -> None:
    """`to_revision` picks among the replica sets that are left, and says when it is gone."""
    cluster.roll_out(template("vllm:0.12"))
    first = BACK.model_copy(update={"to_revision": 1})
    await undo.act(first, await undo.read(first), token="t")
    assert cluster.image == "vllm:0.10"

    with pytest.raises(ActionError, match="no revision 99"):
        await undo.read(BACK.model_copy(update={"to_revision": 99}))


async def test_other_peoples_replica_sets_do_not_count(undo: Action, cluster: KubernetesServer) -> None:
    """A selector can match a stranger's replica set; only those of this very deployment are revisions."""
    stranger = copy.deepcopy(cluster.replica_sets[0])
    stranger["metadata"]["ownerReferences"][0]["uid"] = "uid-of-another"
    stranger["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "50"
    cluster.replica_sets.append(stranger)

    assert (await undo.read(BACK))["to_revision"] == 1


async def test_nothing_to_go_back_to(undo: Action, cluster: KubernetesServer) -> None:
    """A first deployment, a paused one and an identical one are each told apart before anybody approves."""
    before = await undo.read(BACK)
    assert isinstance(undo, GuardedAction)
    assert "paused" in (undo.refusal(BACK, {**before, "paused": True}) or "")
    assert "already" in (undo.refusal(BACK, {**before, "to_template": before["template"]}) or "")

    cluster.replica_sets = cluster.replica_sets[-1:]
    with pytest.raises(ActionError, match="no earlier revision"):
        await undo.read(BACK)


@pytest.mark.parametrize("params", [UP, BACK])
@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409, 422, 429, "redirect"])
async def test_a_refusal_changed_nothing(
    actions: dict[str, Action], cluster: KubernetesServer, params: DeploymentRef, fault: int | str
) -> None:
    """4xx and redirects are ActionError; one request, nothing changed, nobody goes elsewhere."""
    action = actions["kubernetes.scale" if params is UP else "kubernetes.rollout_undo"]
    before = await action.read(params)
    cluster.faults.before["PATCH"] = fault
    cluster.faults.elsewhere = cluster.url + "/elsewhere"
    with pytest.raises(ActionError, match="nothing was changed"):
        await action.act(params, before, token="t")

    assert [one.path for one in cluster.seen if "elsewhere" in one.path] == []
    assert len(cluster.of("PATCH")) == 1
    assert (cluster.deployment["spec"]["replicas"], cluster.image) == (4, "vllm:0.11")


@pytest.mark.parametrize("params", [UP, BACK])
@pytest.mark.parametrize("fault", [500, 503, 504, 408, "reset", "hang", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    actions: dict[str, Action], cluster: KubernetesServer, params: DeploymentRef, fault: int | str, when: str
) -> None:
    """A time-out never means run again: one request, OutcomeUnknownError, and the probe reads what is there."""
    action = actions["kubernetes.scale" if params is UP else "kubernetes.rollout_undo"]
    before = await action.read(params)
    getattr(cluster.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await action.act(params, before, token="t")

    assert len(cluster.of("PATCH")) == 1
    assert await action.happened(params, before, "t") is (Happened.YES if when == "after" else Happened.NO)


async def test_the_probe_can_be_unable_to_tell(scale: Action, undo: Action, cluster: KubernetesServer) -> None:
    """A third state, and a cluster that does not answer, are neither yes nor no."""
    before = await undo.read(BACK)
    cluster.roll_out(template("vllm:0.12"))
    cluster.deployment["spec"]["replicas"] = 9
    assert await scale.happened(UP, {"replicas": 4}, "t") is Happened.CANNOT_TELL
    assert await undo.happened(BACK, before, "t") is Happened.CANNOT_TELL

    cluster.faults.before["GET"] = "reset"
    assert await scale.happened(UP, {"replicas": 4}, "t") is Happened.CANNOT_TELL
    assert await undo.happened(BACK, before, "t") is Happened.CANNOT_TELL


async def test_somebody_was_faster(scale: Action, undo: Action, cluster: KubernetesServer) -> None:
    """A deployment that changed after the plan was made is left alone."""
    before = await undo.read(BACK)
    cluster.roll_out(template("vllm:0.12"))
    cluster.deployment["spec"]["replicas"] = 5
    with pytest.raises(ActionError, match="not as it was"):
        await undo.act(BACK, before, token="t")
    with pytest.raises(ActionError, match="5 replicas by now"):
        await scale.act(UP, {"replicas": 4}, token="t")

    assert cluster.of("PATCH") == []


@pytest.mark.parametrize("params", [UP, BACK])
async def test_a_change_between_look_and_call_is_a_conflict(
    actions: dict[str, Action], cluster: KubernetesServer, params: DeploymentRef
) -> None:
    """The version that was read travels along, so the cluster itself refuses what was decided on an older state."""
    action = actions["kubernetes.scale" if params is UP else "kubernetes.rollout_undo"]
    before = await action.read(params)
    cluster.before_patch = lambda: cluster.roll_out(template("vllm:0.12"))
    with pytest.raises(ActionError, match=r"HTTP 4.*nothing was changed"):
        await action.act(params, before, token="t")

    assert (cluster.deployment["spec"]["replicas"], cluster.image) == (4, "vllm:0.12")


async def test_nobody_listens() -> None:
    """A refused connection certainly changed nothing, and the port is tried once."""
    nowhere = build_actions(clusters={"lab": ClusterAccess(url="http://127.0.0.1:9", token="t")})
    with pytest.raises(ActionError, match="cannot be read"):
        await nowhere["kubernetes.scale"].act(UP, {"replicas": 4}, token="t")


async def test_an_unknown_cluster_is_named(scale: Action) -> None:
    """A plan names its cluster; one without a credential cannot be acted on."""
    with pytest.raises(ActionError, match="moon has no `action_credential`"):
        await scale.read(UP.model_copy(update={"cluster": "moon"}))


@pytest.mark.parametrize(
    "bad",
    [
        {"namespace": "Chat"},
        {"namespace": "chat/../kube-system"},
        {"namespace": "chat\n"},
        {"deployment": "-chat"},
        {"deployment": "a..b"},
        {"deployment": "chat vllm"},
        {"cluster": "--kubeconfig"},
        {"replicas": 65},
        {"replicas": -1},
        {"replicas": "+5"},
        {"replicas": True},
        {"replicas": None},
        {"force": True},
    ],
)
def test_parameters_match_whole_or_not_at_all(bad: dict[str, object]) -> None:
    """Names are Kubernetes names from end to end, numbers are in range, unknown parameters are refused."""
    with pytest.raises(ValidationError):
        ScaleParams.model_validate(UP.model_dump() | bad)


async def test_an_autoscaler_keeps_the_number(scale: Action, cluster: KubernetesServer) -> None:
    """Who scales against an autoscaler is overruled within seconds; one of another deployment says nothing."""
    assert isinstance(scale, GuardedAction)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat-vllm"}
    cluster.autoscalers = [{"metadata": {"name": "by-queue"}, "spec": {"scaleTargetRef": {**target, "name": "other"}}}]
    assert scale.refusal(UP, await scale.read(UP)) is None

    cluster.autoscalers = [{"metadata": {"name": "by-queue"}, "spec": {"scaleTargetRef": target}}]
    assert "the autoscaler by-queue sets the replicas" in (scale.refusal(UP, await scale.read(UP)) or "")


@pytest.mark.parametrize(
    ("change", "tool"),
    [
        ({"annotations": {"argocd.argoproj.io/tracking-id": "chat:apps/Deployment:chat/chat-vllm"}}, "Argo CD"),
        ({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "chat"}}, "Flux"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "chat"}}, "Flux"),
        ({"labels": {"app.kubernetes.io/instance": "chat", "app.kubernetes.io/managed-by": "Helm"}}, ""),
    ],
)
async def test_what_git_keeps_is_reverted_in_git(
    undo: Action, cluster: KubernetesServer, change: dict[str, dict[str, str]], tool: str
) -> None:
    """A rollback would be rolled forward again; Helm's labels alone prove nothing."""
    assert isinstance(undo, GuardedAction)
    for key, value in change.items():
        there = cluster.deployment["metadata"].get(key)
        cluster.deployment["metadata"][key] = {**there, **value} if there else value
    refusal = undo.refusal(BACK, await undo.read(BACK))
    assert (refusal is None) if not tool else (f"kept by {tool}" in (refusal or ""))


NEW_PODS = DeploymentRef(cluster="lab", namespace="chat", deployment="chat-vllm")


@pytest.fixture
def restart(actions: dict[str, Action]) -> Action:
    return actions["kubernetes.restart"]


async def test_a_restart_marks_the_template(restart: Action, cluster: KubernetesServer) -> None:
    """Kubectl's time and our token; the rest of the template, unknown fields too, is as it was."""
    before = await restart.read(NEW_PODS)
    earlier = copy.deepcopy(cluster.deployment["spec"]["template"])
    await restart.act(NEW_PODS, before, token="t-1")

    template_now = cluster.deployment["spec"]["template"]
    assert template_now["spec"] == earlier["spec"]
    annotations = template_now["metadata"]["annotations"]
    assert datetime.fromisoformat(annotations["kubectl.kubernetes.io/restartedAt"]).tzinfo is not None
    assert annotations["watchkeeper/intent"] == "t-1"
    assert cluster.revision == 3
    assert "the 4 pods of chat/chat-vllm are replaced" in restart.effect(NEW_PODS, before)
    assert restart.undo(NEW_PODS, before) is None


@pytest.mark.parametrize("fault", [500, "reset", "hang"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_restart_is_known_by_its_token(
    restart: Action, cluster: KubernetesServer, fault: int | str, when: str
) -> None:
    """Yes with our token, no with the template as it was, and somebody else's rollout is neither."""
    before = await restart.read(NEW_PODS)
    getattr(cluster.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await restart.act(NEW_PODS, before, token="t-1")

    assert await restart.happened(NEW_PODS, before, "t-1") is (Happened.YES if when == "after" else Happened.NO)
    cluster.roll_out(template("vllm:0.12"))
    assert await restart.happened(NEW_PODS, before, "t-1") is Happened.CANNOT_TELL


async def test_a_restart_that_would_be_an_outage_is_refused(restart: Action, cluster: KubernetesServer) -> None:
    """Recreate stops all pods first; a paused rollout would do nothing; no pods, nothing to restart."""
    assert isinstance(restart, GuardedAction)
    spec = cluster.deployment["spec"]
    for change, words in (({"strategy": {"type": "Recreate"}}, "outage"), ({"paused": True}, "paused")):
        cluster.deployment["spec"] = spec | change
        assert words in (restart.refusal(NEW_PODS, await restart.read(NEW_PODS)) or "")
    cluster.deployment["spec"] = spec | {"replicas": 0}
    assert "no pod" in (restart.refusal(NEW_PODS, await restart.read(NEW_PODS)) or "")


@pytest.mark.parametrize(
    ("strategy", "is_outage"),
    [
        ({"type": "Recreate"}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}}, True),
        ({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "74%"}}, False),  # 2 of 4, rounded down
        ({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}, False),
        ({"type": "RollingUpdate"}, False),
    ],
)
async def test_a_new_template_that_stops_most_pods_at_once_is_refused(
    restart: Action, undo: Action, cluster: KubernetesServer, strategy: dict[str, object], *, is_outage: bool
) -> None:
    """The plan would say that they are replaced one after the other."""
    assert isinstance(restart, GuardedAction)
    assert isinstance(undo, GuardedAction)
    cluster.deployment["spec"]["strategy"] = strategy
    for said in (restart.refusal(NEW_PODS, await restart.read(NEW_PODS)), undo.refusal(BACK, await undo.read(BACK))):
        assert ("outage" in (said or "")) is is_outage


async def test_a_restart_leaves_a_changed_deployment_alone(restart: Action, cluster: KubernetesServer) -> None:
    """Whether the change came before our look or between look and call."""
    before = await restart.read(NEW_PODS)
    cluster.roll_out(template("vllm:0.12"))
    with pytest.raises(ActionError, match="not as it was"):
        await restart.act(NEW_PODS, before, token="t")
    before = await restart.read(NEW_PODS)
    cluster.before_patch = lambda: cluster.roll_out(template("vllm:0.13"))
    with pytest.raises(ActionError, match=r"HTTP 4.*nothing was changed"):
        await restart.act(NEW_PODS, before, token="t")
    assert cluster.image == "vllm:0.13"
