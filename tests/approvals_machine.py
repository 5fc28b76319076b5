"""
Approvals under everything that people and the world do to them, in any order: the real desk, approvals and store on
SQLite, and beside them a reading of the rules that shares no code with the product.

`bot.remediate.Remediate.begin` starts plans. After each start the machine asks its own books: who said yes to exactly
this, may each of them still, is it the first start, has nothing ended it?
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from bot.incidents import PlanState, WatchkeeperError
from bot.policy import accounts
from bot.respond import DIAGNOSIS, context_of
from bot.store import schema
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.plan_rows import PlanRow
from runbooks.engine.plan import plan
from runbooks.engine.values import CannotPlanError, Tier
from tests.bot.test_desk import Room
from tests.bot.test_narrowing import BOOK
from tests.kit import CONFIG, Store, config_in, event
from tests.stories import FOUND, GUILTY

PEOPLE = ("alice", "bob", "dana", "paul")
CONFIGS = {
    "as ever": CONFIG,
    "bob lost his role": CONFIG.replace('prompt-owner = ["bob"]', 'prompt-owner = ["paul"]'),
    "two for everything": CONFIG.replace(
        'roles = ["prompt-owner", "service-owner"]', 'roles = ["prompt-owner", "service-owner"]\ncount = 2'
    ),
    "observe": CONFIG.replace('mode = "approve"', 'mode = "observe"'),
}
MAY = {
    "as ever": {Tier.R1: ({"bob", "dana"}, 1), Tier.R2: ({"dana", "paul"}, 2)},
    "bob lost his role": {Tier.R1: ({"paul", "dana"}, 1), Tier.R2: ({"dana", "paul"}, 2)},
    "two for everything": {Tier.R1: ({"bob", "dana"}, 2), Tier.R2: ({"dana", "paul"}, 2)},
    "observe": {},
}
"""Who may approve what, and how many are needed, read off the configurations by hand."""

_DISTURBANCES = (*CONFIGS, *PEOPLE, "resolved", "stop", "world")
_LIVE = (PlanState.RUNNING, PlanState.IN_DOUBT, PlanState.WAITING)
_AGES = st.sampled_from([0, 0, 0, 0, 11, 20])
_WHO = st.sampled_from(PEOPLE)
_WHICH = st.integers(0, 5)


class House:
    """One database and one loop for every example, each of which has an incident of its own."""

    def __init__(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a folder of our own within
        self.folder = tempfile.TemporaryDirectory(prefix="watchkeeper-approvals-", dir=memory)
        folder = Path(self.folder.name)
        url = f"sqlite:///{folder}/store.sqlite"
        schema.upgrade(url)
        self.runner = asyncio.Runner()
        self.database = Database(url)
        self.rooms: dict[str, Room] = {}
        for name, text in CONFIGS.items():
            self.rooms[name] = Room(Store(self.database, config_in(folder, text)))
            self.rooms[name].shelf[BOOK.runbook_id] = BOOK
        self.incidents = 0
        self.staff = ("", "")
        self.fired: Counter[str] = Counter()
        self.starts = 0

    def do(self, deed: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await deed

        return self.runner.run(awaited())

    def close(self) -> None:
        self.do(self.database.close())
        self.runner.close()
        self.folder.cleanup()


def play(*, examples: int, steps: int, seed: int | None = None) -> House:
    """So many examples of so many rules each, always the same for a seed; the house with its counts, closed."""
    house = Approving.house = House()
    machine = Approving if seed is None else hypothesis.seed(seed)(Approving)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=seed is None,
        database=None,
        phases=(Phase.generate,),  # a story is found at once; making it shorter would take minutes
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        house.close()
    return house


class Approving(RuleBasedStateMachine):
    """Rules are deeds of people, of the world and of workers; each may be refused, none may be believed."""

    house: House  # set by whoever runs it

    @initialize(tier=st.sampled_from([Tier.R1, Tier.R1, Tier.R1, Tier.R2, Tier.R2, Tier.R3]))
    def begin(self, tier: Tier) -> None:
        self.house.incidents += 1
        self.incident, self.run, self.tier = f"Q{self.house.incidents}", 1, tier
        self.config, self.gone = "as ever", ""
        self.is_stopped = self.is_resolved = False
        self.versions: dict[str, str] = {}  # plan -> the configuration it was made under
        self.said: dict[str, dict[str, str]] = {}  # plan -> who approved it -> the hash they approved
        self.ended: set[str] = set()  # denied, withdrawn or stopped
        self.started: set[str] = set()
        for room in self.house.rooms.values():
            room.action.tier = tier
        self._set_world(8)
        self._staff()
        self._event("incident.triggered")
        self._diagnosed()
        self.propose(minutes_ago=0, is_alternative=False)

    @property
    def room(self) -> Room:
        return self.house.rooms[self.config]

    def _staff(self) -> None:
        if self.house.staff == (self.config, self.gone):
            return
        self.house.staff = (self.config, self.gone)
        people = [each for each in accounts(self.room.store.config) if each[0].person_id != self.gone]
        self.house.do(self.room.store.people.replace(people))

    def _event(self, kind: str) -> None:
        at = datetime.now(UTC)
        heard = event(kind, at=at, incident_id=self.incident, event_id=f"{self.incident}:{at.isoformat()}")
        self.house.do(self.room.store.inbox.deliver(heard, now=at))
        self.house.do(self.room.store.inbox.fold(now=at))

    def _diagnosed(self) -> None:
        incidents, now = self.room.store.incidents, datetime.now(UTC)
        found = DIAGNOSIS.dump_python(FOUND, mode="json")
        self.house.do(incidents.record(self.incident, self.run, diagnosis=found, hits=[]))
        self.house.do(incidents.finish(self.incident, self.run, now=now, cause="S04", probability=0.9))

    def _rows(self) -> list[PlanRow]:
        rows: list[PlanRow] = self.house.do(self.room.store.plans.of_incident(self.incident))
        return sorted(rows, key=lambda row: row.plan.made_at, reverse=True)

    def _pick(self, which: int, *states: PlanState) -> PlanRow | None:
        """One of the plans, the newest for 0; those in one of these states first."""
        rows = sorted(self._rows(), key=lambda row: row.state not in states)
        return rows[which % len(rows)] if rows else None

    def _try(self, name: str, deed: Awaitable[Any]) -> Any:
        """The result, or None when it was refused in a sentence; any other error is a defect."""
        self.house.fired[name] += 1
        try:
            return self.house.do(deed)
        except WatchkeeperError:
            return None

    def _ends(self, *states: PlanState) -> None:
        self.ended |= {row.plan.plan_id for row in self._rows() if row.state in states}

    @rule(minutes_ago=_AGES, is_alternative=st.booleans())
    def propose(self, *, minutes_ago: int, is_alternative: bool) -> None:
        """A plan is made, now or some minutes ago."""
        self.house.fired["propose"] += 1
        store = self.room.store
        service = store.config.service("chat")
        assert service is not None
        incident = self.house.do(store.incidents.get(self.incident))
        context = context_of(incident, service, FOUND, GUILTY, policy_version=store.policy.version)
        context = replace(context, now=datetime.now(UTC) - timedelta(minutes=minutes_ago))
        state = PlanState.ALTERNATIVE if is_alternative else PlanState.PROPOSED
        try:
            made = store.policy.timed(self.house.do(plan(BOOK, context, {"fake.set": self.room.action})))
        except CannotPlanError:
            return
        self.house.do(store.plans.save(made, run=self.run, rank=None, state=state, now=made.made_at))
        self.versions[made.plan_id] = self.config

    @rule(who=_WHO, which=_WHICH)
    def request(self, who: str, which: int) -> None:
        if row := self._pick(which, PlanState.ALTERNATIVE):
            self._try("request", self.room.desk.request(row.plan.plan_id, self.room.person(who)))
            self._ends(PlanState.SUPERSEDED)

    @rule(who=_WHO, which=_WHICH, to=st.integers(-1, 9), is_current=st.booleans())
    def narrow(self, who: str, which: int, to: int, *, is_current: bool) -> None:
        row = self._pick(which, PlanState.PROPOSED, PlanState.APPROVED)
        if row is None:
            return
        known = set(self.versions)
        digest = row.digest if is_current else None
        deed = self.room.desk.narrow(row.plan.plan_id, {"to": str(to)}, self.room.person(who), digest=digest)
        self._try("narrow", deed)
        self._try("work", self.room.runner.sweep())
        for each in self._rows():
            if each.plan.plan_id not in known:
                assert each.state is PlanState.PROPOSED
                assert each.plan.requester == who
                self.versions[each.plan.plan_id] = self.config
        self._ends(PlanState.SUPERSEDED)

    @rule(who=_WHO, which=_WHICH, minutes_ago=_AGES, reads=st.sampled_from(["card", "this", "another"]))
    def approve(self, who: str, which: int, minutes_ago: int, reads: str) -> None:
        row = self._pick(which, PlanState.PROPOSED)
        if row is None:
            return
        digest = {"card": None, "this": row.digest, "another": "0" * 64}[reads]
        now = datetime.now(UTC) - timedelta(minutes=minutes_ago)
        deed = self.room.approvals.approve(row.plan.plan_id, by=self.room.person(who), now=now, digest=digest)
        if self._try("approve", deed) is not None:
            assert reads != "another"
            self.said.setdefault(row.plan.plan_id, {})[who] = row.plan.digest

    @rule(who=_WHO, which=_WHICH)
    def deny(self, who: str, which: int) -> None:
        if row := self._pick(which, PlanState.PROPOSED):
            self._try("deny", self.room.desk.deny(row.plan.plan_id, self.room.person(who)))
            self._ends(PlanState.DENIED)

    @rule(who=_WHO, which=_WHICH, is_current=st.booleans())
    def revoke(self, who: str, which: int, *, is_current: bool) -> None:
        """An approval is taken back; what is offered again starts with no approval in our books."""
        row = self._pick(which, PlanState.APPROVED)
        if row is None:
            return
        known, plan_id = set(self.versions), row.plan.plan_id
        digest = row.digest if is_current else "0" * 64
        self._try("revoke", self.room.desk.revoke(plan_id, self.room.person(who), digest=digest))
        again = [each for each in self._rows() if each.plan.plan_id not in known]
        for each in again:
            assert is_current, "revoked by who read another plan"
            assert row.state is PlanState.APPROVED, "revoked after it began"
            assert (each.state, each.approvals, each.plan.steps) == (PlanState.PROPOSED, (), row.plan.steps)
            assert who in self.said.get(plan_id, {}) or who in MAY.get(self.config, {}).get(row.plan.tier, ((), 0))[0]
            self.versions[each.plan.plan_id] = self.versions[plan_id]
            self.ended.add(plan_id)
            self.house.fired["revoked"] += 1

    @rule(who=_WHO)
    def look_again(self, who: str) -> None:
        """Another diagnosis withdraws what is on the table."""
        self._try("look again", self.room.desk.rediagnose(self.incident, self.room.person(who)))
        self.run = self.house.do(self.room.store.incidents.get(self.incident)).run
        self._diagnosed()
        self._ends(PlanState.SUPERSEDED)

    @rule(which=_WHICH)
    def start(self, which: int) -> None:
        """A worker begins a plan, whether or not anybody approved it."""
        row = self._pick(which, PlanState.APPROVED)
        if row is None:
            return
        self._try("start", self.room.story.begin(row.plan.plan_id, 1))
        self._check_starts()

    @rule(which=_WHICH)
    def end(self, which: int) -> None:
        """What runs comes to its end."""
        row = self._pick(which, *_LIVE)
        if row is not None:
            deed = self.room.store.plans.end(
                row.plan, PlanState.DONE, "", now=datetime.now(UTC), expected=[PlanState.RUNNING]
            )
            self._try("end", deed)

    @rule(is_free=st.booleans(), between=st.sampled_from(["", "", "revoke", *_DISTURBANCES]))
    def everybody_approves(self, *, is_free: bool, between: str) -> None:
        """Whoever may, and whoever may not; then perhaps something comes between, and a worker looks."""
        if is_free:
            self.end(0)
            self.calm("dana")
            self.propose(minutes_ago=0, is_alternative=False)
        for who in PEOPLE:
            self.approve(who, 0, 0, "this")
        if between == "revoke":
            self.revoke("dana", 0, is_current=True)
        elif between:
            self.disturb(between, "dana")
        self.start(0)

    @rule(what=st.sampled_from(_DISTURBANCES), who=_WHO)
    def disturb(self, what: str, who: str) -> None:
        """Another policy, somebody leaves, the incident is over, the kill switch, or somebody else's change."""
        self.house.fired["disturb"] += 1
        if what in CONFIGS:
            self.config = what
        elif what in PEOPLE:
            self.gone = what
        elif what == "resolved" and not self.is_resolved:
            self.is_resolved = True
            self._event("incident.resolved")
        elif what == "stop" and self._try("stop", self.room.desk.stop("", self.room.person(who))) is not None:
            self.is_stopped = True
            self.ended |= set(self.versions) - self.started
        elif what == "world":
            self._set_world(5)
        self._staff()

    @rule(who=_WHO)
    def calm(self, who: str) -> None:
        """All is as ever again, but what was ended by it stays ended."""
        self.config, self.gone = "as ever", ""
        self._staff()
        self._set_world(8)
        if self._try("go", self.room.desk.go(self.room.person(who))) is not None:
            self.is_stopped = False
        if self.is_resolved:
            self.is_resolved = False
            self._event("incident.reopened")
            self.run = self.house.do(self.room.store.incidents.get(self.incident)).run
            self._diagnosed()
            self._ends(PlanState.SUPERSEDED)

    def _set_world(self, value: int) -> None:
        for room in self.house.rooms.values():
            room.action.value = value

    def _check_starts(self) -> None:
        """What is on record as started, against our own books."""
        assert sum(row.state in _LIVE for row in self._rows()) <= 1, "two fixes at once"
        record = self.house.do(AuditLog(self.house.database).about(self.incident))
        starts = [row.details["plan"] for row in record if row.action == "plan.started"]
        assert len(starts) == len(set(starts)), "a plan started twice"
        rows = {row.plan.plan_id: row for row in self._rows()}
        for plan_id in set(starts) - self.started:
            self._check_start(rows[plan_id])
            self.house.starts += 1
            self.started.add(plan_id)

    def _check_start(self, row: PlanRow) -> None:
        item = row.plan
        people, needed = MAY[self.config][item.tier]
        fitting = people - {self.gone, item.requester}
        said = self.said.get(item.plan_id, {})
        assert len(set(said) & fitting) >= needed, "an unauthorised start"
        assert set(said.values()) == {item.digest} == {row.digest}, "a start of something else than was approved"
        assert item.plan_id not in self.ended, "a plan started after its end"
        assert self.versions[item.plan_id] == self.config, "a plan of another policy started"
        assert not self.is_stopped, "a start while everything is stopped"
        assert not self.is_resolved, "a start after the incident was over"
        assert self.room.action.value == item.steps[0].before["value"], "a start on another state than was approved"
        assert row.start_by is not None
        assert row.start_by >= datetime.now(UTC) - timedelta(minutes=1), "a start too long after the approval"

    def teardown(self) -> None:
        """Nothing of this example holds a target of the next one, or stops it."""
        for row in self._rows() if hasattr(self, "incident") else []:
            deed = self.room.store.plans.end(
                row.plan, PlanState.DONE, "", now=datetime.now(UTC), expected=[PlanState.RUNNING]
            )
            self.house.do(deed)
        if getattr(self, "is_stopped", False):
            self.house.do(self.room.desk.go(self.house.rooms["as ever"].person("dana")))
