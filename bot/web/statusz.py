"""`GET /statusz`: the state of the product for people, or as JSON for `Accept: application/json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.incidents import WatchkeeperError
from bot.operators import NotSignedInError, Operator
from bot.status import Report, Status
from bot.web.callers import csrf_of, is_from_this_machine, session_of
from bot.web.entrance import Entrance
from bot.web.render import HEADERS, Renderer

_REPORT = TypeAdapter(Report)


class Statusz:
    """
    Strangers hear whether it is ready and nothing more. Details are for who signed in, and for this machine itself.
    """

    def __init__(self, *, status: Status, entrance: Entrance, renderer: Renderer) -> None:
        self._status = status
        self._entrance = entrance
        self._renderer = renderer

    def routes(self) -> Sequence[BaseRoute]:
        return (Route("/statusz", self._statusz, methods=["GET"]),)

    async def _statusz(self, request: Request) -> Response:
        wants_json = "application/json" in request.headers.get("accept", "")
        operator: Operator | None = None
        try:
            operator = await self._entrance.anybody(request)
        except NotSignedInError:
            if not is_from_this_machine(request):
                return await self._brief(wants_json=wants_json)
        except (
            WatchkeeperError
        ) as error:  # too many attempts; the database is away, and then only this machine may look
            if not is_from_this_machine(request):
                return self._entrance.refusal(error)
        report = await self._status.report()
        if wants_json:
            return JSONResponse(_REPORT.dump_python(report, mode="json"), headers=dict(HEADERS))
        csrf = csrf_of(session_of(request)) if operator else ""
        return self._renderer.page("status.html", report=report, operator=operator, csrf=csrf)

    async def _brief(self, *, wants_json: bool) -> Response:
        reasons = await self._status.reasons()
        word, code = ("not ready", 503) if reasons else ("ready", 200)
        if wants_json:
            body: dict[str, Any] = {"status": word, "details": "sign in to see them"}
            return JSONResponse(body, code, headers=dict(HEADERS))
        sentence = f"Watchkeeper is {word}. Sign in to see more."
        return self._renderer.page("said.html", code, sentence=sentence, back="/sign-in?next=%2Fstatusz")
