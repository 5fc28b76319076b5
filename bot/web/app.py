"""The web face: two doors for events, and what operators and probes ask. Verify, store, answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Lifespan

from bot.web.body import BodyLimits
from bot.web.callers import is_from_this_machine
from bot.web.metrics import DoorMetrics
from bot.web.pagerduty_door import Intake, PagerDutyDoor, answer
from bot.web.slack_door import SlackDoor, SlackHandler

Receive = Callable[[Request], Awaitable[Response]]


class Readiness(Protocol):
    """What the probes ask; no call may raise or hang."""

    async def not_ready_because(self) -> Sequence[str]:
        """Why no traffic should come here (database, migrations, shutting down); empty when it may."""

    async def count(self) -> None:
        """Bring the registry's numbers up to date."""

    async def details(self) -> Mapping[str, Any]:
        """The state of every part, as JSON, for people; `degraded` lists what does not work though traffic may come."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class WebSettings:
    """
    `pagerduty_secrets` are all live webhook secrets, `slack_secret` the app's signing secret.

    Empty ones refuse every request: a forgotten secret must not open the door.
    """

    pagerduty_secrets: tuple[bytes, ...]
    slack_secret: bytes
    limits: BodyLimits = field(default_factory=BodyLimits)
    now: Callable[[], datetime] = utc_now


def build_web(
    *,
    intake: Intake,
    slack_handler: SlackHandler | None,
    readiness: Readiness,
    settings: WebSettings,
    registry: CollectorRegistry | None = None,
    lifespan: Lifespan[FastAPI] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> FastAPI:
    """
    The application that uvicorn serves; `slack_handler` is None when Slack comes by Socket Mode.

    `routes` are what people get beside the doors. `registry` collects the metrics of the whole product; none of
    prometheus_client's global one is used.
    """
    registry = registry or CollectorRegistry()
    metrics = DoorMetrics(registry)
    web = FastAPI(title="Watchkeeper", openapi_url=None, lifespan=lifespan)
    pagerduty = PagerDutyDoor(intake=intake, secrets=settings.pagerduty_secrets, limits=settings.limits)
    web.add_route("/webhooks/pagerduty", _measured("pagerduty", pagerduty.receive, metrics), methods=["POST"])
    if slack_handler is not None:
        slack = SlackDoor(handler=slack_handler, secret=settings.slack_secret, now=settings.now, limits=settings.limits)
        web.add_route("/slack/events", _measured("slack", slack.receive, metrics), methods=["POST"])
    _add_probes(web, readiness, registry)
    web.router.routes.extend(routes)
    # Starlette answers with this and then raises again, so that the server logs the trace and the sender sees none.
    web.add_exception_handler(Exception, _unexpected)
    return web


def build_probes(readiness: Readiness, registry: CollectorRegistry) -> FastAPI:
    """What a process without doors serves: probes and metrics."""
    web = FastAPI(title="Watchkeeper", openapi_url=None)
    _add_probes(web, readiness, registry)
    return web


def _add_probes(web: FastAPI, readiness: Readiness, registry: CollectorRegistry) -> None:
    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        reasons = list(await readiness.not_ready_because())
        return JSONResponse(
            {"status": "not ready" if reasons else "ready", "because": reasons}, 503 if reasons else 200
        )

    async def healthz(request: Request) -> Response:
        reasons, details = list(await readiness.not_ready_because()), await readiness.details()
        status = "not ready" if reasons else "degraded" if details.get("degraded") else "ready"
        body: dict[str, Any] = {"status": status, "because": reasons}
        if is_from_this_machine(request):  # a proxy may pass everything on; strangers need no names and addresses
            body["details"] = details
        return JSONResponse(body, 503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        await readiness.count()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/healthz", healthz), ("/metrics", metrics)):
        web.add_route(path, endpoint, methods=["GET"])


def _measured(door: str, receive: Receive, metrics: DoorMetrics) -> Receive:
    async def endpoint(request: Request) -> Response:
        began = time.monotonic()
        response = await receive(request)
        metrics.answered(door, response.status_code, time.monotonic() - began)
        return response

    return endpoint


async def _unexpected(_: Request, __: Exception) -> Response:
    return answer(503, "try again")
