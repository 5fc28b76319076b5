"""The runbook format: what is read, and how each mistake is named with its line and a remedy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.engine.library import load_folder
from runbooks.engine.parse import MAX_CHARS, parse
from runbooks.engine.problems import RunbookError

GOOD = """---
format: 1
title: Queue is long
alerts: [LLMQueueBacklog]
causes: [S01]
services: chat
owner: platform
---

What this is about.

## What you see

Requests wait.

### Add replicas
Costs money, breaks nothing.

```sh
# by hand
kubectl scale deployment chat-vllm --replicas 6
```

```yaml step
action: kubernetes.scale
with: {deployment: "{service}-vllm", replicas: "{replicas_now + 2}"}   # resolved when the plan is made
verify: queue
undo: previous
settle: 4m
```
Afterwards wait.
"""


def problems_of(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(RunbookError) as caught:
        parse(text, "t")
    assert all(problem.path == "t.md" and problem.remedy for problem in caught.value.problems)
    return [(problem.line, problem.message, problem.remedy) for problem in caught.value.problems]


def test_everything_is_read() -> None:
    """Front matter, sections in order, and the step with its prose; the block itself is no prose."""
    runbook = parse(GOOD, "queue")

    assert (runbook.runbook_id, runbook.title, runbook.owner) == ("queue", "Queue is long", "platform")
    assert (runbook.alerts, runbook.causes, runbook.services) == (("LLMQueueBacklog",), ("S01",), ("chat",))
    assert runbook.revision == hashlib.sha256(GOOD.encode()).hexdigest()
    assert [heading for heading, _ in runbook.sections] == ["", "What you see", "Add replicas"]
    [step] = runbook.steps
    assert (step.title, step.action, step.verify, step.undo) == (
        "Add replicas",
        "kubernetes.scale",
        ("queue",),
        "previous",
    )
    assert step.params == {"deployment": "{service}-vllm", "replicas": "{replicas_now + 2}"}
    assert (step.settle_s, step.line) == (240.0, 24)
    assert step.prose.startswith("Costs money")
    assert step.prose.endswith("Afterwards wait.")
    assert "kubectl scale" in step.prose
    assert "action:" not in step.prose


def test_windows_line_ends_do_not_matter() -> None:
    """A file edited on Windows has the same steps at the same lines; only its revision differs."""
    unix, windows = parse(GOOD, "t"), parse(GOOD.replace("\n", "\r\n"), "t")
    assert unix.steps == windows.steps
    assert unix.sections == windows.sections


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ("---\nformat", "format", 1, "no front matter", "format: 1"),
        ("format: 1\n", "", 1, "`format` is missing", "format: 1"),
        ("format: 1", "format: 2", 2, "format 2 is not known", "format: 1"),
        ("format: 1", "format: true", 2, "format True is not known", "format: 1"),
        ("title: Queue is long\n", "", 1, "`title` is missing", "title:"),
        ("title: Queue is long", "title: [a]", 3, "not a text", "title:"),
        ("owner: platform", "onwer: platform", 7, "`onwer` is not known here", "owner"),
        ("alerts: [LLMQueueBacklog]", "alerts: [1, 2]", 4, "not a list of names", "alerts: [First"),
        ("alerts: [LLMQueueBacklog]", "alerts: [A, A]", 4, "twice", "one of them"),
        ("causes: [S01]", "title: again", 5, "`title` stands twice", "one of them"),
        ("causes: [S01]", "causes: [S01", 6, "not YAML", "quote"),
        ("causes: [S01]", "causes: &a [S01]", 5, "anchors and aliases", "write the value out"),
        ("causes: [S01]", "causes: !!python/name:os.system x", 5, "tag", "plain value"),
        ("causes: [S01]", "causes: \x07", 2, "control character", "remove"),
        ("action: kubernetes.scale\n", "", 24, "names no action", "action: manual"),
        ("verify: queue", "verfiy: queue", 27, "`verfiy` is not known here", "verify"),
        ("undo: previous", "undo: maybe", 28, "undo cannot be 'maybe'", "undo: none"),
        ("settle: 4m", "settle: 4", 29, "settle cannot be 4", "90s"),
        ("settle: 4m", "settle: 2h", 29, "settle cannot be '2h'", "at most"),
        ('"{service}-vllm"', "{service}", 26, "`deployment` is not plain", 'deployment: "{service}"'),
        ('{deployment: "{service}-vllm", replicas: "{replicas_now + 2}"}', "[a]", 26, "not a mapping", "with: {name"),
        ("```yaml step", "```yaml steps", 24, "marked `yaml steps`", "yaml step"),
        ("### Add replicas", "## Add replicas", 24, "without a `### heading`", "###"),
        ("Afterwards wait.", "```yaml step\naction: manual\n```", 31, "a second step under `Add replicas`", "heading"),
        ("```\nAfterwards wait.\n", "", 24, "does not end", "three backticks"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_line_and_a_remedy(old: str, new: str, line: int, message: str, remedy: str) -> None:
    """The line is the file's own, counted from 1, in the front matter and in the steps alike."""
    assert old in GOOD
    found = problems_of(GOOD.replace(old, new, 1))
    assert any(at == line and message in said and remedy in told for at, said, told in found), found


def test_all_mistakes_come_at_once() -> None:
    """An author needs one round: front matter and steps are all looked at."""
    broken = (
        GOOD.replace("format: 1", "format: 9").replace("undo: previous", "undo: x").replace("settle: 4m", "settle: x")
    )
    assert [line for line, _, _ in problems_of(broken)] == [2, 28, 29]


def test_a_step_in_a_list_is_refused() -> None:
    """An indented block would be seen by some readers and not by others."""
    listed = GOOD.replace(
        "```yaml step\naction", "- item\n\n  ```yaml step\n  action: manual\n  ```\n\n```yaml step\naction"
    )
    assert any("inside a list" in message for _, message, _ in problems_of(listed))


@pytest.mark.parametrize(
    "text",
    [
        "x" * (MAX_CHARS + 1),
        "---\nformat: 1\ntitle: \ud800\n---\n",
        "---\na: " + "[" * 5000 + "\n---\n",
        "---\na: " + "[" * 5000 + "]" * 5000 + "\n---\n",
        "---\na: " + "{a: " * 50 + "\n---\n",
        "---\n? [a]\n: b\n---\n",
        "---\n- a\n---\n",
        "---\nformat: 1\n--- \nb: 1\n---\n",
        "---\n" + "a" * 20_000 + ": 1\n---\n",
        "",
        "\x00",
    ],
)
def test_hostile_texts_get_an_answer(text: str) -> None:
    """Too long, too deep, half characters: a RunbookError like any other."""
    with pytest.raises(RunbookError):
        parse(text, "t")


PIECES = st.sampled_from(
    [*GOOD.splitlines(keepends=True), "---\n", "```yaml step\n", "```\n", "### \n", "- ", "> ", "&a ", "*a", "!!x ", "{", "}", "[", "]", ": ", "'", '"', "|\n", "%YAML 9\n", "\t", "...\n", "=\n---\n", "2001-99-99", "1e999", "0x1F", ".nan", "\u2028", "\ufeff"]  # noqa: E501 - a list of fragments
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join), st.text().map(lambda t: f"---\nformat: 1\n{t}"))
)
def test_whatever_the_text_only_a_runbook_error_comes(text: str) -> None:
    """The parser reads what strangers commit; it answers or refuses, and never falls over."""
    try:
        runbook = parse(text, "t")
    except RunbookError as refusal:
        problems = refusal.problems
        lines = text.count("\n") + text.count("\r") + 1
    else:
        assert runbook.title
        return
    assert all(1 <= problem.line <= lines for problem in problems)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_whatever_stands_in_a_step_only_a_runbook_error_comes(block: str) -> None:
    """The same for a step's block."""
    text = GOOD.replace("action: kubernetes.scale\n", f"{block}\n")
    remedy = "none needed"
    try:
        parse(text, "t")
    except RunbookError as refusal:
        remedy = refusal.remedy
    assert remedy


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    """The folder gives what can be read and says what cannot; its README is no runbook."""
    (tmp_path / "good.md").write_text(GOOD)
    (tmp_path / "bad.md").write_text(GOOD.replace("format: 1", "format: 7"))
    (tmp_path / "latin.md").write_bytes(b"---\nformat: 1\ntitle: caf\xe9\n---\n")
    (tmp_path / "README.md").write_text("# How to write one")
    (tmp_path / "folder.md").mkdir()
    runbooks, problems = load_folder(tmp_path)

    assert [runbook.runbook_id for runbook in runbooks] == ["good"]
    assert [(problem.path, problem.line) for problem in problems] == [("bad.md", 2), ("folder.md", 1), ("latin.md", 3)]


def test_a_missing_folder_is_a_problem_and_not_an_empty_library(tmp_path: Path) -> None:
    """A mistyped path must not look like a library without runbooks."""
    runbooks, [problem] = load_folder(tmp_path / "nowhere")
    assert runbooks == ()
    assert "no such folder" in str(problem)
