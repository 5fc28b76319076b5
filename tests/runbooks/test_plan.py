"""From a runbook to literals: what a plan holds, and why one cannot be made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runbooks.engine.context import PlanContext
from runbooks.engine.otherwise import by_hand_otherwise
from runbooks.engine.parse import parse
from runbooks.engine.plan import fresh, plan, undo_plan
from runbooks.engine.values import Action, CannotPlanError, PlannedStep, Runbook, Tier, plan_from_json, plan_json
from tests.runbooks.kubernetes_server import KubernetesServer
from tests.runbooks.langfuse_server import LangfuseServer

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
CONTEXT = PlanContext(
    incident_id="Q1",
    service="chat",
    environment="prod",
    namespace="chat",
    cluster="lab",
    deployments=("chat-vllm",),
    suspect="langfuse:chat-system:8",
    suspect_undo={"prompt": "chat-system", "label": "production", "version": "8", "previous_version": "7"},
    policy_version="p-1",
    now=NOW,
    frame={"recent_s": 300},
)
MOVE = (
    "action: langfuse.move_label\n"
    'with: {prompt: "{suspect.prompt}", label: "{suspect.label}", version: "{suspect.previous_version}"}'
)
SWITCH = 'action: flag.set\nwith: {flag: "{kill_switch.tool}", on: false}'
ROLL_BACK = 'action: kubernetes.rollout_undo\nwith: {deployment: "{deployment}", to_revision: "{suspect.to_revision}"}'
SCALE = 'action: kubernetes.scale\nwith: {deployment: "{service}-vllm", replicas: "{replicas_now + 2}"}'


def scale_to(replicas: str) -> str:
    return f'action: kubernetes.scale\nwith: {{deployment: "{{deployment}}", replicas: {replicas}}}'


def runbook(*blocks: str, front: str = "") -> Runbook:
    steps = "\n".join(
        f"### Step {i}\nBy hand.\n\n```yaml step\n{block}\n```\n" for i, block in enumerate(blocks, start=1)
    )
    return parse(f"---\nformat: 1\ntitle: T\n{front}---\n\n## Fix\n\n{steps}", "t")


async def test_the_prompt_plan_holds_literals(actions: dict[str, Action]) -> None:
    """Everything is resolved: prompt, label, a number as version, the state before, the effect and the undo."""
    made = await plan(runbook(f"{MOVE}\nverify: prefix_cache\nundo: previous\nsettle: 3m"), CONTEXT, actions)

    [step] = made.steps
    assert step.params == {"prompt": "chat-system", "label": "production", "source": None, "version": 7}
    assert step.before == {"version": 8}
    assert step.undo == {"prompt": "chat-system", "label": "production", "source": None, "version": 8}
    assert "from version 8 to version 7" in step.effect
    assert (step.tier, step.target) == (Tier.R1, "langfuse/prompt-label/chat-system:production")
    assert (step.verify, step.settle_s) == (("prefix_cache",), 180.0)
    assert (made.suspect, made.requester, made.expires_at) == (CONTEXT.suspect, None, NOW + timedelta(minutes=15))
    assert plan_from_json(plan_json(made)).digest == made.digest


async def test_a_number_is_computed_from_the_present_state(
    actions: dict[str, Action], cluster: KubernetesServer
) -> None:
    """`{replicas_now + 2}` becomes 6 when 4 run; namespace and cluster are the service's own."""
    made = await plan(runbook(f"{SCALE}\nverify: queue"), CONTEXT, actions)

    assert made.steps[0].params == {
        "cluster": "lab",
        "namespace": "chat",
        "deployment": "chat-vllm",
        "replicas": 6,
    }
    assert made.suspect is None
    assert cluster.of("PATCH") == []


async def test_two_plans_are_never_the_same(actions: dict[str, Action]) -> None:
    """An approval of one is no approval of its twin: the nonce differs, and so the digest."""
    one, two = [await plan(runbook(MOVE), CONTEXT, actions) for _ in range(2)]
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("block", "context", "words"),
    [
        (MOVE, replace(CONTEXT, suspect=None), "no change guilty"),
        (ROLL_BACK, replace(CONTEXT, suspect_undo={"deployment": "chat-guard", "to_revision": "1"}),
         "is of chat-guard, not of chat-vllm"),
        (scale_to("5").replace("{deployment}", "{deployment.embedder}"), CONTEXT, "has no embedder deployment"),
        (scale_to("5").replace("{deployment}", "{deployment.embedder}"),
         replace(CONTEXT, deployed={"embedder": ("a", "b")}), r"2 deployments of the kind embedder \(a, b\)"),
        (scale_to("5").replace("{deployment}", "{retrieval.alias}"), CONTEXT, r"no \[service.retrieval\]"),
        (SWITCH, replace(CONTEXT, scope={"tool": ("search",)}), "no kill switch for a tool"),
        (SWITCH, replace(CONTEXT, kill_switches={"tool": "tool-{tool}"}), "does not confine the trouble to one tool"),
        (SWITCH, replace(CONTEXT, kill_switches={"tool": "tool-{tool}"}, scope={"tool": ("{service}",)}),
         "not the key of a flag"),
        (MOVE, replace(CONTEXT, suspect_undo={"label": "production"}), "does not say its prompt"),
        (MOVE, replace(CONTEXT, suspect_undo={**CONTEXT.suspect_undo, "previous_version": "7; rm"}), "whole number"),
        (MOVE, replace(CONTEXT, suspect_undo={**CONTEXT.suspect_undo, "prompt": "{service}/../x"}), "name of a prompt"),
        (MOVE, replace(CONTEXT, suspect_undo={**CONTEXT.suspect_undo, "previous_version": "8"}), "already"),
        (MOVE, replace(CONTEXT, suspect_undo={**CONTEXT.suspect_undo, "previous_version": "3"}), "version 3"),
        (SCALE, replace(CONTEXT, cluster=""), "no cluster"),
        (SCALE, replace(CONTEXT, service="sum"), "no deployment chat/sum-vllm"),
        (scale_to("5"), replace(CONTEXT, deployments=("a", "b")), "choose one"),
        (scale_to("1"), CONTEXT, "more than half"),
        (scale_to('"{replicas_now + 99}"'), CONTEXT, "less than or equal to 64"),
        (scale_to("5").replace("{deployment}", "{scope.pod}"), CONTEXT, "does not confine the trouble to one pod"),
        (scale_to("5").replace("{deployment}", "{scope.pod}"), replace(CONTEXT, scope={"pod": ("a", "b")}),
         r"on 2 pods \(a, b\): choose one"),
        (scale_to("5").replace("{deployment}", "{scope.pod}"), replace(CONTEXT, scope={"pod": ("../x",)}),
         "not the name of a Kubernetes object"),
        (scale_to("5").replace("{deployment}", "{gateway}"), CONTEXT, "no gateway in the configuration"),
        (scale_to("5").replace("with: {", "with: {namespace: payments, "), CONTEXT, "not this service's: chat's"),
        (scale_to("5").replace("with: {", "with: {cluster: other, "), CONTEXT, "not this service's: chat's own is lab"),
        (scale_to('"{before.colour}"'), CONTEXT, "no `colour`"),
        (scale_to('"{service + 1}"'), CONTEXT, "not a whole number"),
        ('action: kubernetes.scale\nwith: {deployment: "{__class__}", replicas: 5}', CONTEXT, "`{__class__}` is not"),
        ("action: shell.run\nwith: {command: ls}", CONTEXT, "does not exist"),
        ("action: kubernetes.scale\nwith: {deployment: chat-vllm, replicas: 5, force: true}", CONTEXT, "force"),
    ],
)  # fmt: skip
async def test_what_is_missing_is_said(
    actions: dict[str, Action], block: str, context: PlanContext, words: str
) -> None:
    """A plan that cannot be made says which name, which parameter or which state is the obstacle."""
    with pytest.raises(CannotPlanError, match=words):
        await plan(runbook(block), context, actions)


async def test_values_are_never_read_for_placeholders(actions: dict[str, Action]) -> None:
    """A braced text in a change's literals stays text: it does not fetch anything."""
    context = replace(CONTEXT, suspect_undo={**CONTEXT.suspect_undo, "label": "{service}"})
    made = plan(runbook('action: manual\nwith: {instruction: "Look at {suspect.label}"}'), context, actions)

    assert (await made).steps[0].params == {"instruction": "Look at {service}"}


async def test_a_step_may_name_where_the_trouble_is(actions: dict[str, Action]) -> None:
    """`{scope.node}` is the one node that the diagnosis found, `{gateway}` the service's gateway."""
    context = replace(CONTEXT, scope={"node": ("gpu-3",)}, gateway="litellm")
    text = 'action: manual\nwith: {instruction: "Look at {scope.node} behind {gateway}"}'
    made = await plan(runbook(text), context, actions)

    assert made.steps[0].params == {"instruction": "Look at gpu-3 behind litellm"}


async def test_no_plan_without_steps_or_for_another_service(actions: dict[str, Action]) -> None:
    """A runbook of prose only is followed by hand; one for other services is not for this one."""
    with pytest.raises(CannotPlanError, match="by hand"):
        await plan(runbook(), CONTEXT, actions)
    with pytest.raises(CannotPlanError, match="not for chat"):
        await plan(runbook(MOVE, front="services: [search]\n"), CONTEXT, actions)


async def test_one_plan_changes_a_thing_once(actions: dict[str, Action]) -> None:
    """The second step's state would be the first one's doing, which nobody can approve beforehand."""
    rollback = 'action: kubernetes.rollout_undo\nwith: {deployment: "{deployment}"}'
    with pytest.raises(CannotPlanError, match="two steps change kubernetes/deployment/lab/chat/chat-vllm"):
        await plan(runbook(SCALE, rollback), CONTEXT, actions)


@pytest.mark.parametrize(
    ("answers", "mends"),
    [
        ({"queue": "bad", "prefix_cache": "bad"}, ("queue",)),
        ({"queue": "ok", "prefix_cache": "bad"}, ()),
        ({"queue": "unknown"}, ()),
        ({}, None),
    ],
)
async def test_a_plan_says_which_of_its_checks_were_bad(
    actions: dict[str, Action], answers: dict[str, str], mends: tuple[str, ...] | None
) -> None:
    """What it does not verify does not count; without a diagnosis nobody knows. It is kept with the plan."""
    block = f"{MOVE}\nverify: queue\nundo: previous"

    made = await plan(runbook(block), replace(CONTEXT, answers=answers), actions)

    assert made.mends == mends
    assert plan_from_json(plan_json(made)) == made


async def test_a_query_that_nobody_asked_before_may_prove_it(actions: dict[str, Action]) -> None:
    """A fix that is verified by a query alone is believed, as long as nothing is known against it."""
    query = 'verify:\n- query: {metric: "vllm:num_requests_waiting"}\n  below: 8'

    made = await plan(runbook(f"{MOVE}\n{query}\nundo: previous"), replace(CONTEXT, answers={"queue": "ok"}), actions)

    assert made.mends is None


async def test_fresh_says_what_moved(
    actions: dict[str, Action], langfuse: LangfuseServer, cluster: KubernetesServer
) -> None:
    """Nothing moved: no sentence. Somebody scaled: the sentence has both numbers. Unreadable counts as moved."""
    made = await plan(runbook(MOVE, SCALE), CONTEXT, actions)
    assert await fresh(made, actions) == []

    cluster.deployment["spec"]["replicas"] = 5
    assert await fresh(made, actions) == ["Step 2: replicas was 4 and is 5 now"]
    assert await fresh(made, actions, steps=[0]) == []

    langfuse.faults.before["GET"] = 503
    assert "HTTP 503" in (await fresh(made, actions, steps=[0]))[0]
    assert "not available" in (await fresh(made, {}))[0]


async def test_undo_takes_back_what_was_done_last_first(
    actions: dict[str, Action], langfuse: LangfuseServer, cluster: KubernetesServer
) -> None:
    """The undo is a plan of its own, read anew, for the same incident; running it restores the first state."""
    made = await plan(runbook(f"{MOVE}\nundo: previous", f"{SCALE}\nundo: previous"), CONTEXT, actions)
    await _run(made.steps, actions)
    back = await undo_plan(made, [0, 1], actions, now=NOW, policy_version="p-1", requester="alice")

    assert [step.title for step in back.steps] == ["Undo: Step 2", "Undo: Step 1"]
    assert (back.undoes, back.requester, back.incident_id) == (made.plan_id, "alice", "Q1")
    assert [step.verify for step in back.steps] == [(), ()]
    await _run(back.steps, actions)
    assert langfuse.version_of("chat-system", "production") == 8
    assert cluster.deployment["spec"]["replicas"] == 4


async def test_a_step_may_be_taken_back_by_another_action(
    actions: dict[str, Action], cluster: KubernetesServer
) -> None:
    """A cordon is undone by an uncordon, and that by a cordon; the plan holds, and hashes, which action it is."""
    context = replace(CONTEXT, scope={"node": ("gpu-3",)})
    made = await plan(
        runbook('action: kubernetes.cordon\nwith: {node: "{scope.node}"}\nundo: previous'), context, actions
    )
    assert (made.steps[0].undone_by, made.steps[0].undo_action) == ("kubernetes.uncordon", "kubernetes.uncordon")
    stored = plan_from_json(plan_json(made))
    assert stored.digest == made.digest
    assert replace(made, steps=(replace(made.steps[0], undone_by="kubernetes.drain"),)).digest != made.digest

    await _run(made.steps, actions)
    back = await undo_plan(stored, [0], actions, now=NOW, policy_version="p-1")
    assert [(step.action, step.undo_action) for step in back.steps] == [("kubernetes.uncordon", "kubernetes.cordon")]
    await _run(back.steps, actions)
    assert cluster.fleet.cordoned() == []


async def test_a_plan_stored_before_there_was_such_an_action_keeps_its_digest(actions: dict[str, Action]) -> None:
    """An open approval must survive an upgrade: what is its own undo is written as it always was."""
    made = await plan(runbook(f"{MOVE}\nundo: previous"), CONTEXT, actions)
    assert "undone_by" not in plan_json(made)["steps"][0]


async def test_a_node_is_cordoned_and_drained_in_one_plan(
    actions: dict[str, Action], cluster: KubernetesServer
) -> None:
    """The drain reads the same before and after the cordon of its own plan, so it is not taken for a moved world."""
    cordon = 'action: kubernetes.cordon\nwith: {node: "{scope.node}"}\nundo: previous'
    drain = 'action: kubernetes.drain\nwith: {node: "{scope.node}"}'
    made = await plan(runbook(cordon, drain), replace(CONTEXT, scope={"node": ("gpu-3",)}), actions)

    await _run(made.steps[:1], actions)
    assert await fresh(made, actions, [1]) == []
    await _run(made.steps[1:], actions)
    assert "engine-3" not in cluster.fleet.pods
    assert made.tier is Tier.R2


async def test_undo_refuses_when_there_is_nothing_to_take_back(
    actions: dict[str, Action], langfuse: LangfuseServer
) -> None:
    """A step without undo, a state that was restored, and one that was changed further give no plan."""
    made = await plan(runbook(MOVE), CONTEXT, actions)
    with pytest.raises(CannotPlanError, match="can be undone"):
        await undo_plan(made, [0], actions, now=NOW, policy_version="p-1")

    made = await plan(runbook(f"{MOVE}\nundo: previous"), CONTEXT, actions)
    with pytest.raises(CannotPlanError, match="as it was before"):
        await undo_plan(made, [0], actions, now=NOW, policy_version="p-1")

    langfuse.prompts["chat-system"] = {6: {"production"}, 7: set(), 8: set()}
    with pytest.raises(CannotPlanError, match="changed it since"):
        await undo_plan(made, [0], actions, now=NOW, policy_version="p-1")
    assert langfuse.of("PATCH") == []


async def _run(steps: tuple[PlannedStep, ...], actions: dict[str, Action]) -> None:
    for step in steps:
        action = actions[step.action]
        await action.act(action.params.model_validate(step.params), step.before, token="t")


async def test_only_what_cannot_be_planned_is_for_a_person(actions: dict[str, Action]) -> None:
    """In its place, verified the same way and without an undo; a step that can be planned stays the machine's."""
    book = runbook(
        f"{MOVE}\nundo: previous\notherwise: Move the label by hand.",
        f"{SWITCH}\nundo: previous\nverify: [tool_calls]\nsettle: 3m\notherwise: Switch off what {{service}} calls.",
    )
    made = await plan(await by_hand_otherwise(book, CONTEXT, actions), CONTEXT, actions)

    moved, switched = made.steps
    assert (moved.action, moved.params["version"], moved.undo is not None) == ("langfuse.move_label", 7, True)
    assert (switched.action, switched.undo, switched.tier) == ("manual", None, Tier.R0)
    assert switched.effect == "A person does this by hand: Switch off what chat calls."
    assert (switched.verify, switched.settle_s) == (("tool_calls",), 180.0)
