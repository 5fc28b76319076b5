"""
The pages for people: incidents, plans and the record, to read; and one form where a signed-in operator may decide.

They work while Slack is down: they ask the database, and the same desk as Slack's buttons decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bot.chronicle import Chronicle
from bot.incidents import IncidentState, NotFoundError, Person, WatchkeeperError
from bot.operators import NotSignedInError, Operators
from bot.store.audit import ChainReport
from bot.web.callers import address_of, csrf_of, drop_session, keep_session, session_of
from bot.web.entrance import BadFormError, Entrance, Visit, form_of, safe_next
from bot.web.render import HEADERS, ICON, STYLE, Renderer, asset, elsewhere

_CHAIN_FRESH_S = 600.0
STATES = ("open", *(state.value for state in IncidentState))


class DecisionDesk(Protocol):
    """What people can do about a fix; each deed commits, and raises what the sentence for the person says."""

    async def approve(
        self, plan_id: str, by: Person, *, digest: str | None = None, code: str | None = None
    ) -> None: ...

    async def break_glass(
        self, plan_id: str, reason: str, by: Person, *, digest: str | None = None, code: str | None = None
    ) -> str: ...

    async def deny(self, plan_id: str, by: Person, *, digest: str | None = None) -> None: ...

    async def revoke(self, plan_id: str, by: Person, *, digest: str | None = None) -> None: ...

    async def narrow(
        self, plan_id: str, values: Mapping[str, str], by: Person, *, digest: str | None = None
    ) -> None: ...

    async def undo(self, plan_id: str, by: Person) -> None: ...

    async def settle(self, plan_id: str, step: int, answer: str, by: Person) -> None: ...

    async def stop(self, reason: str, by: Person) -> str: ...

    async def go(self, by: Person) -> str: ...

    async def refused(self, *, who: str, what: str, why: str, subject: str, channel: str = "slack") -> None: ...


class Chain(Protocol):
    """What is known of the record's chain, and a way to look again."""

    chain: ChainReport | None
    chain_at: datetime | None

    async def within(self, seconds: float) -> None:
        """Verify unless that was done so recently."""


class Pages:
    """Every page, behind the entrance but for the sign-in itself."""

    def __init__(
        self,
        *,
        chronicle: Chronicle,
        desk: DecisionDesk,
        operators: Operators,
        entrance: Entrance,
        renderer: Renderer,
        chain: Chain,
    ) -> None:
        self._chronicle = chronicle
        self._desk = desk
        self._operators = operators
        self._render = renderer.page
        self._entrance = entrance
        self._chain = chain

    def routes(self) -> Sequence[BaseRoute]:
        """What the web serves people."""
        page = self._entrance.page
        return (
            Route("/", page(self._start), methods=["GET"]),
            Route("/sign-in", self._sign_in_page, methods=["GET"]),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", page(self._sign_out), methods=["POST"]),
            Route("/static/style.css", self._style, methods=["GET"]),
            Route("/static/icon.svg", self._icon, methods=["GET"]),
            Route("/incidents", page(self._incidents), methods=["GET"]),
            Route("/incidents/{incident_id}", page(self._incident), methods=["GET"]),
            Route("/incidents/{incident_id}/latency.png", page(self._picture), methods=["GET"]),
            Route("/plans/{plan_id}", page(self._plan), methods=["GET"]),
            Route("/plans/{plan_id}", page(self._decide), methods=["POST"]),
            Route("/audit", page(self._audit), methods=["GET"]),
        )

    async def _style(self, _: Request) -> Response:
        return asset(STYLE, "text/css")

    async def _icon(self, _: Request) -> Response:
        return asset(ICON, "image/svg+xml")

    async def _sign_in_page(self, request: Request) -> Response:
        return self._render("sign_in.html", after=safe_next(request.query_params.get("next", "/")), problem="")

    async def _sign_in(self, request: Request) -> Response:
        now = datetime.now(UTC)
        try:
            form = await form_of(request)
            after = safe_next(form.get("next", "/"))
            secret, item = await self._operators.sign_in(
                form.get("token", "").strip(), previous=session_of(request), address=address_of(request), now=now
            )
        except NotSignedInError:
            problem = "This token does not count: it is mistyped, expired or revoked."
            return self._render("sign_in.html", 401, after=after, problem=problem)
        except WatchkeeperError as error:
            return self._entrance.refusal(error)
        response = elsewhere(after)
        keep_session(response, request, secret, item, now)
        return response

    async def _sign_out(self, visit: Visit) -> Response:
        await self._operators.sign_out(visit.session, now=datetime.now(UTC))
        response = elsewhere("/sign-in")
        drop_session(response)
        return response

    async def _start(self, _: Visit) -> Response:
        return elsewhere("/incidents")

    async def _incidents(self, visit: Visit) -> Response:
        asked = visit.request.query_params
        service, state = asked.get("service", ""), asked.get("state", "")
        state = state if state in STATES else ""
        number = _number(asked.get("page"), most=100_000) or 1
        found, more = await self._chronicle.incidents(service=service, state=state, page=number)
        return self._page(
            visit,
            "incidents.html",
            incidents=found,
            more=more,
            number=number,
            service=service,
            state=state,
            services=await self._chronicle.services(),
            states=STATES,
        )

    async def _incident(self, visit: Visit) -> Response:
        return self._page(
            visit, "incident.html", story=await self._chronicle.incident(visit.request.path_params["incident_id"])
        )

    async def _picture(self, visit: Visit) -> Response:
        png = await self._chronicle.picture(visit.request.path_params["incident_id"])
        if png is None:
            raise NotFoundError("No latency was measured for this incident.")
        return Response(png, media_type="image/png", headers=dict(HEADERS))

    async def _plan(self, visit: Visit) -> Response:
        story = await self._chronicle.plan(visit.request.path_params["plan_id"], visit.operator.person)
        reason = visit.request.query_params.get("reason", "")[:300]
        return self._page(visit, "plan.html", story=story, plan=story.row.plan, reason=reason)

    async def _decide(self, visit: Visit) -> Response:
        plan_id, by = visit.request.path_params["plan_id"], visit.operator.person
        code = visit.form.get("code") or None
        digest, step = visit.form.get("digest", ""), _number(visit.form.get("step"), most=1000)
        match visit.form.get("decision"):
            case "approve" if digest:
                await self._desk.approve(plan_id, by, digest=digest, code=code)
            case "break_glass" if digest and code:
                await self._desk.break_glass(plan_id, visit.form.get("reason", ""), by, digest=digest, code=code)
            case "deny" if digest:
                await self._desk.deny(plan_id, by, digest=digest)
            case "revoke" if digest:
                await self._desk.revoke(plan_id, by, digest=digest)
            case "undo":
                await self._desk.undo(plan_id, by)
            case "ran" | "did_not_run" | "stop" as answer if step is not None:
                await self._desk.settle(plan_id, step - 1, answer, by)
            case _:
                raise BadFormError("The form does not say what to do; nothing was done.")
        return elsewhere(f"/plans/{plan_id}")

    async def _audit(self, visit: Visit) -> Response:
        asked = visit.request.query_params
        subject, actor = asked.get("subject", "").strip(), asked.get("actor", "").strip()
        await self._chain.within(_CHAIN_FRESH_S)
        moments, following = await self._chronicle.record(
            subject=subject, actor=actor, before=_number(asked.get("before"), most=2**31 - 1)
        )
        return self._page(
            visit,
            "audit.html",
            moments=moments,
            following=following,
            subject=subject,
            actor=actor,
            chain=self._chain.chain,
            chain_at=self._chain.chain_at,
        )

    def _page(self, visit: Visit, template: str, **values: Any) -> Response:
        return self._render(template, operator=visit.operator, csrf=csrf_of(visit.session), **values)


def _number(text: str | None, *, most: int) -> int | None:
    """A small positive number from an address, None for anything else."""
    if text is None or not text.isascii() or not text.isdigit():
        return None
    return min(int(text[:12]), most) or None
