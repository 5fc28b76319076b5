"""What lint finds in a runbook that reads well, and what it leaves alone."""

from __future__ import annotations

import pytest

from runbooks.engine.actions import build_actions
from runbooks.engine.lint import Vocabulary, lint
from runbooks.engine.parse import parse

VOCABULARY = Vocabulary(checks={"queue", "prefix_cache"}, causes={"S01"}, actions=build_actions())
GOOD = """---
format: 1
title: Queue is long
alerts: [LLMQueueBacklog]
causes: [S01]
owner: platform
---

## Fix

### Add replicas
By hand: `kubectl scale`, with "Authorization: Bearer $TOKEN" and password: <yours>.

```yaml step
action: kubernetes.scale
with: {deployment: "{deployment}", replicas: "{replicas_now + 2}"}
verify: queue
undo: previous
```
"""


def test_a_good_runbook_is_clean() -> None:
    """Names of variables and `<placeholders>` are no secrets, and the service's own namespace need not be named."""
    assert lint(parse(GOOD, "t"), VOCABULARY) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("alerts: [LLMQueueBacklog]\ncauses: [S01]\n", "", 1, "neither an alert nor a cause"),
        ("causes: [S01]", "causes: [S99]", 5, "`S99` is not in the catalogue"),
        ("alerts: [LLMQueueBacklog]", 'alerts: ["<!channel>"]', 4, "cannot be an alert's name"),
        ("owner: platform\n", "", 1, "nobody owns it"),
        ("verify: queue", "when: {check: quue, is: bad}\nverify: queue", 17, "the check `quue` does not exist"),
        ("verify: queue", "verify: quue", 17, "the check `quue` does not exist"),
        ("verify: queue\n", "", 14, "nothing verifies `kubernetes.scale`"),
        ("verify: queue", "otherwise: Add {replica}.\nverify: queue", 17, "`{replica}` is not a known placeholder"),
        ("verify: queue", "otherwise: Not {replicas_now}.\nverify: queue", 17, "`otherwise` is for where the state"),
        ("verify: queue", f"otherwise: {'x' * 1001}\nverify: queue", 17, "`otherwise` is too long for a card"),
        ("action: kubernetes.scale", "otherwise: Do it.\naction: manual", 15, "a person does this step anyway"),
        ("kubernetes.scale", "kubernetes.delete", 15, "the action `kubernetes.delete` does not exist"),
        ("replicas: ", "replica: ", 16, "`replicas`: Field required"),
        ("replicas: ", "replica: ", 16, "`replica`: Extra inputs are not permitted"),
        ('"{replicas_now + 2}"', "99", 16, "`replicas`: Input should be less than or equal to 64"),
        ('"{replicas_now + 2}"', '"{replicas_now * 2}"', 16, "`{replicas_now * 2}` is not"),
        ('"{replicas_now + 2}"', '"{replicas}"', 16, "`{replicas}` is not a known placeholder"),
        ('"{deployment}"', '"{suspect.password}"', 16, "`{suspect.password}` is not a known placeholder"),
        ('"{deployment}"', '"{scope.fleet}"', 16, "`{scope.fleet}` is not a known placeholder"),
        ('"{deployment}"', "Chat_VLLM", 16, "`deployment`: not the name of a Kubernetes object"),
        ('"{deployment}"', '"{params.which}"', 16, "declares no parameter `which`"),
        ("verify: queue", 'verify: {query: {metric: up, where: {a: "{no}"}}, below: 1}', 17, "`{no}` is not a known"),
        ("verify: queue", "verify: {query: {metric: up}, below: 1, above: 1}", 17, "no number is above 1 and below 1"),
        ("verify: queue", "verify: queue\ncheck: quue", 18, "the check `quue` does not exist"),
        ("verify: queue", 'verify: queue\ncheck: {query: {metric: up, where: {a: "{b}"}}, above: 1}', 18, "`{b}` is"),
        ("verify: queue", "verify: queue\ncheck: {query: {metric: up}, below: 1, above: 1}", 18, "no number is above"),
        ("owner:", "params: {n: {type: integer, minimum: 3, maximum: 2}}\nowner:", 6, "no value fits `n`"),
        ("owner:", "params: {n: {type: integer, maximum: 2, default: 3}}\nowner:", 6, "default of `n` must be at most"),
        ("owner:", 'params: {n: {type: text, pattern: "("}}\nowner:', 6, "is not a regular expression of RE2"),
        ("password: <yours>", "password: hunter2hunter2", 12, "looks like a secret"),
        ("Bearer $TOKEN", "Bearer abcdefghijklmnopqrstuvwxyz", 12, "looks like a secret"),
        ("<yours>.", "x. Use sk-lf-0123456789abcdef0123.", 12, "looks like a secret"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(old: str, new: str, line: int, message: str) -> None:
    """Each with the line of the step, or of the front matter."""
    assert old in GOOD
    found = lint(parse(GOOD.replace(old, new, 1), "t"), VOCABULARY)
    assert [problem.line for problem in found if message in problem.message] == [line], found
    assert all(problem.remedy for problem in found)


def test_a_misspelt_name_is_told_what_was_meant() -> None:
    """One near name is worth more than a list of sixty; where none is near, all are told."""
    near, far = (lint(parse(GOOD.replace("verify: queue", f"verify: {name}"), "t"), VOCABULARY)[0].remedy
                 for name in ("quue", "zzz"))  # fmt: skip
    assert (near, far) == ("did you mean `queue`?", "use one of prefix_cache, queue")


def test_a_step_without_text_is_no_runbook() -> None:
    """Watchkeeper may be down: each step must be possible by hand."""
    prose = GOOD[GOOD.index("By hand") : GOOD.index("```yaml")]
    assert "has no text" in lint(parse(GOOD.replace(prose, ""), "t"), VOCABULARY)[0].message


def test_a_manual_step_promises_no_undo() -> None:
    """Nothing can take back what a person did."""
    block = GOOD[GOOD.index("action:") : GOOD.index("verify")]
    manual = GOOD.replace(block, "action: manual\nwith: {instruction: Do it}\n")
    assert "cannot be undone" in lint(parse(manual, "t"), VOCABULARY)[0].message
    assert lint(parse(manual.replace("undo: previous\n", ""), "t"), VOCABULARY) == []
