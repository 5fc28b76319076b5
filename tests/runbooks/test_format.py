"""What an author can declare beyond names and texts, and that each of it does something when a plan is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from runbooks.engine.actions import CommandAccess, build_actions
from runbooks.engine.context import PlanContext
from runbooks.engine.declared import CheckAnswers, IntegerParameter, MetricQuery, Range, TextParameter, signs
from runbooks.engine.parse import parse
from runbooks.engine.plan import plan
from runbooks.engine.problems import RunbookError
from runbooks.engine.values import CannotPlanError, Runbook, canonical, plan_from_json, plan_json
from tests.kit import plan as stored_plan
from tests.runbooks.test_plan import CONTEXT

FRONT = """id: t
labels: {team: chat, gpu: [h100, h200]}
reviewed: 2026-11-01
review_by: 2027-05-01
params:
  tenant: {type: text, pattern: "[a-z]+", default: acme, description: whose queue}
  days: {type: integer, minimum: 1, maximum: 9}
"""
STEP = """action: command.run
with: {command: purge, arguments: {tenant: "{params.tenant}", days: "{params.days}"}}
when: {check: queue, is: bad}
verify:
- queue
- query: {metric: "vllm:num_requests_waiting", function: max_over_time, window: 2m,
           by: [pod], where: {pod: "{scope.pod}"}}
  below: 8
irreversible: requests that were dropped are gone
timeout: 20s
"""
ACTIONS = build_actions(
    commands={
        "purge": CommandAccess(
            argv=("/usr/local/bin/purge", "--tenant", "{tenant}", "{days}"),
            arguments={"tenant": "[a-z]+", "days": "[0-9]"},
        )
    }
)
BAD_QUEUE = replace(CONTEXT, answers={"queue": "bad"}, params={"days": 3}, scope={"pod": ("chat-1",)})


def runbook(*blocks: str, front: str = FRONT) -> Runbook:
    steps = "".join(f"### Step {i}\nBy hand.\n\n```yaml step\n{block}```\n\n" for i, block in enumerate(blocks, 1))
    return parse(f"---\nformat: 1\ntitle: T\n{front}---\n\n## Fix\n\n{steps}", "t")


def test_everything_is_read() -> None:
    """Front matter and step, as values."""
    read = runbook(STEP)
    [step] = read.steps

    assert read.labels == {"team": ("chat",), "gpu": ("h100", "h200")}
    assert (read.reviewed, read.review_by) == (date(2026, 11, 1), date(2027, 5, 1))
    assert read.params == {
        "tenant": TextParameter(type="text", pattern="[a-z]+", default="acme", description="whose queue"),
        "days": IntegerParameter(type="integer", minimum=1, maximum=9),
    }
    assert step.when == CheckAnswers.model_validate({"check": "queue", "is": "bad"})
    assert step.verify == ("queue",)
    assert step.verify_ranges == (
        Range(
            query=MetricQuery(
                metric="vllm:num_requests_waiting",
                function="max_over_time",
                window="2m",
                by=("pod",),
                where={"pod": "{scope.pod}"},
            ),
            below=8,
        ),
    )
    assert (step.irreversible, step.timeout_s) == ("requests that were dropped are gone", 20.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("id: t", "id: u", "the id is not the file's name, t"),
        ("labels: {team: chat,", "labels: {team: 1,", "`labels` does not map names to texts"),
        ("reviewed: 2026-11-01", "reviewed: 2026-02-30", "`reviewed` is not a date"),
        ("review_by: 2027-05-01", "review_by: May", "`review_by` is not a date"),
        ("type: integer", "type: whole", "`params.days`: Input tag 'whole'"),
        ("tenant: {type: text", "tenant: {secret: true, type: text", "`params.tenant.text.secret`: Extra inputs"),
        ("days: {type", "Days: {type", "`Days` cannot be a parameter's name"),
        ("minimum: 1", "minimum: true", "`params.days.integer.minimum`: must be a whole number"),
        ("is: bad", "is: broken", "`when.is`: Input should be 'ok', 'bad' or 'unknown'"),
        ("{check: queue, is: bad}", "{scope: fleet}", "`when.scope`: Input should be 'account'"),
        ("{check: queue, is: bad}", "{check: queue, answer: bad}", "`when.is`: Field required"),
        ("{check: queue, is: bad}", "queue", "`when`: Input should be a valid dictionary"),
        ("  below: 8\n", "", "`verify`: say `below: NUMBER` or `above: NUMBER`"),
        ("window: 2m,", "", "`verify.query`: every function needs a `window`"),
        ("window: 2m", "window: 2d", "`verify.query.window`: String should match"),
        ("function: max_over_time", "function: quantile", "needs a `quantile` such as 0.95"),
        ("below: 8", "below: few", "`verify.below`: Input should be a valid number"),
        ("irreversible:", "check: {query: {metric: up}}\nirreversible:", "`check`: say `below: NUMBER` or `above:"),
        ("irreversible:", "check: {check: queue, is: unknown}\nirreversible:", "`check.is`: Input should be 'ok' or"),
        ("irreversible:", "check: [queue]\nirreversible:", "`check`: Input should be a valid dictionary"),
        ("irreversible:", "undo: previous\nirreversible:", "both `undo` and `irreversible`"),
        ("irreversible:", "undo: none\nirreversible:", "both `undo` and `irreversible`"),
        ("requests that were dropped are gone", "because so", "`irreversible` gives no reason"),
        ("requests that were dropped are gone", "true", "`irreversible` gives no reason"),
        ("timeout: 20s", "otherwise: [roll back]", "`otherwise` asks for nothing"),
        ("timeout: 20s", "timeout: 20", "timeout cannot be 20"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(old: str, new: str, message: str) -> None:
    """Each with a remedy."""
    assert old in FRONT + STEP
    with pytest.raises(RunbookError) as caught:
        runbook(STEP.replace(old, new), front=FRONT.replace(old, new))

    assert message in caught.value.message
    assert caught.value.remedy


async def test_all_of_it_is_in_the_plan() -> None:
    """Parameters and labels are literals, the reason stands beside the effect, and the digest covers all of it."""
    made = await plan(runbook(STEP), BAD_QUEUE, ACTIONS)
    [step] = made.steps

    assert step.effect == (
        "Cannot be undone (requests that were dropped are gone). "
        "Runs this on Watchkeeper's machine: /usr/local/bin/purge --tenant acme 3"
    )
    assert step.verify_ranges[0].query.where == {"pod": "chat-1"}
    assert (step.is_verified, step.timeout_s) == (True, 20.0)
    assert plan_from_json(plan_json(made)) == made
    assert replace(made, steps=(replace(step, verify_ranges=()),)).digest != made.digest
    assert replace(made, steps=(replace(step, timeout_s=30.0),)).digest != made.digest


@pytest.mark.parametrize(
    ("check", "sign"),
    [
        ("queue", "queue is ok"),
        ("{check: queue, is: bad}", "queue is bad"),
        ('{query: {metric: up, where: {pod: "{scope.pod}"}}, above: 0}', "up is above 0"),
    ],
)
async def test_what_shows_that_a_step_has_happened_is_in_the_plan(check: str, sign: str) -> None:
    """Frozen with literal labels, under the digest, and read back as it was."""
    made = await plan(runbook(f"{STEP}check: {check}\n"), BAD_QUEUE, ACTIONS)
    [step] = made.steps

    assert signs(step.check) == sign
    assert not isinstance(step.check, Range) or step.check.query.where == {"pod": "chat-1"}
    assert plan_from_json(json.loads(json.dumps(plan_json(made)))) == made
    assert replace(made, steps=(replace(step, check=None),)).digest != made.digest


def test_plans_that_are_stored_keep_their_digest() -> None:
    """A plan without the younger fields has the digest that it was approved by, whose JSON does not name them."""
    made = stored_plan("p-1")

    assert not {"verify_ranges", "timeout_s", "undone_by", "check"} & set(plan_json(made)["steps"][0])
    assert made.digest == hashlib.sha256(canonical(plan_json(made))).hexdigest()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "the parameter days needs a value"),
        ({"days": 10}, "the parameter days must be at most 9"),
        ({"days": 0}, "the parameter days must be at least 1"),
        ({"days": "3"}, "the parameter days must be a whole number"),
        ({"days": True}, "the parameter days must be a whole number"),
        ({"days": 3, "tenant": "Acme; rm"}, r"the parameter tenant must match \[a-z\]\+"),
        ({"days": 3, "tenant": "acme\n"}, "the parameter tenant must be one line"),
        ({"days": 3, "tenant": "{service}"}, r"the parameter tenant must match \[a-z\]\+"),
        ({"days": 3, "hours": 1}, "the runbook has no parameter hours"),
    ],
)
async def test_a_parameter_takes_only_what_is_declared(given: Mapping[str, Any], words: str) -> None:
    """A value that is missing, of another kind or out of range makes no plan."""
    with pytest.raises(CannotPlanError, match=words):
        await plan(runbook(STEP), replace(BAD_QUEUE, params=given), ACTIONS)


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        ("{type: number, minimum: 0.5}", 0.75, 0.25),
        ("{type: number}", 3, "3"),
        ("{type: boolean}", True, 1),
        ("{type: enum, enum: [low, high]}", "low", "middle"),
        ("{type: text}", "any text", 7),
    ],
)
async def test_every_type_of_parameter(declared: str, good: Any, bad: Any) -> None:
    """Each takes its own values and no others."""
    book = runbook(
        'action: manual\nwith: {instruction: "set {params.level}"}\n', front=f"params:\n  level: {declared}\n"
    )
    made = await plan(book, replace(CONTEXT, params={"level": good}), ACTIONS)

    assert made.steps[0].params["instruction"] == f"set {good}"
    with pytest.raises(CannotPlanError, match="the parameter level must be"):
        await plan(book, replace(CONTEXT, params={"level": bad}), ACTIONS)


def asks(instruction: str, when: str) -> str:
    return f"action: manual\nwith: {{instruction: {instruction}}}\nwhen: {when}\n"


CHOICE = runbook(asks("wait", "{check: queue, is: bad}"), asks("cordon", "{scope: node}"), front="")


@pytest.mark.parametrize(
    ("context", "done"),
    [
        (replace(CONTEXT, answers={"queue": "bad"}), ["wait"]),
        (replace(CONTEXT, answers={"queue": "ok"}, scope={"node": ("gpu-2",)}), ["cordon"]),
        (replace(CONTEXT, answers={"queue": "bad"}, scope={"node": ("gpu-2",)}), ["wait", "cordon"]),
    ],
)
async def test_a_plan_holds_only_the_steps_that_apply(context: PlanContext, done: list[str]) -> None:
    """By the diagnosis, in the runbook's order."""
    made = await plan(CHOICE, context, ACTIONS)

    assert [step.params["instruction"] for step in made.steps] == done
    assert [step.index for step in made.steps] == list(range(len(done)))


@pytest.mark.parametrize(
    "context",
    [
        replace(CONTEXT, answers={"kv_cache": "ok"}, scope={"pod": ("chat-1",)}),
        replace(CONTEXT, scope={"node": ("gpu-2", "gpu-3")}),
    ],
)
async def test_without_a_step_that_applies_there_is_no_plan(context: PlanContext) -> None:
    """Trouble on two nodes is not confined to one."""
    with pytest.raises(CannotPlanError, match="none of its steps applies"):
        await plan(CHOICE, context, ACTIONS)


async def test_what_nobody_asked_is_unknown() -> None:
    """A step for the case that a check cannot answer applies when the check did not run."""
    made = await plan(runbook(asks("look", "{check: queue, is: unknown}"), front=""), CONTEXT, ACTIONS)

    assert len(made.steps) == 1


@pytest.mark.parametrize("name", ["~.*", "!chat-1"])
async def test_a_name_from_the_telemetry_is_no_matcher(name: str) -> None:
    """A pod that calls itself `~.*` must not widen what is verified."""
    with pytest.raises(CannotPlanError, match="would be read as a matcher"):
        await plan(runbook(STEP), replace(BAD_QUEUE, scope={"pod": (name,)}), ACTIONS)
