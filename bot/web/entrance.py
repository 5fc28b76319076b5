"""
Nobody gets past here without being recognised: who is it, and may the rest of the request be looked at?

Pages send strangers to the sign-in page, the command line's addresses answer 401 in constant words. Both answer 429
after ten failures in a minute, and 503 when the database cannot be asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bot.incidents import (
    AlreadyDecidedError,
    NotAllowedError,
    NotFoundError,
    StaleError,
    StepUpNeededError,
    StepUpRefusedError,
    StoppedError,
    StoreUnavailableError,
    WatchkeeperError,
)
from bot.operators import NotSignedInError, Operator, Operators, TooManyAttemptsError
from bot.web.body import BodyLimits, IncompleteError, TooLargeError, read_body
from bot.web.callers import address_of, bearer_of, is_csrf, is_of_another_site, session_of
from bot.web.render import HEADERS, Renderer, elsewhere

SIGN_IN = "/sign-in"
FORM_LIMITS = BodyLimits(most_bytes=4096)

STATUS: Mapping[type[WatchkeeperError], int] = {
    NotSignedInError: 401,
    NotAllowedError: 403,
    StepUpNeededError: 403,
    StepUpRefusedError: 403,
    NotFoundError: 404,
    AlreadyDecidedError: 409,
    StaleError: 409,
    StoppedError: 409,
    TooManyAttemptsError: 429,
    StoreUnavailableError: 503,
}


class BadFormError(WatchkeeperError):
    """A form that is none of ours, or that another site sent."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request whose sender is known; `session` is the secret that forms are bound to, "" for a bearer token."""

    request: Request
    operator: Operator
    session: str
    form: Mapping[str, str]


Visited = Callable[[Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Entrance:
    """Wraps what needs a known person. What it wraps may raise any WatchkeeperError."""

    def __init__(self, operators: Operators, renderer: Renderer) -> None:
        self._operators = operators
        self._renderer = renderer

    async def anybody(self, request: Request) -> Operator:
        """Who calls, by either way. Raises NotSignedInError, TooManyAttemptsError, StoreUnavailableError."""
        if token := bearer_of(request):
            return await self._operators.recognise("token", token, address=address_of(request), now=datetime.now(UTC))
        return await self._recognise_session(session_of(request), request)

    def page(self, visited: Visited) -> Endpoint:
        """For browsers: a session's cookie, and with POST a form that only our own page can have sent."""

        async def endpoint(request: Request) -> Response:
            session = session_of(request)
            if not session and request.method == "GET" and is_of_another_site(request):
                # SameSite=Strict holds the cookie back when somebody follows a link from Slack; from here it comes.
                return self._renderer.page("again.html", path=_own_path(request))
            try:
                operator = await self._recognise_session(session, request)
                form = await _form(request, session) if request.method == "POST" else {}
                visit = Visit(request=request, operator=operator, session=session, form=form)
                return await visited(visit)
            except NotSignedInError:
                asked = f"?next={quote(_own_path(request), safe='')}" if request.method == "GET" else ""
                return elsewhere(SIGN_IN + asked)
            except WatchkeeperError as error:
                return self.refusal(error)

        return endpoint

    async def _recognise_session(self, session: str, request: Request) -> Operator:
        if not session:
            raise NotSignedInError
        return await self._operators.recognise("session", session, address=address_of(request), now=datetime.now(UTC))

    def call(self, visited: Visited) -> Endpoint:
        """For programs: a bearer token, JSON in and out."""

        async def endpoint(request: Request) -> Response:
            try:
                if not bearer_of(request):
                    raise NotSignedInError  # a browser's cookie is not enough here: another site could send it along
                operator = await self.anybody(request)
                return await visited(Visit(request=request, operator=operator, session="", form={}))
            except WatchkeeperError as error:
                headers = {**HEADERS, **_retry(error)}
                return JSONResponse({"error": str(error)}, STATUS.get(type(error), 400), headers=headers)

        return endpoint

    def refusal(self, error: WatchkeeperError) -> Response:
        """A sentence for a person, with the status that fits."""
        response = self._renderer.page("said.html", STATUS.get(type(error), 400), sentence=str(error), back="/")
        response.headers.update(_retry(error))
        return response


async def form_of(request: Request) -> Mapping[str, str]:
    """The fields of a small form from our own page. Raises BadFormError."""
    if is_of_another_site(request):
        raise BadFormError("This form was sent by another site; nothing was done.")
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise BadFormError("This is not a form of Watchkeeper's.")
    try:
        raw = await read_body(request, FORM_LIMITS)
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=10))
    except (TooLargeError, IncompleteError, ValueError) as error:
        raise BadFormError("This form could not be read; nothing was done.") from error


def safe_next(path: str) -> str:
    """Where to go after signing in: a path of ours, else the start page; never another site."""
    try:
        url = urlsplit(path)
    except ValueError:
        return "/"
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isascii() and path.isprintable()
    return path if is_ours and not url.netloc and "\\" not in path and len(path) <= 500 else "/"


async def _form(request: Request, session: str) -> Mapping[str, str]:
    form = await form_of(request)
    if not is_csrf(session, form.get("csrf", "")):
        raise BadFormError("This form is not from your session; open the page again.")
    return form


def _own_path(request: Request) -> str:
    query = request.url.query
    return safe_next(request.scope["path"] + (f"?{query}" if query else ""))


def _retry(error: WatchkeeperError) -> Mapping[str, str]:
    if isinstance(error, TooManyAttemptsError):
        return {"Retry-After": str(max(1, round(error.wait_s)))}
    return {"Retry-After": "2"} if isinstance(error, StoreUnavailableError) else {}
