"""
Keeps Slack and PagerDuty in line with what is on record: draws cards that changed, and empties the outbox.

Slack or PagerDuty may be down for hours; what they must be told waits in the database, in order per incident.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from bot import narrate
from bot.burst import BurstKeeper
from bot.card import Cards
from bot.config import Config
from bot.incidents import NotFoundError, PlanState, StoreUnavailableError
from bot.pagerduty_client import UNKNOWN_USER, PagerDutyClient, PagerDutyError
from bot.pulse import Pulse
from bot.redact import safe_text
from bot.respond import diagnosis_of
from bot.slack import portrait, thread
from bot.slack.blocks import card
from bot.slack.client import SlackClient, SlackError
from bot.slack.pace import Rank
from bot.slack.picture import Picture, describe, draw
from bot.slack.view import CardView, Message, PlanLine
from bot.store.break_glass import BREAK_GLASS
from bot.store.incidents import ESCALATE, CardPlace, Incidents
from bot.store.outages import KIND
from bot.store.outbox import Outbox, Parcel
from diagnostics.diagnosis import Diagnosis
from diagnostics.key_signals import curves
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.model import TelemetryError

log = structlog.get_logger()

MOST_ATTEMPTS = 1000
"""With waits of up to a minute, half of that on average, this is about eight hours."""

CARD_PAUSE = timedelta(seconds=0.5)
"""A card is redrawn at most twice a second; Slack takes 50 updates a minute from all of them together."""

_LONGEST_WAIT_S = 60.0
_MOST_UPDATES = 20
_MOST_PARCELS = 20


def backoff(attempts: int, wished: float | None = None) -> timedelta:
    """Full jitter up to a minute, and never sooner than the far end asked for."""
    ceiling = min(_LONGEST_WAIT_S, 1.5 * 2.0 ** min(attempts, 8))
    return timedelta(seconds=max(random.uniform(0.5, ceiling), wished or 0.0))  # noqa: S311 - jitter, not a secret


class CardKeeper:
    """
    Draws each card whose revision is newer than what Slack shows, as many at a time as Slack takes.

    The others wait as rows, and are drawn as they are when their turn comes. New cards come first; where there are more
    than Slack takes, the card of the burst speaks for them.
    """

    def __init__(
        self,
        *,
        incidents: Incidents,
        cards: Cards,
        slack: SlackClient,
        bursts: BurstKeeper,
        channel: str,
        pulse: Pulse,
    ) -> None:
        self._pulse = pulse
        self._bursts = bursts
        self._incidents = incidents
        self._cards = cards
        self._slack = slack
        self._channel = channel
        self._failures: dict[str, int] = {}

    async def sweep(self) -> None:
        """One round over the cards that are out of date, and the card of a burst before them."""
        rank = await self._bursts.sweep()
        new = self._slack.room("chat.postMessage", self._channel, rank)
        old = self._slack.room("chat.update", self._channel, Rank.CARD)
        now = datetime.now(UTC)
        places = await self._incidents.cards_to_show(now=now, me=self._pulse.me, new=new, old=min(old, _MOST_UPDATES))
        _raise_first(await asyncio.gather(*(self._show(place, rank) for place in places), return_exceptions=True))

    async def _show(self, place: CardPlace, rank: Rank) -> None:
        if not await self._incidents.claim_card(place, now=datetime.now(UTC), me=self._pulse.me):
            return
        try:
            message = card(await self._cards.view(place.incident_id))
            async with self._pulse.guard():
                channel, ts = await self._draw(place, message, rank)
        except SlackError as error:
            if error.missing and place.card_ts is not None:
                await self._incidents.card_gone(place.incident_id, me=self._pulse.me)
                return
            log.warning("card not shown", incident=place.incident_id, why=str(error))
            await self._later(place, 0 if error.untouched else 1, error.retry_after)
        except StoreUnavailableError:
            raise
        except Exception:  # the outer boundary of one card: a defect in drawing it must not hold up the others
            log.exception("card not drawn", incident=place.incident_id)
            await self._later(place, 1, None)
        else:
            self._failures.pop(place.incident_id, None)
            now = datetime.now(UTC)
            await self._incidents.card_shown(
                place.incident_id, place.revision, channel, ts, now=now, next_at=now + CARD_PAUSE
            )

    async def _later(self, place: CardPlace, failed: int, wished: float | None) -> None:
        failures = self._failures[place.incident_id] = self._failures.get(place.incident_id, 0) + failed
        due = datetime.now(UTC) + backoff(failures, wished)
        await self._incidents.card_later(place.incident_id, due, me=self._pulse.me)

    async def _draw(self, place: CardPlace, message: Message, rank: Rank) -> tuple[str, str]:
        """
        Update the card, or post it once: after a crash between the post and its record it is found by its key.

        A first attempt is marked by `shown` = -1, so that only a second one pays for looking.
        """
        key = f"card:{place.incident_id}"
        channel = place.channel or self._channel
        if place.card_ts is not None:
            await self._slack.update(channel, place.card_ts, message, key=key)
            return channel, place.card_ts
        if place.shown < 0 and (found := await self._slack.find_posted(channel, key)) is not None:
            await self._slack.update(channel, found, message, key=key)
            return channel, found
        return channel, await self._slack.post(channel, message, key=key, rank=rank)


class SlackCourier:
    """Delivers parcels of the Slack lane into the card's thread."""

    def __init__(
        self,
        *,
        incidents: Incidents,
        cards: Cards,
        slack: SlackClient,
        diagnosers: Mapping[str, Diagnoser],
        config: Config,
    ) -> None:
        self._incidents = incidents
        self._cards = cards
        self._slack = slack
        self._diagnosers = diagnosers
        self._config = config

    async def deliver(self, parcel: Parcel) -> bool:
        """False when the card does not stand yet, so that there is no thread. Raises SlackError."""
        place = await self._incidents.place(parcel.incident_id)
        if place is None:
            return False
        channel, ts = place
        if parcel.kind in ("picture", "signals"):
            await self._picture(parcel, channel, ts)
            return True
        place_of = None if parcel.kind == BREAK_GLASS else ts  # that is for the whole channel
        if parcel.uncertain and await self._slack.find_posted(channel, parcel.key, thread_ts=place_of) is not None:
            return True
        message = await self._message(parcel)
        await self._slack.post(channel, message, key=parcel.key, thread_ts=place_of, rank=Rank.EVIDENCE)
        return True

    async def _message(self, parcel: Parcel) -> Message:
        view = await self._cards.view(parcel.incident_id, parcel.content.get("run"))
        if parcel.kind == "evidence":
            return thread.evidence(view)
        if parcel.kind == "refusal":
            return thread.note(narrate.refused_errand(**parcel.content))
        line = plan_in(view, parcel.content["plan"])
        if parcel.kind == BREAK_GLASS:
            return thread.note(_glass_broken(parcel, line))
        return thread.progress(line) if line else thread.note("A fix ended; see the card.")

    async def _picture(self, parcel: Parcel, channel: str, ts: str) -> None:
        """A picture has no key to find it by, so after an unknown outcome it is not sent again."""
        found = diagnosis_of(await self._incidents.run(parcel.incident_id, parcel.content["run"]))
        if parcel.uncertain or found is None:
            return
        picture = await self._signals(found) if parcel.kind == "signals" else _latency(found)
        if picture is None:
            return
        title = "Key signals" if parcel.kind == "signals" else "Latency"
        await self._slack.upload_picture(
            channel,
            await draw(picture),
            filename=f"{parcel.kind}.png",
            title=f"{title} of {found.service}",
            alt_text=describe(picture),
            thread_ts=ts,
        )

    async def _signals(self, found: Diagnosis) -> Picture | None:
        """Asked only now, when the verdict stands; without an answer the thread goes without."""
        service, diagnoser = self._config.service(found.service), self._diagnosers.get(found.service)
        if service is None or diagnoser is None:
            return None
        try:
            drawn = await curves(diagnoser.telemetry, service.target(), found)
        except TelemetryError as error:
            log.warning("no picture of the signals", service=found.service, why=str(error))
            return None
        return portrait.signals_picture(found, drawn) if drawn else None


def _glass_broken(parcel: Parcel, line: PlanLine | None) -> str:
    effects = [step.effect for step in line.steps] if line else []
    said = parcel.content
    return narrate.glass_broken(said["name"], effects, said["reason"], said["review"])


def _latency(found: Diagnosis) -> Picture | None:
    is_measured = any(stage.now_s is not None for stage in found.stages)
    return portrait.latency_picture(found) if is_measured else None


class PagerDutyCourier:
    """
    Delivers parcels of the PagerDuty lane: acknowledgements, resolutions and notes, in the right person's name.

    `public_url` is where people reach our own pages; empty when nobody said.
    """

    def __init__(self, *, cards: Cards, pagerduty: PagerDutyClient, from_email: str, public_url: str = "") -> None:
        self._cards = cards
        self._pagerduty = pagerduty
        self._from = from_email
        self._public_url = public_url.rstrip("/")

    async def deliver(self, parcel: Parcel) -> bool:
        """Raises PagerDutyError. Acknowledging and resolving twice is harmless; a note is looked up first."""
        if parcel.kind in ("acknowledge", "resolve"):
            await self._change(parcel)
        elif parcel.kind == ESCALATE:
            message = narrate.second_person(parcel.content["name"], parcel.content["plan"])
            await self._pagerduty.ask_secondary(parcel.incident_id, message, self._from)
        else:
            text = safe_text(await self._note(parcel))  # as the client sends it, so that it is found again
            if not (parcel.uncertain and await self._is_known(parcel, text)):
                await self._pagerduty.add_note(parcel.incident_id, text, self._from)
        return True

    async def _is_known(self, parcel: Parcel, text: str) -> bool:
        """A note of an outage is known by its beginning: the fix in it may have been decided since."""
        notes = await self._pagerduty.notes(parcel.incident_id)
        if parcel.kind != KIND:
            return text in notes
        return any(note.startswith(narrate.slack_down_opening(parcel.content["run"])) for note in notes)

    async def _change(self, parcel: Parcel) -> None:
        """In the name of whoever clicked; in our own when PagerDuty does not know them."""
        change = self._pagerduty.acknowledge if parcel.kind == "acknowledge" else self._pagerduty.resolve
        sender = parcel.content.get("email") or self._from
        try:
            await change(parcel.incident_id, sender)
        except PagerDutyError as error:
            if error.code != UNKNOWN_USER or sender == self._from:
                raise
            await change(parcel.incident_id, self._from)

    async def _note(self, parcel: Parcel) -> str:
        view = await self._cards.view(parcel.incident_id, parcel.content.get("run"))
        if parcel.kind == "verdict":
            return narrate.verdict_note(
                view.service, [(cause.title, cause.probability) for cause in view.causes], parcel.content["run"]
            )
        if parcel.kind == KIND:
            return self._slack_down(view, parcel.content["run"])
        line = plan_in(view, parcel.content["plan"])
        if parcel.kind == BREAK_GLASS:
            return _glass_broken(parcel, line)
        effects = [step.effect for step in line.steps] if line else []
        state = narrate.PLAN_STATE[line.state] if line else "ended"
        return narrate.outcome_note(effects, state, line.approved_by if line else (), parcel.content["plan"])

    def _slack_down(self, view: CardView, run: int) -> str:
        cause = view.causes[0] if view.causes else None
        verdict = f"{view.service}: {cause.title} ({narrate.how_sure(cause.probability)})." if cause else ""
        line = view.plan if view.plan and view.plan.state is PlanState.PROPOSED else None
        return narrate.slack_down_note(
            run,
            verdict or f"{view.service}: no cause found.",
            effects=[step.effect for step in line.steps] if line else [],
            plan_id=line.plan_id if line else "",
            may_approve=line.may_approve if line else (),
            needed=line.needed if line else 1,
            page=f"{self._public_url}/incidents/{view.incident_id}" if self._public_url else "",
        )


class Mailroom:
    """Empties one lane of the outbox through its courier; `room` says how many parcels the far end takes now."""

    def __init__(
        self,
        lane: str,
        outbox: Outbox,
        deliver: Callable[[Parcel], Awaitable[bool]],
        pulse: Pulse,
        room: Callable[[], int] = lambda: _MOST_PARCELS,
    ) -> None:
        self._pulse = pulse
        self._room = room
        self._lane = lane
        self._outbox = outbox
        self._deliver = deliver

    async def sweep(self) -> int:
        """Try every due parcel once, incidents beside each other; returns how many were delivered."""
        limit = min(self._room(), _MOST_PARCELS)
        parcels = await self._outbox.due(self._lane, now=datetime.now(UTC), me=self._pulse.me, limit=limit)
        ends = await asyncio.gather(*(self._try(parcel) for parcel in parcels), return_exceptions=True)
        _raise_first(ends)
        return sum(end is True for end in ends)

    async def _try(self, parcel: Parcel) -> bool:
        if not await self._outbox.claim(parcel, now=datetime.now(UTC), me=self._pulse.me):
            return False
        try:
            async with self._pulse.guard():
                taken = await self._deliver(parcel)
        except (SlackError, PagerDutyError) as error:
            await self._failed(parcel, error)
            return False
        except NotFoundError as error:
            await self._outbox.give_up(
                parcel.outbox_id, why=str(error), incident_id=parcel.incident_id, me=self._pulse.me
            )
            return False
        except StoreUnavailableError:
            raise
        except Exception as error:  # the outer boundary of one parcel: its defect must not hold up the others
            log.exception("parcel broke", lane=self._lane, kind=parcel.kind, incident=parcel.incident_id)
            await self._put_off(parcel, type(error).__name__)
            return False
        if taken:
            await self._outbox.delivered(parcel.outbox_id)
        else:
            due = datetime.now(UTC) + timedelta(seconds=0.3)
            await self._outbox.again(
                parcel, due=due, why="the card does not stand yet", untouched=True, me=self._pulse.me
            )
        return taken

    async def _failed(self, parcel: Parcel, error: SlackError | PagerDutyError) -> None:
        log.warning("not delivered", lane=self._lane, kind=parcel.kind, incident=parcel.incident_id, why=str(error))
        if error.permanent:
            await self._outbox.give_up(
                parcel.outbox_id, why=str(error), incident_id=parcel.incident_id, me=self._pulse.me
            )
            return
        untouched = isinstance(error, SlackError) and error.untouched
        await self._put_off(parcel, str(error), untouched=untouched, wished=getattr(error, "retry_after", None))

    async def _put_off(self, parcel: Parcel, why: str, *, untouched: bool = False, wished: float | None = None) -> None:
        if parcel.attempts >= MOST_ATTEMPTS:
            await self._outbox.give_up(parcel.outbox_id, why=why, incident_id=parcel.incident_id, me=self._pulse.me)
            return
        due = datetime.now(UTC) + backoff(0 if untouched else parcel.attempts, wished)
        await self._outbox.again(parcel, due=due, why=why, untouched=untouched, me=self._pulse.me)


def _raise_first(ends: Sequence[object]) -> None:
    """All have ended; what went wrong (the database is away) is the sweep's to tell, and not to be swallowed."""
    for end in ends:
        if isinstance(end, BaseException):
            raise end


def plan_in(view: CardView, plan_id: str) -> PlanLine | None:
    """The plan with this id, wherever the card shows it."""
    shown = (view.plan, *view.earlier_plans)
    return next((line for line in shown if line is not None and line.plan_id == plan_id), None)
