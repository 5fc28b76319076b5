"""A team's plain Markdown: found with its anchor and its origin, never run, and nothing of it lost."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bot.config import RunbookFolder
from bot.library import FOLDER, Shelf, faults, open_shelf
from bot.search_shown import show_hits
from retrieval.documents import Document, Hit, Question
from retrieval.ranking import RunbookSearch
from tests.bot.test_library import GOOD

ALERTS = """---
title: Alerts of the vector platform
owner: retrieval-oncall
services: [search]
labels: {area: qdrant}
signals: [qdrant_collection_pending_operations]
---
All of these page the retrieval rota. The board is called Vector Platform.

# Storage

## QdrantDiskFilling

The write-ahead log grows while the optimiser is behind.

### Diagnosis

Compare the segment count with last week's.

```sh
## NotAHeading
kubectl exec qdrant-0 -- du -sh /qdrant/storage
```

### Mitigation

Grow the volume; segments merge by themselves.

# Peers

## QdrantPeerUnreachable

Raft lost a voter.

### Diagnosis

Ask each peer for `/cluster`, compare raft term, commit index and pending operations.

## Glossary

WAL: write-ahead log.
"""

SKILL = """---
name: gpu-triage
description: Use when a notebook kernel idles on a GPU reservation.
allowed-tools: Bash(nvidia-smi:*)
---
# GPU triage

Run `nvidia-smi pmon` and look for processes without work.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository as teams keep it: one page of many alerts, a skill, a page further down, one of our runbooks."""
    books = tmp_path / "ops"
    for name, text in {
        "alerts.md": ALERTS,
        "gpu-triage/SKILL.md": SKILL,
        "databases/failover.md": "Failover of Postgres\n====\n\nPromote the replica with `pg_ctl promote`.\n",
        "good.md": GOOD,
        "README.md": "# Promote nothing",
        ".github/pull_request_template.md": "# Promote nothing",
    }.items():
        (books / name).parent.mkdir(parents=True, exist_ok=True)
        (books / name).write_text(text, encoding="utf-8", newline="\r\n" if "alerts" in name else None)
    return books


def shelf_of(folder: Path, **more: str) -> Shelf:
    return open_shelf([RunbookFolder.model_validate({"path": folder, "url": "https://git.example.com/ops", **more})])


def own(shelf: Shelf) -> dict[str, Document]:
    return {each.doc_id: each for each in shelf.documents() if not each.origin.file.startswith(str(FOLDER))}


async def found(shelf: Shelf, text: str, alert: str = "") -> list[Hit]:
    search = RunbookSearch(floor=0.0)
    await search.refresh(shelf.documents())
    return await search.search(Question(text=text, alert=alert))


def test_each_alert_of_a_big_page_is_a_document(folder: Path) -> None:
    """Two headings of one level are alerts' names, so each is found by itself; the rest stays the page."""
    shelf = shelf_of(folder)
    documents = own(shelf)

    assert shelf.problems == ()
    assert documents.keys() == {
        "good",
        "alerts",
        "alerts#qdrantdiskfilling",
        "alerts#qdrantpeerunreachable",
        "gpu-triage/SKILL",
        "databases/failover",
    }
    disk = documents["alerts#qdrantdiskfilling"]
    assert (disk.title, disk.alerts, disk.services, disk.labels) == (
        "QdrantDiskFilling",
        ("QdrantDiskFilling",),
        ("search",),
        ("qdrant",),
    )
    assert [section.heading for section in disk.sections] == ["QdrantDiskFilling", "Diagnosis", "Mitigation"]
    assert disk.sections[1].path == ("Alerts of the vector platform", "Storage", "QdrantDiskFilling")
    assert "## NotAHeading" in disk.sections[1].text
    page = documents["alerts"]
    assert (page.signals, page.sections[0].text[:6]) == (("qdrant_collection_pending_operations",), "All of")
    assert [section.heading for section in page.sections] == ["", "Storage", "Peers", "Glossary"]


async def test_an_alert_of_the_page_is_found_with_its_own_anchor(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second Diagnosis of the page is #diagnosis-1; and every passage says where exactly it came from."""
    [hit, *_] = await found(
        shelf_of(folder), text="raft term and commit index differ, pending operations", alert="QdrantPeerUnreachable"
    )

    content = (folder / "alerts.md").read_bytes()
    assert hit.link == "https://git.example.com/ops/alerts.md#diagnosis-1"
    assert hit.reasons[0] == "alert name matches"
    assert (hit.origin.file, hit.origin.owner) == (str(folder / "alerts.md"), "retrieval-oncall")
    assert hit.origin.sha256 == hashlib.sha256(content).hexdigest()
    show_hits([hit], (), sys.stdout)
    assert "https://git.example.com/ops/alerts.md#diagnosis-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "doc_id"),
    [
        ("https://git.example.com/ops/alerts.md#qdrantdiskfilling", "alerts#qdrantdiskfilling"),
        ("https://git.example.com/ops/alerts.md#mitigation", "alerts#qdrantdiskfilling"),
        ("https://git.example.com/ops/alerts.md", "alerts"),
        ("https://elsewhere.example.com/alerts#QdrantPeerUnreachable", "alerts#qdrantpeerunreachable"),
    ],
)
async def test_a_link_into_a_big_page_finds_the_section(folder: Path, url: str, doc_id: str) -> None:
    """An alert's runbook_url most often is the page and an anchor; the page itself is meant without one."""
    search = RunbookSearch(floor=0.0)
    await search.refresh(shelf_of(folder).documents())

    [hit, *_] = await search.search(Question(text="", runbook_url=url))

    assert (hit.doc_id, hit.score) == (doc_id, 1.0)


async def test_a_skill_is_found_by_what_it_is_for(folder: Path) -> None:
    """Its description says when to use it, and stands in no heading."""
    [hit, *_] = await found(shelf_of(folder), text="a notebook kernel idles on its reservation")

    assert (hit.doc_id, hit.title) == ("gpu-triage/SKILL", "gpu-triage")


def test_a_page_is_never_run(folder: Path) -> None:
    """A step outside our format, or further down, is text; it is said, and a page of our name takes our place."""
    (folder / "queue-backlog.md").write_text(GOOD.partition("---\n## ")[2], encoding="utf-8")
    (folder / "databases/good.md").write_text(GOOD, encoding="utf-8")

    shelf = shelf_of(folder)

    assert "queue-backlog" not in shelf.runbooks
    assert {"queue-backlog", "databases/good"} <= own(shelf).keys()
    assert [problem.message for problem in shelf.problems] == ["a step that is never offered"] * 2


def test_headings_split_where_the_configuration_says_so(folder: Path) -> None:
    """Then each heading of the highest level with two begins a document, whatever it is called."""
    assert {name for name in own(shelf_of(folder, split="heading")) if name.startswith("alerts")} == {
        "alerts",
        "alerts#storage",
        "alerts#peers",
    }


@pytest.mark.parametrize(
    ("content", "told", "kept"),
    [
        (b"---\ntitle: [a\n---\nRestart the poodle.\n", "front matter: not YAML", "Restart the poodle."),
        (b"---\nalerts: {a: 1}\n---\nRestart the poodle.\n", "`alerts` is not a list of names", "Restart the poodle."),
        (b"---\nRestart the poodle.\n", "", "Restart the poodle."),
        (b"Restart the poodle.", "", "Restart the poodle."),
        (b"\xef\xbb\xbf# A\r\rRestart the poodle.\r", "", "Restart the poodle."),
        (b"# A\n\nRestart the poodle, caf\xe9.\n", "not UTF-8", "Restart the poodle, caf\ufffd."),
        (b"# A\n## B\nfirst\n## B\nRestart the poodle.\n## B 1\x0clast\n", "", "Restart the poodle."),
        (b"", "", ""),
    ],
)
def test_what_is_wrong_with_a_page_is_told_and_its_text_is_kept(
    tmp_path: Path, content: bytes, told: str, kept: str
) -> None:
    """A page that cannot be read as it was meant is still better than none at night."""
    (tmp_path / "page.md").write_bytes(content)

    shelf = shelf_of(tmp_path)

    [page] = own(shelf).values()
    assert not kept or any(kept in section.text for section in page.sections)
    assert [told in problem.message for problem in shelf.problems] == [True] * bool(told)
    anchors = [section.anchor for section in page.sections if section.anchor]
    assert len(set(anchors)) == len(anchors)
    assert faults([tmp_path])[1] == [replace(problem, path=str(tmp_path / problem.path)) for problem in shelf.problems]


def test_a_page_of_ten_megabytes_is_told_at_once(tmp_path: Path) -> None:
    """A dump would keep the start waiting for minutes; the pages beside it count."""
    (tmp_path / "dump.md").write_bytes(b"# A\n\nlog line\n" * 700_000)
    (tmp_path / "page.md").write_text("# A page", encoding="utf-8")

    shelf = shelf_of(tmp_path)

    assert list(own(shelf)) == ["page"]
    [problem] = shelf.problems
    assert "none of it is searched" in problem.message
