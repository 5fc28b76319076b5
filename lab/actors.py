"""
The people of a headless drill: they see and do what a person with the page open sees and does, through HTTP alone.

Like people they press again when Slack says that the app did not answer, or when nothing came of a press.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from lab.people import ALICE, BOB, BOT_USER, MALLORY, Person
from lab.slack_blocks import interactive_elements
from lab.slack_text import lines_of

Channel = Mapping[str, Any]
Say = Callable[[str], None]

LOOK_EVERY_S = 0.25
PRESS_AGAIN_AFTER_S = 6.0


class Eyes:
    """The channel as one person sees it."""

    def __init__(self, client: httpx.AsyncClient, person: Person) -> None:
        self._client = client
        self.person = person

    async def channel(self) -> Channel:
        response = await self._client.get("/channel", params={"person": self.person.slack})
        response.raise_for_status()
        seen: Channel = response.json()
        return seen

    async def until(self, is_there: Callable[[Channel], bool]) -> Channel:
        """The channel as soon as it looks like that; never gives up (the whole story has one deadline)."""
        while True:
            seen = await self.channel()
            if is_there(seen):
                return seen
            await asyncio.sleep(LOOK_EVERY_S)

    async def press(self, action_id: str, *, until: Callable[[Channel], bool], value: str | None = None) -> Channel:
        """Press the button, again and again if need be, until the channel shows that it worked."""
        while True:
            seen = await self.channel()
            if until(seen):
                return seen
            message = find(seen, action_id)
            if message is None or not await self._press_once(message, action_id, value):
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            try:
                async with asyncio.timeout(PRESS_AGAIN_AFTER_S):
                    return await self.until(until)
            except TimeoutError:
                continue

    async def _press_once(self, message: Mapping[str, Any], action_id: str, value: str | None) -> bool:
        """True when the app took the press; false when it did not answer, or the button is gone."""
        wish = {"ts": message["ts"], "action_id": action_id, "value": value}
        response = await self._client.post(f"/people/{self.person.slack}/click", json=wish)
        return response.status_code == 200


def messages_in(channel: Channel) -> Iterator[Mapping[str, Any]]:
    """Every message, those in threads behind their parents."""
    for message in channel["messages"]:
        yield message
        yield from message["replies"]


def find(channel: Channel, action_id: str) -> Mapping[str, Any] | None:
    """The newest message that has this button now."""
    found = None
    for message in messages_in(channel):
        if any(element.get("action_id") == action_id for _, element in interactive_elements(message.get("blocks"))):
            found = message
    return found


def said_only_to_me(channel: Channel) -> list[str]:
    """What the app told this person alone, oldest first."""
    return [
        " ".join(lines_of(message))
        for message in messages_in(channel)
        if message["only_visible_to_you"] and message["user"] == BOT_USER
    ]


async def play_story(client: httpx.AsyncClient, say: Say, *, approver: Person = BOB) -> None:
    """
    Mallory may not approve, Alice acknowledges, the approver approves.

    `client` has the page's address as its base. Returns when the approval shows on the card.
    """
    mallory, alice, owner = Eyes(client, MALLORY), Eyes(client, ALICE), Eyes(client, approver)
    await alice.until(lambda seen: any(m["user"] == BOT_USER for m in seen["messages"]))
    say("the card stands")
    await alice.until(lambda seen: find(seen, "approve") is not None)
    say("a fix is offered")

    before = len(said_only_to_me(await mallory.channel()))
    seen = await mallory.press("approve", until=lambda seen: len(said_only_to_me(seen)) > before)
    say(f"Mallory tries to approve and is told: {said_only_to_me(seen)[-1]}")

    await alice.press("acknowledge", until=lambda seen: find(seen, "acknowledge") is None)
    say("Alice acknowledged")
    await owner.press("approve", until=lambda seen: find(seen, "approve") is None)
    say(f"{approver.first_name} approved the fix")
