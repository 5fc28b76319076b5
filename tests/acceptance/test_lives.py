"""Whole lives of incidents over HTTP, against services that complain of everything that the real ones would refuse."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import Place
from tests.standins import ALICE, BOB, MALLORY, Message, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
still = pytest.mark.asyncio(loop_scope="module")


def offers_fix(card: Message) -> bool:
    return "approve" in card.buttons


@still
async def test_probe(place: Place) -> None:
    """Probe."""
    await place.pagerduty.page("LLMHighTTFT probe")
    card = await place.slack.card("LLMHighTTFT probe", offers_fix)
    print(card.words, card.buttons, card.options("request"))
