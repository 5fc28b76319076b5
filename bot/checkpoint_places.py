"""
By the clock: write where the record ends to a place that whoever administers the database does not reach.

Before each one the record is compared with the one before it: what was rewritten or cut off in between is never
signed, and said aloud instead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx
import structlog

from bot.checkpoints import read_checkpoints, signed_line
from bot.config.trust import CheckpointPlace
from bot.connections.credentials import secret_of
from bot.far_ends import FarEnds
from bot.proof import Checkpoint, NotProvenError, canonical
from bot.pulse import Pulse
from bot.seal import SealKey
from bot.settings import Settings
from bot.slack.blocks import section
from bot.slack.client import SlackClient, SlackError
from bot.slack.pace import Rank
from bot.slack.view import Message
from bot.store.audit import AuditLog

log = structlog.get_logger()

LOG_EVERY_S = 300.0
_LONGEST_LINE = 4096


class NotKeptError(Exception):
    """A place did not take a checkpoint; the next round tries again."""


class Place(Protocol):
    """Where checkpoints go."""

    name: str

    async def last(self) -> str | None:
        """The newest line that is there, "" when there is none; None where nobody can look. Raises NotKeptError."""

    async def keep(self, line: str) -> None:
        """Add a line. Raises NotKeptError."""


class LogPlace:
    """Our own log, which is a place as soon as it is shipped elsewhere."""

    name = "checkpoint log"

    async def last(self) -> None:
        return None

    async def keep(self, line: str) -> None:
        log.info("audit checkpoint", checkpoint=line)


class FilePlace:
    """A file that is only ever lengthened, a line at a time; each line is on the disk before the next round."""

    def __init__(self, path: Path) -> None:
        self.name = f"checkpoint {path}"
        self._path = path

    async def last(self) -> str:
        return await asyncio.to_thread(self._read)

    async def keep(self, line: str) -> None:
        await asyncio.to_thread(self._append, line)

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise NotKeptError(f"{self._path} cannot be read: {error.strerror}") from error
        if text and not text.endswith("\n"):
            raise NotKeptError(f"{self._path} ends in half a line: remove it")
        return text.rstrip("\n").rpartition("\n")[2]

    def _append(self, line: str) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, f"{line}\n".encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise NotKeptError(f"{self._path} cannot be written: {error.strerror}") from error


class UrlPlace:
    """An address that takes each line in a POST of its own, and keeps it."""

    def __init__(self, url: str, token: str, client: httpx.AsyncClient) -> None:
        self.name = f"checkpoint {httpx.URL(url).host}"
        self._url = url
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._client = client

    async def last(self) -> None:
        return None

    async def keep(self, line: str) -> None:
        try:
            answer = await self._client.post(self._url, content=line, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotKeptError(f"it cannot be reached: {type(error).__name__}") from error
        if not answer.is_success:
            raise NotKeptError(f"it answered {answer.status_code}")


class SlackPlace:
    """A channel whose history is the list."""

    def __init__(self, channel: str, slack: SlackClient) -> None:
        self.name = f"checkpoint {channel}"
        self._channel = channel
        self._slack = slack

    async def last(self) -> None:
        return None

    async def keep(self, line: str) -> None:
        text = f"```{line}```"  # hexadecimal digits, a time and our own words: nothing in it is markup
        message = Message(text=text, blocks=[section(text)])
        try:
            await self._slack.post(self._channel, message, key=f"checkpoint:{line[-64:]}", rank=Rank.EVIDENCE)
        except SlackError as error:
            raise NotKeptError(str(error)) from error


class CheckpointWriter:
    """Writes one for one place when the record has grown. Without a key they are not signed, for our own log only."""

    def __init__(self, place: Place, *, record: AuditLog, key: SealKey | None, pulse: Pulse, far_ends: FarEnds) -> None:
        self._place = place
        self._record = record
        self._key = key
        self._pulse = pulse
        self._far_ends = far_ends
        self._last: Checkpoint | None = None
        self._why = ""
        far_ends.expect(place.name)

    def trouble(self) -> str:
        """Why the last round wrote none, "" when it did, or when there was nothing new."""
        return f"No audit checkpoint is written ({self._place.name}): {self._why}." if self._why else ""

    async def sweep(self) -> None:
        """One round. Raises StoreUnavailableError, LifelessError."""
        try:
            is_new = await self._round()
        except (NotKeptError, NotProvenError) as error:
            self._why = str(error)
            self._far_ends.failed(self._place.name, "keep", "refused", self._why)
            log.error("no audit checkpoint", place=self._place.name, why=self._why)  # noqa: TRY400 - the place's words
            return
        self._why = ""
        if is_new:
            self._far_ends.answered(self._place.name, "keep")

    async def _round(self) -> bool:
        last = await self._newest()
        report = await (self._record.verify_since(last) if last else self._record.verify())
        if report.broken_at is not None:
            raise NotProvenError(f"the record is broken at row {report.broken_at}: {report.why}")
        self._last = last
        if report.rows == (last.sequence if last else 0):
            return False
        checkpoint = report.checkpoint(datetime.now(UTC))
        line = signed_line(checkpoint, self._key) if self._key else canonical(checkpoint.model_dump())
        async with self._pulse.guard():
            await self._place.keep(line)
        self._last = checkpoint
        return True

    async def _newest(self) -> Checkpoint | None:
        """The newest that is there, or that we wrote; None before the first. Raises NotProvenError, NotKeptError."""
        line = await self._place.last()
        if line is None or self._key is None:
            return self._last
        try:
            found = read_checkpoints(line, self._key.public).newest if line else None
        except NotProvenError as error:
            raise NotProvenError(f"the last {error}") from error
        if self._last is not None and (found is None or found.sequence < self._last.sequence):
            raise NotProvenError(f"the checkpoint of row {self._last.sequence} is not there any more")
        return found


def places_of(
    settings: Settings, entries: Sequence[CheckpointPlace], slack: SlackClient, client: httpx.AsyncClient
) -> list[tuple[float, Place]]:
    """Seconds between two rounds, and where to, for each entry of the configuration."""
    return [(each.every_min * 60.0, _place(settings, each, slack, client)) for each in entries]


def _place(settings: Settings, entry: CheckpointPlace, slack: SlackClient, client: httpx.AsyncClient) -> Place:
    if entry.file is not None:
        return FilePlace(entry.file)
    if entry.slack_channel is not None:
        return SlackPlace(entry.slack_channel, slack)
    token = secret_of(settings, entry.credential, "[[checkpoint]]") if entry.credential else ""
    return UrlPlace(entry.url or "", token, client)
