"""What every process has: the database and what stands over it, people and policy, and Slack's client."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from bot.approvals import Approvals
from bot.break_glass import BreakGlass
from bot.card import Cards
from bot.config import Config
from bot.far_ends import FarEnds
from bot.given_roles import given_by
from bot.kill_switch import StopFile
from bot.narrowing import Narrowing
from bot.operate import services_by_pagerduty
from bot.policy import Policy
from bot.pulse import Pulse
from bot.seal import SealKey
from bot.settings import Settings
from bot.shelf import LiveShelf
from bot.slack.authorise import Authoriser
from bot.slack.client import SlackClient, web_client
from bot.step_up import Seal, StepUp
from bot.store.approval_seals import ApprovalSeals
from bot.store.audit import AuditLog
from bot.store.break_glass import BrokenGlass
from bot.store.database import Database, sync_url
from bot.store.errands import Errands
from bot.store.inbox import Inbox
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.kill_switch import KillSwitch
from bot.store.outbox import Outbox
from bot.store.past import PastIncidents
from bot.store.people import PeopleTable
from bot.store.plans import Plans
from bot.store.rankings import Rankings
from bot.store.step_up import StepUpCodes
from bot.store.votes import Votes
from bot.store.workers import Duties, Workers
from bot.vitals import ChainWatch, Vitals


class Parts:
    """Made once per process and handed to those who need them; nothing here holds a credential that changes things."""

    def __init__(self, settings: Settings, config: Config, role: str) -> None:
        self.settings = settings
        self.config = config
        self.url = settings.database_url.get_secret_value()
        self.database = Database(self.url)
        self.incidents = Incidents(self.database)
        self.seal_key = seal_key_of(settings)
        self.plans = Plans(self.database, ApprovalSeals(approvals_key(settings, self.seal_key)))
        self.journal = Journal(self.database)
        self.outbox = Outbox(self.database)
        self.errands = Errands(self.database)
        self.lifeline = Database(self.url)  # of its own: a beat never waits behind the work
        self.workers = Workers(self.lifeline)
        self.pulse = Pulse(self.workers, role)
        self.duties = Duties(self.lifeline, self.pulse.me)
        self.given = given_by(config)
        self.people = PeopleTable(self.database, self.given)
        self.inbox = Inbox(self.database, services=services_by_pagerduty(config))
        self.policy = Policy(config, self.given)
        self.switch = KillSwitch(self.database)
        self.stop_file = StopFile(settings.watchkeeper_stop_file)
        self.shelf = LiveShelf(config.runbooks)
        self.past = PastIncidents(self.database, self._treated_by)
        self.record = AuditLog(self.database)
        self.votes = Votes(self.database)
        self.rankings = Rankings(self.database)
        self.registry = CollectorRegistry()
        self.chain = ChainWatch(self.record, self.registry)
        self.cards = self._cards()
        self.far_ends = FarEnds(self.registry, "slack")
        self.slack_web = web_client(
            reveal(settings.slack_bot_token), settings.slack_api_base_url, far_ends=self.far_ends
        )
        self.slack = SlackClient(self.slack_web)
        self.authoriser = Authoriser(people=self.people, directory=self.slack)
        self.step_up = StepUp(StepUpCodes(self.database), seal_of(settings), page=public_url(settings))
        self.approvals = Approvals(
            plans=self.plans,
            incidents=self.incidents,
            people=self.people,
            policy=self.policy,
            proof=self.step_up,
            accounts=self.authoriser,
            stop_file=self.stop_file,
            record_trouble=self.chain.trouble,
        )
        self.glass = self._glass()
        self.narrowing = Narrowing(
            incidents=self.incidents, plans=self.plans, policy=self.policy, runbooks=self.shelf.runbooks
        )
        self.vitals = Vitals(self.database, self.registry)
        self.troubles: list[Callable[[], str]] = [self.slack.line.trouble, self.vitals.overdue]  # /healthz: degraded

    def _cards(self) -> Cards:
        return Cards(
            incidents=self.incidents,
            plans=self.plans,
            journal=self.journal,
            outbox=self.outbox,
            switch=self.switch,
            record=self.record,
            past=self.past,
            votes=self.votes,
            config=self.config,
            policy=self.policy,
        )

    def _treated_by(self, runbook_id: str) -> tuple[str, ...]:
        """The causes that a runbook declares; none of one that is gone."""
        runbook = self.shelf.runbooks().get(runbook_id)
        return runbook.causes if runbook else ()

    def _glass(self) -> BreakGlass:
        return BreakGlass(
            glass=BrokenGlass(self.database, self.plans.seals),
            approvals=self.approvals,
            plans=self.plans,
            incidents=self.incidents,
            policy=self.policy,
            proof=self.step_up,
            stop_file=self.stop_file,
        )


def seal_of(settings: Settings) -> Seal | None:
    """What secrets of one-time codes are sealed with; None where nobody set it. Raises UnusableKeyError."""
    key = settings.watchkeeper_step_up_key
    return Seal(key.get_secret_value()) if key is not None else None


def seal_key_of(settings: Settings) -> SealKey | None:
    """What checkpoints are signed with; None where nobody set it. Raises WatchkeeperError for one that is none."""
    key = settings.watchkeeper_seal_key
    return SealKey(key.get_secret_value()) if key is not None else None


def approvals_key(settings: Settings, key: SealKey | None) -> bytes:
    """
    What approvals are sealed with; the same in every process, and nowhere in the database.

    Without a key of its own from Slack's token, which every process has; without both nobody else's seal counts.
    """
    if key is not None:
        return key.for_approvals
    token = reveal(settings.slack_bot_token).encode() or secrets.token_bytes(32)
    return hmac.digest(token, b"watchkeeper: approvals", "sha256")


def public_url(settings: Settings) -> str:
    """Where people reach our pages; "" where nobody said: the default is a command line's, no address for others."""
    return settings.watchkeeper_url if "watchkeeper_url" in settings.model_fields_set else ""


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


def past_vectors_path(url: str) -> Path:
    """Of past incidents; a file of their own, out of which what is forgotten goes."""
    return vectors_path(url).with_name("past-vectors.sqlite")


def vectors_key(settings: Settings) -> bytes:
    """
    What the cache of embeddings is sealed with: nothing that whoever writes the file knows.

    Another token or database makes another key, and the sections are embedded once more.
    """
    known = "\0".join((settings.database_url.get_secret_value(), reveal(settings.slack_bot_token)))
    return hmac.digest(known.encode(), b"watchkeeper: cached vectors", "sha256")


def reveal(secret: Any) -> str:
    """A secret's value, at the place where it is handed to a client."""
    return secret.get_secret_value() if secret is not None else ""
