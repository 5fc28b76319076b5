"""What `watchkeeper retrieval adopt` and `rollback` ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.ranking_review import RankingReview
from bot.web.entrance import Entrance, Visit
from bot.web.render import HEADERS


class RankingApi:
    """The hash in the address is all that a caller may say."""

    def __init__(self, *, review: RankingReview, entrance: Entrance) -> None:
        self._review = review
        self._entrance = entrance

    def routes(self) -> Sequence[BaseRoute]:
        """What the web serves programs of operators."""
        call = self._entrance.call
        return (
            Route("/api/ranking/{digest}", call(self._read), methods=["GET"]),
            Route("/api/ranking/{digest}/adopt", call(self._adopt), methods=["POST"]),
            Route("/api/ranking/rollback", call(self._roll_back), methods=["POST"]),
        )

    async def _read(self, visit: Visit) -> Response:
        offer = await self._review.read(visit.request.path_params["digest"])
        return _json(
            {
                "digest": offer.digest,
                "content": offer.content,
                "made_at": offer.made_at.isoformat(),
                "made_by": offer.made_by,
            }
        )

    async def _adopt(self, visit: Visit) -> Response:
        said = await self._review.adopt(visit.request.path_params["digest"], visit.operator.person)
        return _json({"said": said})

    async def _roll_back(self, visit: Visit) -> Response:
        return _json({"said": await self._review.roll_back(visit.operator.person)})


def _json(value: dict[str, Any]) -> Response:
    return JSONResponse(value, headers=dict(HEADERS))
