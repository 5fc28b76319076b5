"""`/oncall`: what it understands, in one table; its help is made from that table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bot import narrate
from bot.incidents import WatchkeeperError
from bot.slack import answers
from bot.slack.blocks import sentence
from bot.slack.desk import Desk
from bot.slack.view import Message

COMMAND = "/oncall"


@dataclass(frozen=True, kw_only=True)
class Command:
    usage: str
    description: str
    run: Callable[[str], Awaitable[Message]]


class Commands:
    """Reads only; what changes something is a button on a card."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._table: Mapping[str, Command] = {
            "help": Command(usage="help", description="this list", run=self._help),
            "status": Command(usage="status", description="open incidents, and whom they wait for", run=self._status),
            "runbook": Command(usage="runbook TEXT", description="the runbooks that fit TEXT", run=self._runbook),
        }

    async def answer(self, text: str) -> Message:
        """The answer to what was typed after `/oncall`; unknown words get the help."""
        word, _, rest = text.strip().partition(" ")
        command = self._table.get(word.lower() or "help")
        if command is None:
            return self._list(unknown=word)
        try:
            return await command.run(rest.strip())
        except WatchkeeperError as error:
            return sentence(str(error))

    def _list(self, unknown: str = "") -> Message:
        return answers.help_text([(c.usage, c.description) for c in self._table.values()], unknown)

    async def _help(self, _: str) -> Message:
        return self._list()

    async def _status(self, _: str) -> Message:
        return answers.status(await self._desk.status())

    async def _runbook(self, text: str) -> Message:
        if not text:
            return sentence(narrate.ASK_FOR_TEXT)
        return answers.hits(text, await self._desk.search(text[:500]))
