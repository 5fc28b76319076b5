"""What `watchkeeper diagnose` says: in words, in tables, and as of when."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from bot.diagnose import in_words, time_of
from bot.diagnosis_shown import show, tables
from bot.incidents import WatchkeeperError
from diagnostics.answer import as_answer
from tests.stories import FOUND

ANSWER: dict[str, Any] = {
    "service": "chat",
    "at": "2026-11-22T10:00:00Z",
    "since": "2026-11-22T09:54:00Z",
    "user_impact": True,
    "causes": [
        {
            "cause": "S04",
            "title": "a prompt change broke the prefix cache",
            "probability": 0.85,
            "for": ["hit ratio fell from 0.40 to 0.03"],
            "against": [],
        },
        {"cause": "S02", "probability": 0.06},
    ],
    "scope": {"dimension": "fleet", "values": []},
    "culprit_change": "prompt:chat-system:8",
    "impact": {"sentence": "4.1 % of requests fail (normally 0.2 %)."},
    "findings": [
        {"check": "prefix_cache", "status": "bad", "summary": "The hit ratio is 3 %, normally 40 %."},
        {"check": "impact", "status": "bad", "summary": "4.1 % of requests fail."},
        {"check": "gpu_xid", "status": "ok", "summary": "No GPU reported an XID."},
    ],
    "suspects": [
        {
            "change": "prompt:chat-system:8",
            "at": "2026-11-22T09:53:00Z",
            "summary": "production of prompt chat-system is on version 8",
            "score": 0.9,
            "reasons": ["it came right at the onset"],
            "diff": "@@ -1 +1,2 @@\n+Now: {{time}}\n You are helpful.",
        }
    ],
    "blind_spots": [{"check": "gpu_health", "why": "no DCGM metrics"}],
    "next_check": "look at the first lines of the prompt",
}


def test_the_first_cause_stands_with_its_evidence() -> None:
    """Probability, catalogue id and title in a line, and what speaks for it below."""
    lines = in_words(ANSWER).splitlines()

    at = lines.index(" 85%  S04  a prompt change broke the prefix cache")
    assert lines[at + 1] == "        for      hit ratio fell from 0.40 to 0.03"


def test_what_is_not_known_is_said() -> None:
    """A blind spot is part of the answer."""
    assert "not known: gpu_health: no DCGM metrics" in in_words(ANSWER)


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    """A prompt's name may hold escape sequences; a terminal must not obey them."""
    hostile = {**ANSWER, "culprit_change": "\x1b[2J\x1b]0;owned\x07prompt", "next_check": "a\rb\u202ec"}

    shown = in_words(hostile)

    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
    assert "prompt" in shown


def shown(answer: dict[str, Any]) -> str:
    """As a terminal of a hundred columns shows it, with its colours."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=100).print(tables(answer))
    return out.getvalue()


@pytest.mark.parametrize("told", [in_words, shown], ids=["words", "tables"])
@pytest.mark.parametrize(
    "said",
    [
        "a prompt change broke the prefix cache",
        "hit ratio fell from 0.40 to 0.03",
        "4.1 % of requests fail (normally 0.2 %).",
        "The hit ratio is 3 %, normally 40 %.",
        "production of prompt chat-system is on version 8",
        "+Now: {{time}}",
        "no DCGM metrics",
        "look at the first lines of the prompt",
    ],
)
def test_both_say_the_same(told: Any, said: str) -> None:
    """Verdict, evidence, who is hurt, the change with its diff, blind spots, and what to check next."""
    assert said in told(ANSWER)
    assert "No GPU reported an XID" not in told(ANSWER)  # what is fine is in the JSON


def test_a_table_obeys_nobody() -> None:
    """Neither rich's markup nor escape sequences from outside come alive, and a bar is as long as its share."""
    hostile = {**ANSWER, "next_check": "[red]\x1b[2Jlook[/red] [link=http://evil.example.com]here[/link]"}
    lines = shown(hostile)

    assert "\x1b[2J" not in lines
    assert "\x1b]8" not in lines
    assert "[red]" in lines
    assert "█" * 17 in lines
    assert "█" * 18 not in lines


def test_a_pipe_gets_plain_lines() -> None:
    """No colours and no boxes where a program reads."""
    out = io.StringIO()
    show(ANSWER, out)

    assert out.getvalue() == in_words(ANSWER) + "\n"


@pytest.mark.parametrize("told", [in_words, shown], ids=["words", "tables"])
def test_a_whole_diagnosis_can_be_told(told: Any) -> None:
    """With suspects and with none, with a scope and without: what the diagnosis makes is what is told."""
    assert "A prompt change broke the prefix cache" in told(as_answer(FOUND))
    bare = replace(FOUND, since=None, findings=(), stages=(), suspects=(), culprit_change=None, next_check=None)
    assert "unknown time" in told(as_answer(bare))


NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("10:03", datetime(2026, 11, 22, 10, 3, tzinfo=UTC)),
        ("10:03:30", datetime(2026, 11, 22, 10, 3, 30, tzinfo=UTC)),
        ("2026-11-21T14:03:00Z", datetime(2026, 11, 21, 14, 3, tzinfo=UTC)),
        ("2026-11-22T11:00:00+02:00", datetime(2026, 11, 22, 9, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_today_or_whole(text: str, instant: datetime) -> None:
    """Hours and minutes are of today, in UTC; anything else has its date and its zone."""
    assert time_of(text, NOON) == instant


@pytest.mark.parametrize(
    "text", ["noon", "25:00", "2026-11-22T14:03:00", "", "1700000000", "13:00", "2027-01-01T00:00:00Z"]
)
def test_an_odd_time_is_refused_with_an_example(text: str) -> None:
    """A time without a zone could be anybody's; one that is still to come has no telemetry."""
    with pytest.raises(WatchkeeperError, match=r"write 14:03|still to come"):
        time_of(text, NOON)
