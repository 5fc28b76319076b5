"""
Slack's clicks, commands and mentions -> the desk. Each listener finds out who it is, asks the desk, and answers.

Each runs once, however often Slack delivers it (`bot.slack.once`), over HTTP and over Socket Mode alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog
from slack_bolt.async_app import AsyncAck, AsyncRespond

from bot import narrate
from bot.incidents import Person, StepUpNeededError, WatchkeeperError
from bot.slack import answers, buttons
from bot.slack.authorise import Authoriser, NobodyError, account_of
from bot.slack.blocks import sentence
from bot.slack.client import SlackClient, SlackError
from bot.slack.commands import COMMAND, Commands
from bot.slack.desk import Desk
from bot.slack.once import Once, Repeated
from bot.slack.view import Message

log = structlog.get_logger(__name__)

# Slack shows an error after three seconds without an acknowledgement; the rest is for the way back.
DECISION_PATIENCE_S = 2.0
STILL_AT_IT = "This takes longer than usual; you will hear how it ends. The card shows what counts."

_MENTION = re.compile(r"<@[A-Z0-9]+>")

Deed = Callable[[Desk, str, Person], Awaitable[str | None]]
"""What a button asks of the desk; a sentence of its own takes the place of the click's."""
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Click:
    """What a button does, and what the person hears when it counted."""

    deed: Deed
    done: str


class OddPayloadError(Exception):
    """A click whose value is none that we put on a button."""


def _settle(answer: str) -> Deed:
    async def deed(desk: Desk, value: str, by: Person) -> None:
        plan_id, _, step = value.rpartition(":")
        if not plan_id or not re.fullmatch(r"[0-9]{1,4}", step):
            raise OddPayloadError
        await desk.settle(plan_id, int(step), answer, by)

    return deed


def _vote(verdict: Literal["helpful", "wrong"]) -> Deed:
    async def deed(desk: Desk, value: str, by: Person) -> str:
        incident_id, _, rest = value.partition(":")
        run, _, runbook = rest.partition(":")
        if not incident_id or not runbook or not re.fullmatch(r"[0-9]{1,6}", run):
            raise OddPayloadError
        return await desk.vote(incident_id, int(run), runbook, verdict, by)

    return deed


async def _nothing(_: Desk, __: str, ___: Person) -> None:
    raise OddPayloadError


CLICKS: Mapping[str, Click] = {
    buttons.ACKNOWLEDGE: Click(
        deed=lambda desk, value, by: desk.acknowledge(value, by), done=narrate.DONE["acknowledge"]
    ),
    buttons.RESOLVE: Click(deed=lambda desk, value, by: desk.resolve(value, by), done=narrate.DONE["resolve"]),
    buttons.REDIAGNOSE: Click(deed=lambda desk, value, by: desk.rediagnose(value, by), done=narrate.DONE["rediagnose"]),
    buttons.APPROVE: Click(deed=lambda desk, value, by: desk.approve(value, by), done=narrate.DONE["approve"]),
    buttons.DENY: Click(deed=lambda desk, value, by: desk.deny(value, by), done=narrate.DONE["deny"]),
    buttons.REVOKE: Click(deed=lambda desk, value, by: desk.revoke(value, by), done=narrate.DONE["revoke"]),
    buttons.ESCALATE: Click(deed=lambda desk, value, by: desk.escalate(value, by), done=narrate.DONE["escalate"]),
    buttons.UNDO: Click(deed=lambda desk, value, by: desk.undo(value, by), done=narrate.DONE["undo"]),
    buttons.REQUEST: Click(deed=lambda desk, value, by: desk.request(value, by), done=narrate.DONE["request"]),
    buttons.SETTLE_RAN: Click(deed=_settle("ran"), done=narrate.DONE["settle"]),
    buttons.SETTLE_NOT_RUN: Click(deed=_settle("did_not_run"), done=narrate.DONE["settle"]),
    buttons.SETTLE_STOP: Click(deed=_settle("stop"), done=narrate.DONE["settle"]),
    buttons.VOTE_HELPFUL: Click(deed=_vote("helpful"), done=narrate.DONE["vote"]),
    buttons.VOTE_WRONG: Click(deed=_vote("wrong"), done=narrate.DONE["vote"]),
}
UNKNOWN_CLICK = Click(deed=_nothing, done="")


class Stragglers:
    """What is still being decided or told after Slack was answered; the event loop alone would forget these tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Nobody cancels it: a deed that is cancelled half-way may have happened."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (broke := task.exception()) is not None:
            log.error("a click or a command broke off", exc_info=broke)

    async def finish(self, patience_s: float = 10.0) -> None:
        """Wait until all are done, but for no longer than this."""
        try:
            async with asyncio.timeout(patience_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            log.warning("clicks or commands are left unfinished", count=len(self._tasks))


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Where people are met: the desk, who they are, and how they are answered."""

    desk: Desk
    authoriser: Authoriser
    slack: SlackClient
    once: Once
    stragglers: Stragglers
    patience_s: float = DECISION_PATIENCE_S

    async def recognise(self, payload: Mapping[str, Any], what: str, about: str) -> Person:
        """The person, or NobodyError after the refusal was recorded."""
        try:
            return await self.authoriser.person(payload)
        except NobodyError as nobody:
            await self._record_refusal(payload, what, nobody.why, about)
            raise

    async def _record_refusal(self, payload: Mapping[str, Any], what: str, why: str, about: str) -> None:
        who = "/".join(account_of(payload))
        log.warning("refused", who=who, what=what, why=why)
        try:
            await self.desk.refused(who=who, what=what, why=why, subject=about)
        except WatchkeeperError:
            log.exception("the refusal could not be recorded", who=who, what=what)

    async def tell(self, payload: Mapping[str, Any], message: Message) -> None:
        """
        Answer only the person who asked, where they asked.

        Where that fails, as for somebody who is not in the channel, the payload's own response_url is used, which
        works five times within half an hour. When both fail, the card still shows what counts.
        """
        try:
            await self._tell(payload, message)
        except SlackError as error:
            log.info("an answer goes by its response_url", why=str(error))
            url = payload.get("response_url")
            try:
                await self.slack.respond(url if isinstance(url, str) else "", message)
            except SlackError as failed:
                log.warning("an answer was not shown", why=str(failed))

    async def _tell(self, payload: Mapping[str, Any], message: Message) -> None:
        _, user = account_of(payload)
        container = _mapping(payload.get("container"))
        channel = _mapping(payload.get("channel")).get("id") or container.get("channel_id")
        thread_ts = container.get("thread_ts")
        if not isinstance(channel, str) or not user:
            raise SlackError("the payload names no channel or user", permanent=True)
        await self.slack.ephemeral(channel, user, message, thread_ts=thread_ts if isinstance(thread_ts, str) else None)


class ClickListener:
    """One button, behind the authoriser."""

    def __init__(self, action: str, click: Click, counter: Counter) -> None:
        self.action = action
        self._click = click
        self._counter = counter

    async def hear(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        """
        Commit the decision, before Slack hears "ok".

        An acknowledgement first would lose the click when we die between the two; this way the person sees Slack's
        error and clicks again, which is harmless since deeds are idempotent. Only when Slack's time is up is it
        acknowledged undecided; then the deed goes on, and the person hears later how it ended.
        """
        counter = self._counter
        deciding = counter.stragglers.begin(self._decide_once(body))
        done, _ = await asyncio.wait({deciding}, timeout=counter.patience_s)
        if not done:
            counter.stragglers.begin(self._tell_later(body, deciding))
            await ack()
            return
        answer = deciding.result()
        await ack()
        if answer:
            counter.stragglers.begin(counter.tell(body, answer))

    async def _tell_later(self, body: dict[str, Any], deciding: asyncio.Task[Message | None]) -> None:
        await self._counter.tell(body, sentence(STILL_AT_IT))
        await asyncio.wait({deciding})
        broke = deciding.cancelled() or deciding.exception() is not None
        if answer := sentence(narrate.TOO_SLOW) if broke else deciding.result():
            await self._counter.tell(body, answer)

    async def _decide_once(self, body: Mapping[str, Any]) -> Message | None:
        """Nothing to say when it was decided and answered before."""
        try:
            return await self._counter.once.run(body, lambda: self._decide(body))
        except Repeated:
            return None

    async def _decide(self, body: Mapping[str, Any]) -> Message:
        """Find out who it is, do the deed; what the person hears."""
        value = _value(body)
        try:
            by = await self._counter.recognise(body, self.action, value)
            said = await self._do(body, value, by)
        except OddPayloadError:
            return sentence(narrate.ODD_CLICK)
        except StepUpNeededError as asked:
            return answers.elsewhere(str(asked), asked.url)
        except (NobodyError, WatchkeeperError) as refusal:  # not allowed, decided before, stale, not found, not stored
            return sentence(str(refusal))
        return sentence(said or self._click.done)

    async def _do(self, _body: Mapping[str, Any], value: str, by: Person) -> str | None:
        return await self._click.deed(self._counter.desk, value, by)


class CommandListener:
    """`/oncall`, behind the same authoriser."""

    def __init__(self, commands: Commands, counter: Counter) -> None:
        self._commands = commands
        self._counter = counter

    async def hear(self, ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond) -> None:
        answering = self._counter.stragglers.begin(self._answer_once(body))
        done, _ = await asyncio.wait({answering}, timeout=self._counter.patience_s)
        if not done:
            self._counter.stragglers.begin(self._say_later(respond, answering))
            await ack(text=narrate.SEARCHING, response_type="ephemeral")
            return
        await _say(ack, answering.result())

    async def _say_later(self, respond: AsyncRespond, answering: asyncio.Task[Message | None]) -> None:
        if answer := await answering:
            await _say(respond, answer)

    async def _answer_once(self, body: Mapping[str, Any]) -> Message | None:
        """None when it was answered before."""
        try:
            return await self._counter.once.run(body, lambda: self._answer(body))
        except Repeated:
            return None

    async def _answer(self, body: Mapping[str, Any]) -> Message:
        text = body.get("text")
        text = text if isinstance(text, str) else ""
        try:
            by = await self._counter.recognise(body, f"{COMMAND} {text}".strip()[:200], "")
        except NobodyError as nobody:
            return sentence(str(nobody))
        return await self._commands.answer(text, by)


class EventListener:
    """
    Events: a mention is answered like `/oncall`, only to whoever wrote it; every other kind is acknowledged unread.

    Slack switches off a subscription whose events are not acknowledged, and may send kinds that we never asked for.
    """

    def __init__(self, commands: Commands, counter: Counter) -> None:
        self._commands = commands
        self._counter = counter

    async def hear(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        event = _mapping(body.get("event"))
        if event.get("type") == "app_mention":
            answering = self._counter.stragglers.begin(self._answer_once(body, event))
            done, _ = await asyncio.wait({answering}, timeout=self._counter.patience_s)
            if done:
                answering.result()
        await ack()

    async def _answer_once(self, body: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        with contextlib.suppress(Repeated):
            await self._counter.once.run(body, lambda: self._answer(body, event))

    async def _answer(self, body: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        text = event.get("text")
        asked = _MENTION.sub(" ", text).strip() if isinstance(text, str) else ""
        # As an interaction would name them, which is how people are recognised and answered.
        who = {
            "team": {"id": body.get("team_id")},
            "user": {"id": event.get("user"), "team_id": event.get("user_team")},
            "channel": {"id": event.get("channel")},
            "container": {"thread_ts": event.get("thread_ts")},
        }
        try:
            by = await self._counter.recognise(who, f"mention: {asked}"[:200], "")
        except NobodyError as nobody:
            await self._counter.tell(who, sentence(str(nobody)))
            return
        await self._counter.tell(who, await self._commands.answer(asked, by))


async def _say(say: AsyncAck | AsyncRespond, answer: Message | None) -> None:
    if answer is None:
        await say()
    else:
        await say(text=answer.text, blocks=answer.blocks, response_type="ephemeral")


def _value(body: Mapping[str, Any]) -> str:
    """The id that the button or the chosen option carries; empty when there is none."""
    actions = body.get("actions")
    action = _mapping(actions[0]) if isinstance(actions, list) and actions else {}
    value = action.get("value") or _mapping(action.get("selected_option")).get("value")
    return value if isinstance(value, str) and len(value) <= buttons.MOST_VALUE else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
