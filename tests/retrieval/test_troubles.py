"""Troubles and percentages: what names and sentences say of one thing in different words."""

from __future__ import annotations

import pytest

from retrieval.documents import Document, Section
from retrieval.keywords import KeywordIndex
from retrieval.troubles import named_percentage, percentages, troubles
from retrieval.words import stems


@pytest.mark.parametrize(
    ("name", "sentence", "trouble"),
    [
        ("GatewayDown", "No running gateway pods were detected for the last 10 min.", "down"),
        ("KubeletDown", "Kubelet has disappeared from target discovery.", "down"),
        ("LowWorkerCount", "More than one worker should be running.", "low"),
        ("LLMHighTTFT", "p95 time to first token exceeds 2 s", "high"),
        ("RouterNotReady", "Some routers are unready.", "not ready"),
        ("KVCacheFull", "the cache will run out of space", "full"),
        ("ConfigMismatch", "replicas have different configurations", "differing"),
        ("SyncStale", "has not successfully synced any changes", "stale"),
        ("EngineCrashLooping", "the engine is restarting", "restarting"),
    ],
)
def test_a_name_and_a_sentence_say_one_trouble(name: str, sentence: str, trouble: str) -> None:
    """However it is worded, it is the same trouble."""
    assert trouble in troubles(name)
    assert trouble in troubles(sentence)


def test_an_ordinary_sentence_says_none() -> None:
    """What nothing is wrong with speaks of no trouble."""
    assert troubles("The gateway forwards requests to the engines.") == frozenset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crossed 75% and becomes read-only at 85 %", {"75", "85"}),
        ("budget of 99.9%", {"99.9"}),
        ("100 requests, v1.2.85, 1234%", set[str]()),
    ],
)
def test_percentages_are_read_as_written(text: str, said: set[str]) -> None:
    """Counts, versions and what is more than a share are no percentages."""
    assert percentages(text) == said


def test_a_name_may_end_with_a_percentage() -> None:
    """A number within a name is not one."""
    assert named_percentage("CapacityWarning85") == {"85"}
    assert named_percentage("XID79Errors") == frozenset()


@pytest.fixture
def siblings() -> KeywordIndex:
    """Two runbooks that differ by trouble, two by a percentage, one with many names."""

    def runbook(title: str, text: str, *alerts: str) -> Document:
        return Document(doc_id=title, title=title, sections=(Section(heading="", text=text),), alerts=alerts)

    return KeywordIndex(
        [
            runbook("VirtApiDown", "The api."),
            runbook("VirtApiErrors", "The api."),
            runbook("DiskWarning80", "The disk."),
            runbook("DiskCritical", "The disk passed 95%."),
            runbook("Slow answers", "Tokens.", "LLMHighTTFT", "LLMHighQueueTime"),
        ]
    )


def test_the_trouble_tells_siblings_apart(siblings: KeywordIndex) -> None:
    """A trouble that only the name has counts against it."""
    scores = siblings.trouble_scores("no running api pods were found")

    assert scores[0] > 0 > scores[1]


def test_the_percentage_tells_siblings_apart(siblings: KeywordIndex) -> None:
    """In the name or in the body; without one nobody is preferred."""
    assert siblings.percentage_scores("disk at 80 %").argmax() == 2
    assert siblings.percentage_scores("disk at 95 %").argmax() == 3
    assert not siblings.percentage_scores("disk is filling").any()


def test_the_name_that_fits_best_counts(siblings: KeywordIndex) -> None:
    """An alert that its author declared is as good a name as the title."""
    coverage = siblings.name_coverage(stems("LLMHighTTFT"))

    assert coverage[4] == pytest.approx(1.0)
    assert coverage[0] == 0.0


def test_an_empty_library_has_no_names() -> None:
    """Every score has one number per document, which is none."""
    empty = KeywordIndex([])

    assert empty.name_coverage(stems("anything")).shape == (0,)
    assert empty.trouble_scores("down").shape == (0,)
