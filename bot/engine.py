"""
The engine room: the durable workflows, the sweeps that start them, and the bell and ticker that wake the sweeps.

A row is the queue: a sweep starts the workflow of any row that has none yet, under an id that the row decides, so a
crash between the commit and the start loses nothing, and starting twice runs nothing twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID

from bot.incidents import PlanState, StoreUnavailableError
from bot.pulse import Pulse
from bot.remediate import RemediateWorkflow
from bot.respond import RespondWorkflow
from bot.store.inbox import Inbox
from bot.store.incidents import Incidents
from bot.store.plans import Plans
from bot.store.workers import Duties, Workers
from bot.stories import Stories
from bot.takeover import LOOK_S, TakeOver

log = structlog.get_logger()

APPLICATION_VERSION = "1"
"""Never changes: DBOS resumes only workflows of its own version, so a new number would strand those under way."""

TICK_S = 1.0

PAUSE_S = 0.1
"""Between two sweeps of one kind, so that a storm, which rings all the time, is swept in few large strokes."""

DIAGNOSES_AT_ONCE = 4
FIXES_AT_ONCE = 20
"""
So many does one process begin beside each other; a storm waits in its rows.

Diagnoses compute: more of them at once end no sooner, run out of their checks' patience, and hold up the webhooks.
Fixes wait for other systems.
"""


class Bell:
    """Rung whenever something was committed that somebody should look at; many rings before a look are one."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung.clear()


class Sweeper:
    """One question repeated for ever: is there anything to do? Sleeps until the bell rings."""

    def __init__(self, name: str, sweep: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self.bell = Bell()
        self._sweep = sweep
        self.healthy_at: datetime | None = None

    async def run(self) -> None:
        """Sweeps until cancelled. A database that does not answer is waited for."""
        while True:
            await self.bell.wait()
            try:
                await self._sweep()
            except StoreUnavailableError as error:
                log.warning("sweep failed", sweep=self.name, why=str(error))
            except Exception:  # one broken sweep must not end the loop; the tick tries again
                log.exception("sweep failed", sweep=self.name)
            else:
                self.healthy_at = datetime.now(UTC)
            await asyncio.sleep(PAUSE_S)


class Engine:
    """Starts workflows for rows, and everything else that happens by the clock."""

    def __init__(
        self,
        *,
        system_engine: sa.Engine,
        pulse: Pulse,
        workers: Workers,
        duties: Duties,
        inbox: Inbox,
        incidents: Incidents,
        plans: Plans,
        more: Sequence[Sweeper] = (),
        timed: Mapping[float, Sequence[Sweeper]] | None = None,
    ) -> None:
        """`more` are others' sweepers that share the bell (cards, mail); `timed` sweep every so many seconds only."""
        self._inbox = inbox
        self._incidents = incidents
        self._plans = plans
        self._respond: RespondWorkflow | None = None
        self._remediate: RemediateWorkflow | None = None
        self.diagnoses = Stories(self.ring)
        self.fixes = Stories(self.ring)
        self.sweepers = (
            Sweeper("inbox", self._fold),
            Sweeper("diagnoses", self._start_diagnoses),
            Sweeper("fixes", self._start_fixes),
            *more,
        )
        take_over = TakeOver(pulse=pulse, workers=workers, duties=duties, stories=(self.diagnoses, self.fixes))
        self._timed = {**(timed or {}), LOOK_S: [Sweeper("take-over", take_over.sweep)]}
        self._tasks: list[asyncio.Task[None]] = []
        self._ticker = AsyncIOScheduler(timezone=UTC)
        self._config = DBOSConfig(
            name="watchkeeper",
            system_database_engine=system_engine,
            application_version=APPLICATION_VERSION,
            executor_id=pulse.me,
            serializer=DBOSPortableJSONSerializer(),
            log_level="WARNING",
            enable_otlp=False,
            notification_listener_polling_interval_sec=0.5,
        )

    def ring(self) -> None:
        """Something was committed."""
        for sweeper in self.sweepers:
            sweeper.bell.ring()

    async def start(
        self, *, respond: Callable[[], RespondWorkflow], remediate: Callable[[], RemediateWorkflow]
    ) -> None:
        """Launch DBOS in this event loop, then the sweeps and the ticker; what a crash cut off is taken over."""
        DBOS(config=self._config)
        self._respond, self._remediate = respond(), remediate()
        DBOS.launch()
        timed = [sweeper for sweepers in self._timed.values() for sweeper in sweepers]
        self._tasks = [asyncio.create_task(each.run(), name=each.name) for each in (*self.sweepers, *timed)]
        self._tick(TICK_S, self.ring)
        for seconds, sweepers in self._timed.items():
            for sweeper in sweepers:
                self._tick(seconds, sweeper.bell.ring)
                sweeper.bell.ring()
        self._ticker.start()
        self.ring()

    def _tick(self, seconds: float, what: Callable[[], None]) -> None:
        self._ticker.add_job(what, "interval", seconds=seconds, coalesce=True, max_instances=1, misfire_grace_time=None)

    async def stop(self) -> None:
        """Stop sweeping and interrupt the stories; whatever is under way is taken over by whoever lives next."""
        self._ticker.shutdown(wait=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.interrupt()
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=0)
        # DBOS made its own thread pool the loop's default, and has just shut it down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    async def interrupt(self) -> None:
        """Cut off all stories, as a crash would; somebody goes on with them."""
        await self.diagnoses.interrupt()
        await self.fixes.interrupt()

    async def _fold(self) -> None:
        if await self._inbox.fold(now=datetime.now(UTC)):
            self.ring()

    async def _start_diagnoses(self) -> None:
        for incident_id, number in _some(
            await self._incidents.runs_to_start(), DIAGNOSES_AT_ONCE - len(self.diagnoses.told)
        ):
            with SetWorkflowID(f"{incident_id}:{number}"):
                await DBOS.start_workflow_async(self._workflow().run, incident_id, number)
            await self._incidents.mark_started(incident_id, number)

    async def _start_fixes(self) -> None:
        now = datetime.now(UTC)
        for row in await self._plans.overdue(now=now):
            await self._plans.end(
                row.plan,
                PlanState.EXPIRED,
                "Nobody decided in time." if row.start_by is None else "It could not start in time.",
                now=now,
                expected=[row.state],
            )
        for plan_id, chapter in _some(await self._plans.to_start(), FIXES_AT_ONCE - len(self.fixes.told)):
            with SetWorkflowID(f"{plan_id}:{chapter}"):
                await DBOS.start_workflow_async(self._remediation().run, plan_id, chapter)
            await self._plans.mark_started(plan_id, chapter)

    def _workflow(self) -> RespondWorkflow:
        if self._respond is None:
            raise RuntimeError("the engine was not started")
        return self._respond

    def _remediation(self) -> RemediateWorkflow:
        if self._remediate is None:
            raise RuntimeError("the engine was not started")
        return self._remediate


def _some(waiting: Sequence[tuple[str, int]], room: int) -> list[tuple[str, int]]:
    """
    As many of what has waited longest as there is room for here; the rest is for others, or for later.

    In random order, so that processes which look at the same rows do not start the same stories.
    """
    oldest = list(waiting[: max(0, 2 * room)])
    random.shuffle(oldest)
    return oldest[: max(0, room)]
