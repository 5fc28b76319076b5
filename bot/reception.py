"""What people and pipelines meet outside Slack: sign-in, pages, the command line's counterpart, reports of changes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from bot.chronicle import Chronicle
from bot.doors import Readiness
from bot.journal import ChangeBook
from bot.operators import Operators
from bot.parts import Parts
from bot.ranking_review import RankingReview
from bot.reporters import Reporters
from bot.status import Status
from bot.store import schema
from bot.store.change_journal import ChangeJournal
from bot.store.listing import Listing
from bot.store.operators import OperatorTokens
from bot.web.app import utc_now
from bot.web.change_door import ChangeDoor
from bot.web.entrance import Entrance
from bot.web.operator_api import OperatorApi
from bot.web.pages import DecisionDesk, Pages
from bot.web.ranking_api import RankingApi
from bot.web.render import Renderer
from bot.web.statusz import Statusz


def operator_routes(parts: Parts, desk: DecisionDesk, readiness: Readiness) -> Sequence[BaseRoute]:
    """Everything that the web serves beside the doors and the probes."""
    chronicle = Chronicle(
        listing=Listing(parts.database),
        incidents=parts.incidents,
        plans=parts.plans,
        cards=parts.cards,
        record=parts.record,
        config=parts.config,
        policy=parts.policy,
        step_up=parts.step_up,
    )
    renderer = Renderer()
    operators = Operators(tokens=OperatorTokens(parts.database), people=parts.people)
    entrance = Entrance(operators, renderer)
    pages = Pages(
        chronicle=chronicle,
        desk=desk,
        operators=operators,
        entrance=entrance,
        renderer=renderer,
        chain=parts.chain,
    )
    api = OperatorApi(chronicle=chronicle, desk=desk, entrance=entrance)
    status = Status(
        probes=readiness,
        vitals=parts.vitals,
        chain=parts.chain,
        far_ends=parts.far_ends,
        config=parts.config,
        schema=schema.head(),
        runbooks=lambda: str(parts.shelf),
        left_out=lambda: _left_out(parts),
        troubles=parts.troubles,
    )
    statusz = Statusz(status=status, entrance=entrance, renderer=renderer)
    door = ChangeDoor(
        reporters=Reporters(OperatorTokens(parts.database)),
        book=ChangeBook(ChangeJournal(parts.database), parts.config),
        config=parts.config,
        now=utc_now,
    )
    review = RankingReview(rankings=parts.rankings, policy=parts.policy, refusals=desk)
    ranking = RankingApi(review=review, entrance=entrance)
    return (*pages.routes(), *api.routes(), *ranking.routes(), *statusz.routes(), *door.routes())


def _left_out(parts: Parts) -> list[str]:
    """What could not be read, or was not asked for."""
    found = [str(problem) for problem in parts.shelf.now.problems]
    if parts.settings.watchkeeper_heartbeat_url is None:
        found.append("Nobody outside hears of our silence (no WATCHKEEPER_HEARTBEAT_URL).")
    return found
