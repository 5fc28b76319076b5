"""Moments of incidents over HTTP while the world stands still: deliveries, outages, decisions, forgeries, commands."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest

from lab.prompt_store import PRODUCTION
from tests.acceptance.conftest import Place
from tests.standins import (
    ALICE,
    BOB,
    CHANNEL,
    MALLORY,
    PAGERDUTY_SECRET,
    SERVICE,
    TEAM,
    Message,
    signature_of,
    until,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]


def offers_fix(card: Message) -> bool:
    return "approve" in card.buttons and "Diagnosing" not in card.words


def has_verdict(card: Message) -> bool:
    """Its diagnosis is over; where many share one busy core, some have little to say and offer no fix."""
    return "Diagnose again" in card.words


def is_over(card: Message) -> bool:
    return "*resolved*" in card.words


def rows(place: Place, table: str) -> int:
    """How many rows the product's own database has there."""
    with sqlite3.connect(place.folder / "watchkeeper.sqlite") as connection:
        [[count]] = connection.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - a name of ours
    return int(count)


async def evidence_of(place: Place, card: Message) -> list[str]:
    """The first lines of the evidence in the thread, one for each diagnosis."""
    replies = [reply.body.get("text", "") for reply in await place.slack.replies(card)]
    return [text.split(" of ")[0] for text in replies if text.startswith("Evidence")]


# -- lives that need no time -----------------------------------------------------------------------------------------


async def test_an_unconfigured_service_is_shown(place: Place) -> None:
    """Nothing is diagnosed or offered there, the card says why, and its people can still acknowledge."""
    title = "Search is slow <!channel> *now* & <b> password: hunter2hunter2"
    incident_id = await place.pagerduty.page_other_service(title)
    card = await place.slack.card("Search is slow")

    assert "is not in watchkeeper.toml" in card.words
    assert card.buttons == {"acknowledge", "resolve"}
    assert "hunter2" not in json.dumps(card.body)
    await place.slack.click(card, "acknowledge", ALICE)
    await place.slack.card("Search is slow", lambda card: "*acknowledged*" in card.words)
    assert (await place.pagerduty.incident(incident_id))["status"] == "acknowledged"


async def test_a_resolve_in_pagerduty_takes_the_offer_away(place: Place) -> None:
    """Who still has the old card in front of them presses in vain."""
    incident_id = await place.pagerduty.page("LLMHighTTFT resolved elsewhere")
    offered = await place.slack.card("resolved elsewhere", offers_fix)
    await place.pagerduty.act(incident_id, status="resolved")
    card = await place.slack.card("resolved elsewhere", is_over)
    assert card.buttons == frozenset()

    told = len(await place.slack.told(BOB))
    status = await raw_click(place, offered, "approve", BOB)
    assert status == 200
    answer = await until("an answer to the late click", lambda: newer(place, BOB, told))
    assert "resolved; nothing needs to be fixed" in answer[0]
    assert place.world.langfuse.writes == []


async def newer(place: Place, user: str, before: int) -> list[str]:
    return (await place.slack.told(user))[before:]


async def raw_click(place: Place, card: Message, action_id: str, user: str) -> int:
    """A click as Slack sends it, on a card as it was; the stand-in itself presses only what is there now."""
    payload = {
        "type": "block_actions",
        "team": {"id": TEAM, "domain": "fake"},
        "user": {"id": user, "team_id": TEAM},
        "channel": {"id": CHANNEL, "name": "incidents"},
        "container": {"type": "message", "message_ts": card.ts, "channel_id": CHANNEL, "is_ephemeral": False},
        "actions": [{"type": "button", "block_id": "fix", "action_id": action_id, "value": card.value_of(action_id)}],
        "api_app_id": "A0FAKE0001",
        "token": "verification",
        "trigger_id": "1.2.3",
    }
    return int((await raw(place, urlencode({"payload": json.dumps(payload)})))["status"])


async def raw(place: Place, body: str, kind: str = "interactivity") -> Any:
    """These very bytes, signed by Slack."""
    ctype = "application/json" if kind == "events" else "application/x-www-form-urlencoded"
    return await place.slack.control("raw", {"body": body, "kind": kind, "content_type": ctype})


async def test_a_reopened_incident_is_diagnosed_again(place: Place) -> None:
    """On the same card, with the evidence of both diagnoses in its thread and a note for each in PagerDuty."""
    incident_id = await place.pagerduty.page("LLMHighTTFT comes back")
    await place.slack.card("comes back", offers_fix)
    await place.pagerduty.act(incident_id, status="resolved")
    await place.slack.card("comes back", is_over)
    await place.pagerduty.act(incident_id, status="triggered")

    card = await place.slack.card("comes back", offers_fix)
    await until("the second evidence", lambda: second_of(place, card))
    assert await evidence_of(place, card) == ["Evidence for diagnosis 1", "Evidence for diagnosis 2"]
    await place.settle()
    verdicts = sorted(note.split(":")[0] for note in await place.pagerduty.notes(incident_id))
    assert verdicts == ["Watchkeeper, diagnosis 1", "Watchkeeper, diagnosis 2"]


async def second_of(place: Place, card: Message) -> list[str]:
    return (await evidence_of(place, card))[1:]


async def test_a_denied_fix_never_runs(place: Place) -> None:
    """Denying needs the same right as approving; afterwards the fix is off the table, for everybody."""
    await place.pagerduty.page("LLMHighTTFT denied")
    offered = await place.slack.card("denied", offers_fix)
    assert "This fix needs" in await place.slack.click(offered, "deny", ALICE)
    assert "nothing will run" in await place.slack.click(offered, "deny", BOB)
    card = await place.slack.card("LLMHighTTFT denied", lambda card: "Denied by Bob Brandt" in card.words)
    assert "approve" not in card.buttons

    told = len(await place.slack.told(BOB))
    await raw_click(place, offered, "approve", BOB)
    await until("an answer to the late click", lambda: newer(place, BOB, told))
    assert place.world.langfuse.writes == []
    assert place.world.prompts.labelled("chat-system", PRODUCTION).version == 8


# -- deliveries ------------------------------------------------------------------------------------------------------


async def test_duplicates_make_one_card(place: Place) -> None:
    """PagerDuty delivers at least once: the same event ten times at once is one incident, one diagnosis, one note."""
    place.wire.held = []
    incident_id = await place.pagerduty.page("LLMHighTTFT ten times")
    [page] = await until("the webhook", lambda: held(place, 1))
    place.wire.held = None
    statuses = await asyncio.gather(*(place.wire.send([page]) for _ in range(10)))

    assert statuses == [[202]] * 10
    card = await place.slack.card("ten times", offers_fix)
    assert await place.wire.send([page, page]) == [202, 202]
    await place.settle()
    assert len(await place.slack.cards("ten times")) == 1
    assert await evidence_of(place, card) == ["Evidence for diagnosis 1"]
    assert len(await place.pagerduty.notes(incident_id)) == 1


async def held(place: Place, count: int) -> list[Any]:
    packets = place.wire.held or []
    return packets if len(packets) >= count else []


async def test_the_order_of_deliveries_does_not_matter(place: Place) -> None:
    """A whole life backwards and twice over ends resolved, on one card, and is not diagnosed when it is over."""
    place.wire.held = []
    incident_id = await place.pagerduty.page("LLMHighTTFT backwards")
    await place.pagerduty.act(incident_id, status="acknowledged")
    await place.pagerduty.act(incident_id, escalation_level=2)
    await place.pagerduty.act(incident_id, status="resolved")
    packets = await until("four webhooks", lambda: held(place, 4))
    place.wire.held = None
    kinds = [packet.event["event_type"] for packet in packets]
    assert kinds == [f"incident.{kind}" for kind in ("triggered", "acknowledged", "escalated", "resolved")]

    assert await place.wire.send([*reversed(packets), *packets, packets[0]]) == [202] * 9
    card = await place.slack.card("backwards", is_over)
    await place.settle()
    assert card.buttons == frozenset()
    assert len(await place.slack.cards("backwards")) == 1
    assert is_over((await place.slack.cards("backwards"))[0])


async def test_a_late_page_does_not_undo_the_acknowledgement(place: Place) -> None:
    """The page arrives after the acknowledgement; the incident is diagnosed once and stays acknowledged."""
    place.wire.held = []
    incident_id = await place.pagerduty.page("LLMHighTTFT late page")
    await place.pagerduty.act(incident_id, status="acknowledged")
    first, second = await until("two webhooks", lambda: held(place, 2))
    place.wire.held = None
    assert await place.wire.send([second, first, first, second]) == [202] * 4

    card = await place.slack.card("late page", offers_fix)
    await place.settle()
    assert "*acknowledged*" in card.words
    assert "acknowledge" not in card.buttons
    assert await evidence_of(place, card) == ["Evidence for diagnosis 1"]


async def test_what_nobody_understands_is_kept(place: Place) -> None:
    """A test event, an unknown type and garbage are taken (a refusal would switch the subscription off) and kept."""
    before = rows(place, "delivery WHERE state = 'dead'")
    await place.pagerduty.ping()
    strange = [
        json.dumps({"event": {"id": "01STRANGE", "event_type": "incident.exploded", "data": {}}}).encode(),
        json.dumps({"event": {"id": "01TIMELESS", "event_type": "incident.triggered", "data": {"id": "P1"}}}).encode(),
        b"\xff\xfe not json",
        b"[" * 5000,
    ]
    assert [await place.wire.forge(each, signature_of(each)) for each in strange] == [202] * len(strange)

    await until("five dead letters", lambda: counted(place, before + 5))
    status, said = await place.watchkeeper("replay", "--all")
    assert status == 0
    assert "0 dead letters put back into the inbox" in said
    assert said.count("still unreadable") == before + 5
    assert "unknown event type 'incident.exploded'" in said
    assert "unknown event type 'pagey.ping'" in said


async def counted(place: Place, wanted: int) -> bool:
    return rows(place, "delivery WHERE state = 'dead'") == wanted


# -- outages ---------------------------------------------------------------------------------------------------------


async def test_slack_is_down_and_in_a_hurry(place: Place) -> None:
    """Rate limits are waited out, errors are tried again; nothing is lost, and there is one card and one evidence."""
    slack = place.slack
    posted = len(await slack.calls("chat.postMessage"))
    await slack.fault(method="chat.postMessage", status=429, retry_after=2, times=1)
    await slack.fault(method="chat.postMessage", status=503, times=1)
    await slack.fault(method="chat.postMessage", drop=True, times=1)
    await slack.fault(method="chat.update", status=429, retry_after=2, times=1)
    await slack.fault(method="chat.update", status=500, times=1)
    await slack.fault(method="files.completeUploadExternal", status=429, retry_after=1, times=1)
    await place.pagerduty.page("LLMHighTTFT Slack is down")

    card = await slack.card("Slack is down", offers_fix, within_s=60)
    await until("the evidence", lambda: evidence_of(place, card), within_s=60)
    await place.settle()
    assert len(await slack.cards("Slack is down")) == 1
    assert await evidence_of(place, card) == ["Evidence for diagnosis 1"]
    limited, after = (await slack.calls("chat.postMessage"))[posted : posted + 2]
    assert limited["fault"]
    assert after["at"] - limited["at"] >= 2.0


async def test_a_storm_keeps_to_slacks_limits(place: Place) -> None:
    """Six incidents at once while Slack limits posts and updates: none asks early, and each gets its card."""
    await place.slack.fault(method="chat.postMessage", status=429, retry_after=4, times=1)
    await place.slack.fault(method="chat.update", status=429, retry_after=4, times=1)
    titles = [f"LLMHighTTFT storm {number}" for number in range(6)]
    for title in titles:
        await place.pagerduty.page(title)

    for title in titles:
        card = await place.slack.card(title, has_verdict, within_s=60)
        await until("the evidence", partial(evidence_of, place, card), within_s=60)
    await place.settle()
    assert [len(await place.slack.cards(title)) for title in titles] == [1] * 6
    [burst] = await place.slack.bursts()
    assert "6 incidents at once" in burst.words


async def test_pagerduty_is_down_and_in_a_hurry(place: Place) -> None:
    """Alerts that cannot be read are not waited for; the acknowledgement and the one note arrive in the end."""
    pagerduty = place.pagerduty
    await pagerduty.fault(method="GET", path="/alerts$", status=500, times=1)
    await pagerduty.fault(method="POST", path="/notes$", status=500, times=1)
    await pagerduty.fault(method="PUT", path="/incidents/", status=429, times=1)
    await pagerduty.fault(method="PUT", path="/incidents/", drop=True, times=1)
    incident_id = await pagerduty.page("LLMHighTTFT PagerDuty is down")

    card = await place.slack.card("PagerDuty is down", offers_fix)
    assert "PagerDuty did not give the alert's details" in card.words
    await place.slack.click(card, "acknowledge", ALICE)
    await place.slack.card("PagerDuty is down", lambda card: "*acknowledged*" in card.words, within_s=60)
    incident = await pagerduty.incident(incident_id)
    assert incident["status"] == "acknowledged"
    assert incident["last_status_change_by"]["id"] == "PALICE1"
    notes = await until("the note", lambda: pagerduty.notes(incident_id), within_s=60)
    assert [note.split(":")[0] for note in notes] == ["Watchkeeper, diagnosis 1"]


# -- forgeries -------------------------------------------------------------------------------------------------------


async def test_forged_webhooks_change_nothing(place: Place) -> None:
    """Without a signature of ours over exactly these bytes: 401, no row, no card."""
    before = rows(place, "delivery")
    raw_event = json.dumps(
        {
            "event": {
                "id": "01FORGED",
                "event_type": "incident.triggered",
                "resource_type": "incident",
                "occurred_at": "2026-11-22T03:00:00Z",
                "agent": None,
                "client": None,
                "data": {"id": "QFORGED", "title": "forged", "status": "triggered", "service": {"id": SERVICE}},
            }
        }
    ).encode()
    right = signature_of(raw_event)
    wrong = [
        None,
        "",
        "v1=",
        right.removeprefix("v1="),
        right.replace("v1=", "v0="),
        right[:-2],
        signature_of(raw_event, "another secret"),
        signature_of(raw_event + b" "),
        signature_of(raw_event, PAGERDUTY_SECRET.upper()),
        "v1=" + "0" * 64 + ",v1=" + "f" * 64,
        "v1=nan",
    ]
    statuses = [await place.wire.forge(raw_event, each) for each in wrong]
    tampered = await place.wire.forge(raw_event.replace(b"forged", b"Forged"), right)

    assert [*statuses, tampered] == [401] * (len(wrong) + 1)
    await place.settle()
    assert rows(place, "delivery") == before
    assert await place.slack.cards("forged") == []


async def test_forged_clicks_and_commands_change_nothing(place: Place) -> None:
    """Bob's own approval, with a signature that is not Slack's or not of now: 401, no row, no answer."""
    await place.pagerduty.page("LLMHighTTFT forged click")
    card = await place.slack.card("forged click", offers_fix)
    await place.settle()
    before = {table: rows(place, table) for table in ("audit", "approval", "outbox")}
    told = await place.slack.told(BOB)

    command = {"command": "/oncall", "text": "status", "user": BOB}
    for sign in ("bad", "stale", "future", "none", "tampered", "nan"):
        assert await place.slack.click(card, "approve", BOB, sign=sign) == "401", sign
        assert (await place.slack.control("command", {**command, "sign": sign}))["status"] == 401, sign
    await place.settle()
    assert {table: rows(place, table) for table in before} == before
    assert await place.slack.told(BOB) == told
    assert offers_fix((await place.slack.cards("forged click"))[0])


BLOCK_ACTIONS = {"type": "block_actions", "team": {"id": TEAM}, "user": {"id": BOB, "team_id": TEAM}}

MALFORMED = {
    "nothing": "",
    "no payload": "payload=",
    "half an object": "payload=%7B",
    "a list": "payload=%5B%5D",
    "null": "payload=null",
    "a number": "payload=7",
    "an empty object": "payload=%7B%7D",
    "no actions": urlencode({"payload": json.dumps({**BLOCK_ACTIONS, "actions": []})}),
    "actions of another kind": urlencode({"payload": json.dumps({**BLOCK_ACTIONS, "actions": "approve"})}),
    "a value that is no text": urlencode(
        {"payload": json.dumps({**BLOCK_ACTIONS, "actions": [{"action_id": "approve", "value": {"a": [1]}}]})}
    ),
    "a plan that does not exist": urlencode(
        {"payload": json.dumps({**BLOCK_ACTIONS, "actions": [{"action_id": "approve", "value": "plan-0"}]})}
    ),
    "a step that is no number": urlencode(
        {"payload": json.dumps({**BLOCK_ACTIONS, "actions": [{"action_id": "settle_ran", "value": "plan-0:x"}]})}
    ),
    "nobody": urlencode(
        {"payload": json.dumps({"type": "block_actions", "user": None, "actions": [{"action_id": "approve"}]})}
    ),
    "a submission of no form of ours": urlencode({"payload": json.dumps({**BLOCK_ACTIONS, "type": "view_submission"})}),
    "very deep": urlencode({"payload": "[" * 20_000}),
    "a command without words": urlencode({"command": "/oncall"}),
    "a command of nobody": urlencode({"command": "/oncall", "text": "status", "team_id": TEAM, "user_id": "U0NOBODY"}),
    "another command": urlencode({"command": "/deploy", "text": "now", "team_id": TEAM, "user_id": BOB}),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_slack_requests_are_survived(place: Place, name: str) -> None:
    """Signed, and still nonsense: no crash, no decision, and the next real request is answered."""
    before = rows(place, "approval")
    answer = await raw(place, MALFORMED[name])

    assert answer["status"] is not None
    assert answer["status"] < 500
    assert rows(place, "approval") == before
    assert "/oncall status" in await place.slack.command("help")


# -- commands --------------------------------------------------------------------------------------------------------


async def test_commands_answer_whoever_is_known(place: Place) -> None:
    """Help, the open incidents with whom they wait for, and runbooks for words; a stranger learns nothing."""
    await place.pagerduty.page("LLMHighTTFT for the list")
    await place.slack.card("for the list", offers_fix)

    usage = await place.slack.command("help")
    assert all(f"/oncall {word}" in usage for word in ("help", "status", "runbook TEXT"))
    status = await place.slack.command("status")
    assert "LLMHighTTFT for the list" in status
    assert "waits for an approval" in status
    found = await place.slack.command("runbook first token slow since the prefix cache stopped hitting")
    assert "Time to first token rose because the prefix cache stopped hitting" in found
    assert "“the payload is too long”" in await place.slack.command("runbook the payload is too long")
    assert "There is no `dance`" in await place.slack.command("dance")
    refused = await place.slack.command("status", user=MALLORY)
    assert "does not know you" in refused
    assert "LLMHighTTFT" not in refused
