"""
Labels of prompt stores (Langfuse's labels, MLflow's aliases, Phoenix' tags), none of which have a history.

What a label pointed to before is gone in the store, so our own sightings are kept, and a move is read from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

LONGEST_TEXT = 65_536


@dataclass(frozen=True, kw_only=True)
class LabelSeen:
    """From `at` to `until` the label was seen on this version; `until` is None where only the first time is known."""

    version: int
    at: datetime
    until: datetime | None = None


class Journal(Protocol):
    """What we saw labels point to; it outlives the process."""

    async def seen(self, prompt: str, label: str, version: int, at: datetime) -> None:
        """Write an observation down; seeing the same version again only prolongs its stretch."""

    async def history(self, prompt: str, label: str) -> Sequence[LabelSeen]:
        """The stretches of one version each, oldest first."""


@dataclass(frozen=True, kw_only=True)
class LabelMove:
    """
    The label was seen on `previous` first and last at these times, and on `version` since `arrived`.

    `stretch` counts how often it has come to this version, so that going back and forth makes changes of their own.
    """

    version: int
    previous: int
    previous_first: datetime
    previous_last: datetime | None
    arrived: datetime
    stretch: int

    def at(self, hint: datetime | None) -> datetime:
        """
        When it moved: the store's own hint where it fits, else the last time that the old version was seen.

        The earlier end of the gap, since a cause that is dated too late would be taken for a consequence.
        """
        if hint is not None and (self.previous_last or self.previous_first) <= hint <= self.arrived:
            return hint
        return self.previous_last or self.arrived


async def look(journal: Journal | None, prompt: str, label: str, version: int, now: datetime) -> LabelMove | None:
    """Write down that the label is on this version now, and read how it came there; None when nobody saw it move."""
    if journal is None:
        return None
    await journal.seen(prompt, label, version, now)
    return newest_move(await journal.history(prompt, label), version)


def newest_move(history: Sequence[LabelSeen], version: int) -> LabelMove | None:
    """The move to the version that the label is on; None without a sighting on another version before it."""
    past = [index for index, seen in enumerate(history) if seen.version != version]
    if not past or past[-1] + 1 >= len(history):
        return None
    before, here = history[past[-1]], history[past[-1] + 1]
    numbers = [seen.version for seen in history]
    arrivals = [index for index, each in enumerate(numbers) if each == version and numbers[index - 1 : index] != [each]]
    return LabelMove(
        version=version,
        previous=before.version,
        previous_first=before.at,
        previous_last=before.until,
        arrived=here.at,
        stretch=len(arrivals),
    )


def change_id(source: str, prompt: str, version: int, stretch: int) -> str:
    """The same for everybody who sees this move, and another one when the label comes back to a version."""
    return f"{source}:{prompt}:{version}" + (f"#{stretch}" if stretch > 1 else "")


def prompt_text(prompt: Any) -> str:
    """A prompt as people read it: the text itself, or a chat prompt's messages one after the other."""
    if isinstance(prompt, str):
        return prompt[:LONGEST_TEXT]
    if isinstance(prompt, list):
        return "\n".join(_message_text(message) for message in prompt)[:LONGEST_TEXT]
    return ""


def _message_text(message: Any) -> str:
    if not isinstance(message, dict):
        return str(message)
    if "role" in message:
        return f"{message['role']}: {_content_text(message.get('content', ''))}"
    return f"[{message.get('type', 'part')}: {message.get('name', '')}]"


def _content_text(content: Any) -> str:
    """Some stores keep a message's content in parts; what is no text is named by its type."""
    if not isinstance(content, list):
        return str(content)
    parts = [part if isinstance(part, dict) else {"text": part} for part in content]
    return "\n".join(str(part["text"]) if "text" in part else f"[{part.get('type', 'part')}]" for part in parts)
