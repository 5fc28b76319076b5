"""What prompt stores have in common whose labels we follow: which prompts are asked about, and in which order told."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import datetime

import httpx

from diagnostics.changes.api import PATIENCE_S, ReadingApi
from diagnostics.changes.change import Change
from diagnostics.changes.labels import Journal
from diagnostics.target import Target


class FollowedPrompts(ABC):
    """The change source of one store; `label` is what production follows there, by whatever name the store calls it."""

    def __init__(
        self,
        *,
        name: str,
        url: str,
        client: httpx.AsyncClient,
        label: str = "production",
        journal: Journal | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = name
        self._api = ReadingApi(name=name, url=url, client=client, patience_s=patience_s)
        self._label = label
        self._journal = journal

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Where the label was seen to move within this time, for the target's prompts. Raises ChangeSourceError."""
        names = [prompt.name for prompt in target.prompts if prompt.source in {"", self.name}]
        found = await asyncio.gather(*(self._of_prompt(target, name, until) for name in names))
        changes = [change for change in found if change is not None and since <= change.at <= until]
        return sorted(changes, key=lambda change: change.at)

    @abstractmethod
    async def _of_prompt(self, target: Target, name: str, until: datetime) -> Change | None:
        """The last move of the label on one prompt, if any is known."""
