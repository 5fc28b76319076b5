"""The button that opens the form for a plan's values, and the form when it is sent; each behind the authoriser."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from slack_bolt.async_app import AsyncAck

from bot import narrate
from bot.incidents import Person, WatchkeeperError
from bot.narrowing import WrongValuesError
from bot.slack import buttons, modal
from bot.slack.authorise import NobodyError
from bot.slack.client import SlackError
from bot.slack.listeners import STILL_AT_IT, UNKNOWN_CLICK, ClickListener, Counter
from bot.slack.once import Repeated

Answer = Mapping[str, Any]
"""What Slack shall do with the form, in the words of its acknowledgement."""


class ValuesButton(ClickListener):
    """Opens the form; Slack lets us for three seconds after the click."""

    def __init__(self, counter: Counter) -> None:
        super().__init__(buttons.CHANGE, UNKNOWN_CLICK, counter)

    async def _do(self, _body: Mapping[str, Any], value: str, by: Person) -> None:
        choices = await self._counter.desk.choices(value, by)
        try:
            await self._counter.slack.open_view(str(_body.get("trigger_id") or ""), modal.form(choices))
        except SlackError as error:
            raise WatchkeeperError(narrate.NO_FORM.format(why=error, plan=value)) from error


class ValuesForm:
    """The form comes back: what is wrong with a value stands beneath it, all else takes the form's place."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def hear(self, ack: AsyncAck, body: dict[str, Any]) -> None:
        """Commit before Slack hears "ok", as for a click; when its time is up, the card will show what counts."""
        deciding = self._counter.stragglers.begin(self._decide_once(body))
        done, _ = await asyncio.wait({deciding}, timeout=self._counter.patience_s)
        await ack(**(deciding.result() if done else _instead(STILL_AT_IT)))

    async def _decide_once(self, body: Mapping[str, Any]) -> Answer:
        try:
            return await self._counter.once.run(body, lambda: self._decide(body))
        except Repeated:
            return {}

    async def _decide(self, body: Mapping[str, Any]) -> Answer:
        view = body.get("view")
        sent = modal.submitted(view) if isinstance(view, Mapping) else None
        if sent is None:
            return _instead(narrate.ODD_CLICK)
        plan_id, digest, values = sent
        try:
            by = await self._counter.recognise(body, buttons.CHANGE, plan_id)
            await self._counter.desk.narrow(plan_id, values, by, digest=digest)
        except WrongValuesError as wrong:
            if set(wrong.faults) <= set(values):
                return {"response_action": "errors", "errors": modal.errors(wrong.faults)}
            return _instead(str(wrong))
        except (NobodyError, WatchkeeperError) as refusal:
            return _instead(str(refusal))
        return _instead(narrate.DONE["narrow"])


def _instead(sentence: str) -> Answer:
    return {"response_action": "update", "view": modal.said(sentence)}
