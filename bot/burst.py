"""
Keeps the one card of a burst, so that people see within two seconds what came, however long Slack takes for the rest.

Slack takes about one message a second in a channel. It is a projection of rows like every card: posted once, edited in
place as incidents join and as their own cards stand, and found by its key after a crash.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import structlog

from bot.pulse import Pulse
from bot.slack import burst
from bot.slack.burst import BurstLine
from bot.slack.client import SlackClient, SlackError
from bot.slack.pace import Rank
from bot.slack.view import Message
from bot.store.bursts import JOINS_WITHIN, BurstMember, BurstPlace, Bursts

log = structlog.get_logger()

_AGAIN = timedelta(seconds=0.5)
_AFTER_TROUBLE = timedelta(seconds=2)
"""It goes before all cards, so one that is tried in vain too often would take their turns."""


class BurstKeeper:
    """Draws the card of every burst whose time has come."""

    def __init__(self, *, bursts: Bursts, slack: SlackClient, channel: str, pulse: Pulse) -> None:
        self._pulse = pulse
        self._bursts = bursts
        self._slack = slack
        self._channel = channel

    async def sweep(self) -> Rank:
        """How important the incidents' own cards are now: until a burst is announced, they leave room for that."""
        await self._bursts.gather(now=datetime.now(UTC))
        for place in await self._bursts.take(now=datetime.now(UTC), me=self._pulse.me):
            await self._show(place)
        return Rank.FIRST if await self._bursts.is_announced() else Rank.CARD

    async def _show(self, place: BurstPlace) -> None:
        members = await self._bursts.members(place.burst_id)
        message = burst.summary([self._line(each) for each in members], place.opened_at)
        shown = hashlib.sha256(json.dumps([message.text, message.blocks]).encode()).hexdigest()
        try:
            async with self._pulse.guard():
                channel, ts = await self._draw(place, message, is_new=shown != place.shown)
        except SlackError as error:
            now = datetime.now(UTC)
            if not error.untouched:
                log.warning("the card of a burst is not shown", burst=place.burst_id, why=str(error))
            if error.permanent:
                await self._bursts.over(place.burst_id, now=now)
                return
            pause = _AGAIN if error.untouched else _AFTER_TROUBLE
            await self._bursts.later(place.burst_id, now + max(pause, timedelta(seconds=error.retry_after or 0.0)))
            return
        now = datetime.now(UTC)
        is_over = now - place.joined_at > JOINS_WITHIN and all(each.card_ts for each in members)
        await self._bursts.drawn(place.burst_id, channel, ts, shown, now=now, is_over=is_over)

    async def _draw(self, place: BurstPlace, message: Message, *, is_new: bool) -> tuple[str, str]:
        """Update the card if it says something else, or post it once; where it stands."""
        key = f"burst:{place.burst_id}"
        channel, ts = place.channel or self._channel, place.card_ts
        if ts is None and place.is_begun:
            ts = await self._slack.find_posted(channel, key)
        if ts is None:
            await self._bursts.begun(place.burst_id)
            return channel, await self._slack.post(channel, message, key=key, rank=Rank.FIRST)
        if is_new:
            await self._slack.update(channel, ts, message, key=key, rank=Rank.FIRST)
        return channel, ts

    def _line(self, member: BurstMember) -> BurstLine:
        stands = member.card_ts is not None
        url = self._slack.permalink(member.channel or self._channel, member.card_ts) if member.card_ts else ""
        return BurstLine(
            number=member.number,
            title=member.title,
            service=member.service,
            is_resolved=member.is_resolved,
            stands=stands,
            url=url,
        )
