"""Setting one field of a deployment, against a server that behaves like Kubernetes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbooks.engine.actions import ClusterAccess, build_actions
from runbooks.engine.actions.deployment_fields import shape_of, value_at, with_value
from runbooks.engine.actions.kubernetes_patch import Patch, PatchParams
from runbooks.engine.values import ActionError, Happened, OutcomeUnknownError, Tier
from tests.runbooks.kubernetes_server import TOKEN, KubernetesServer, template

pytestmark = pytest.mark.integration  # real HTTP

PLACE = {"cluster": "lab", "namespace": "chat", "deployment": "chat-vllm"}
FEWER = PatchParams(**PLACE, field="args.--max-num-seqs", value="192")


def params(field: str, value: Any, **more: Any) -> PatchParams:
    return PatchParams.model_validate({**PLACE, "field": field, "value": value, **more})


@pytest.fixture
def patch(cluster: KubernetesServer) -> Patch:
    access = ClusterAccess(url=cluster.url, token=TOKEN, timeout_s=1.5, patch_env=("TOP_K", "HF_TOKEN"))
    found = build_actions(clusters={"lab": access}, redact=lambda text: text.replace("hf_secret", "*"))[
        "kubernetes.patch"
    ]
    assert isinstance(found, Patch)
    return found


def container_in(cluster: KubernetesServer) -> dict[str, Any]:
    [container] = cluster.deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


async def test_one_argument_changes_and_nothing_else(patch: Patch, cluster: KubernetesServer) -> None:
    """With the version that was read as a condition; fields that no client knows are kept."""
    earlier = copy.deepcopy(cluster.deployment["spec"])
    before = await patch.read(FEWER)
    assert patch.refusal(FEWER, before) is None
    assert await patch.act(FEWER, before, token="t") == {"field": "args.--max-num-seqs", "value": "192"}

    assert container_in(cluster)["args"] == ["--max-num-seqs=192"]
    container_in(cluster)["args"] = ["--max-num-seqs=256"]
    assert cluster.deployment["spec"] == earlier
    assert [step["path"] for step in cluster.of("PATCH")[0].json] == [
        "/metadata/resourceVersion",
        "/spec/template/spec/containers",
    ]


async def test_the_effect_says_what_it_costs(patch: Patch) -> None:
    """From what to what, in which container, and that pods are replaced."""
    assert patch.effect(FEWER, await patch.read(FEWER)) == (
        "In the cluster lab, args.--max-num-seqs of the container vllm in the deployment chat/chat-vllm changes from "
        "256 to 192. Its 4 pods are replaced one after the other, each with a cold cache; requests in flight on them "
        "may be lost."
    )
    assert patch.tier is Tier.R2
    assert patch.target(FEWER) == "kubernetes/deployment/lab/chat/chat-vllm"


CHANGES = [
    ("args.--max-num-seqs", "64"),
    ("args.--gpu-memory-utilization", "0.92"),
    ("resources.limits.memory", "96Gi"),
    ("resources.requests.cpu", "3500m"),
    ("resources.limits.cpu", "8"),
    ("env.OMP_NUM_THREADS", "4"),
    ("env.TOP_K", "5"),
    ("env.TOP_K", ""),
    ("env.TOKENIZERS_PARALLELISM", "true"),
    ("env.TOKENIZERS_PARALLELISM", None),
    ("strategy.maxSurge", "2"),
    ("strategy.maxUnavailable", "0%"),
]


@pytest.mark.parametrize(("field", "value"), CHANGES)
async def test_undo_restores_exactly_what_was(
    patch: Patch, cluster: KubernetesServer, field: str, value: str | None
) -> None:
    """What was set, what was added and what was removed."""
    container = container_in(cluster)
    container["args"] = ["serve", "--max_num_seqs", "256", "--enable-prefix-caching"]
    container["resources"] = {"limits": {"memory": "64Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "2"}}
    container["env"] = [{"name": "TOP_K", "value": "20"}, {"name": "TOKENIZERS_PARALLELISM", "value": "false"}]
    cluster.deployment["spec"]["strategy"] = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1},
    }
    earlier = copy.deepcopy(cluster.deployment["spec"])
    wanted = params(field, value)
    before = await patch.read(wanted)
    await patch.act(wanted, before, token="t-1")
    assert cluster.deployment["spec"] != earlier
    assert await patch.happened(wanted, before, "t-1") is Happened.YES
    back = PatchParams.model_validate(patch.undo(wanted, before))
    await patch.act(back, await patch.read(back), token="t-2")

    assert cluster.deployment["spec"] == earlier


async def test_a_strategy_replaces_no_pods(patch: Patch, cluster: KubernetesServer) -> None:
    """The effect says so, and the template stays."""
    cluster.deployment["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}
    wanted = params("strategy.maxSurge", 2)
    before = await patch.read(wanted)
    await patch.act(wanted, before, token="t")

    assert patch.effect(wanted, before).endswith("changes from 1 to 2. No pod is replaced.")
    assert cluster.deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 2, "maxUnavailable": "25%"}
    assert cluster.revision == 2


async def test_a_strategy_that_would_stop_most_pods_is_refused(patch: Patch, cluster: KubernetesServer) -> None:
    """To set it, and as an undo; leaving such a strategy is allowed."""
    rolling = {"maxSurge": 1, "maxUnavailable": "100%"}
    cluster.deployment["spec"]["strategy"] = {"rollingUpdate": rolling}
    good, bad = params("strategy.maxUnavailable", "25%"), params("strategy.maxUnavailable", "75%")
    assert patch.refusal(good, await patch.read(good)) is None
    assert patch.undo(good, await patch.read(good)) is None
    assert "outage" in (patch.refusal(bad, await patch.read(bad)) or "")
    assert "outage" in (patch.refusal(FEWER, await patch.read(FEWER)) or "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"paused": True}, "paused"),
        ({"strategy": {"type": "Recreate"}}, "outage"),
    ],
)
async def test_what_the_state_forbids_is_refused(
    patch: Patch, cluster: KubernetesServer, change: dict[str, Any], words: str
) -> None:
    """When planning and again when acting."""
    cluster.deployment["spec"] |= change
    before = await patch.read(FEWER)
    assert words in (patch.refusal(FEWER, before) or "")
    with pytest.raises(ActionError, match=words):
        await patch.act(FEWER, before, token="t")
    assert cluster.of("PATCH") == []


async def test_what_is_so_already_or_kept_in_git_is_refused(patch: Patch, cluster: KubernetesServer) -> None:
    """Also in another spelling; and Argo CD would set it back."""
    container_in(cluster)["resources"] = {"limits": {"memory": "1Gi", "cpu": "2"}}
    for field, value in (("args.--max-num-seqs", 256), ("resources.limits.memory", "1024Mi")):
        wanted = params(field, value)
        assert "already" in (patch.refusal(wanted, await patch.read(wanted)) or "")
    cluster.deployment["metadata"]["managedFields"] = [{"manager": "argocd-controller"}]
    assert "kept by Argo CD" in (patch.refusal(FEWER, await patch.read(FEWER)) or "")


@pytest.mark.parametrize(
    ("change", "wanted", "words"),
    [
        ({"args": ["-c", "vllm serve --max-num-seqs 256"]}, FEWER, "list of arguments"),
        ({"command": ["sh", "-ec"], "args": ["--max-num-seqs=2"]}, FEWER, "started by a script"),
        ({"args": []}, FEWER, "no list of arguments"),
        ({"args": ["--max-num-seqs=1", "--max_num_seqs", "2"]}, FEWER, "more than once"),
        ({"args": ["--x", "y --max-num-seqs 1"]}, FEWER, "within something else"),
        ({"args": ["--max-num-seqs"]}, FEWER, "has no value"),
        ({"args": ["--max-num-seqs", "--x"]}, FEWER, "could not be put back"),
        ({"args": ["--max-num-seqs=lots"]}, FEWER, "could not be put back"),
        ({"args": ["--max-num-seqs=1", "--x"]}, params("args.--max-num-seqs", None), "not the last"),
        ({"env": [{"name": "TOP_K", "valueFrom": {}}]}, params("env.TOP_K", "5"), "somewhere else"),
        ({"env": [{"name": "TOP_K"}, {"name": "TOP_K"}]}, params("env.TOP_K", "5"), "twice"),
        ({"env": [{"name": "TOP_K"}, {"name": "X"}]}, params("env.TOP_K", None), "not the last"),
        ({"env": [{"name": "HF_TOKEN", "value": "hf_secret"}]}, params("env.HF_TOKEN", "x"), "credential"),
        ({}, params("env.HF_TOKEN", "hf_secret"), "credential"),
        ({}, params("env.LD_PRELOAD", "/x.so"), "none that may be set: the cluster lab has TOP_K, HF_TOKEN"),
        ({"resources": {"limits": {"memory": "1e9"}}}, params("resources.limits.memory", "1Gi"), "put back"),
        ({}, params("args.--max-num-seqs", 1, container="proxy"), "no container proxy"),
        ({}, params("strategy.maxSurge", 1), "could not be put back"),
    ],
)
async def test_what_could_not_be_put_back_is_left_to_people(
    patch: Patch, cluster: KubernetesServer, change: dict[str, Any], wanted: PatchParams, words: str
) -> None:
    """Scripts, doubles, values from elsewhere, credentials, variables that nobody allowed: named before approval."""
    container_in(cluster).update(change)
    with pytest.raises(ActionError, match=words):
        await patch.read(wanted)
    with pytest.raises(ActionError, match=words):
        await patch.act(wanted, {}, token="t")
    assert cluster.of("PATCH") == []


async def test_one_of_several_containers_is_named(patch: Patch, cluster: KubernetesServer) -> None:
    """Never guessed; the undo names it, too."""
    containers = cluster.deployment["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "proxy", "image": "envoy", "args": ["--concurrency", "2"]})
    with pytest.raises(ActionError, match=r"2 containers \(vllm, proxy\)"):
        await patch.read(FEWER)
    named = params("args.--max-num-seqs", 192, container="vllm")
    before = await patch.read(named)
    await patch.act(named, before, token="t")

    assert containers[1] == cluster.deployment["spec"]["template"]["spec"]["containers"][1]
    assert (patch.undo(named, before) or {})["container"] == "vllm"


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409, 422, 429, "redirect"])
async def test_a_refusal_changed_nothing(patch: Patch, cluster: KubernetesServer, fault: int | str) -> None:
    """4xx and redirects are ActionError, and nobody tries again or goes elsewhere."""
    before = await patch.read(FEWER)
    cluster.faults.before["PATCH"] = fault
    cluster.faults.elsewhere = f"{cluster.url}/elsewhere"
    with pytest.raises(ActionError, match="nothing was changed"):
        await patch.act(FEWER, before, token="t")

    assert container_in(cluster)["args"] == ["--max-num-seqs=256"]
    assert len(cluster.of("PATCH")) == 1


@pytest.mark.parametrize("fault", [500, 503, 408, "reset", "hang", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_in_doubt_and_the_probe_tells(
    patch: Patch, cluster: KubernetesServer, fault: int | str, when: str
) -> None:
    """Yes with the value, no with all as it was; a third value and a cluster that is silent are neither."""
    before = await patch.read(FEWER)
    getattr(cluster.faults, when)["PATCH"] = fault
    with pytest.raises(OutcomeUnknownError):
        await patch.act(FEWER, before, token="t")

    assert len(cluster.of("PATCH")) == 1
    assert await patch.happened(FEWER, before, "t") is (Happened.YES if when == "after" else Happened.NO)
    cluster.roll_out(template("vllm:0.12"))
    assert await patch.happened(FEWER, before, "t") is Happened.CANNOT_TELL
    cluster.faults.before["GET"] = 500
    assert await patch.happened(FEWER, before, "t") is Happened.CANNOT_TELL


async def test_somebody_was_faster(patch: Patch, cluster: KubernetesServer) -> None:
    """Whether the change came before our look or between look and call."""
    before = await patch.read(FEWER)
    cluster.roll_out(template("vllm:0.12"))
    with pytest.raises(ActionError, match="not as it was"):
        await patch.act(FEWER, before, token="t")
    before = await patch.read(FEWER)
    cluster.before_patch = lambda: cluster.roll_out(template("vllm:0.13"))
    with pytest.raises(ActionError, match=r"HTTP 4.*nothing was changed"):
        await patch.act(FEWER, before, token="t")
    assert container_in(cluster) == template("vllm:0.13")["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "evil"),
        ("spec.template.spec.hostNetwork", "true"),
        ("resources.limits.nvidia.com/gpu", "8"),
        ("resources.limits", "1"),
        ("resources.limits.memory", "512m"),  # half a byte
        ("resources.limits.memory", "64"),
        ("resources.limits.memory", "0Gi"),
        ("resources.limits.cpu", "1.5"),
        ("args.--model", "evil/model"),
        ("args.--max-num-seqs", "1 --model x"),
        ("args.--max-num-seqs", "1\n"),
        ("args.--max-num-seqs", "\u0661"),
        ("args.--max-num-seqs", True),
        ("args.--gpu-memory-utilization", "1.5"),
        ("env.path", "x"),
        ("env.TOP_K", "$(HF_TOKEN)"),
        ("env.TOP_K", "a\nb"),
        ("env.TOP_K", "x" * 201),
        ("env.NCCL_DEBUG", "TRACE"),
        ("env.", "x"),
        ("strategy.type", "Recreate"),
        ("strategy.maxSurge", None),
        ("strategy.maxSurge", "-1"),
        ("strategy.maxSurge", "01"),
        ("", "x"),
    ],
)
def test_only_listed_fields_with_values_of_their_shape(field: str, value: object) -> None:
    """Whatever is not listed is refused, and so is a value that does not match from end to end."""
    with pytest.raises(ValidationError):
        params(field, value)


FIELDS = st.sampled_from(["args.--max-num-seqs", "env.TOP_K", "resources.limits.memory", "strategy.maxSurge"])


@given(FIELDS, st.text(max_size=60) | st.from_regex(r"[0-9]{1,4}(Gi|%|m)?", fullmatch=True))
def test_a_value_arrives_literally_or_not_at_all(field: str, value: str) -> None:
    """Read back from the deployment it is the same text, in its own place, and everything else is as it was."""
    try:
        wanted = params(field, value)
    except ValidationError:
        return
    shape = shape_of(field)
    deployment = {
        "spec": {
            "template": template("vllm:0.11"),
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        }
    }
    changed = with_value(deployment, shape, "vllm", wanted.value)
    assert wanted.value is not None
    assert value_at(changed, shape, "vllm") == value
    container = changed["spec"]["template"]["spec"]["containers"][0]
    assert len(container["args"]) == 1
    assert set(container) <= {"name", "image", "args", "env", "resources"}
    assert changed["spec"]["template"]["spec"]["aFieldOfTomorrow"] == {"kept": True}
