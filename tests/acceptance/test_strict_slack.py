"""Slack over Socket Mode and under its own limits: repetitions, broken connections, 429s, bursts and outages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from bot.store.bursts import LEAST
from lab.listening import local_client
from tests.acceptance.conftest import Place, running_place
from tests.acceptance.test_strict_services import evidence_of, has_verdict, offers_fix, rows
from tests.fault_proxy import Fault, FaultProxy
from tests.standins import ALICE, BOB, CHANNEL, MALLORY, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A product that comes to Slack by its WebSocket, in a world that stands still."""
    async with running_place(tmp_path_factory.mktemp("socket"), is_rate_limited=True, socket_mode=True) as place:
        yield place


async def connected(place: Place) -> int:
    return int((await place.slack.control("state"))["sockets"])


async def test_people_are_heard_over_the_socket(place: Place) -> None:
    """A stranger is refused, the on-call acknowledges, commands are answered; there is no other door for Slack."""
    await place.pagerduty.page("LLMHighTTFT by socket")
    card = await place.slack.card("by socket", offers_fix)
    assert "does not know you" in await place.slack.click(card, "approve", MALLORY)
    assert "Acknowledged" in await place.slack.click(card, "acknowledge", ALICE)
    await place.slack.card("by socket", lambda card: "*acknowledged*" in card.words)

    assert "/oncall status" in await place.slack.command("help")
    assert "LLMHighTTFT by socket" in await place.slack.command("status")
    assert "does not know you" in await place.slack.command("status", user=MALLORY)
    async with local_client(base_url=place.url) as client:
        assert (await client.post("/slack/events", content=b"{}")).status_code == 404


@pytest.mark.parametrize("again", [{"repeat": 3}, {"parallel": 4}], ids=["later", "at once"])
async def test_a_repeated_delivery_counts_once(place: Place, again: dict[str, int]) -> None:
    """A click, a command and a mention: acknowledged each time, done and answered once."""
    title = f"LLMHighTTFT {next(iter(again))}"
    await place.pagerduty.page(title)
    await place.slack.card(title, offers_fix)
    await place.settle()  # a card that is redrawn just now has other buttons for a moment
    card = await place.slack.card(title, offers_fix)
    before = rows(place, "audit WHERE action = 'refused'")
    told = len(await place.slack.told(BOB))

    await place.slack.click(card, "rediagnose", MALLORY, **again)
    wish = {"command": "/oncall", "text": "help", "user": BOB, **again}
    assert (await place.slack.control("command", wish))["status"] == 200
    mention = {"channel": CHANNEL, "text": "<@U0BOT00001> status", "user": BOB, **again}
    assert {each["status"] for each in (await place.slack.control("message", mention))["deliveries"]} == {200}
    await place.settle()

    assert rows(place, "audit WHERE action = 'refused'") == before + 1
    assert len(await place.slack.told(BOB)) <= told + 2


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", "link_disabled"])
async def test_slack_renews_its_connection(place: Place, reason: str) -> None:
    """The next command is answered over the next connection."""
    await place.slack.control("disconnect", {"reason": reason})
    await until("another connection", lambda: connected(place))

    assert "/oncall status" in await place.slack.command("help")


async def test_retry_after_is_kept(place: Place) -> None:
    """After a 429 nothing calls this method before its time; other methods go on meanwhile."""
    methods = ("chat.postMessage", "chat.update", "chat.postEphemeral", "files.completeUploadExternal")
    for method in methods:
        await place.slack.fault(method=method, status=429, retry_after=3, times=1)
    await place.pagerduty.page("LLMHighTTFT limited")
    card = await place.slack.card("limited", offers_fix, within_s=60)
    assert "Acknowledged" in await place.slack.click(card, "acknowledge", ALICE)
    await until("the evidence", lambda: evidence_of(place, card), within_s=60)
    await place.slack.card("limited", lambda card: "*acknowledged*" in card.words, within_s=60)

    for method in methods:
        calls = await place.slack.calls(method)
        after = [later["at"] - limited["at"] for limited, later in itertools.pairwise(calls) if limited.get("fault")]
        assert all(passed >= 3.0 for passed in after), (method, after)


async def test_a_burst_is_announced_before_its_cards(place: Place) -> None:
    """Twelve at once: the summary before most cards (how soon: `make bench`); nothing lost, doubled or refused."""
    posts = await place.slack.calls("chat.postMessage")
    before = len(posts)
    await asyncio.gather(*(place.pagerduty.page(f"LLMHighTTFT burst {number:02d}") for number in range(12)))
    [burst] = await until("the summary", place.slack.bursts, within_s=20)

    for number in range(12):
        await place.slack.card(f"burst {number:02d}", has_verdict, within_s=60)
    await until("the end", lambda: says(place, "Each has its own card."), within_s=60)
    cards = [await place.slack.cards(f"burst {number:02d}") for number in range(12)]
    assert [len(each) for each in cards] == [1] * 12
    assert sum(float(card.ts) < float(burst.ts) for [card] in cards) <= LEAST
    assert len(await place.slack.bursts()) == 1
    limited = [call for call in (await place.slack.calls("chat.postMessage"))[before:] if call.get("status") == 429]
    assert limited == []


async def says(place: Place, words: str) -> bool:
    return words in (await place.slack.bursts())[-1].words


async def health(place: Place) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=place.url, trust_env=False) as client:
        assert (await client.get("/readyz")).status_code == 200
        found: dict[str, Any] = (await client.get("/healthz")).json()
    return found


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.HANG])
async def test_slack_is_away(tmp_path: Path, fault: Fault) -> None:
    """Serving goes on and says what is degraded; whatever happened meanwhile is shown once when Slack is back."""
    proxy = FaultProxy()
    async with proxy.running(), running_place(tmp_path, is_rate_limited=True, proxy=proxy) as place:
        before = await place.pagerduty.page("LLMHighTTFT first of two")
        await place.slack.card("first of two", offers_fix)
        await proxy.set(fault)
        during = await place.pagerduty.page("LLMHighTTFT second of two")
        await place.pagerduty.act(before, status="resolved")
        said = await until("degraded", lambda: degraded(place), within_s=40)
        assert said[0].startswith("Slack: not reachable since ")
        assert await place.slack.cards("second of two") == []

        await proxy.set(Fault.NONE)
        await place.slack.card("second of two", offers_fix, within_s=60)
        await place.slack.card("first of two", lambda card: "*resolved*" in card.words, within_s=60)
        await place.settle()
        assert (await health(place))["status"] == "ready"
        assert [len(await place.slack.cards(title)) for title in ("first of two", "second of two")] == [1, 1]
        assert len(await place.pagerduty.notes(during)) >= 1
        assert await place.complaints() == []


async def degraded(place: Place) -> list[str]:
    found: list[str] = (await health(place))["details"]["degraded"]
    return found
