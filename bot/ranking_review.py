"""Who lets a learned ranking count, and who takes it back: the deeds behind `retrieval adopt` and `rollback`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Protocol

from bot import narrate
from bot.incidents import NotAllowedError, Person
from bot.policy import Policy
from bot.store.rankings import SUBJECT, Offer, Rankings


class Refusals(Protocol):
    """The part of the desk that puts a refusal on record."""

    async def refused(self, *, who: str, what: str, why: str, subject: str, channel: str = "slack") -> None: ...


class RankingReview:
    """Raises NotAllowedError, NotFoundError, AlreadyDecidedError, StaleError, StoreUnavailableError."""

    def __init__(self, *, rankings: Rankings, policy: Policy, refusals: Refusals) -> None:
        self._rankings = rankings
        self._policy = policy
        self._refusals = refusals

    async def read(self, digest: str) -> Offer:
        """What was offered under this hash."""
        return await self._rankings.get(digest)

    async def adopt(self, digest: str, by: Person) -> str:
        """Let it count from the next incident on, in every process. What to tell the person."""
        async with self._deed("ranking.adopt", by):
            await self._rankings.adopt(digest, by=by.person_id, channel=by.channel, now=datetime.now(UTC))
        return narrate.DONE["adopt"]

    async def roll_back(self, by: Person) -> str:
        """Let what counted before count again. What to tell the person."""
        async with self._deed("ranking.roll_back", by):
            digest = await self._rankings.roll_back(by=by.person_id, channel=by.channel, now=datetime.now(UTC))
        return narrate.RANKING_BACK.format(digest=digest) if digest else narrate.NO_RANKING

    @asynccontextmanager
    async def _deed(self, what: str, by: Person) -> AsyncIterator[None]:
        try:
            self._policy.may_adopt(by)
            yield
        except NotAllowedError as refusal:
            await self._refusals.refused(
                who=by.person_id, what=what, why=str(refusal), subject=SUBJECT, channel=by.channel
            )
            raise
