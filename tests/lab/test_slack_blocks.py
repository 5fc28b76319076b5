"""Block Kit's limits, as far as they can break a card."""

from __future__ import annotations

from typing import Any

import pytest

from lab.slack_blocks import faults_in
from tests.lab_workspace import CARD


def text(length: int, kind: str = "mrkdwn") -> dict[str, Any]:
    return {"type": kind, "text": "x" * length}


def button(**more: Any) -> dict[str, Any]:
    return {"type": "button", "action_id": "a", "text": text(4, "plain_text"), **more}


def actions(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"type": "actions", "elements": list(elements)}


def confirm(length: int) -> dict[str, Any]:
    plain = text(5, "plain_text")
    return {"title": plain, "text": text(length), "confirm": plain, "deny": plain}


WITHIN = [
    {"type": "section", "text": text(3000)},
    {"type": "section", "fields": [text(2000)] * 10},
    {"type": "header", "text": text(150, "plain_text")},
    {"type": "context", "elements": [text(10)] * 10},
    {"type": "markdown", "text": "# title"},
    actions(button(value="v" * 2000, confirm=confirm(300))),
]

BEYOND = [
    ({"type": "section", "text": text(3001)}, "/text/text"),
    ({"type": "section", "text": text(0)}, "/text/text"),
    ({"type": "section"}, "text, fields"),
    ({"type": "section", "fields": [text(1)] * 11}, "/fields"),
    ({"type": "header", "text": text(151, "plain_text")}, "/text/text"),
    ({"type": "header", "text": text(10)}, "unsupported text type: mrkdwn"),
    ({"type": "context", "elements": [text(1)] * 11}, "/elements"),
    (actions(button(value="v" * 2001)), "/value"),
    (actions(button(text=text(76, "plain_text"))), "/text/text"),
    (actions(button(style="warning")), "/style"),
    (actions(button(), button()), "duplicate action_id: a"),
    (actions(button(confirm=confirm(301))), "/confirm/text/text"),
    (actions(button(colour="red")), "invalid additional property: colour"),
    (actions({"type": "static_select", "action_id": "a"}), "options, option_groups"),
    (actions({"type": "datepicker", "action_id": "a"}), "unsupported element: datepicker"),
    ({"type": "image", "alt_text": "a"}, "image_url, slack_file"),
    ({"type": "secton", "text": text(1)}, "unsupported type: secton"),
]


@pytest.mark.parametrize("block", WITHIN, ids=lambda block: str(block["type"]))
def test_blocks_at_their_limits_are_taken(block: dict[str, Any]) -> None:
    """The largest that Slack takes is taken here, too."""
    assert faults_in([block]) == []


@pytest.mark.parametrize(("block", "named"), BEYOND, ids=lambda value: value if isinstance(value, str) else "")
def test_blocks_beyond_their_limits_are_named(block: dict[str, Any], named: str) -> None:
    """One character, item or misspelt word too many is refused with a pointer to it."""
    faults = faults_in([block])

    assert len(faults) == 1
    assert named in faults[0]


def test_a_message_has_at_most_fifty_blocks_with_ids_of_their_own() -> None:
    """Both are found in one pass."""
    divider = {"type": "divider"}

    assert faults_in([divider] * 50) == []
    assert "50" in faults_in([divider] * 51)[0]
    assert "duplicate block_id" in faults_in([{**divider, "block_id": "x"}] * 2)[0]


@pytest.mark.parametrize("nonsense", [None, "text", 7, ["text"], [None], [{}]])
def test_nonsense_is_a_fault_and_not_a_crash(nonsense: object) -> None:
    """Whatever JSON an app sends gets an answer."""
    assert faults_in(nonsense)


def test_the_card_of_these_tests_is_one_that_slack_takes() -> None:
    """The other tests build on it."""
    assert faults_in(CARD) == []
