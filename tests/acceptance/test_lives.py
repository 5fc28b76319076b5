"""Whole lives of incidents over HTTP, in a world whose time passes; the alert rule of that world pages."""

from __future__ import annotations

import sqlite3

import pytest

from lab.prompt_store import PRODUCTION
from tests.acceptance.conftest import Place
from tests.standins import ALICE, BOB, MALLORY, Message, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(150)]

TITLE = "LLMHighTTFT"
FIX = "the label production of the prompt chat-system moves from version 8 to version 7"


def version_of(place: Place, prompt: str) -> int:
    """Which version of a prompt is in production in the prompt store."""
    return place.world.prompts.labelled(prompt, PRODUCTION).version


def standing(place: Place) -> list[tuple[str, str]]:
    """Who did what, from the product's own record, oldest first."""
    with sqlite3.connect(place.folder / "watchkeeper.sqlite") as connection:
        return list(connection.execute("SELECT actor, action FROM audit ORDER BY rowid"))


def offers_fix(card: Message) -> bool:
    return "approve" in card.buttons and "Diagnosing" not in card.words


@pytest.mark.parametrize("living", ["http", "socket"], indirect=True)
async def test_a_whole_life(living: Place) -> None:
    """Page, card, verdict; a stranger is refused; acknowledged, approved, verified; resolved in PagerDuty and shown."""
    slack, pagerduty = living.slack, living.pagerduty
    card = await slack.card(TITLE, offers_fix, within_s=40)
    incident = await pagerduty.by_title(TITLE)
    assert "(S04)" in card.words
    assert FIX in card.words
    assert "+Current time: {{current_time}}" in card.words

    refusal = await slack.click(card, "approve", MALLORY)
    assert "does not know you" in refusal
    assert version_of(living, "chat-system") == 8

    assert "Acknowledged" in await slack.click(card, "acknowledge", ALICE)
    card = await slack.card(TITLE, lambda card: "acknowledge" not in card.buttons and "*acknowledged*" in card.words)
    incident = await pagerduty.incident(incident["id"])
    assert incident["status"] == "acknowledged"
    assert incident["last_status_change_by"]["id"] == "PALICE1"

    assert "This fix needs" in await slack.click(card, "approve", ALICE)
    assert "approval is recorded" in await slack.click(card, "approve", BOB)
    card = await slack.card(TITLE, lambda card: "the telemetry confirms it" in card.words, within_s=40)
    card = await slack.card(TITLE, lambda card: "*resolved*" in card.words)

    assert version_of(living, "chat-system") == 7
    assert len(living.world.langfuse.writes) == 1
    incident = await pagerduty.incident(incident["id"])
    assert incident["status"] == "resolved"
    assert not {"approve", "deny", "acknowledge", "resolve"} & card.buttons
    notes = await until("both notes", lambda: two_notes(living, incident["id"]))
    assert "done, and the telemetry confirms it" in notes[0]
    assert "Approved by Bob Brandt" in notes[0]
    replies = [reply.words for reply in await slack.replies(card)]
    assert sum("Evidence for diagnosis 1" in words for words in replies) == 1
    assert sum("confirms" in words for words in replies) == 1
    asked = {(call["method"], call["path"].rpartition("/")[2]) for call in await pagerduty.control("calls")}
    assert {("GET", "alerts"), ("PUT", incident["id"]), ("POST", "notes")} <= asked
    record = standing(living)
    assert ("T0FAKE0001/U0MALLORY", "refused") in record
    assert ("alice", "refused") in record
    assert ("bob", "plan.approve") in record
    assert (await living.watchkeeper("audit", "verify"))[0] == 0


async def two_notes(place: Place, incident_id: str) -> list[str]:
    notes = await place.pagerduty.notes(incident_id)
    return notes if len(notes) >= 2 else []


async def test_the_wrong_fix_is_noticed_and_taken_back(living: Place) -> None:
    """Alice asks for the decoy's rollback, Bob approves; telemetry does not recover, and Bob's undo puts it back."""
    slack = living.slack
    card = await slack.card(TITLE, offers_fix, within_s=40)
    [wrong] = [value for text, value in card.options("request").items() if "chat-summary" in text]
    assert "Requested" in await slack.click(card, "request", ALICE, value=wrong)
    card = await slack.card(TITLE, lambda card: "Requested by Alice" in card.words)
    assert "the prompt chat-summary moves from version 4 to version 3" in card.words

    assert "somebody else has to approve" in await slack.click(card, "approve", ALICE)
    assert "approval is recorded" in await slack.click(card, "approve", BOB)
    card = await slack.card(TITLE, lambda card: "the telemetry did not recover" in card.words, within_s=60)
    assert version_of(living, "chat-summary") == 3
    assert "undo" in card.buttons
    assert (await living.pagerduty.by_title(TITLE))["status"] == "triggered"

    assert "undo is on its way" in await slack.click(card, "undo", BOB)
    await slack.card(TITLE, lambda card: "undo" not in card.buttons and "· done" in card.words, within_s=40)
    assert version_of(living, "chat-summary") == 4
    assert version_of(living, "chat-system") == 8
    assert (await living.pagerduty.by_title(TITLE))["status"] == "triggered"
    assert len(living.world.langfuse.writes) == 2
