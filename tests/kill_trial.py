"""
One seed of the kill matrix on one database: each boundary is come to by one process, and another one goes on.

Judged from the database, the file that the acts wrote, and the far ends' own memory.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot import narrate
from bot.approvals import Approvals
from bot.incidents import PlanState
from bot.respond import FRAME
from bot.slack.blocks import card
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.errands import Errands
from diagnostics.diagnosis import Frame
from lab.slack import Message, Workspace
from runbooks.engine.values import Plan
from tests.bench_load import events
from tests.kill_points import DECLARED_DEAD, EXECUTION, FREEZES, INTAKE, play
from tests.kill_worker import SECRET, Scene, cards_of
from tests.kit import Store, plan, step
from tests.standins import signature_of

IN_SLACK = {
    "intake: after claim",
    "intake: after post, before its ts is stored",
    "intake: after store",
    "before final post",
    "after final post",
}
OPEN_CALL = {"after intent commit", "after spawn", "mid-run", "after exit, before outcome commit"}
"""Where a step is in doubt when its probe cannot tell."""

BY_APPROVER = {"before approval commit", "after approval commit"}
ROLLBACK = {"before rollback", "mid rollback"}
PATIENCE_S = 150.0

PROCESSES = multiprocessing.get_context("forkserver")
"""Each process is forked from one that has imported everything and done nothing, so that a kill costs no second."""

PROCESSES.set_forkserver_preload(["tests.kill_points"])


@dataclass(kw_only=True)
class Tally:
    """What was done, and what was wrong."""

    reached: Counter[str] = field(default_factory=Counter)
    in_doubt: int = 0
    late_refused: int = 0
    violations: list[str] = field(default_factory=list)


class Trials:
    """All trials of one seed on one database."""

    def __init__(self, store: Store, url: str, folder: Path, seed: int, workspace: Workspace, slack: str) -> None:
        self._store = store
        self._folder = folder
        self._seed = seed
        self._chance = random.Random(seed)
        self._workspace = workspace
        self._slack = slack
        self._approvals = Approvals(
            plans=store.plans, incidents=store.incidents, people=store.people, policy=store.policy
        )
        self._errands = Errands(store.database)
        self._base = Scene(url=url, folder=folder)
        self.tally = Tally()

    async def play(self, points: Sequence[str]) -> Tally:
        """Those that speak to Slack first: each of them says all there is to say."""
        for point in sorted(points, key=lambda each: each not in IN_SLACK):
            if point not in FREEZES:
                await (self._intake(point) if point in INTAKE else self._execution(point))
        if frozen := [point for point in points if point in FREEZES]:
            await self._zombies(frozen)
        chain = await AuditLog(self._store.database).verify()
        if chain.broken_at is not None:
            self._wrong("the record", f"broken at row {chain.broken_at}: {chain.why}")
        return self.tally

    # -- intake ------------------------------------------------------------------------------------------------------

    async def _intake(self, point: str) -> None:
        prefix = f"W{list(INTAKE).index(point)}"
        [event] = events(prefix, 1, 1)
        raw = json.dumps({"event": event}).encode()
        incident_id = event["data"]["id"]
        webhook = (raw, signature_of(raw, SECRET.decode()))
        slack = (self._slack, self._workspace.bot_token) if point in IN_SLACK else None
        scene = replace(self._base, incident_id=incident_id, event=webhook, slack=slack)
        await self._kill(scene, point)
        # PagerDuty sends again what it has no answer to, and now and then what it has one to
        is_sent_again = not self._is_acknowledged(incident_id) or self._chance.random() < 0.5
        await self._go_on(scene if is_sent_again else replace(scene, event=None))
        if not self._is_acknowledged(incident_id):
            self._wrong(point, "PagerDuty never got its 202")
        await self._judge_intake(point, event["id"], incident_id)

    async def _judge_intake(self, point: str, event_id: str, incident_id: str) -> None:
        stored = await self._rows(tables.delivery, tables.delivery.c.event_id == event_id)
        if [row.state for row in stored] != ["done"]:
            self._wrong(point, f"deliveries {[row.state for row in stored]}")
        runs = await self._rows(tables.run, tables.run.c.incident_id == incident_id)
        if len(runs) != 1:
            self._wrong(point, f"{len(runs)} diagnoses were queued")
        if point in IN_SLACK:
            self._said_once(point, f"card:{incident_id}")

    def _is_acknowledged(self, incident_id: str) -> bool:
        return incident_id in _lines(self._folder / "acknowledged")

    # -- a fix -------------------------------------------------------------------------------------------------------

    async def _execution(self, point: str) -> None:
        name = f"X{list(EXECUTION).index(point)}"
        item, hit = await self._offer(name, point)
        neighbour = await self._neighbour(f"N{name}") if point not in IN_SLACK and self._chance.random() < 0.5 else None
        if point not in BY_APPROVER:
            await self._approve(item)
        slack = (self._slack, self._workspace.bot_token) if point in IN_SLACK else None
        scene = replace(
            self._base,
            plan_id=item.plan_id,
            incident_id=item.incident_id,
            hit=hit,
            clicks=point in BY_APPROVER,
            goes_bad=point in ROLLBACK,
            slack=slack,
        )
        if point in ROLLBACK:
            await self._go_on(scene)
            await self._errands.ask(
                "undo", item.plan_id, incident_id=item.incident_id, by=self._store.person("bob"), now=datetime.now(UTC)
            )
        await self._kill(scene, point)
        await self._go_on(scene)
        await self._judge_execution(point, item, hit)
        if neighbour:
            await self._judge_neighbour(point, neighbour)

    async def _offer(self, name: str, point: str) -> tuple[Plan, int]:
        """A plan of one to four steps; the seed says which one is hit, and of which ones a probe can tell nothing."""
        count = self._chance.randint(1, 4)
        hit = self._chance.randrange(count)
        blind = [point not in ROLLBACK and self._chance.random() < 0.5 for _ in range(count)]
        if point in OPEN_CALL:  # both kinds in each seed
            blind[hit] = (self._seed + list(EXECUTION).index(point)) % 2 == 0
        return await self._plan(name, blind, is_verified=True), hit

    async def _neighbour(self, name: str) -> Plan:
        """Another fix that is under way meanwhile."""
        item = await self._plan(name, [False, False], is_verified=False)
        await self._approve(item)
        return item

    async def _plan(self, name: str, blind: Sequence[bool], *, is_verified: bool) -> Plan:
        now = datetime.now(UTC)
        incident_id, plan_id = f"Q{name}", f"plan-{name}"
        await self._store.page(incident_id=incident_id, event_id=f"e{name}")
        await self._store.incidents.finish(incident_id, 1, now=now, cause="S04", probability=0.9)
        frame = Frame(at=now, baseline_start=now - timedelta(hours=1), baseline_end=now - timedelta(minutes=10))
        steps = tuple(
            step(
                index=index,
                action="kill.blind" if is_blind else "kill.append",
                target=f"ledger/{plan_id}/{index}",
                params={"plan": plan_id, "step": index, "back": False},
                before={},
                undo={"plan": plan_id, "step": index, "back": True},
                verify=("prefix_cache",) if is_verified and index == len(blind) - 1 else (),
                settle_s=0.0,
            )
            for index, is_blind in enumerate(blind)
        )
        return await self._store.offer(
            plan(
                self._store.policy.version,
                plan_id=plan_id,
                incident_id=incident_id,
                made_at=now,
                expires_at=now + timedelta(minutes=15),
                frame=FRAME.dump_python(frame, mode="json"),
                steps=steps,
            )
        )

    async def _approve(self, item: Plan) -> None:
        await self._approvals.approve(item.plan_id, by=self._store.person("bob"), now=datetime.now(UTC))

    async def _judge_execution(self, point: str, item: Plan, hit: int) -> None:
        is_open = point in OPEN_CALL and item.steps[hit].action == "kill.blind"
        expected = PlanState.IN_DOUBT if is_open else PlanState.VERIFIED
        if point in ROLLBACK:
            expected = PlanState.NOT_VERIFIED
            await self._judge_rollback(point, item)
        row = await self._store.plans.get(item.plan_id)
        done = [self._written(item.plan_id, index, "there") for index in range(len(item.steps))]
        wanted = [1] * len(item.steps)
        if is_open:  # nobody can say of this one, and none after it was begun
            wanted = [*wanted[:hit], done[hit] if done[hit] < 2 else 1, *[0] * (len(wanted) - hit - 1)]
            await self._judge_doubt(point, item)
        if row.state is not expected or done != wanted:
            self._wrong(point, f"the fix is {row.state.value}, not {expected.value}; acts {done}, not {wanted}")
        if len(row.approvals) != 1:
            self._wrong(point, f"{len(row.approvals)} approvals")
        if point in IN_SLACK:
            self._said_once(point, f"card:{item.incident_id}")
            [key] = [
                each.key
                for each in await self._rows(tables.outbox, tables.outbox.c.incident_id == item.incident_id)
                if (each.lane, each.kind) == ("slack", "outcome")
            ]
            self._said_once(point, key)

    async def _judge_rollback(self, point: str, item: Plan) -> None:
        undos = [each for each in await self._store.plans.of_incident(item.incident_id) if each.plan.undoes]
        back = [self._written(item.plan_id, index, "back") for index in range(len(item.steps))]
        if [each.state for each in undos] != [PlanState.DONE] or back != [1] * len(back):
            self._wrong(point, f"undos {[each.state.value for each in undos]}; taken back {back}")

    async def _judge_doubt(self, point: str, item: Plan) -> None:
        """A person reads of it on the card, and the record says so."""
        shown = json.dumps(card(await cards_of(self._store).view(item.incident_id)).blocks)
        deeds = [each.action for each in await AuditLog(self._store.database).about(item.incident_id)]
        if narrate.PLAN_STATE[PlanState.IN_DOUBT] not in shown or "plan.in_doubt" not in deeds:
            self._wrong(point, f"a step in doubt is not shown; on record: {deeds}")
        else:
            self.tally.in_doubt += 1

    async def _judge_neighbour(self, point: str, item: Plan) -> None:
        row = await self._store.plans.get(item.plan_id)
        done = [self._written(item.plan_id, index, "there") for index in range(len(item.steps))]
        if row.state is not PlanState.DONE or done != [1, 1]:
            self._wrong(point, f"the other fix is {row.state.value}; acts {done}")

    # -- the frozen --------------------------------------------------------------------------------------------------

    async def _zombies(self, points: Sequence[str]) -> None:
        """One process frozen at each point, one that takes over from them all; then they thaw."""
        heir = self._start(replace(self._base, place="the heir's machine", inherits=True))
        frozen: dict[str, tuple[Plan, BaseProcess]] = {}
        for number, point in enumerate(points):
            item = await self._plan(f"Z{number}", [False], is_verified=True)
            await self._approve(item)
            where = f"machine {number}"
            scene = replace(self._base, point=point, plan_id=item.plan_id, incident_id=item.incident_id, place=where)
            frozen[point] = item, self._start(replace(scene, is_alone=True))
            await self._until_reached(scene)
        (self._folder / "frozen").touch()
        await asyncio.to_thread(heir.join, PATIENCE_S)
        if heir.exitcode != 0:
            self._wrong("frozen", f"the heir ended with {heir.exitcode}")
        for point, (item, process) in frozen.items():
            known = await self._deeds(item)
            os.kill(process.pid or 0, signal.SIGCONT)
            await asyncio.to_thread(process.join, PATIENCE_S)
            await self._judge_frozen(point, item, process.exitcode, known)
        for process in (heir, *(each for _, each in frozen.values())):
            process.kill()

    async def _judge_frozen(self, point: str, item: Plan, status: int | None, known: tuple[int, int]) -> None:
        """Verified by the heir, one act; whoever thawed added nothing, was refused what it tried, and ended itself."""
        row = await self._store.plans.get(item.plan_id)
        acts = self._written(item.plan_id, 0, "there")
        if status != DECLARED_DEAD:
            self._wrong(point, f"ended with {status} after it thawed")
        if row.state is not PlanState.VERIFIED or acts != 1:
            self._wrong(point, f"the fix is {row.state.value}; {acts} acts")
        if await self._deeds(item) != known:
            self._wrong(point, f"it went on after it thawed: {known} became {await self._deeds(item)}")
        late = [line.split() for line in _lines(self._folder / "late") if line.startswith(f"{item.plan_id} ")]
        if any(answer == "written" for _, _, answer in late):
            self._wrong(point, f"a late write was taken: {late}")
        if point != "frozen after intent" and not late:
            self._wrong(point, "no late write was tried, so none was refused")
        self.tally.late_refused += len(late)

    async def _deeds(self, item: Plan) -> tuple[int, int]:
        return len(await self._store.journal.read(item.plan_id)), self._written(item.plan_id, 0, "there")

    # -- processes and what they left --------------------------------------------------------------------------------

    def _start(self, scene: Scene) -> BaseProcess:
        process = PROCESSES.Process(target=play, args=(scene,))
        process.start()
        return process

    async def _kill(self, scene: Scene, point: str) -> None:
        """A process that ends itself at this point."""
        process = self._start(replace(scene, point=point))
        await asyncio.to_thread(process.join, PATIENCE_S)
        if process.exitcode == -signal.SIGKILL and self._is_reached(scene.incident_id, point):
            self.tally.reached[point] += 1
        else:
            process.kill()
            self._wrong(point, f"it was not reached; the process ended with {process.exitcode}")

    async def _go_on(self, scene: Scene) -> None:
        process = self._start(scene)
        await asyncio.to_thread(process.join, PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            self._wrong(scene.incident_id, f"whoever goes on ended with {process.exitcode}")

    async def _until_reached(self, scene: Scene) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_reached(scene.incident_id, scene.point):
                await asyncio.sleep(0.05)
        self.tally.reached[scene.point] += 1

    def _is_reached(self, incident_id: str, point: str) -> bool:
        return f"{incident_id} {point}" in _lines(self._folder / "reached")

    def _written(self, plan_id: str, index: int, which: str) -> int:
        return sum(line.startswith(f"{plan_id} {index} {which} ") for line in _lines(self._folder / "acts"))

    def _said_once(self, point: str, key: str) -> None:
        """By Slack's own memory."""
        said = [message for message in self._workspace.messages.values() if _key(message) == key]
        if len(said) != 1:
            self._wrong(point, f"{key} stands in Slack {len(said)} times")

    async def _rows(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> Sequence[Any]:
        async with self._store.database.read() as connection:
            return (await connection.execute(sa.select(table).where(*conditions))).all()

    def _wrong(self, where: str, what: str) -> None:
        self.tally.violations.append(f"{where}: {what}")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _key(message: Message) -> str:
    return str(message.metadata["event_payload"]["key"]) if message.metadata else ""
