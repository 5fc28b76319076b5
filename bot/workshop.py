"""The part of a process that works: the engine with its stories, the sweepers, the couriers, diagnoses and actions."""

from __future__ import annotations

import gc

import httpx
import structlog

from bot import heartbeat, journal, kill_switch, reconcile, retention, role_watch, similar, slack_watch
from bot.burst import BurstKeeper
from bot.checkpoint_places import LOG_EVERY_S, CheckpointWriter, LogPlace, places_of
from bot.connections import Connections, connect, connect_actions
from bot.engine import Engine, Sweeper
from bot.errands import ErrandRunner
from bot.feedback import AdoptedExperience
from bot.heartbeat import Heartbeat
from bot.journal import ChangeWatch, JournalledChanges
from bot.keeper import CardKeeper, Mailroom, PagerDutyCourier, SlackCourier
from bot.kill_switch import SwitchWatch
from bot.operate import services_by_pagerduty
from bot.pagerduty_client import PagerDutyClient
from bot.parts import Parts, engine_url, past_vectors_path, public_url, reveal, vectors_key, vectors_path
from bot.reconcile import Reconciler
from bot.remediate import Remediate, RemediateWorkflow
from bot.respond import Respond, RespondWorkflow
from bot.retention import Retention
from bot.role_watch import RoleWatch
from bot.similar import SimilarIncidents
from bot.slack.pace import Rank
from bot.slack_watch import SlackWatch
from bot.store.bursts import Bursts
from bot.store.change_journal import ChangeJournal
from bot.store.database import workflow_engine
from bot.store.outages import Outages
from bot.store.role_sources import RoleSources
from bot.store.sightings import LabelSightings
from bot.store.slack_events import SlackEvents
from bot.verify import Verifier
from bot.vitals import CHAIN_EVERY_S
from bot.watched import WatchedSearch, WatchedTelemetry
from retrieval.embedder import EmbeddingError, embedder_for
from retrieval.forgetting import ForgettingVectors
from retrieval.reranker import reranker_for
from retrieval.similar import IncidentSearch
from retrieval.vectors import SqliteVectors
from retrieval.weights import WeightsError
from runbooks.engine.actions.subtree_keeper import close_this_process

log = structlog.get_logger()

_FORGET_EVERY_S = 3600.0
_LOOK_AT_ROLES_EVERY_S = 30.0


class Workshop:
    """Everything that reads telemetry, changes production, or tells Slack and PagerDuty; made where work is done."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        settings, config = parts.settings, parts.config
        self.connections: Connections = connect(settings, config, lambda name: LabelSightings(parts.database, name))
        if config.commands:
            close_this_process()  # a listed command runs as our user, and our environment holds every credential
        self.actions = connect_actions(settings, config)
        self._changes = ChangeJournal(parts.database)
        self.diagnosers = self.connections.diagnosers(
            config,
            lambda name, telemetry: WatchedTelemetry(name, telemetry, parts.far_ends),
            (JournalledChanges(self._changes),),
        )
        vectors = SqliteVectors(vectors_path(parts.url), vectors_key(settings))
        embedder = embedder_for(settings.watchkeeper_embedding_model, settings.watchkeeper_embedding_hash)
        reranker = reranker_for(settings.watchkeeper_rerank_model, settings.watchkeeper_rerank_hash)
        self.search = WatchedSearch(parts.registry, embedder, vectors, reranker)
        past_vectors = ForgettingVectors(past_vectors_path(parts.url), vectors_key(settings))
        self.similar = SimilarIncidents(
            past=parts.past,
            incidents=parts.incidents,
            duties=parts.duties,
            config=config,
            search=IncidentSearch(embedder, past_vectors),
        )
        self.verifier = Verifier(diagnosers=self.diagnosers, config=config)
        self.pagerduty = PagerDutyClient(
            reveal(settings.pagerduty_api_key), base_url=settings.pagerduty_api_base_url, far_ends=parts.far_ends
        )
        self._outside = httpx.AsyncClient(timeout=10.0, follow_redirects=False)
        self.engine = self._engine()
        parts.vitals.watch(self.engine.sweepers)

    def _engine(self) -> Engine:
        """The sweepers of every working process; `more` share the bell, `timed` run by the clock alone."""
        parts = self._parts
        return Engine(
            system_engine=workflow_engine(engine_url(parts.url)),
            pulse=parts.pulse,
            workers=parts.workers,
            duties=parts.duties,
            inbox=parts.inbox,
            incidents=parts.incidents,
            plans=parts.plans,
            more=(
                *self._couriers(),
                Sweeper("errands", self._errands().sweep),
                Sweeper("similar", self.similar.answer),
            ),
            timed=self._by_the_clock(),
        )

    def _by_the_clock(self) -> dict[float, list[Sweeper]]:
        """What runs by the clock alone, by its period in seconds."""
        parts, alone = self._parts, self._parts.duties.only_one
        watch = ChangeWatch(
            sources=self.connections.sources_of,
            diagnosers=self.diagnosers,
            config=parts.config,
            journal=self._changes,
        )
        sweepers = [
            (kill_switch.EVERY_S, Sweeper("kill-switch", self._switch_watch().sweep)),
            (slack_watch.EVERY_S, Sweeper("slack-watch", self._slack_watch().sweep)),
            (_FORGET_EVERY_S, Sweeper("slack-events", SlackEvents(parts.database).sweep)),
            (journal.EVERY_S, Sweeper("changes", alone("changes", journal.EVERY_S, watch.sweep))),
            (reconcile.LOOK_S, Sweeper("reconcile", self._reconciler().sweep)),
            (CHAIN_EVERY_S, Sweeper("record", parts.chain.sweep)),
            *self._checkpoints(),
            (role_watch.EVERY_S, Sweeper("roles", alone("roles", role_watch.EVERY_S, self._role_watch().sweep))),
            (_LOOK_AT_ROLES_EVERY_S, Sweeper("roles-seen", parts.people.look)),
            (similar.EVERY_S, Sweeper("past", self.similar.refresh)),
            (retention.EVERY_S, Sweeper("retention", alone("retention", retention.EVERY_S, self._retention().sweep))),
            *((heartbeat.EVERY_S, Sweeper("heartbeat", each.sweep)) for each in self._heartbeats()),
        ]
        periods = dict.fromkeys(seconds for seconds, _ in sweepers)
        return {period: [sweeper for seconds, sweeper in sweepers if seconds == period] for period in periods}

    def _checkpoints(self) -> list[tuple[float, Sweeper]]:
        """Our log always, and every place that the configuration names."""
        parts = self._parts
        found = []
        places = places_of(parts.settings, parts.config.checkpoints, parts.slack, self._outside)
        for number, (every_s, place) in enumerate([(LOG_EVERY_S, LogPlace()), *places]):
            writer = CheckpointWriter(
                place, record=parts.record, key=parts.seal_key, pulse=parts.pulse, far_ends=parts.far_ends
            )
            parts.troubles.append(writer.trouble)
            name = f"checkpoint-{number}"
            found.append((every_s, Sweeper(name, parts.duties.only_one(name, every_s, writer.sweep))))
        return found

    def _role_watch(self) -> RoleWatch:
        parts = self._parts
        sources = RoleSources(parts.database)
        return RoleWatch(config=parts.config, sources=sources, slack=parts.slack, pagerduty=self.pagerduty)

    def _retention(self) -> Retention:
        return Retention(self._parts.database)

    def _heartbeats(self) -> list[Heartbeat]:
        """None where nobody asked for one."""
        parts = self._parts
        if not (url := reveal(parts.settings.watchkeeper_heartbeat_url)):
            return []
        return [
            Heartbeat(
                url,
                client=self._outside,
                sweepers=lambda: self.engine.sweepers,
                ask_database=parts.vitals.sweep,
                far_ends=parts.far_ends,
            )
        ]

    def _slack_watch(self) -> SlackWatch:
        return SlackWatch(slack=self._parts.slack, outages=Outages(self._parts.database))

    def _switch_watch(self) -> SwitchWatch:
        parts = self._parts
        watch = SwitchWatch(
            switch=parts.switch,
            file=parts.stop_file,
            duties=parts.duties,
            slack=parts.slack,
            channel=parts.settings.incident_channel or "",
            pulse=parts.pulse,
            registry=parts.registry,
        )
        parts.troubles.append(watch.trouble)
        return watch

    def _reconciler(self) -> Reconciler:
        parts = self._parts
        reconciler = Reconciler(
            pagerduty=self.pagerduty,
            incidents=parts.incidents,
            inbox=parts.inbox,
            duties=parts.duties,
            service_ids=tuple(services_by_pagerduty(parts.config)),
            registry=parts.registry,
        )
        parts.troubles.append(reconciler.trouble)
        return reconciler

    def _errands(self) -> ErrandRunner:
        parts = self._parts
        return ErrandRunner(
            me=parts.pulse.me,
            errands=parts.errands,
            incidents=parts.incidents,
            plans=parts.plans,
            journal=parts.journal,
            approvals=parts.approvals,
            people=parts.people,
            policy=parts.policy,
            config=parts.config,
            narrowing=parts.narrowing,
            actions=self.actions,
        )

    def _couriers(self) -> tuple[Sweeper, ...]:
        """Whoever tells Slack and PagerDuty what is on record."""
        parts, channel = self._parts, self._parts.settings.incident_channel or ""
        bursts = BurstKeeper(bursts=Bursts(parts.database), slack=parts.slack, channel=channel, pulse=parts.pulse)
        keeper = CardKeeper(
            incidents=parts.incidents,
            cards=parts.cards,
            slack=parts.slack,
            bursts=bursts,
            channel=channel,
            pulse=parts.pulse,
        )
        slack = SlackCourier(
            incidents=parts.incidents,
            cards=parts.cards,
            slack=parts.slack,
            diagnosers=self.diagnosers,
            config=parts.config,
        )
        settings = parts.settings
        pagerduty = PagerDutyCourier(
            cards=parts.cards,
            pagerduty=self.pagerduty,
            from_email=settings.pagerduty_from or "",
            public_url=public_url(settings),
        )

        def room() -> int:
            return parts.slack.room("chat.postMessage", channel, Rank.EVIDENCE)

        return (
            Sweeper("cards", keeper.sweep),
            Sweeper("slack", Mailroom("slack", parts.outbox, slack.deliver, parts.pulse, room).sweep),
            Sweeper("pagerduty", Mailroom("pagerduty", parts.outbox, pagerduty.deliver, parts.pulse).sweep),
        )

    def respond(self) -> RespondWorkflow:
        """The durable story of an incident."""
        parts = self._parts
        story = Respond(
            incidents=parts.incidents,
            plans=parts.plans,
            outbox=parts.outbox,
            config=parts.config,
            approvals=parts.approvals,
            diagnosers=self.diagnosers,
            search=self.search,
            by_experience=AdoptedExperience(parts.rankings, parts.config).order,
            runbooks=parts.shelf.runbooks,
            actions=self.actions,
            pagerduty=self.pagerduty,
        )
        return RespondWorkflow(story, self.engine.diagnoses)

    def remediate(self) -> RemediateWorkflow:
        """The durable story of a fix."""
        parts = self._parts
        story = Remediate(
            plans=parts.plans,
            journal=parts.journal,
            approvals=parts.approvals,
            verifier=self.verifier,
            actions=self.actions,
            pulse=parts.pulse,
            stop_file=parts.stop_file,
        )
        return RemediateWorkflow(story, self.engine.fixes)

    async def start(self) -> None:
        """Telemetry first, then the engine."""
        await self.connections.start()
        await self.engine.start(respond=self.respond, remediate=self.remediate)

    async def warm(self) -> None:
        """Load what the first diagnosis would wait for; without the embedding model search goes on by words."""
        for diagnoser in self.diagnosers.values():
            await diagnoser.warm_up()
        try:
            await self.search.warm()
            await self.similar.warm()
        except (WeightsError, EmbeddingError) as error:
            log.error("the embedding model cannot be used; searching by words only", why=str(error))  # noqa: TRY400
        # All this stays; the collector would look through it every few seconds, for 0.7 s, and webhooks would wait.
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        await self.engine.stop()
        await self._outside.aclose()
        await self.connections.close()
