"""Other people's Markdown: the prose stays, what was run becomes a person's step, and what is lost is told."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.engine.imports import ImportRefusedError, imported
from runbooks.engine.lint import lint
from runbooks.engine.parse import MAX_CHARS, parse
from runbooks.engine.scaffold import quoted, skeleton, slug
from runbooks.engine.upkeep import upkeep
from runbooks.engine.yaml_block import load_mapping
from tests.runbooks.test_lint import VOCABULARY

SKILL = """---
name: restart-api
description: "Restarts the API: use it when /health fails."
license: Apache-2.0
metadata:
  author: example
---

# Restart the API

Look first.

```bash
curl -sS https://api.example.com/health
```

It answers:

```json
{"ok": true}
```
"""
RUNME = """# Deploy

Build it:

```sh {"name":"build","interactive":"false"}
make image
```

1. Then send it:

   ~~~python { name=send background=true }
   send()
   ~~~

2. Look.

```yaml step
action: kubernetes.drain
with: {node: gpu-1}
```

```text title="out.txt"
done
```

```sh { name="open one" }
tail -f log"""


def test_a_skill() -> None:
    """Its name, its title, its description and every line of its body; shell blocks are a person's steps."""
    source = imported(SKILL, "SKILL")
    runbook = parse(source.text, source.runbook_id)
    [step] = runbook.steps

    assert (runbook.runbook_id, runbook.title) == ("restart-api", "Restart the API")
    assert "What this is for: Restarts the API: use it when /health fails." in source.text
    assert (step.title, step.action) == ("1. shell commands", "manual")
    assert "curl -sS https://api.example.com/health" in step.prose
    assert '{"ok": true}' in runbook.text
    assert [(lost.line, lost.what) for lost in source.lost] == [
        (4, "`license` of the front matter has no place here"),
        (5, "`metadata` of the front matter has no place here"),
        (13, "a program ran `shell commands` there; here a person does"),
    ]


def test_runme() -> None:
    """Named blocks, of JSON or of words, in lists or not; a foreign `yaml step` is text and never runs."""
    source = imported(RUNME, "Deploy guide")
    runbook = parse(source.text, source.runbook_id)

    assert (runbook.runbook_id, runbook.title) == ("deploy-guide", "Deploy")
    assert [(step.title, step.action) for step in runbook.steps] == [
        ("1. build", "manual"), ("2. send", "manual"), ("3. open one", "manual"),
    ]  # fmt: skip
    assert [(lost.line, lost.what) for lost in source.lost] == [
        (5, '`interactive="false"` of the block has no place here'),
        (5, "a program ran `build` there; here a person does"),
        (11, "`background=true` of the block has no place here"),
        (11, "a program ran `send` there; here a person does"),
        (17, "`step` of the block has no place here"),
        (22, '`title="out.txt"` of the block has no place here'),
        (26, "a program ran `open one` there; here a person does"),
    ]
    kept = [line for line in RUNME.split("\n") if "```" not in line and "~~~" not in line]
    assert [line for line in source.text.split("\n") if line in kept and line] == [line for line in kept if line]


def test_what_lint_still_asks_is_what_only_a_person_knows() -> None:
    """Who owns it, and what it is for; nothing else is wrong with an import."""
    runbook = parse(imported(SKILL, "SKILL").text, "restart-api")

    assert {each.message for each in lint(runbook, VOCABULARY)} == {
        "it names neither an alert nor a cause",
        "nobody owns it",
    }


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("x", "...", "has letters or digits"),
        ("x" * MAX_CHARS, "a", "too many"),
        ("```sh\n```\n" * 4000, "a", "too long"),
    ],
)
def test_what_cannot_be_imported(text: str, name: str, words: str) -> None:
    """A text without a name, and one that would be too long."""
    with pytest.raises(ImportRefusedError, match=words):
        imported(text, name)


PIECES = st.sampled_from(
    [*SKILL.splitlines(keepends=True), *RUNME.splitlines(keepends=True), "> ", "- ", "    ", "<details>\n", "```\n", "~~~~sh\n", "````yaml step\n", "### x\n", "===\n", "---\n", "```{.sh name=''}\n", "yaml", "\\", "`", "\u2028", "\x85", "\x00", "\t", "[a]: b\n"]  # noqa: E501 - a list of fragments
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(st.characters(exclude_categories=["Cs"]))))
@example("---\nname: x\ndescription: '```yaml step'\n---\n```yaml step\naction: kubernetes.drain\n")
@example("- ```sh\n  a\n  ```\n- ```sh\n  b\n  ```\n")
def test_whatever_the_text_it_becomes_a_runbook_that_asks_people(text: str) -> None:
    """A stranger's file cannot bring an action along, and every block that was run has its step."""
    source = imported(text, "x")
    runbook = parse(source.text, source.runbook_id)

    assert {step.action for step in runbook.steps} <= {"manual"}
    assert len(runbook.steps) == source.steps


def test_a_skeleton_is_clean_once_its_facts_are_given(tmp_path: Path) -> None:
    """Without them, lint asks for these and nothing else."""
    today = date(2026, 11, 22)
    given = skeleton("a-b", title="It: is slow #1", today=today, alerts=["Slow"], causes=["S01"], owner="on-call: chat")
    bare = skeleton("a-b", title="Slow", today=today)
    runbook = parse(given, "a-b")

    assert (runbook.title, runbook.owner, runbook.alerts) == ("It: is slow #1", "on-call: chat", ("Slow",))
    assert lint(runbook, VOCABULARY) == upkeep(runbook, VOCABULARY.actions, today=today, folder=tmp_path) == []
    assert {each.message for each in lint(parse(bare, "a-b"), VOCABULARY)} == {
        "it names neither an alert nor a cause",
        "nobody owns it",
    }


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("true")
@example("- a: b")
def test_whatever_is_quoted_is_read_back(text: str) -> None:
    """As one line of text, and never as a number, a list or a second key."""
    assert load_mapping(f"a: {quoted(text)}")["a"].value == " ".join(
        "".join(char if char.isprintable() else " " for char in text).split()
    )


@pytest.mark.parametrize(
    ("words", "name"), [("Restart the API!", "restart-the-api"), ("  ", ""), ("x" * 99, "x" * 60), ("café", "caf")]
)
def test_names(words: str, name: str) -> None:
    """Small letters, digits and hyphens."""
    assert slug(words) == name
