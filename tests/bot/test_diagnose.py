"""What `watchkeeper diagnose` says in words."""

from __future__ import annotations

from typing import Any

from bot.diagnose import in_words

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
