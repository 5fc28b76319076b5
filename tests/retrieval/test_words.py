"""What counts as a word, and what is left out of a question."""

from __future__ import annotations

import time

import pytest

from retrieval.words import MOST_CHARACTERS, cleaned, plain, spaced, stems, words


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("KubeAPIErrorBudgetBurn", ["Kube", "API", "Error", "Budget", "Burn"]),
        ("vllm:time_to_first_token_seconds", ["vllm", "time", "to", "first", "token", "seconds"]),
        ("CephOSDDown", ["Ceph", "OSD", "Down"]),
        ("NodeNUMAPages", ["Node", "NUMA", "Pages"]),
        ("p95 on H100", ["p95", "on", "H100"]),
    ],
)
def test_names_are_taken_apart(name: str, apart: list[str]) -> None:
    """Alert names and metric names become the words that a runbook's prose would use."""
    assert spaced(name).split() == apart


def test_a_name_counts_as_a_whole_too() -> None:
    """Ready and not ready share all parts but one; the whole name tells them apart."""
    assert set(stems("KubeNodeNotReady")) - set(stems("kube node not ready")) == {"kubenodenotreadi"}


def test_both_sides_meet() -> None:
    """A metric in a question and prose in a runbook end in the same stems."""
    assert set(stems("prefix_cache_hits")) >= set(stems("prefix cache hit"))


@pytest.mark.parametrize(
    "identifier",
    [
        "10.1.2.3:9100",
        "fe80:0:0:0:1:2:3:4",
        "9b2f7c1e-aaaa-4bbb-8ccc-1234567890ab",
        "sha256:deadbeef01",
        "93.4%",
        "12",
        "2026-11-22T10:00:00Z",
        "https://grafana.example.com/d/abc?x=1",
        "350ms",
    ],
)
def test_identifiers_of_one_incident_are_left_out(identifier: str) -> None:
    """No runbook knows this incident's addresses, hashes and numbers."""
    assert words(cleaned(f"cache {identifier} misses")) == ["cache", "misses"]


def test_a_pod_is_known_by_its_deployment() -> None:
    """The template hash and the suffix change with each rollout; the deployment's name is worth comparing."""
    assert words(cleaned("pod chat-vllm-6d4cf56db6-x7k2p restarts")) == ["pod", "chat", "vllm", "restarts"]


@pytest.mark.parametrize("spelling", ["XID 79", "Xid: 79", "xid=79"])
def test_the_number_of_an_xid_stays(spelling: str) -> None:
    """An XID's number is the fault's name."""
    assert stems(cleaned(f"GPU reports {spelling}")) == ["gpu", "report", "xid79"]


@pytest.mark.parametrize("word", ["not", "down", "under", "over", "all", "any"])
def test_words_that_alert_names_differ_by_are_no_stop_words(word: str) -> None:
    """Usual stop word lists would make NodeReady and NodeNotReady the same."""
    assert stems(word)


def test_names_compare_without_case_and_separators() -> None:
    """PagerDuty titles, labels and Markdown headings spell one alert in several ways."""
    assert plain("LLM high-TTFT") == plain("LLMHighTTFT") == plain("llm_high_ttft")


@pytest.mark.parametrize(
    "hostile",
    ["a" * 10**6, "a-" * 500_000, "_a" * 500_000, "A:" * 500_000, "0" * 10**6, "\x00\x1b[2J" * 200_000, "ﷺ" * 10**6],
    ids=["letters", "dashes", "snake", "colons", "digits", "controls", "wide"],
)
def test_hostile_text_costs_little(hostile: str) -> None:
    """A megabyte built against backtracking is cut, and read in well under a second."""
    started = time.perf_counter()
    text = cleaned(hostile)
    stems(text)

    assert len(text) <= MOST_CHARACTERS + 1
    assert time.perf_counter() - started < 1
