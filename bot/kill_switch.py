"""
The kill switch outside the database: the file that stops this machine, and the watch that tells everybody.

While the file exists nothing starts in the processes that look at it, whether or not the database answers; as soon as
it does, one of them turns the switch itself, for all. So the file stops everything and its removal releases nothing:
that takes somebody who may.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge

from bot import narrate
from bot.incidents import StoppedError
from bot.pulse import Pulse
from bot.slack.blocks import sentence
from bot.slack.client import SlackClient, SlackError
from bot.slack.pace import Rank
from bot.store.kill_switch import KillSwitch, SwitchState
from bot.store.workers import Duties

log = structlog.get_logger()

EVERY_S = 1.0
_DUTY = "kill-switch"
_BY_FILE = "stop-file"
_AGAIN_S = 5.0


class StopFile:
    """A file whose mere existence stops everything; `None` where nobody set one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def why_stopped(self) -> str:
        """A sentence while it is there, "" when it is not. What cannot be looked at counts as there."""
        if self._path is None:
            return ""
        try:
            self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            return f"the file {self._path} on {socket.gethostname()} cannot be looked at: {error.strerror}"
        return f"the file {self._path} exists on {socket.gethostname()}"

    def refuse_if_there(self) -> None:
        """Raises StoppedError."""
        if why := self.why_stopped():
            raise StoppedError(f"Everything is stopped: {why}. No fix starts before it is removed.")


class SwitchWatch:
    """One look a second: turns the switch when the file is there, and tells of each turn in Slack and on the cards."""

    def __init__(
        self,
        *,
        switch: KillSwitch,
        file: StopFile,
        duties: Duties,
        slack: SlackClient,
        channel: str,
        pulse: Pulse,
        registry: CollectorRegistry,
    ) -> None:
        self._switch = switch
        self._file = file
        self._duties = duties
        self._slack = slack
        self._channel = channel
        self._pulse = pulse
        self._again_at = -_AGAIN_S
        self._state = SwitchState(is_stopped=False)
        self._gauge = Gauge("watchkeeper_stopped", "1 while the kill switch stops everything", registry=registry)

    def trouble(self) -> str:
        """What `/healthz` says while everything is stopped, "" otherwise."""
        state = self._state
        return narrate.stopped(state.who, state.reason, state.at, datetime.now(UTC)) if state.is_stopped else ""

    async def sweep(self) -> None:
        """Raises StoreUnavailableError."""
        state = await self._switch.read()
        if not state.is_stopped and (why := self._file.why_stopped()):
            await self._switch.stop(by=_BY_FILE, name="a file", reason=why, channel="file", now=datetime.now(UTC))
            state = await self._switch.read()
        if state.is_stopped != self._state.is_stopped:
            log.warning("kill switch", stopped=state.is_stopped, by=state.who, reason=state.reason)
        self._state = state
        self._gauge.set(state.is_stopped)
        is_due = state.told < state.turns and time.monotonic() >= self._again_at
        if is_due and await self._duties.take(_DUTY, 30.0):
            await self._tell(state)

    async def _tell(self, state: SwitchState) -> None:
        """Once for each turn that still counts, however often a process dies meanwhile."""
        key = f"{_DUTY}:{state.turns}"
        words = narrate.stopped if state.is_stopped else narrate.released
        message = sentence(words(state.who, state.reason, state.at))
        try:
            async with self._pulse.guard():
                if await self._slack.find_posted(self._channel, key) is None:
                    await self._slack.post(self._channel, message, key=key, rank=Rank.FIRST)
        except SlackError as error:
            log.warning("the turn of the kill switch is not told", why=str(error))
            if not error.permanent:
                self._again_at = time.monotonic() + max(_AGAIN_S, error.retry_after or 0.0)
                return
        await self._switch.is_told(state.turns)
