"""
The people of a headless drill: they see and do what a person with the page open sees and does, through HTTP alone.

Like people they press again when Slack says that the app did not answer, or when nothing came of a press.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from lab.people import ALICE, BOB, BOT_USER, DANA, MALLORY, Person
from lab.slack_blocks import interactive_elements, options_of
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
    seen = await alice.until(lambda seen: find(seen, "approve") is not None or find(seen, "rediagnose") is not None)
    if find(seen, "approve") is None:
        await _diagnosis(alice, say)
    say("a fix is offered")

    before = len(said_only_to_me(await mallory.channel()))
    seen = await mallory.press("approve", until=lambda seen: len(said_only_to_me(seen)) > before)
    say(f"Mallory tries to approve and is told: {said_only_to_me(seen)[-1]}")

    await alice.press("acknowledge", until=lambda seen: find(seen, "acknowledge") is None)
    say("Alice acknowledged")
    await owner.press("approve", until=lambda seen: find(seen, "approve") is None)
    say(f"{approver.first_name} approved the fix")


@dataclass(kw_only=True)
class Outcome:
    """What people saw of a fix: its title, how it ended in the card's words, and what they did by hand meanwhile."""

    fix: str = ""
    state: str = ""
    by_hand: list[str] = field(default_factory=list)
    is_by_hand_only: bool = False


async def see_through(client: httpx.AsyncClient, say: Say, outcome: Outcome, *, second_best: bool = False) -> None:
    """
    Alice acknowledges, Dana approves, and what a manual step asks for is done by hand in the lab and reported.

    With `second_best` Alice first asks for the next possible fix instead. Returns when the fix has ended; `outcome` is
    filled on the way.
    """
    alice, dana = Eyes(client, ALICE), Eyes(client, DANA)
    await _diagnosis(alice, say)
    say(f"a fix is offered: {fix_on(await alice.channel())[0]}")
    await alice.press("acknowledge", until=lambda seen: find(seen, "acknowledge") is None)
    if second_best and not await _ask_for_another(alice, say):
        return
    seen = await dana.channel()
    outcome.fix, _ = fix_on(seen)
    outcome.is_by_hand_only = all(_BY_HAND in step for step in steps_on(seen))
    await dana.press("approve", until=lambda seen: find(seen, "approve") is None)
    say(f"Dana approved: {outcome.fix}")
    while True:
        seen = await dana.until(lambda seen: fix_on(seen)[1] not in UNDER_WAY)
        if fix_on(seen)[1] != _WAITS:
            break
        await _by_hand(client, dana, seen, say, outcome)
    outcome.state = fix_on(seen)[1]
    say(f"the fix: {outcome.state}")
    if outcome.state == "done":  # nobody can verify that something was written down, so a person closes the incident
        await alice.press("resolve", until=lambda seen: find(seen, "resolve") is None)
        say("Alice resolved the incident")


async def _diagnosis(person: Eyes, say: Say) -> None:
    """Wait for the offer of a fix. Where checks had no time to answer, as on a busy machine, diagnose again first."""
    for _ in range(_MOST_DIAGNOSES):
        seen = await person.until(lambda seen: find(seen, "rediagnose") is not None)
        if not any(_NO_ANSWER in line for line in card_lines(seen)):
            break
        say("checks did not answer in time; Alice has it diagnosed again")
        await person.press("rediagnose", until=lambda seen: find(seen, "rediagnose") is None)
    await person.until(lambda seen: find(seen, "approve") is not None)


async def _ask_for_another(person: Eyes, say: Say) -> bool:
    """Choose the first of the other fixes; False when there is none."""
    seen = await person.channel()
    first = steps_on(seen)  # two fixes may have one title: the same runbook, with another suspect
    others = [
        option["value"]
        for message in messages_in(seen)
        for _, element in interactive_elements(message.get("blocks"))
        if element.get("action_id") == "request"
        for option in options_of(element)
    ]
    if not others:
        return False
    seen = await person.press("request", value=others[0], until=lambda seen: steps_on(seen) not in ([], first))
    say(f"{person.person.first_name} asked for another fix: {fix_on(seen)[0]}")
    return True


async def _by_hand(client: httpx.AsyncClient, person: Eyes, seen: Channel, say: Say, outcome: Outcome) -> None:
    """Do what the step says, in the lab, and say so."""
    place = step_waiting(seen)
    if place is not None and (instruction := await carry_out(client, seen, place, but=outcome.by_hand)):
        outcome.by_hand.append(instruction)
        say(f"by hand: {instruction}")
    await person.press("settle_ran", until=lambda seen: step_waiting(seen) != place)


async def carry_out(client: httpx.AsyncClient, seen: Channel, place: int, *, but: Container[str]) -> str:
    """Have the lab do by hand what the waiting step says; returns the instruction, or "" if it is among `but`."""
    steps = steps_on(seen)
    instruction = steps[place].partition(_BY_HAND)[2] if place < len(steps) else ""
    if not instruction or instruction in but:
        return ""
    (await client.post("/lab/hands", json={"instruction": instruction})).raise_for_status()
    return instruction


def step_waiting(channel: Channel) -> int | None:
    """The index of the step that waits for a person, by the value of its button."""
    for message in messages_in(channel):
        for _, element in interactive_elements(message.get("blocks")):
            if element.get("action_id") == "settle_ran":
                return int(str(element["value"]).rpartition(":")[2])
    return None


def fix_on(channel: Channel) -> tuple[str, str]:
    """The fix that is on the card, by title and state; both are "" when there is none."""
    for line in card_lines(channel):
        if found := _FIX.match(line):
            return found["title"], found["state"]
    return "", ""


def steps_on(channel: Channel) -> list[str]:
    """The numbered steps of the fix on the card."""
    return [found["step"] for line in card_lines(channel) if (found := _STEP.match(line))]


def card_lines(channel: Channel) -> list[str]:
    return [line for message in channel["messages"] if message["user"] == BOT_USER for line in lines_of(message)]


_FIX = re.compile(r"\*Fix\*\s+(?P<title>.+) · (?P<state>[^·]+)$")
_STEP = re.compile(r"\d+\. (?P<step>.+)$")
_NO_ANSWER = "(no answer within"
_MOST_DIAGNOSES = 4
_BY_HAND = "A person does this by hand: "
_WAITS = "waits for a person to do a step"
UNDER_WAY = {"", "waits for approval", "approved, starting", "running"}
