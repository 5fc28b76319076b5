"""`NAME.test.yaml`: what does not hold is found with its line, and nothing outside the file is asked."""

from __future__ import annotations

from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

import runbooks
from diagnostics.causes import knowledge
from diagnostics.checks import CHECKS
from runbooks.engine.actions import build_actions
from runbooks.engine.fixtures import SUFFIX, failures, fixture_schema, load_fixture
from runbooks.engine.library import load_file
from runbooks.engine.lint import Vocabulary
from runbooks.engine.problems import Problem, RunbookError

FOLDER = Path(runbooks.__file__).parent
FIXTURES = sorted(FOLDER.glob(f"*{SUFFIX}"))
VOCABULARY = Vocabulary(checks=CHECKS, causes=knowledge.load().causes, actions=build_actions())
RUNBOOK = """---
format: 1
title: Queue is long
alerts: [LLMQueueBacklog]
causes: [S01]
owner: platform
params: {more: {type: integer, maximum: 4}}
---

## Remediation

### Add replicas
By hand.

```yaml step
action: kubernetes.scale
with: {deployment: "{deployment}", replicas: "{params.more}"}
when: {check: queue, is: bad}
verify: [queue]
undo: previous
```

### Tell somebody
By hand.

```yaml step
action: manual
with: {instruction: Tell the owner.}
```
"""
CASE = """format: 1
cases:
- name: as it is
  given:
    cause: S01
    answers: {queue: bad}
    scope: {node: [gpu-1]}
    params: {more: 4}
    states:
      kubernetes/deployment/lab/chat/chat-vllm: {replicas: 2, autoscaler: ""}
  expect:
    tier: R1
    steps:
    - action: kubernetes.scale
      with: {replicas: 4}
      undo: {replicas: 2}
      effect: from 2 to 4
      tier: R1
      verify: [queue]
    - action: manual
      undo: none
"""


async def found(tmp_path: Path, text: str) -> list[Problem]:
    (tmp_path / "t.md").write_text(RUNBOOK, encoding="utf-8")
    (tmp_path / f"t{SUFFIX}").write_text(text, encoding="utf-8")
    return await failures(load_file(tmp_path / "t.md"), load_fixture(tmp_path / f"t{SUFFIX}"), VOCABULARY)


async def test_what_holds_is_silent(tmp_path: Path) -> None:
    """The case as it is, and another one in which a `when` leaves a step out."""
    assert await found(tmp_path, CASE) == []
    left_out = CASE.replace("queue: bad}\n", "queue: ok}\n").replace("tier: R1\n    steps", "tier: R0\n    steps")
    first, second = left_out.index("    - action: kubernetes.scale"), left_out.index("    - action: manual")
    assert await found(tmp_path, f"{left_out[:first]}{left_out[second:]}    skipped: [Add replicas]\n") == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("replicas: 4}\n      undo", "replicas: 5}\n      undo", 15, "step 1: replicas is 4, not 5"),
        ("undo: {replicas: 2}", "undo: {replicas: 3}", 16, "undo: replicas is 2, not 3"),
        ("undo: {replicas: 2}", "undo: none", 16, "it can be undone"),
        ("undo: none", "undo: {x: 1}", 21, "it cannot be undone"),
        ("effect: from 2", "effect: from 3", 17, "its effect is: In the cluster lab"),
        ("      tier: R1\n", "      tier: R2\n", 18, "the tier is R1, not R2"),
        ("verify: [queue]", "verify: [replicas]", 19, "verified by queue, not replicas"),
        ("action: manual", "action: wait", 20, "the action is manual, not wait"),
        ("    tier: R1\n    steps", "    tier: R0\n    steps", 12, "the tier is R1, not R0"),
        ("    - action: manual\n      undo: none\n", "", 13, "2 steps are planned"),
        ("queue: bad", "queue: ok", 11, "left out were Add replicas, and nothing was expected"),
        ("params: {more: 4}", "params: {more: 5}", 13, "no plan can be made: t: the parameter more must be at most 4"),
        ('autoscaler: ""', "autoscaler: hpa", 13, "the autoscaler hpa sets the replicas"),
        ('replicas: 2, autoscaler: ""', 'autoscaler: ""', 9, "does not fit its action: KeyError 'replicas'"),
        ("chat/chat-vllm:", "chat/other:", 13, "no recorded state of kubernetes/deployment/lab/chat/chat-vllm"),
        ("cause: S01", "cause: S02", 5, "t is not for the cause S02"),
        ("queue: bad", "queue: bad, quue: ok", 6, "the check `quue` does not exist"),
        ("node: [gpu-1]", "nod: [gpu-1]", 7, "a diagnosis has no scope `nod`"),
    ],
)  # fmt: skip
async def test_what_does_not_hold_is_found_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    """One thing changed, and the failure names it where it stands, with a remedy."""
    assert old in CASE
    problems = [each for each in await found(tmp_path, CASE.replace(old, new, 1)) if message in each.message]
    assert [each.line for each in problems] == [line]
    assert all(each.remedy and each.path == f"t{SUFFIX}" for each in problems)


async def test_a_refusal_is_expected_in_its_words(tmp_path: Path) -> None:
    """The reason counts: a refusal for something else is a failure, and so is a plan that was made."""
    expect = CASE.index("    tier: R1")
    refused = CASE[:expect] + "    refused: sets the replicas\n"
    assert "a plan of 2 steps was made" in (await found(tmp_path, refused))[0].message
    assert await found(tmp_path, refused.replace('autoscaler: ""', "autoscaler: hpa")) == []
    assert (
        "chat-vllm has 4 replicas already"
        in (await found(tmp_path, refused.replace("replicas: 2", "replicas: 4")))[0].message
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (CASE, "", 1, "the file is empty"),
        ("format: 1", "format: 2", 1, "format"),
        ("      undo: none", "      undo: [", 22, "not YAML"),
        ("      undo: none", "      undone: none", 21, "Extra inputs are not permitted"),
        ("    scope: {node: [gpu-1]}", "    scope: {node: gpu-1}", 7, "should be a valid tuple"),
        ("    steps:", "    refused: x\n    steps:", 11, "either `steps` or `refused`"),
        ("queue: bad", "queue: &a bad", 6, "anchors and aliases"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    """With the line and a remedy, and never with a traceback."""
    file = tmp_path / f"t{SUFFIX}"
    file.write_text(CASE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RunbookError) as error:
        load_fixture(file)
    assert (error.value.line, message in error.value.message, bool(error.value.remedy)) == (line, True, True)


@pytest.mark.parametrize("file", FIXTURES, ids=lambda file: file.name)
async def test_ours_hold_and_fit_the_schema(file: Path) -> None:
    """What ships is tested with what an author would test it with, and an editor that has the schema marks nothing."""
    fixture = load_fixture(file)
    assert await failures(load_file(FOLDER / file.name.replace(SUFFIX, ".md")), fixture, VOCABULARY) == []
    jsonschema.validate(fixture.document.value, fixture_schema())


def test_ours_cover_every_family() -> None:
    """Twelve and more, from each letter of the catalogue, and every action that ours use."""
    books = [load_file(FOLDER / file.name.replace(SUFFIX, ".md")) for file in FIXTURES]
    assert len(books) >= 12
    assert {cause[0] for book in books for cause in book.causes} >= set("GSIQX")
    used = {step.action for file in FOLDER.glob("*.md") if file.name != "README.md" for step in load_file(file).steps}
    assert used - {step.action for book in books for step in book.steps} == set()
