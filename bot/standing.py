"""Whether Slack would still let those click who approved a plan: asked when it starts, and before each of its acts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from bot import narrate
from bot.config.trust import MAX_AGE_MINUTES
from bot.incidents import Person, StaleError, WatchkeeperError
from bot.store.plan_rows import Approval
from runbooks.engine.values import Tier

HOLDS_FOR = timedelta(minutes=MAX_AGE_MINUTES)
"""What Slack said last counts for so long while it cannot be asked, as with roles that it gives."""


class CannotAskError(WatchkeeperError):
    """Slack does not say now; `said_at` is when it last said yes, as far as this process knows."""

    def __init__(self, why: str, *, said_at: datetime | None = None) -> None:
        super().__init__(why)
        self.said_at = said_at


class Accounts(Protocol):
    """What Slack says of people's accounts."""

    async def lost(self, person_id: str, *, now: datetime) -> str:
        """Why none of a person's accounts counts any more; "" if one does or they have none. Raises CannotAskError."""


class NobodySays:
    """Where Slack is not connected."""

    async def lost(self, person_id: str, *, now: datetime) -> str:  # noqa: ARG002 - as `Accounts` has it
        raise CannotAskError("Slack is not connected here")


async def refuse_lost(accounts: Accounts, person: Person, given: Approval, tier: Tier, now: datetime) -> None:
    """
    Raises StaleError when this approval counts no more: Slack disowns the person, or has not been heard for too long.

    Silence hurts what was approved in Slack alone, and from R2 on: whoever signed in to our page or command line
    proved there who they are, and that way has to stay open while Slack is away.
    """
    try:
        lost = await accounts.lost(person.person_id, now=now)
    except CannotAskError as silence:
        heard_at = max(given.at, silence.said_at or given.at)
        if given.channel == "slack" and tier >= Tier.R2 and now - heard_at > HOLDS_FOR:
            age = narrate.seconds((now - heard_at).total_seconds())
            raise StaleError(narrate.UNCONFIRMED.format(person=person.name, age=age, why=silence)) from silence
        return
    if lost:
        raise StaleError(f"{person.name} may not approve it any more: {lost}")
