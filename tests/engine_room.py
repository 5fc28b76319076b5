"""
The real engine over a real database, with neighbours that write down in a file what was asked of them.

The file outlives the process, so that a test can see what a killed process did. As a program (`python -m
tests.engine_room URL FOLDER [apart]`) it runs the engine until SIGTERM, or until it is declared dead; `apart` is on a
machine of its own, where nobody sees whether its process lives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbos._dbos import _get_or_create_dbos_registry

from bot.approvals import Approvals
from bot.cli import DECLARED_DEAD
from bot.engine import Engine
from bot.feedback import AdoptedExperience
from bot.parts import engine_url
from bot.pulse import Pulse
from bot.remediate import Remediate, RemediateWorkflow
from bot.respond import Respond, RespondWorkflow
from bot.store.database import workflow_engine
from bot.store.workers import Duties
from bot.verify import Verifier
from diagnostics.diagnosis import Diagnosis, Frame
from diagnostics.findings import Finding
from retrieval.documents import Hit, Question
from runbooks.engine.values import Happened, JsonObject
from tests.bot.test_remediate import FakeAction, FakeTelemetry
from tests.kit import Store, config_in, open_store
from tests.stories import FOUND, HIT, RUNBOOK, FakePagerDuty

ROOT = Path(__file__).parents[1]


class Diary:
    """What happened, a line each. `hang` makes the moment of that name last until another one is to, or none."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "diary"
        self._hang = folder / "hang"

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    async def write(self, moment: str) -> None:
        with self._file.open("a") as file:
            file.write(f"{moment}\n")
        while self._hang.exists() and self._hang.read_text() == moment:
            await asyncio.sleep(0.02)

    def hang(self, moment: str) -> None:
        self._hang.write_text(moment)

    async def until(self, moment: str) -> None:
        while moment not in self.lines():
            await asyncio.sleep(0.05)


class Neighbours(FakePagerDuty, FakeAction):
    """PagerDuty, telemetry, search and the system that is changed; `fails` is raised by the next diagnosis."""

    def __init__(self, folder: Path, diary: Diary) -> None:
        FakePagerDuty.__init__(self)
        FakeAction.__init__(self)
        self.diary = diary
        self.telemetry = FakeTelemetry()
        self.broken: list[Exception] = []
        self._thing = folder / "thing"

    async def alerts(self, incident_id: str) -> list[Any]:
        await self.diary.write("alerts")
        return await super().alerts(incident_id)

    async def diagnose(self, target: Any, *, alert: str = "") -> Diagnosis:
        await self.diary.write("diagnosis")
        if self.broken:
            raise self.broken.pop(0)
        return FOUND

    async def check(self, names: Sequence[str], target: Any, frame: Frame) -> list[Finding]:
        await self.diary.write("check")
        return [Finding.ok(name, "is ok") for name in names]

    async def search(self, question: Question, limit: int) -> list[Hit]:
        await self.diary.write("runbooks")
        return [HIT]

    async def read(self, params: Any) -> JsonObject:
        return {"value": int(self._thing.read_text()) if self._thing.exists() else 8}

    async def act(self, params: Any, before: JsonObject, token: str) -> JsonObject:
        await self.diary.write("about to act")
        self._thing.write_text(str(params.to))
        await self.diary.write("act")
        return {"value": params.to}

    async def happened(self, params: Any, before: JsonObject, token: str) -> Happened:
        await self.diary.write("probe")
        return Happened.YES if await self.read(params) == {"value": params.to} else Happened.NO


class EngineRoom:
    """An engine that is not started yet, and all it drives."""

    respond_story: type[Respond] = Respond

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.diary = Diary(folder)
        self.neighbours = Neighbours(folder, self.diary)
        self.pulse = Pulse(store.workers, "worker")
        self.url = store.database.url.render_as_string(hide_password=False)
        self.approvals = Approvals(
            plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy
        )
        self.engine = Engine(
            system_engine=workflow_engine(engine_url(self.url)),
            pulse=self.pulse,
            workers=store.workers,
            duties=Duties(store.database, self.pulse.me),
            inbox=store.inbox,
            incidents=store.incidents,
            plans=store.plans,
        )

    def respond(self) -> RespondWorkflow:
        fakes: Any = self.neighbours
        story = self.respond_story(
            incidents=self.store.incidents,
            plans=self.store.plans,
            outbox=self.store.outbox,
            config=self.store.config,
            approvals=self.approvals,
            diagnosers={"chat": fakes},
            search=fakes,
            by_experience=AdoptedExperience(self.store.rankings, self.store.config).order,
            runbooks=lambda: {RUNBOOK.runbook_id: RUNBOOK},
            actions={"fake.set": fakes},
            pagerduty=fakes,
        )
        return RespondWorkflow(story, self.engine.diagnoses)

    def remediate(self) -> RemediateWorkflow:
        fakes: Any = self.neighbours
        story = Remediate(
            plans=self.store.plans,
            journal=self.store.journal,
            approvals=self.approvals,
            verifier=Verifier(diagnosers={"chat": fakes}, config=self.store.config),
            actions={"fake.set": fakes},
            pulse=self.pulse,
            late_after_s=0.0,
        )
        return RemediateWorkflow(story, self.engine.fixes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Started, and stopped as the product stops it; another may be started in this process afterwards."""
        await self.pulse.begin()
        await self.engine.start(respond=self.respond, remediate=self.remediate)
        try:
            yield
        finally:
            await self.engine.stop()
            await self.pulse.end()
            # DBOS keeps configured instances for the life of a process; the product has one life, a test several.
            _get_or_create_dbos_registry().instance_info_map.clear()

    async def approve(self) -> str:
        """Bob says yes to what is proposed; returns the plan's id."""
        rows = await self.store.plans.of_incident((await self.store.incidents.unresolved())[0].incident_id)
        plan_id = next(row.plan.plan_id for row in rows if row.state == "proposed")
        await self.approvals.approve(plan_id, by=self.store.person("bob"), now=datetime.now(UTC))
        self.engine.ring()
        return plan_id


async def until(condition: Callable[[], Any], patience_s: float = 30.0) -> None:
    """Ask an asynchronous question until the answer is yes."""
    async with asyncio.timeout(patience_s):
        while not await condition():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def process(url: str, folder: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The engine in a process of its own; it is killed at the end if it lives then."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "output").open("ab") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.engine_room",
            url,
            str(folder),
            *options,
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def main(url: str, folder: Path, *options: str) -> int:
    """A process of its own; its exit status."""
    async with open_store(url, config_in(folder)) as store:
        room = EngineRoom(store, folder)
        if "apart" in options:
            room.pulse.place = f"the machine of {room.pulse.me}"
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with room.running():
            endings = [asyncio.create_task(each.wait()) for each in (stop, room.pulse.died)]
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            for ending in endings:
                ending.cancel()
        return DECLARED_DEAD if room.pulse.died.is_set() else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
