"""What an author has to mend in time: reviews, links, and a text that says something else than the block."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from runbooks.engine.agreement import disagreements
from runbooks.engine.lint import lint
from runbooks.engine.markdown import anchors
from runbooks.engine.parse import parse
from runbooks.engine.upkeep import SECTIONS, upkeep
from tests.runbooks.test_lint import GOOD, VOCABULARY

TODAY = date(2026, 11, 22)
DATED = GOOD.replace("owner: platform", "owner: platform\nreviewed: 2026-11-01\nreview_by: 2027-05-01")

SECTIONED = "".join(f"\n## {name}\n\nAs it is.\n" for name in SECTIONS)


def problems(text: str, folder: Path) -> list[tuple[int, str]]:
    found = upkeep(parse(text + SECTIONED, "t"), VOCABULARY.actions, today=TODAY, folder=folder)
    return [(each.line, each.message) for each in found]


@pytest.mark.parametrize(
    ("reviewed", "review_by", "found"),
    [
        ("2026-11-01", "2026-11-22", []),
        ("2026-11-22", "2026-11-23", []),
        ("2026-05-01", "2026-11-21", [(8, "its review is overdue since 2026-11-21")]),
        ("2026-11-23", "2027-05-01", [(7, "2026-11-23 is yet to come")]),
        ("2026-11-22", "2026-11-22", [(8, "it is due before it was reviewed")]),
    ],
)
def test_reviews(reviewed: str, review_by: str, found: list[tuple[int, str]], tmp_path: Path) -> None:
    """A review is due on its day and overdue on the next one."""
    text = DATED.replace("2026-11-01", reviewed).replace("2027-05-01", review_by)

    assert problems(text, tmp_path) == found


def test_an_overdue_review_takes_no_fix_away() -> None:
    """A process that serves asks `lint`, which knows no calendar."""
    assert lint(parse(DATED.replace("2027", "2001"), "t"), VOCABULARY) == []


@pytest.mark.parametrize("name", SECTIONS)
def test_a_missing_section_is_named(name: str, tmp_path: Path) -> None:
    """A heading of another level, or one in a block of code, does not count."""
    text = GOOD + SECTIONED.replace(f"## {name}\n", f"### {name}\n\n```\n## {name}\n```\n")
    found = upkeep(parse(text, "t"), VOCABULARY.actions, today=TODAY, folder=tmp_path)

    assert [each.message for each in found] == [f"the section `## {name}` is missing"]


@pytest.mark.parametrize(
    ("old", "new", "remedies"),
    [
        ("undo: previous\n", "", ["write `undo: previous`, or `irreversible: WHY`"]),
        ("undo: previous\n", "undo: none\n", ["write `undo: previous`, or `irreversible: WHY`"]),
        ("undo: previous\n", "irreversible: the queue was dropped\n", []),
        ("undo: previous\n", "undo: previous\n", []),
    ],
)
def test_a_change_says_how_it_is_taken_back(old: str, new: str, remedies: list[str], tmp_path: Path) -> None:
    """By an undo, or by a reason why there is none; `undo: none` alone is no reason."""
    text = GOOD.replace(old, new) + SECTIONED
    found = upkeep(parse(text, "t"), VOCABULARY.actions, today=TODAY, folder=tmp_path)

    assert [each.remedy for each in found] == remedies


LINKED = """
See [a](other.md), [b](other.md#how-to-be-sure-1), [c](#add-replicas), [d](https://example.com/x#y), [e](/x.md),
![f](gone.png "title") and [ref][r], `[code](gone.md)`, [g](other.md#nowhere), [h](#nowhere), [i](my%20file.md).

[r]: gone-too.md

    not a reference

```md
[j](gone.md)
```

- ```md
  [k](gone.md)
  ```
"""


def test_dead_links_and_anchors_are_named_with_their_line(tmp_path: Path) -> None:
    """Files that are not there, and headings that nobody wrote; code is no link, and an address is not looked at."""
    (tmp_path / "other.md").write_text("# How to be sure\n```\n# nowhere\n```\n## How to be *sure*\n", encoding="utf-8")
    (tmp_path / "my file.md").touch()

    assert problems(GOOD + LINKED, tmp_path) == [
        (22, "the link #nowhere finds no such heading"),
        (22, "the link gone.png leads nowhere"),
        (22, "the link other.md#nowhere finds no such heading"),
        (24, "the link gone-too.md leads nowhere"),
    ]


def test_anchors_are_githubs() -> None:
    """Small letters, hyphens, no punctuation, a number for the second of the same name; and `<a id>`."""
    text = "# How `it` works, really?\n## See [the docs](x.md)\n## A b\n## A b\n<a id='own'></a>\n"

    assert anchors(text) == {"how-it-works-really", "see-the-docs", "a-b", "a-b-1", "own"}


def said(prose: str, block: str) -> list[tuple[str, str, str]]:
    text = f"---\nformat: 1\ntitle: T\n---\n\n### Do\n\n{prose}\n\n```yaml step\n{block}\n```\n"
    return list(disagreements(parse(text, "t").steps[0]))


SCALE = "action: kubernetes.scale\nwith: {deployment: chat-vllm, namespace: chat, replicas: 4}"
DRAIN = "action: kubernetes.drain\nwith: {node: gpu-2}"


@pytest.mark.parametrize(
    ("prose", "block", "found"),
    [
        ("`kubectl -n chat scale deployment chat-vllm --replicas 4`", SCALE, []),
        ("`kubectl scale deployment/other --replicas=4`", SCALE, [("deployment", "other", "chat-vllm")]),
        ("`kubectl -n prod scale deploy chat-vllm`", SCALE, [("namespace", "prod", "chat")]),
        ("`kubectl scale deployment chat-vllm --replicas=9`", SCALE, [("replicas", "9", "4")]),
        ("```sh\nkubectl --namespace=chat \\\n  scale deployment b\n```", SCALE, [("deployment", "b", "chat-vllm")]),
        ("`kubectl -n NAMESPACE scale deployment NAME --replicas N`", SCALE, []),
        ("`kubectl -n $NS scale deployment <name>`", SCALE, []),
        ("`kubectl get deployment other`, then `kubectl rollout restart deployment other`", SCALE, []),
        ("`kubectl scale statefulset/other`", SCALE, []),
        ("`kubectl scale deployment other`", SCALE.replace("chat-vllm", '"{deployment}"'), []),
        ("Don't: it's kubectl scale deployment other", SCALE, [("deployment", "other", "chat-vllm")]),
        ("`kubectl drain gpu-3 --ignore-daemonsets`", DRAIN, [("node", "gpu-3", "gpu-2")]),
        ("`kubectl drain node/gpu-2 --ignore-daemonsets`", DRAIN, []),
        ("`kubectl drain`", DRAIN, []),
        ("`kubectl cordon gpu-3`", DRAIN, []),
        ("`kubectl rollout undo deployment/b`", "action: kubernetes.rollout_undo\nwith: {deployment: a}",
         [("deployment", "b", "a")]),
        ("`kubectl delete pod b`", "action: kubernetes.delete_pod\nwith: {pod: a}", [("pod", "b", "a")]),
        ("`kubectl delete deployment b`", "action: kubernetes.delete_pod\nwith: {pod: a}", []),
        ("`kubectl delete pod b`", "action: manual\nwith: {instruction: a}", []),
    ],
)  # fmt: skip
def test_text_and_block_do_the_same(prose: str, block: str, found: list[tuple[str, str, str]]) -> None:
    """A literal name in the command that people paste must be the one in the block; placeholders say nothing."""
    assert said(prose, block) == found


def test_lint_tells_of_a_disagreement() -> None:
    """With the step's line: whoever follows the text would change something else than whoever clicks."""
    text = GOOD.replace('"{deployment}"', "chat-vllm").replace("kubectl scale", "kubectl scale deployment other")
    [problem] = lint(parse(text, "t"), VOCABULARY)

    assert (problem.line, problem.message) == (16, "the text says deployment other, and the block chat-vllm")
