"""
One of the processes that the chaos test kills: the product's engine and remediation, over an action that only writes.

`python -m tests.chaos_worker URL FOLDER`. Each act appends a line to FOLDER/acts and waits for the disk, so that
whatever happened outlives the process that did it. Where FOLDER/hosts says `separate`, the process pretends to be alone
on its machine, so that only its silence tells the others of its death.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import structlog
from pydantic import BaseModel

from bot.approvals import Approvals
from bot.config import load_config
from bot.engine import Engine
from bot.feedback import AdoptedExperience
from bot.parts import engine_url
from bot.pulse import Pulse
from bot.remediate import Remediate, RemediateWorkflow
from bot.respond import Respond, RespondWorkflow
from bot.store.database import Database, workflow_engine
from bot.store.workers import Duties, Workers
from bot.verify import Verifier
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from runbooks.engine.values import DryRun, Happened, JsonObject, Tier
from tests.kit import Store

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PACE = 600

LATE_AFTER_S = 1.0
"""How long a probe's "no" waits for a late effect; a line in a file is never as late as the product's ten seconds."""


class Where(BaseModel):
    """Which step of which plan."""

    plan: str
    step: int


class Append:
    """Writes a line, a moment after it was told to, and takes a moment to answer."""

    name = "chaos.append"
    tier = Tier.R1
    dry_run = DryRun.READS
    params: type[BaseModel] = Where

    def __init__(self, folder: Path) -> None:
        self._path = folder / "acts"

    def effect(self, params: Where, before: JsonObject) -> str:
        return f"Write line {params.step} of {params.plan}."

    def target(self, params: Where) -> str:
        return f"chaos/{params.plan}/{params.step}"

    async def read(self, params: Where) -> JsonObject:
        return {}

    async def act(self, params: Where, before: JsonObject, token: str) -> JsonObject:
        await asyncio.sleep(random.uniform(0, 0.02))
        line = f"{params.plan} {params.step} {token} {os.getpid()}\n"
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)
        await asyncio.sleep(random.uniform(0, 0.02))
        return {"written": True}

    async def happened(self, params: Where, before: JsonObject, token: str) -> Happened:
        """The file can tell."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        written = any(line.startswith(f"{params.plan} {params.step} ") for line in lines)
        return Happened.YES if written else Happened.NO

    def undo(self, params: Where, before: JsonObject) -> JsonObject | None:
        return None


class BlindAppend(Append):
    """The same, and nobody can find out whether it happened."""

    name = "chaos.blind"

    async def happened(self, params: Where, before: JsonObject, token: str) -> Happened:
        return Happened.CANNOT_TELL


class AllWell:
    """Checks that are always good, by a clock that all processes share and that runs PACE times as fast as ours."""

    def __init__(self) -> None:
        self.telemetry = self

    async def now(self) -> datetime:
        return BEGAN + PACE * (datetime.now(UTC) - BEGAN)

    async def check(self, names: Sequence[str], target: Any, frame: Frame) -> list[Finding]:
        return [Finding.ok(name, "is ok") for name in names]


async def work(store: Store, lifeline: Database, folder: Path) -> None:
    """Until SIGTERM, or until somebody declares this process dead."""
    workers = Workers(lifeline)
    pulse = Pulse(workers, "worker")
    if (folder / "hosts").read_text() == "separate":
        pulse.place = f"machine of {pulse.me}"
    engine = Engine(
        system_engine=workflow_engine(engine_url(store.database.url.render_as_string(hide_password=False))),
        pulse=pulse,
        workers=workers,
        duties=Duties(lifeline, pulse.me),
        inbox=store.inbox,
        incidents=store.incidents,
        plans=store.plans,
    )
    nobody: Any = None
    diagnosers: Any = {"chat": AllWell()}
    approvals = Approvals(plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy)
    remediate = Remediate(
        plans=store.plans,
        journal=store.journal,
        approvals=approvals,
        verifier=Verifier(diagnosers=diagnosers, config=store.config),
        actions={action.name: action for action in (Append(folder), BlindAppend(folder))},
        pulse=pulse,
        late_after_s=LATE_AFTER_S,
    )
    respond = Respond(
        incidents=store.incidents,
        plans=store.plans,
        outbox=store.outbox,
        config=store.config,
        approvals=approvals,
        diagnosers={},
        by_experience=AdoptedExperience(store.rankings, store.config).order,
        search=nobody,
        runbooks=dict,
        actions={},
        pagerduty=nobody,
    )
    await pulse.begin()
    await engine.start(
        respond=lambda: RespondWorkflow(respond, engine.diagnoses),
        remediate=lambda: RemediateWorkflow(remediate, engine.fixes),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pulse.died.set)
    await pulse.died.wait()
    await engine.interrupt()
    await engine.stop()
    await pulse.end()


def _as_json(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    return json.dumps({**event, "at": datetime.now(UTC).timestamp(), "pid": os.getpid()}, default=str)


async def main(url: str, folder: Path) -> None:
    with (folder / f"log-{os.getpid()}").open("w", buffering=1) as log:
        structlog.configure(
            processors=[structlog.processors.format_exc_info, _as_json],
            logger_factory=structlog.PrintLoggerFactory(log),
        )
        store, lifeline = Store(Database(url), load_config(folder / "watchkeeper.toml")), Database(url)
        try:
            await work(store, lifeline, folder)
        finally:
            await lifeline.close()
            await store.database.close()


def _run() -> NoReturn:
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    sys.exit(0)


if __name__ == "__main__":
    _run()
