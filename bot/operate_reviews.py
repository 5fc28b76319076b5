"""What `watchkeeper audit reviews` and `audit review` do beside the database: look back at broken glass."""

from __future__ import annotations

from datetime import UTC, datetime

from bot.config import Config
from bot.incidents import WatchkeeperError
from bot.operate import open_database
from bot.redact import safe_text
from bot.settings import Settings
from bot.store.break_glass import MOST_WORDS, BrokenGlass, Review


async def reviews(settings: Settings, now: datetime) -> str:
    """Every time that the glass was broken, what is still owed a review first."""
    async with open_database(settings) as database:
        found = await BrokenGlass(database).reviews()
    return safe_text("\n".join(_line(each, now) for each in found)) or "nobody has broken the glass"


async def review(settings: Settings, config: Config, review_id: int, *, by: str, says: str, actor: str) -> str:
    """Close one. Raises WatchkeeperError: whoever broke the glass cannot, and a review says something."""
    if config.person(by) is None:
        known = ", ".join(each.id for each in config.people) or "nobody"
        raise WatchkeeperError(f"{by} is not in {config.path}; it has {known}")
    said = safe_text(says).strip()[:MOST_WORDS]
    if not said:
        raise WatchkeeperError("--says is empty: write down whether it was right, and what should change")
    async with open_database(settings) as database:
        glass = BrokenGlass(database)
        closed = await glass.close(review_id, by=by, says=said, actor=actor, now=datetime.now(UTC))
    return f"review {closed.review_id} of {closed.plan_id} is closed; it is on the record of {closed.incident_id}"


def _line(each: Review, now: datetime) -> str:
    facts = f"{each.at:%Y-%m-%d %H:%M} UTC  {each.person_id} as {each.role} started {each.plan_id} alone: {each.reason}"
    if each.reviewed_at is not None:
        return f"{each.review_id:>4}  closed   {facts} / {each.reviewed_by}: {each.says}"
    return f"{each.review_id:>4}  {'OVERDUE' if now > each.due_at else 'open':<7}  {facts}"
