"""The page of the local Slack in a real browser: what it shows, what a press does, and what it must never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from PIL import Image

from lab.listening import listening, new_socket, url_of
from lab.people import CHANNEL
from tests.browser import Tab, browser_tab
from tests.lab_workspace import CARD, LocalSlack, local_slack, until

pytestmark = pytest.mark.integration

HOSTILE = "<img src=x onerror=document.title='owned'> &lt;script&gt;document.title='owned'&lt;/script&gt;"
DIFF = "```--- v7\n+++ v8\n@@ -1 +1,2 @@\n+The time is {{now}}\n You are helpful```"
CONFIRM = {
    "title": {"type": "plain_text", "text": "Run this now?"},
    "text": {"type": "plain_text", "text": "The label moves from 8 to 7."},
    "confirm": {"type": "plain_text", "text": "Approve"},
    "deny": {"type": "plain_text", "text": "Not yet"},
}
GAUGES = [
    {"label": "Mean TTFT", "unit": "s", "value": 0.741},
    {"label": "Prefix hits", "unit": "share", "value": 0.031},
]
STATE = {"scenario": "S04", "pace": 20, "incident": "triggered", "gauges": GAUGES}


def card() -> list[dict[str, Any]]:
    blocks = [dict(block) for block in CARD]
    approve, menu = blocks[2]["elements"]
    blocks[2]["elements"] = [{**approve, "confirm": CONFIRM}, menu]
    return [*blocks, {"type": "section", "text": {"type": "mrkdwn", "text": f"{HOSTILE}\n{DIFF}"}}]


async def texts(tab: Tab, selector: str) -> list[str]:
    found: list[str] = await tab.run(f"[...document.querySelectorAll({selector!r})].map(node => node.textContent)")
    return found


async def post_story(slack: LocalSlack) -> str:
    ts = str((await slack.client.chat_postMessage(channel=CHANNEL, text="card", blocks=card()))["ts"])
    await slack.client.chat_postMessage(channel=CHANNEL, text="*Evidence*: prefix hits at 3 %", thread_ts=ts)
    await slack.client.chat_postEphemeral(channel=CHANNEL, user="U0MALLORY", text="You may not approve this.")
    return ts


async def test_a_person_reads_presses_and_confirms(tmp_path: Path) -> None:
    """The card, its thread and the state are there; a press asks first, and only "Approve" reaches the app."""
    socket = new_socket()
    web = FastAPI()
    pressed: list[bytes] = []

    @web.post("/slack/events")
    async def door(request: Request) -> None:
        pressed.append(await request.body())

    async with (
        local_slack(app_url=url_of(socket) + "/slack/events", lab_state=lambda: STATE) as slack,
        listening(web, socket),
        browser_tab(f"{slack.url}/?as=bob&theme=light", tmp_path) as tab,
    ):
        await post_story(slack)
        await tab.until("document.querySelector('#thread-log .message')")
        await tab.until("document.querySelector('#gauge-1').textContent.endsWith('ms')")
        shown = " ".join(await texts(tab, "#log .message"))
        thread = " ".join(await texts(tab, "#thread-log .message"))
        bar = " ".join(await texts(tab, "#state dd"))
        await tab.run("document.querySelector('[data-action=approve]').click()")
        question = await texts(tab, "#confirm[open]")
        await tab.run("document.querySelector('#confirm-no').click()")
        after_no = len(pressed)
        await tab.run("document.querySelector('[data-action=approve]').click()")
        await tab.run("document.querySelector('#confirm-yes').click()")
        await until(lambda: bool(pressed))
        await tab.until("!document.querySelector('[data-action=approve]').disabled")

    assert "chat: first token is slow" in shown
    assert "You may not approve this." not in shown
    assert "Evidence: prefix hits at 3 %" in thread
    assert "741 ms" in bar
    assert "3 %" in bar
    assert "triggered" in bar
    assert "The label moves from 8 to 7." in question[0]
    assert after_no == 0
    assert len(pressed) == 1
    assert b"U0BOB" in pressed[0]


async def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    """Markup in a message is shown as it was written; nothing of it becomes an element or runs."""
    async with local_slack() as slack, browser_tab(f"{slack.url}/?as=alice", tmp_path) as tab:
        await post_story(slack)
        await tab.until("document.querySelector('#log .message pre')")
        title = await tab.run("document.title")
        pictures = await tab.run("document.querySelectorAll('#log .blocks img, #log .blocks script').length")
        added = await texts(tab, "#log pre .add")
        shown = " ".join(await texts(tab, "#log .blocks"))

    assert title == "#incidents · Watchkeeper lab"
    assert pictures == 0
    assert "<script>document.title='owned'</script>" in shown
    assert added == ["+The time is {{now}}"]
    assert tab.console == []


async def test_acting_as_somebody_else_shows_what_only_they_see(tmp_path: Path) -> None:
    """Mallory's refusal is on Mallory's page alone; an app that is down is told of in words."""
    async with local_slack() as slack, browser_tab(f"{slack.url}/?as=alice", tmp_path) as tab:
        await post_story(slack)
        await tab.until("document.querySelector('#log .message')")
        as_alice = await texts(tab, "#log .private-label")
        await tab.run("[...document.querySelectorAll('#people button')].find(b => b.title.includes('Mallory')).click()")
        await tab.until("document.querySelector('#log .private-label')")
        as_mallory = await texts(tab, "#log .message.private .text")
        await tab.run("document.querySelector('#line').value = '/oncall help'")
        await tab.run("document.querySelector('#composer button').click()")
        await tab.until("document.querySelector('.toast')")
        toast = await texts(tab, ".toast")

    assert as_alice == []
    assert as_mallory == ["You may not approve this."]
    assert toast == ["Watchkeeper is not reachable just now. Try again in a moment."]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_page_is_drawn_in_both_themes(tmp_path: Path, theme: str) -> None:
    """A screenshot has the theme's ground, and more on it than a blank page."""
    shot = tmp_path / f"{theme}.png"
    async with (
        local_slack(lab_state=lambda: STATE) as slack,
        browser_tab(f"{slack.url}/?as=mallory&theme={theme}", tmp_path, width=1200, height=900) as tab,
    ):
        await post_story(slack)
        await tab.until("document.querySelector('#thread-log .message')")
        await tab.picture(shot)

    picture = Image.open(shot).convert("RGB")
    grey = picture.convert("L").histogram()
    ground = grey.index(max(grey))
    assert picture.size == (1200, 900)
    assert len(picture.getcolors(maxcolors=1_000_000) or []) > 500
    assert (ground > 200) == (theme == "light")
