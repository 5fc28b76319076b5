"""
`POST /changes`: a pipeline says what it changed. A bearer token per source, JSON in, one change a request.

    recorded                                             201
    this id was reported before                          200; nothing is changed, so that a retry is safe
    not a change as documented, or of an unknown service 400, with every fault and its place
    no or wrong token                                    401, constant body
    more than 256 KiB                                    413
    more than 60 a minute, or too many wrong tokens      429 + Retry-After
    the database cannot write                            503 + Retry-After
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.config import Config
from bot.config.errors import did_you_mean
from bot.incidents import StoreUnavailableError
from bot.operators import NotSignedInError, TooManyAttemptsError
from bot.web.body import BodyLimits, IncompleteError, TooLargeError, read_body
from bot.web.callers import address_of, bearer_of
from bot.web.render import HEADERS
from diagnostics.changes.change import Change, Dimension, Kind

log = structlog.get_logger(__name__)

_LONGEST_TEXT = 65_536
_AHEAD = timedelta(minutes=5)
_BEHIND = timedelta(days=30)
"""How far a sender's clock may be ahead, and how long ago a change may be: the journal forgets after as long."""


class Reporters(Protocol):
    """Who may report."""

    async def recognise(self, secret: str, *, address: str, now: datetime) -> str:
        """The source behind a token. Raises NotSignedInError, TooManyAttemptsError, StoreUnavailableError."""


class ChangeBook(Protocol):
    """Where reports are written down, as far as their service allows."""

    async def report(self, item: Change, *, actor: str, now: datetime) -> bool:
        """False when this id was reported before. Raises StoreUnavailableError."""


def _web_address(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("must start with https:// or http://")
    return value


_Short = Annotated[str, Field(min_length=1, max_length=200)]
_Values = Annotated[tuple[_Short, ...], Field(max_length=100)]
_Text = Annotated[str, Field(max_length=_LONGEST_TEXT)]


class Report(BaseModel):
    """What a sender may say. There is no undo here: what takes a change back is never a stranger's to name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: _Short
    kind: Kind
    service: _Short
    summary: Annotated[str, Field(min_length=1, max_length=500)]
    at: AwareDatetime | None = None
    source: _Short | None = None
    author: _Short | None = None
    scope: Annotated[
        Mapping[Dimension, Annotated[tuple[_Short, ...], Field(max_length=100)]], Field(max_length=21)
    ] = {}
    before: Annotated[str, Field(max_length=_LONGEST_TEXT)] | None = None
    after: Annotated[str, Field(max_length=_LONGEST_TEXT)] | None = None
    url: Annotated[str, Field(max_length=2000), AfterValidator(_web_address)] | None = None

    def change(self, source: str, now: datetime) -> Change:
        """The change as this source's."""
        return Change(
            id=self.id,
            at=self.at or now,
            kind=self.kind,
            service=self.service,
            source=source,
            summary=" ".join(self.summary.split()),
            author=self.author,
            scope={str(dimension): values for dimension, values in self.scope.items()},
            before=self.before,
            after=self.after,
            url=self.url or "",
        )


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a report, and where; never the value itself."""

    where: str
    what: str


class ChangeDoor:
    """The door for those who report changes; `now` is the wall's clock."""

    def __init__(
        self,
        *,
        reporters: Reporters,
        book: ChangeBook,
        config: Config,
        now: Callable[[], datetime],
        limits: BodyLimits | None = None,
    ) -> None:
        self._reporters = reporters
        self._book = book
        self._config = config
        self._now = now
        self._limits = limits or BodyLimits()

    def routes(self) -> Sequence[BaseRoute]:
        return (Route("/changes", self.receive, methods=["POST"]),)

    async def receive(self, request: Request) -> Response:
        try:
            return await self._receive(request, self._now())
        except NotSignedInError:
            return _answer(401, "unauthorized")
        except TooManyAttemptsError as error:
            return _answer(429, "later", retry_after_s=max(1, round(error.wait_s)))
        except TooLargeError:
            return _answer(413, "too large")
        except StoreUnavailableError:
            log.exception("change not recorded; the sender has to try again", door="changes")
            return _answer(503, "try again", retry_after_s=2)

    async def _receive(self, request: Request, now: datetime) -> Response:
        """The token first: a stranger's body is not even read."""
        source = await self._reporters.recognise(bearer_of(request), address=address_of(request), now=now)
        try:
            found = self._read(await read_body(request, self._limits), source, now)
        except IncompleteError:
            found = [Fault(where="", what="the body is not whole")]
        if isinstance(found, list):
            return _answer(400, "not a change", faults=[{"where": each.where, "what": each.what} for each in found])
        is_new = await self._book.report(found, actor=f"source:{source}", now=now)
        log.info("change reported", service=found.service, source=source, kind=found.kind, is_new=is_new)
        return _answer(201, "recorded", id=found.id) if is_new else _answer(200, "recorded before", id=found.id)

    def _read(self, raw: bytes, source: str, now: datetime) -> Change | list[Fault]:
        try:
            report = Report.model_validate_json(raw)
        except ValidationError as error:
            return [fault_of(each) for each in error.errors(include_input=False, include_url=False)]
        faults = list(misfits(report, source, self._config, now))
        return faults or report.change(source, now)


def misfits(report: Report, source: str, config: Config, now: datetime) -> Sequence[Fault]:
    """What is right for itself and wrong here."""
    faults = []
    if config.service(report.service) is None:
        remedy = did_you_mean(
            report.service, [each.name for each in config.services], "watchkeeper.toml has no such one"
        )
        faults.append(Fault(where="service", what=f"there is no such service; {remedy}"))
    if report.source not in {None, source}:
        faults.append(Fault(where="source", what=f"this token reports for {source}; leave the source out"))
    if report.at is not None and not now - _BEHIND <= report.at <= now + _AHEAD:
        faults.append(Fault(where="at", what="has to lie in the last 30 days, and not in the future"))
    return faults


def fault_of(error: Any) -> Fault:
    """One of pydantic's findings in its words; where the name itself is a stranger's, only its parent is said."""
    place = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return Fault(where=".".join(place[:-1]), what=f"there is no {place[-1][:40]!r} here")
    return Fault(where=".".join(place)[:100], what=str(error["msg"]).removeprefix("Value error, "))


def _answer(status: int, word: str, *, retry_after_s: int | None = None, **more: Any) -> Response:
    headers = dict(HEADERS) | ({"Retry-After": str(retry_after_s)} if retry_after_s else {})
    return JSONResponse({"status": word, **more}, status_code=status, headers=headers)
