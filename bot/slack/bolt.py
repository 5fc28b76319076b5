"""Bolt with every listener of the product."""

from __future__ import annotations

import re

from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack import buttons, modal
from bot.slack.authorise import Authoriser
from bot.slack.client import SlackClient
from bot.slack.commands import COMMAND, Commands
from bot.slack.desk import Desk
from bot.slack.listeners import (
    CLICKS,
    DECISION_PATIENCE_S,
    UNKNOWN_CLICK,
    ClickListener,
    CommandListener,
    Counter,
    EventListener,
    Stragglers,
)
from bot.slack.once import Claims, Once
from bot.slack.values import ValuesButton, ValuesForm


def build_bolt(
    *,
    web: AsyncWebClient,
    desk: Desk,
    authoriser: Authoriser,
    slack: SlackClient,
    claims: Claims,
    patience_s: float = DECISION_PATIENCE_S,
    stragglers: Stragglers | None = None,
) -> AsyncApp:
    """
    Bolt with every listener of the product, each behind the authoriser.

    Before the loop ends, wait for `stragglers.finish()`: a deed may outlast Slack's patience.
    It verifies nothing: hand it only what came through `bot/web/slack_door.py`, whose verifier knows no request that
    makes it fail, or through the WebSocket that `bot/slack/socket.py` opened to Slack itself.
    """
    stragglers = stragglers or Stragglers()
    app = AsyncApp(
        client=web,
        signing_secret="",  # else Bolt looks for one in the environment
        request_verification_enabled=False,
        # Slack hears what the listeners say, when they have said it; Bolt would acknowledge events unread.
        process_before_response=True,
    )
    counter = Counter(
        desk=desk,
        authoriser=authoriser,
        slack=slack,
        once=Once(claims, stragglers.begin),
        stragglers=stragglers,
        patience_s=patience_s,
    )
    for action, click in CLICKS.items():
        app.action(action)(ClickListener(action, click, counter).hear)
    app.action(buttons.CHANGE)(ValuesButton(counter).hear)
    app.view(modal.CALLBACK)(ValuesForm(counter).hear)
    # Buttons of cards that an older version posted; Bolt takes the first listener that matches, so this is the last.
    app.action(re.compile(".*"))(ClickListener("unknown", UNKNOWN_CLICK, counter).hear)
    app.command(COMMAND)(CommandListener(Commands(desk), counter).hear)
    app.event(re.compile(".*"))(EventListener(Commands(desk), counter).hear)
    return app
