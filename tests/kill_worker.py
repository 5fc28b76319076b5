"""
One process of the kill matrix: the product's own parts, from a webhook at the door to the last word in Slack.

What it does is the same for who is killed (`tests.kill_points`) and for who takes over. A story is told again from its
beginning, as DBOS does with one of which no step's result was stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from pydantic import BaseModel

from bot.approvals import Approvals
from bot.burst import BurstKeeper
from bot.card import Cards
from bot.config import load_config
from bot.errands import ErrandRunner
from bot.incidents import AlreadyDecidedError, PlanState, StoreUnavailableError
from bot.keeper import CardKeeper, Mailroom, SlackCourier
from bot.pulse import Pulse
from bot.remediate import Remediate
from bot.slack.client import SlackClient, web_client
from bot.slack.pace import Rank
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.bursts import Bursts
from bot.store.database import Database
from bot.store.errands import Errands
from bot.store.past import PastIncidents
from bot.store.workers import Workers
from bot.takeover import TakeOver
from bot.verify import Verifier
from bot.web.app import WebSettings, build_web
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from lab.people import CHANNEL
from runbooks.engine.values import DryRun, Happened, JsonObject, Tier
from tests.bot_fakes import Ready
from tests.chaos_worker import AllWell
from tests.kit import Store

SECRET = b"kill-matrix"
LATE_AFTER_S = 3.0
"""How long a probe's "no" waits for a late effect; here a line is late by a fraction of a second."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """
    What one process is given to do, and where it ends: at `point`, nowhere when that is empty.

    `plan_id` is the fix that is watched and `hit` the step; `event` a signed webhook (body, signature) that PagerDuty
    has no answer to yet. `place` puts a process on a machine of its own. Who `is_alone` tells no other fix and lives
    until declared dead; who `inherits` first waits until all others are, once FOLDER/frozen is there.
    """

    url: str
    folder: Path
    point: str = ""
    plan_id: str = ""
    incident_id: str = ""
    hit: int = 0
    clicks: bool = False
    goes_bad: bool = False
    event: tuple[bytes, str] | None = None
    slack: tuple[str, str] | None = None
    place: str = ""
    is_alone: bool = False
    inherits: bool = False


class Line(BaseModel):
    """A line to write for this step of this plan, or the one that takes it back."""

    plan: str
    step: int
    back: bool = False

    def __str__(self) -> str:
        return f"{self.plan} {self.step} {'back' if self.back else 'there'}"


class Ledger:
    """Has a process of its own write a line, which it does whatever becomes of us; the file can tell."""

    name = "kill.append"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = Line

    def __init__(self, folder: Path, delay_s: float = 0.05) -> None:
        self._path = folder / "acts"
        self._delay_s = delay_s

    def effect(self, params: Line, before: JsonObject) -> str:
        return f"Write line {params.step}."

    def target(self, params: Line) -> str:
        return f"ledger/{params.plan}/{params.step}"

    async def read(self, params: Line) -> JsonObject:
        return {}

    async def act(self, params: Line, before: JsonObject, token: str) -> JsonObject:
        called = await self.call(params, token)
        await self.until_written(params)
        await called.wait()
        return {"written": True}

    async def call(self, params: Line, token: str) -> Process:
        await asyncio.sleep(0.01)  # as long as a connection takes: a process that thaws here is cut off before it calls
        script = 'sleep "$1"; printf "%s\\n" "$2" >>"$3"; sleep "$1"'
        said = (str(self._delay_s), f"{params} {token} {os.getpid()}", str(self._path))
        return await create_subprocess_exec(
            "/bin/sh", "-c", script, "sh", *said, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
        )

    async def until_written(self, params: Line) -> None:
        while not self._is_written(params):
            await asyncio.sleep(0.01)

    async def happened(self, params: Line, before: JsonObject, token: str) -> Happened:
        return Happened.YES if self._is_written(params) else Happened.NO

    def undo(self, params: Line, before: JsonObject) -> JsonObject | None:
        return {**params.model_dump(), "back": True}

    def _is_written(self, params: Line) -> bool:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return any(line.startswith(f"{params} ") for line in lines)


class BlindLedger(Ledger):
    """The same, and nobody can find out whether it happened."""

    name = "kill.blind"

    async def happened(self, params: Line, before: JsonObject, token: str) -> Happened:
        return Happened.CANNOT_TELL


class Telemetry(AllWell):
    """Good, or after a fix that does not help bad, for the checks of one process."""

    def __init__(self, *, goes_bad: bool) -> None:
        super().__init__()
        self._goes_bad = goes_bad

    async def check(self, names: Sequence[str], target: Any, frame: Frame) -> list[Finding]:
        found = Finding.bad if self._goes_bad else Finding.ok
        return [found(name, "was asked") for name in names]


class Worker:
    """The parts of one process over the shared database."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.store = store = Store(Database(scene.url), load_config(scene.folder / "watchkeeper.toml"))
        self.pulse = store.pulse = Pulse(Workers(store.database), "worker")
        self.pulse.place = scene.place or self.pulse.place
        self.errands = Errands(store.database)
        approvals = Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy)
        diagnosers: Any = {"chat": Telemetry(goes_bad=scene.goes_bad)}
        actions: Any = {each.name: each for each in (Ledger(scene.folder), BlindLedger(scene.folder))}
        nobody: Any = None
        self.approvals = approvals
        self.remediate = Remediate(
            plans=store.plans,
            journal=store.journal,
            approvals=approvals,
            verifier=Verifier(diagnosers=diagnosers, config=store.config),
            actions=actions,
            pulse=self.pulse,
            late_after_s=LATE_AFTER_S,
        )
        self.runner = ErrandRunner(
            me=self.pulse.me,
            errands=self.errands,
            incidents=store.incidents,
            plans=store.plans,
            journal=store.journal,
            approvals=approvals,
            people=store.people,
            policy=store.policy,
            config=store.config,
            narrowing=nobody,
            actions=actions,
        )

    async def work(self) -> None:
        """Everything that is there to do, once, until nothing is left."""
        await self.pulse.begin()
        await self._bury()
        if self.scene.is_alone:
            await self._tell(self.scene.plan_id, 1)
            await self.pulse.died.wait()
            raise DeadError
        if self.scene.event:
            await self.webhook(*self.scene.event)
        await self.store.inbox.fold(now=datetime.now(UTC))
        if self.scene.clicks:
            await self._click()
        await self._tell_all()
        await self.runner.sweep()
        await self._tell_all()
        if self.scene.slack:
            await self._speak(*self.scene.slack)
        await self.pulse.end()
        await self.store.database.close()

    async def _bury(self) -> None:
        """The dead of this machine at once; those of another when they were silent for long enough."""
        nobody: Any = None
        burial = TakeOver(pulse=self.pulse, workers=self.store.workers, duties=nobody, stories=())
        await burial._bury()
        while self.scene.inherits and not await self._is_last():
            await asyncio.sleep(0.3)
            await burial._bury()

    async def _is_last(self) -> bool:
        return (self.scene.folder / "frozen").exists() and len(await self.store.workers.living()) == 1

    async def webhook(self, raw: bytes, signature: str) -> None:
        """PagerDuty hears the product's own web door; its answer is written down as PagerDuty would remember it."""
        settings = WebSettings(pagerduty_secrets=(SECRET,), slack_secret=b"")
        app = build_web(intake=self.store.intake(), slack_handler=None, readiness=Ready(), settings=settings)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://product") as client:
            headers = {"x-pagerduty-signature": signature, "content-type": "application/json"}
            answer = await client.post("/webhooks/pagerduty", content=raw, headers=headers)
        answer.raise_for_status()
        self.acknowledged(raw)

    def acknowledged(self, raw: bytes) -> None:
        note(self.scene.folder / "acknowledged", self.scene.incident_id)

    async def _click(self) -> None:
        """Bob, who clicks again when he got no answer."""
        with contextlib.suppress(AlreadyDecidedError):
            person = self.store.person("bob")
            await self.approvals.approve(self.scene.plan_id, by=person, now=datetime.now(UTC))

    async def _tell_all(self) -> None:
        await asyncio.gather(*(self._tell(row.plan_id, row.chapter) for row in await open_plans(self.store)))

    async def _tell(self, plan_id: str, chapter: int) -> None:
        async def step(_: str, function: Any, *arguments: Any) -> Any:
            while not self.pulse.died.is_set():
                try:
                    return await function(*arguments)
                except StoreUnavailableError:  # also of who keeps still: the engine tries again, too, until it ends
                    await asyncio.sleep(0.2)
            raise DeadError

        await self.remediate.tell(plan_id, chapter, step)

    async def _speak(self, url: str, token: str) -> None:
        """Cards and threads, until all is said."""
        store = self.store
        slack = SlackClient(web_client(token, url, timeout_s=10))
        cards = cards_of(store)
        keeper = CardKeeper(
            incidents=store.incidents,
            cards=cards,
            slack=slack,
            bursts=BurstKeeper(bursts=Bursts(store.database), slack=slack, channel=CHANNEL, pulse=self.pulse),
            channel=CHANNEL,
            pulse=self.pulse,
        )
        courier = SlackCourier(incidents=store.incidents, cards=cards, slack=slack, diagnosers={}, config=store.config)
        mail = Mailroom(
            "slack",
            store.outbox,
            courier.deliver,
            self.pulse,
            lambda: slack.room("chat.postMessage", CHANNEL, Rank.EVIDENCE),
        )
        while await unsaid(store, self.scene.incident_id):
            await keeper.sweep()
            await mail.sweep()
            await asyncio.sleep(0.1)


class DeadError(Exception):
    """Others declared this process dead: it ends."""


def cards_of(store: Store) -> Cards:
    return Cards(
        incidents=store.incidents,
        plans=store.plans,
        journal=store.journal,
        outbox=store.outbox,
        switch=store.switch,
        record=AuditLog(store.database),
        past=PastIncidents(store.database, lambda _: ()),
        votes=store.votes,
        config=store.config,
        policy=store.policy,
    )


async def open_plans(store: Store) -> Sequence[Any]:
    """What was approved and has not ended; each process goes on with all of it."""
    states = (PlanState.APPROVED.value, PlanState.RUNNING.value)
    query = sa.select(tables.plan.c.plan_id, tables.plan.c.chapter).where(tables.plan.c.state.in_(states))
    async with store.database.read() as connection:
        return (await connection.execute(query)).all()


async def unsaid(store: Store, incident_id: str) -> bool:
    """Whether this incident's card is out of date, or a parcel for Slack still waits."""
    incident, outbox = tables.incident, tables.outbox
    old = sa.exists().where(incident.c.incident_id == incident_id, incident.c.shown < incident.c.revision)
    waits = sa.exists().where(
        outbox.c.incident_id == incident_id, outbox.c.lane == "slack", outbox.c.state.in_(("new", "sending"))
    )
    async with store.database.read() as connection:
        return bool((await connection.execute(sa.select(sa.or_(old, waits)))).scalar_one())


def note(path: Path, line: str) -> None:
    """A line that outlives this process."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{line}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
