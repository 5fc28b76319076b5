"""The composition root: settings -> clients -> store -> stories -> Slack, web, engine. It wires and decides nothing."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler

from bot import prompt_watch, vitals
from bot.approvals import Approvals
from bot.card import Cards
from bot.config import Config
from bot.connections import Connections, connect, connect_actions
from bot.desk import Desk
from bot.doors import Intake, Readiness
from bot.engine import Engine, Sweeper
from bot.incidents import WatchkeeperError
from bot.keeper import CardKeeper, Mailroom, PagerDutyCourier, SlackCourier
from bot.library import open_shelf
from bot.operate import services_by_pagerduty
from bot.pagerduty_client import PagerDutyClient
from bot.policy import Policy, accounts
from bot.prompt_watch import PromptWatch
from bot.remediate import Remediate, RemediateWorkflow
from bot.respond import Respond, RespondWorkflow
from bot.settings import Settings
from bot.slack.authorise import Authoriser
from bot.slack.client import SlackClient, web_client
from bot.slack.listeners import Stragglers, build_bolt
from bot.store import schema
from bot.store.alone import only_process
from bot.store.audit import AuditLog
from bot.store.database import Database, sync_url, workflow_engine
from bot.store.inbox import Inbox
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.outbox import Outbox
from bot.store.people import PeopleTable
from bot.store.plans import Plans
from bot.store.sightings import LabelSightings
from bot.verify import Verifier
from bot.vitals import Vitals
from bot.web.app import WebSettings, build_web
from retrieval.embedder import EmbeddingError, MiniLmEmbedder
from retrieval.ranking import RunbookSearch
from retrieval.vectors import SqliteVectors
from retrieval.weights import WeightsError

log = structlog.get_logger()


class Product:
    """Every part, made once and handed to those who need it."""

    def __init__(self, settings: Settings, config: Config) -> None:
        self.settings = settings
        self.config = config
        self.url = settings.database_url.get_secret_value()
        self.database = Database(self.url)
        self.incidents = Incidents(self.database)
        self.plans = Plans(self.database)
        self.journal = Journal(self.database)
        self.outbox = Outbox(self.database)
        self.people = PeopleTable(self.database)
        self.inbox = Inbox(self.database, services=services_by_pagerduty(config))
        self.policy = Policy(config)
        self.connections: Connections = connect(settings, config, lambda name: LabelSightings(self.database, name))
        self.actions = connect_actions(settings, config)
        self.diagnosers = self.connections.diagnosers(config)
        self.shelf = open_shelf(config.runbooks)
        self.search = RunbookSearch(MiniLmEmbedder(), SqliteVectors(vectors_path(self.url)))
        self.cards = Cards(
            incidents=self.incidents,
            plans=self.plans,
            journal=self.journal,
            outbox=self.outbox,
            record=AuditLog(self.database),
            config=config,
            policy=self.policy,
        )
        self.approvals = Approvals(plans=self.plans, incidents=self.incidents, people=self.people, policy=self.policy)
        self.verifier = Verifier(diagnosers=self.diagnosers, config=config)
        self.pagerduty = PagerDutyClient(reveal(settings.pagerduty_api_key), base_url=settings.pagerduty_api_base_url)
        self.slack_web = web_client(reveal(settings.slack_bot_token), settings.slack_api_base_url)
        self.slack = SlackClient(self.slack_web)
        self.registry = CollectorRegistry()
        self.vitals = Vitals(self.database, self.registry)
        self.stragglers = Stragglers()
        self.engine = self._engine()
        self.desk = self._desk()

    def _engine(self) -> Engine:
        keeper = CardKeeper(
            incidents=self.incidents,
            cards=self.cards,
            slack=self.slack,
            channel=self.settings.incident_channel or "",
        )
        slack = SlackCourier(
            incidents=self.incidents,
            cards=self.cards,
            slack=self.slack,
            diagnosers=self.diagnosers,
            config=self.config,
        )
        pagerduty = PagerDutyCourier(
            cards=self.cards, pagerduty=self.pagerduty, from_email=self.settings.pagerduty_from or ""
        )
        watch = PromptWatch(tuple(self.connections.sources.values()), self.diagnosers, self.config)
        return Engine(
            system_engine=workflow_engine(engine_url(self.url)),
            inbox=self.inbox,
            incidents=self.incidents,
            plans=self.plans,
            more=(
                Sweeper("cards", keeper.sweep),
                Sweeper("slack", Mailroom("slack", self.outbox, slack.deliver).sweep),
                Sweeper("pagerduty", Mailroom("pagerduty", self.outbox, pagerduty.deliver).sweep),
            ),
            timed={
                vitals.EVERY_S: [Sweeper("vitals", self.vitals.sweep)],
                prompt_watch.EVERY_S: [Sweeper("prompts", watch.sweep)],
            },
        )

    def _desk(self) -> Desk:
        return Desk(
            incidents=self.incidents,
            plans=self.plans,
            journal=self.journal,
            approvals=self.approvals,
            policy=self.policy,
            search=self.search,
            actions=self.actions,
            telemetry_now=self.verifier.now,
            ring=self.engine.ring,
        )

    def respond(self) -> RespondWorkflow:
        """The durable story of an incident."""
        story = Respond(
            incidents=self.incidents,
            plans=self.plans,
            outbox=self.outbox,
            config=self.config,
            diagnosers=self.diagnosers,
            search=self.search,
            runbooks=self.shelf.runbooks,
            actions=self.actions,
            pagerduty=self.pagerduty,
        )
        return RespondWorkflow(story, self.engine.stories)

    def remediate(self) -> RemediateWorkflow:
        """The durable story of a fix."""
        story = Remediate(
            plans=self.plans,
            journal=self.journal,
            approvals=self.approvals,
            verifier=self.verifier,
            actions=self.actions,
        )
        return RemediateWorkflow(story, self.engine.stories)

    async def start(self) -> None:
        """People, telemetry, runbooks, then the engine; the embedding model warms up meanwhile."""
        await self.people.replace(accounts(self.config))
        await self.connections.start()
        for problem in self.shelf.problems:
            log.error("runbook left out", problem=str(problem))
        await self.search.refresh(self.shelf.documents())
        await self.engine.start(respond=self.respond, remediate=self.remediate)

    async def stop(self) -> None:
        await self.stragglers.finish()
        await self.engine.stop()
        await self.connections.close()
        await self.database.close()

    def web(self, readiness: Readiness) -> Any:
        """The FastAPI application with both doors."""
        authoriser = Authoriser(people=self.people, directory=self.slack)
        bolt = build_bolt(
            web=self.slack_web,
            signing_secret=reveal(self.settings.slack_signing_secret),
            desk=self.desk,
            authoriser=authoriser,
            slack=self.slack,
            stragglers=self.stragglers,
        )
        settings = WebSettings(
            pagerduty_secrets=tuple(reveal(each).encode() for each in self.settings.pagerduty_webhook_secrets),
            slack_secret=reveal(self.settings.slack_signing_secret).encode(),
        )
        return build_web(
            intake=Intake(self.inbox, self.engine.ring),
            slack_handler=AsyncSlackRequestHandler(bolt),
            readiness=readiness,
            settings=settings,
            registry=self.registry,
        )


async def serve(settings: Settings, config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises WatchkeeperError when the schema is not ours."""
    if settings.socket_mode:
        raise WatchkeeperError("SOCKET_MODE is not built yet: unset it and give Slack the address of /slack/events")
    url = settings.database_url.get_secret_value()
    if (revision := await asyncio.to_thread(schema.current, url)) != schema.head():
        raise WatchkeeperError(
            f"the database is at schema {revision or 'none'}, this program needs {schema.head()}: "
            "run `watchkeeper migrate`"
        )
    with only_process(url):
        await _serve(settings, config)


async def _serve(settings: Settings, config: Config) -> None:
    product = Product(settings, config)
    readiness = Readiness(product.database, product.engine.sweepers, product.vitals)
    await product.start()
    warming = asyncio.create_task(_warm(product))
    server = uvicorn.Server(
        uvicorn.Config(
            product.web(readiness),
            host=settings.watchkeeper_host,
            port=settings.watchkeeper_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=20,
        )
    )
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, lambda: setattr(readiness, "stopping", True))
    try:
        await server.serve()
    finally:
        readiness.stopping = True
        warming.cancel()
        await product.stop()


async def _warm(product: Product) -> None:
    """Load what the first diagnosis would wait for; without the embedding model search goes on by words."""
    for diagnoser in product.diagnosers.values():
        await diagnoser.warm_up()
    try:
        await product.search.warm()
    except (WeightsError, EmbeddingError) as error:
        log.error("the embedding model cannot be used; searching by words only", why=str(error))  # noqa: TRY400


def engine_url(url: str) -> Any:
    """
    Where DBOS keeps its own tables.

    On SQLite a file of its own: one file has one writer, and the engine's checkpoints would wait for the webhooks.
    """
    parsed = sync_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return parsed
    path = Path(parsed.database)
    return parsed.set(database=str(path.with_name(f"{path.stem}-engine{path.suffix}")))


def vectors_path(url: str) -> Path:
    """The cache of embeddings stands beside the SQLite database, else in the working folder."""
    parsed = sync_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    folder = Path(parsed.database).parent if is_file and parsed.database else Path()
    return folder / "vectors.sqlite"


def reveal(secret: Any) -> str:
    """A secret's value, at the place where it is handed to a client."""
    return secret.get_secret_value() if secret is not None else ""
