"""`/oncall`: what it understands, in one table; its help is made from that table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bot import narrate
from bot.incidents import Person, StepUpNeededError, WatchkeeperError
from bot.slack import answers
from bot.slack.blocks import sentence
from bot.slack.desk import Desk
from bot.slack.view import Message

COMMAND = "/oncall"


@dataclass(frozen=True, kw_only=True)
class Command:
    usage: str
    description: str
    run: Callable[[str, Person], Awaitable[Message]]


class Commands:
    """Reads, but for the kill switch, which belongs to no card; every other change is a button."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table: Mapping[str, Command] = {
            "help": Command(usage="help", description="this list", run=self._help),
            "status": Command(usage="status", description="open incidents, and whom they wait for", run=self._status),
            "runbook": Command(usage="runbook TEXT", description="the runbooks that fit TEXT", run=self._runbook),
            "stop": Command(
                usage="stop [REASON]", description="no fix starts another step, on any machine", run=self._stop
            ),
            "break-glass": Command(
                usage="break-glass PLAN REASON",
                description="start a fix alone in an emergency; asks for a one-time code elsewhere, and is reviewed",
                run=self._break_glass,
            ),
            "go": Command(usage="go", description="ends that; for whoever may approve R2 fixes", run=self._go),
        }

    async def answer(self, text: str, by: Person) -> Message:
        """The answer to what this person typed after `/oncall`; unknown words get the help."""
        word, _, rest = text.strip().partition(" ")
        command = self._table.get(word.lower() or "help")
        if command is None:
            return self._list(unknown=word)
        try:
            return await command.run(rest.strip(), by)
        except StepUpNeededError as asked:
            return answers.elsewhere(str(asked), asked.url)
        except WatchkeeperError as error:
            return sentence(str(error))

    def _list(self, unknown: str = "") -> Message:
        return answers.help_text([(c.usage, c.description) for c in self._table.values()], unknown)

    async def _help(self, _: str, __: Person) -> Message:
        return self._list()

    async def _status(self, _: str, __: Person) -> Message:
        return answers.status(await self._desk.status(), await self._desk.stopped())

    async def _runbook(self, text: str, _: Person) -> Message:
        if not text:
            return sentence(narrate.ASK_FOR_TEXT)
        return answers.hits(text, await self._desk.search(text[:500]))

    async def _stop(self, reason: str, by: Person) -> Message:
        return sentence(await self._desk.stop(reason, by))

    async def _break_glass(self, text: str, by: Person) -> Message:
        plan_id, _, reason = text.partition(" ")
        if not plan_id or not reason.strip():
            return sentence(narrate.ASK_FOR_REASON)
        return sentence(await self._desk.break_glass(plan_id, reason, by))

    async def _go(self, _: str, by: Person) -> Message:
        return sentence(await self._desk.go(by))
