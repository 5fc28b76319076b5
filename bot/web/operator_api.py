"""What `watchkeeper incidents`, `show`, `approve`, `deny`, `revoke`, `narrow`, `stop` and `go` ask for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot import narrate
from bot.chronicle import Chronicle, IncidentStory, PlanStory
from bot.incidents import Incident
from bot.slack.view import PlanLine, SeenLine
from bot.store.break_glass import MOST_WORDS
from bot.store.kill_switch import MOST_REASON
from bot.store.plan_rows import PlanRow
from bot.web.body import IncompleteError, TooLargeError, read_body
from bot.web.entrance import FORM_LIMITS, BadFormError, Entrance, Visit
from bot.web.pages import DecisionDesk
from bot.web.render import HEADERS

Json = dict[str, Any]
Form = TypeVar("Form", bound=BaseModel)

_DIGEST_REMEDY = 'The body has to be {"digest": "..."}, the hash of the plan that is meant.'


class _Decision(BaseModel):
    """All that a caller may say; who they are and what they may is never theirs to say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Alone(_Decision):
    """Why it cannot wait for the others, and the one-time code."""

    reason: str = Field(min_length=1, max_length=MOST_WORDS)
    code: str = Field(max_length=20)


class _Values(BaseModel):
    """Other values for a plan's parameters, as text, and the plan that was read."""

    model_config = ConfigDict(extra="forbid", strict=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    values: dict[str, str] = Field(min_length=1, max_length=100)


class _Approval(_Decision):
    """With the one-time code that an R3 plan needs."""

    code: str | None = Field(default=None, max_length=20)


class _Stop(BaseModel):
    """Why everything is stopped, for the others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field(max_length=MOST_REASON)


class OperatorApi:
    """The command line's counterpart; the same desk decides as behind Slack's buttons."""

    def __init__(self, *, chronicle: Chronicle, desk: DecisionDesk, entrance: Entrance) -> None:
        self._chronicle = chronicle
        self._desk = desk
        self._entrance = entrance

    def routes(self) -> Sequence[BaseRoute]:
        """What the web serves programs of operators."""
        call = self._entrance.call
        return (
            Route("/api/incidents", call(self._incidents), methods=["GET"]),
            Route("/api/incidents/{incident_id}", call(self._incident), methods=["GET"]),
            Route("/api/plans/{plan_id}", call(self._plan), methods=["GET"]),
            Route("/api/plans/{plan_id}/approve", call(self._approve), methods=["POST"]),
            Route("/api/plans/{plan_id}/break-glass", call(self._break_glass), methods=["POST"]),
            Route("/api/plans/{plan_id}/deny", call(self._deny), methods=["POST"]),
            Route("/api/plans/{plan_id}/revoke", call(self._revoke), methods=["POST"]),
            Route("/api/plans/{plan_id}/narrow", call(self._narrow), methods=["POST"]),
            Route("/api/stop", call(self._stop), methods=["POST"]),
            Route("/api/go", call(self._go), methods=["POST"]),
        )

    async def _incidents(self, _: Visit) -> Response:
        found, more = await self._chronicle.incidents(state="open")
        return _json({"incidents": [incident_json(incident) for incident in found], "more": more})

    async def _incident(self, visit: Visit) -> Response:
        return _json(story_json(await self._chronicle.incident(visit.request.path_params["incident_id"])))

    async def _plan(self, visit: Visit) -> Response:
        plan_id = visit.request.path_params["plan_id"]
        return _json(plan_story_json(await self._chronicle.plan(plan_id, visit.operator.person)))

    async def _approve(self, visit: Visit) -> Response:
        said = await _said(visit.request, _Approval, _DIGEST_REMEDY)
        plan_id, by = visit.request.path_params["plan_id"], visit.operator.person
        await self._desk.approve(plan_id, by, digest=said.digest, code=said.code)
        return await self._decided(visit, narrate.DONE["approve"])

    async def _break_glass(self, visit: Visit) -> Response:
        said = await _said(
            visit.request, _Alone, 'The body has to be {"digest": "...", "reason": "...", "code": "..."}.'
        )
        plan_id, by = visit.request.path_params["plan_id"], visit.operator.person
        told = await self._desk.break_glass(plan_id, said.reason, by, digest=said.digest, code=said.code)
        return await self._decided(visit, told)

    async def _deny(self, visit: Visit) -> Response:
        said = await _said(visit.request, _Decision, _DIGEST_REMEDY)
        await self._desk.deny(visit.request.path_params["plan_id"], visit.operator.person, digest=said.digest)
        return await self._decided(visit, narrate.DONE["deny"])

    async def _revoke(self, visit: Visit) -> Response:
        said = await _said(visit.request, _Decision, _DIGEST_REMEDY)
        await self._desk.revoke(visit.request.path_params["plan_id"], visit.operator.person, digest=said.digest)
        return await self._decided(visit, narrate.DONE["revoke"])

    async def _narrow(self, visit: Visit) -> Response:
        remedy = 'The body has to be {"digest": "...", "values": {"name": "text"}}.'
        said = await _said(visit.request, _Values, remedy)
        plan_id, by = visit.request.path_params["plan_id"], visit.operator.person
        await self._desk.narrow(plan_id, said.values, by, digest=said.digest)
        return _json({"said": narrate.DONE["narrow"]})

    async def _stop(self, visit: Visit) -> Response:
        said = await _said(visit.request, _Stop, 'The body has to be {"reason": "..."}, of at most 300 characters.')
        return _json({"said": await self._desk.stop(said.reason, visit.operator.person)})

    async def _go(self, visit: Visit) -> Response:
        return _json({"said": await self._desk.go(visit.operator.person)})

    async def _decided(self, visit: Visit, sentence: str) -> Response:
        story = await self._chronicle.plan(visit.request.path_params["plan_id"], visit.operator.person)
        return _json({"said": sentence, "state": story.row.state.value})


def incident_json(incident: Incident) -> Json:
    """An incident in the list."""
    return {
        "id": incident.incident_id,
        "number": incident.number,
        "title": incident.title,
        "service": incident.service or incident.pagerduty_service_name,
        "state": incident.state.value,
        "created_at": _iso(incident.created_at),
        "url": incident.url,
    }


def story_json(story: IncidentStory) -> Json:
    """An incident with its verdict, plans and timeline."""
    view = story.view
    return {
        **incident_json(story.incident),
        "since": _iso(view.since),
        "user_impact": view.user_impact,
        "causes": [
            {
                "cause": cause.cause,
                "title": cause.title,
                "probability": cause.probability,
                "for": cause.evidence_for,
                "against": cause.evidence_against,
            }
            for cause in view.causes
        ],
        "not_checked": [spot.sentence for spot in view.blind_spots],
        "stopped": view.stopped,
        "troubles": view.troubles,
        "seen": None if view.seen is None else [seen_json(line) for line in view.seen],
        "plans": [plan_json(row, line) for row, line in story.plans],
        "timeline": [{"at": _iso(each.at), "who": each.who, "what": each.what} for each in story.moments],
    }


def seen_json(line: SeenLine) -> Json:
    """A past incident that resembles another one."""
    return {
        "id": line.incident_id,
        "name": line.name,
        "title": line.title,
        "service": line.service,
        "began": _iso(line.began),
        "took_s": line.took_s,
        "cause": line.cause,
        "cause_title": line.cause_title,
        "confirmed": line.is_confirmed,
        "fix": line.fix,
        "outcome": line.outcome,
        "sentence": line.sentence,
        "score": line.score,
        "reasons": line.reasons,
        "url": line.url,
    }


def plan_json(row: PlanRow, line: PlanLine) -> Json:
    """A plan as somebody has to know it before they decide."""
    return {
        "id": row.plan.plan_id,
        "incident": row.plan.incident_id,
        "service": row.plan.service,
        "environment": row.plan.environment,
        "title": row.plan.title,
        "state": row.state.value,
        "state_in_words": narrate.PLAN_STATE[row.state],
        "why": row.why,
        "tier": row.plan.tier.name,
        "tier_in_words": narrate.TIER[row.plan.tier],
        "digest": row.digest,
        "params": row.plan.params,
        "on_failure": line.on_failure,
        "effects": [step.effect for step in row.plan.steps],
        "undo": [step.undo for step in line.steps],
        "may_approve": line.may_approve,
        "needed": line.needed,
        "approved_by": line.approved_by,
        "expires_at": _iso(row.plan.expires_at),
        "needs_code": line.needs_code,
    }


def plan_story_json(story: PlanStory) -> Json:
    """The same, and why the caller may not decide on it ("" when they may)."""
    return {**plan_json(story.row, story.line), "refusal": story.refusal}


async def _said(request: Request, form: type[Form], remedy: str) -> Form:
    try:
        return form.model_validate_json(await read_body(request, FORM_LIMITS))
    except (TooLargeError, IncompleteError, ValidationError) as error:
        raise BadFormError(remedy) from error


def _json(value: Json) -> Response:
    return JSONResponse(value, headers=dict(HEADERS))


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
