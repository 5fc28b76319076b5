"""
Approvals against a model: any people, any order, any clock, roles that come and go.

The model is a few sets and numbers, written from what people were promised and not from the code. Hypothesis looks for
a sequence of deeds after which the two disagree.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bot.approvals import Approvals
from bot.config import Config, PolicyRule
from bot.incidents import Person, PlanState, StepUpNeededError, WatchkeeperError
from bot.policy import Policy, person_of
from bot.store.audit import AuditLog
from bot.store.database import Database
from bot.store.plan_rows import PlanRow
from runbooks.engine.values import Tier
from tests.kit import INCIDENT, NOW, Store, config_in, event, open_store, plan, step

T = TypeVar("T")

PEOPLE = ("alice", "bob", "dana", "paul")
TEAMS = {"alice": "chat", "bob": "chat", "dana": "data", "paul": "core"}
ROLES = ("service-owner", "platform", "prompt-owner")
PLANS = ("plan-1", "plan-2", "plan-3")
TIERS = (Tier.R1, Tier.R2, Tier.R3)
HELD = st.sets(st.sampled_from(ROLES), min_size=1)
WHICH = st.integers(0, len(PLANS) - 1)


def rules_for(tier: str, environments: Sequence[str], services: Sequence[str]) -> st.SearchStrategy[PolicyRule]:
    return st.builds(
        PolicyRule,
        tier=st.just(tier),
        environment=st.sampled_from(environments),
        service=st.sampled_from(services),
        roles=st.lists(st.sampled_from(ROLES), min_size=1, unique=True).map(tuple),
        count=st.sampled_from([2, 3] if tier == "R3" else [1, 2, 3]),
    )


# R1 and R2 have a rule that fits, R3 has one by chance; rules before and behind may fit elsewhere, or come too late.
FITTING = st.tuples(*(rules_for(tier.name, ["prod", "*"], ["chat", "*"]) for tier in (Tier.R1, Tier.R2)))
OTHERS = st.lists(st.one_of(*(rules_for(t.name, ["dev", "prod"], ["chat", "other"]) for t in TIERS)), max_size=2)
POLICY = st.tuples(OTHERS, FITTING, OTHERS).map(lambda parts: [each for part in parts for each in part])
APPROVE_WITHIN, START_WITHIN = timedelta(minutes=15), timedelta(minutes=10)
DECIDED = frozenset({PlanState.APPROVED, PlanState.RUNNING})
NEVER_AGAIN = frozenset({PlanState.DENIED, PlanState.EXPIRED, PlanState.SUPERSEDED, PlanState.STALE})


@cache
def pristine() -> Path:
    """A migrated database with a paged incident, copied for each run."""
    folder = Path(tempfile.mkdtemp(prefix="watchkeeper-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    async def fill() -> None:
        async with open_store(f"sqlite:///{folder}/store.sqlite", config_in(folder)) as store:
            await store.page()
            async with store.database.engine.connect() as connection:
                await connection.exec_driver_sql("ROLLBACK")
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    asyncio.run(fill())
    return folder


class Phones:
    """Everybody has theirs at hand; what a code is worth is told in test_step_up.py."""

    async def prove(
        self, by: Person, code: str | None, *, plan_id: str, digest: str, now: datetime, deed: str = "approve"
    ) -> str:
        if code is None:
            raise StepUpNeededError(f"{by.name} has to {deed} {plan_id} ({digest}) with a code at {now}")
        return "totp"


@dataclass
class Known:
    """What the model remembers of one plan."""

    tier: Tier
    expires_at: datetime
    state: PlanState
    requester: str | None = None
    approved_by: set[str] = field(default_factory=set)
    denied_by: set[str] = field(default_factory=set)
    start_by: datetime | None = None
    history: list[PlanState] = field(default_factory=list)


class Clicks(RuleBasedStateMachine):
    """The product on the left, the promise on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        memory = Path("/dev/shm")  # noqa: S108 - mkdtemp's own folder in it; thousands of small commits, none to survive
        self.folder = Path(tempfile.mkdtemp(prefix="watchkeeper-clicks-", dir=memory if memory.is_dir() else None))
        self.now = NOW
        self.plans: dict[str, Known] = {}
        self.roles: dict[str, set[str]] = {}
        self.policy_rules: tuple[PolicyRule, ...] = ()
        self.is_resolved = False

    def do(self, deed: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(deed)

    @initialize(
        roles=st.fixed_dictionaries(dict.fromkeys(PEOPLE, HELD)),
        policy=POLICY,
        offers=st.lists(st.tuples(st.sampled_from(TIERS), st.integers(0, 2)), min_size=1, max_size=len(PLANS)),
    )
    def open(self, roles: dict[str, set[str]], policy: list[PolicyRule], offers: list[tuple[Tier, int]]) -> None:
        """A fresh database, some policy, some roles, and some plans on the table."""
        shutil.copytree(pristine(), self.folder, dirs_exist_ok=True)
        self.policy_rules = tuple(policy)
        self.base = config_in(self.folder)
        self.store = Store(Database(f"sqlite:///{self.folder}/store.sqlite"), self.base)
        self.configure(roles)
        for tier, chance in offers:
            self.offer(tier, PlanState.PROPOSED if chance else PlanState.ALTERNATIVE)

    def configure(self, roles: dict[str, set[str]]) -> None:
        """A configuration in which exactly these roles are given, under the policy of this run."""
        self.roles = {name: set(held) for name, held in roles.items()}
        [service] = self.base.services
        people = tuple(
            each.model_copy(
                update={"roles": tuple(sorted(self.roles[each.id])), "pagerduty": None, "team": TEAMS[each.id]}
            )
            for each in self.base.people
        )
        update = {
            "policy": self.policy_rules,
            "people": people,
            "services": (service.model_copy(update={"owners": (), "approvers": {}, "team": "chat"}),),
        }
        self.config: Config = self.base.model_copy(update=update)
        self.policy = Policy(self.config)
        self.policy.version = "the policy of this run"
        self.do(self.store.people.replace([(person_of(self.config, name), ()) for name in PEOPLE]))
        self.approvals = Approvals(
            plans=self.store.plans,
            incidents=self.store.incidents,
            people=self.store.people,
            policy=self.policy,
            proof=Phones(),
        )

    # What the promise says.

    def needed(self, known: Known) -> tuple[set[str], int] | None:
        """The first rule in file order decides, none means nobody; what cannot be undone needs two in any case."""
        for each in self.policy_rules:
            if each.tier == known.tier.name and each.environment in ("prod", "*") and each.service in ("chat", "*"):
                return set(each.roles), max(each.count, 2) if known.tier is Tier.R3 else each.count
        return None

    def is_enough(self, known: Known) -> bool:
        """So many people, and for what cannot be undone one who is of no team that is concerned."""
        asked = self.needed(known)
        if asked is None or len(known.approved_by) < asked[1]:
            return False
        home = {"chat", TEAMS[known.requester] if known.requester else "chat"}
        return known.tier is not Tier.R3 or any(TEAMS[name] not in home for name in known.approved_by)

    def may_decide(self, name: str, known: Known) -> bool:
        asked = self.needed(known)
        return asked is not None and known.requester != name and bool(asked[0] & self.roles[name])

    def is_open(self, known: Known) -> bool:
        return known.state is PlanState.PROPOSED and self.now <= known.expires_at and not self.is_resolved

    # What people and clocks do.

    def pick(self, number: int) -> tuple[str, Known]:
        name = PLANS[number % len(self.plans)]
        return name, self.plans[name]

    @rule(names=st.permutations(PEOPLE), number=WHICH)
    def everybody_approves(self, names: list[str], number: int) -> None:
        """One click after the other, whoever they are."""
        for name in names:
            self.approve(name, number)

    def offer(self, tier: Tier, state: PlanState) -> None:
        name = PLANS[len(self.plans)]
        item = plan(
            self.policy.version,
            plan_id=name,
            steps=(step(tier=tier, target=f"fake/thing/{name}"),),
            made_at=self.now,
            expires_at=self.now + APPROVE_WITHIN,
        )
        self.do(self.store.offer(item, rank=len(self.plans), state=state))
        self.plans[name] = Known(tier=tier, expires_at=item.expires_at, state=state, history=[state])

    @rule(name=st.sampled_from(PEOPLE), number=WHICH)
    def approve_by_a_click_alone(self, name: str, number: int) -> None:
        """Of what cannot be undone that decides nothing."""
        which, known = self.pick(number)
        if known.tier is Tier.R3:
            assert self.attempt(self.approvals.approve(which, by=person_of(self.config, name), now=self.now)) is None

    @rule(name=st.sampled_from(PEOPLE), number=WHICH)
    def approve(self, name: str, number: int) -> None:
        which, known = self.pick(number)
        is_alone = not any(other.state in DECIDED for other in self.plans.values() if other is not known)
        by = person_of(self.config, name)
        settled = self.attempt(self.approvals.approve(which, by=by, now=self.now, code="000000"))
        fits = self.may_decide(name, known) and self.is_open(known) and is_alone
        if not fits or name in known.approved_by:
            assert settled is None, f"{name} approved {which}, who may not, or whose time is over"
            return
        known.approved_by.add(name)
        is_enough = self.is_enough(known)
        assert settled is is_enough
        if is_enough:
            self.becomes(known, PlanState.APPROVED)
            known.start_by = self.now + START_WITHIN

    @rule(name=st.sampled_from(PEOPLE), number=WHICH)
    def deny(self, name: str, number: int) -> None:
        which, known = self.pick(number)
        done = self.attempt(self._denied(which, name))
        fits = self.may_decide(name, known) and self.is_open(known)
        if not fits or name in known.approved_by:
            assert done is None, f"{name} denied {which}, who may not, or whose time is over"
            return
        assert done
        known.denied_by.add(name)
        self.becomes(known, PlanState.DENIED)

    async def _denied(self, which: str, name: str) -> bool:
        await self.approvals.deny(which, by=person_of(self.config, name), now=self.now)
        return True

    @rule(name=st.sampled_from(PEOPLE), number=WHICH)
    def request(self, name: str, number: int) -> None:
        which, known = self.pick(number)
        done = self.attempt(self._requested(which, name))
        is_busy = any(other.state in DECIDED for other in self.plans.values())
        may = bool(self.roles[name]) and not self.is_resolved and not is_busy
        if not may or known.state is not PlanState.ALTERNATIVE:
            assert done is None, f"{name} requested {which}, which was not theirs to request"
            return
        assert done
        for other in self.plans.values():
            if other.state is PlanState.PROPOSED:
                self.becomes(other, PlanState.SUPERSEDED)
        known.requester, known.expires_at = name, self.now + APPROVE_WITHIN
        self.becomes(known, PlanState.PROPOSED)

    async def _requested(self, which: str, name: str) -> bool:
        await self.approvals.request(which, by=person_of(self.config, name), now=self.now)
        return True

    @precondition(lambda self: any(known.state is PlanState.APPROVED for known in self.plans.values()))
    @rule()
    def start_what_was_approved(self) -> None:
        """What the engine's sweep does, sooner or later."""
        for number, name in enumerate(self.plans):
            if self.plans[name].state is PlanState.APPROVED:
                self.start(number)

    @precondition(lambda self: any(known.state is PlanState.APPROVED for known in self.plans.values()))
    @rule(held=st.sets(st.sampled_from(ROLES), max_size=1))
    def an_approver_loses_roles_before_the_start(self, held: set[str]) -> None:
        """Between the click and the start the configuration changes."""
        name = min(
            name for known in self.plans.values() if known.state is PlanState.APPROVED for name in known.approved_by
        )
        self.roles_change(name, held)
        self.start_what_was_approved()

    @rule(number=WHICH)
    def start(self, number: int) -> None:
        """The workflow asks once more whether the approvals hold, and takes the plan."""
        which, known = self.pick(number)
        began = self.attempt(self._began(which))
        holds = (
            known.state is PlanState.APPROVED
            and self.is_enough(known)
            and all(self.may_decide(name, known) for name in known.approved_by)
            and known.start_by is not None
            and self.now <= known.start_by
            and not self.is_resolved
        )
        if holds:
            assert began
            self.becomes(known, PlanState.RUNNING)
        else:
            assert not began, f"{which} started without what it needs"

    async def _began(self, which: str) -> bool:
        row = await self.store.plans.get(which)
        await self.approvals.still_hold(row, now=self.now)
        return await self.approvals.begin(row, now=self.now)

    @rule(name=st.sampled_from(PEOPLE), number=WHICH)
    def ask_for_a_fix_and_approve_it(self, name: str, number: int) -> None:
        """The oldest trick."""
        self.request(name, number)
        self.approve(name, number)

    @rule(names=st.permutations(PEOPLE), number=WHICH, minutes=st.sampled_from([14, 15, 16, 30]))
    def everybody_approves_late(self, names: list[str], number: int, minutes: int) -> None:
        """Cards stay open on screens."""
        self.time_passes(minutes)
        self.everybody_approves(names, number)

    @rule(minutes=st.integers(1, 12))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def sweep(self) -> None:
        """Whatever nobody decided or started in time is over."""
        for row in self.do(self.store.plans.overdue(now=self.now)):
            assert self.do(self.store.plans.end(row.plan, PlanState.EXPIRED, "", now=self.now, expected=[row.state]))
        for known in self.plans.values():
            undecided = known.state in (PlanState.PROPOSED, PlanState.ALTERNATIVE) and known.expires_at < self.now
            unstarted = known.state is PlanState.APPROVED and known.start_by is not None and known.start_by < self.now
            if undecided or unstarted:
                self.becomes(known, PlanState.EXPIRED)

    @rule(name=st.sampled_from(PEOPLE), held=st.sets(st.sampled_from(ROLES)))
    def roles_change(self, name: str, held: set[str]) -> None:
        """Somebody edits the configuration and the product restarts; the policy itself stays."""
        self.configure({**self.roles, name: held})

    @precondition(lambda self: not self.is_resolved and any(k.state in DECIDED for k in self.plans.values()))
    @rule()
    def resolve(self) -> None:
        self.do(self.store.inbox.deliver(event("incident.resolved", at=NOW + timedelta(minutes=1)), now=self.now))
        self.do(self.store.inbox.fold(now=self.now))
        self.is_resolved = True
        for known in self.plans.values():  # what nobody decided yet is not asked about any more
            if known.state is PlanState.PROPOSED:
                self.becomes(known, PlanState.STALE)
            elif known.state is PlanState.ALTERNATIVE:
                self.becomes(known, PlanState.SUPERSEDED)

    # What must always be so.

    def becomes(self, known: Known, state: PlanState) -> None:
        known.state = state
        known.history.append(state)

    def attempt(self, deed: Coroutine[Any, Any, T]) -> T | None:
        """None when the product refused in its own words; any other error is a defect."""
        try:
            return self.do(deed)
        except WatchkeeperError:
            return None

    def rows(self) -> Iterable[tuple[Known, PlanRow]]:
        found = {row.plan.plan_id: row for row in self.do(self.store.plans.of_incident(INCIDENT))}
        assert set(found) == set(self.plans)
        return [(known, found[name]) for name, known in self.plans.items()]

    @invariant()
    def the_product_says_what_the_model_says(self) -> None:
        if not self.plans:
            return
        for known, row in self.rows():
            assert row.state is known.state
            assert {each.person_id for each in row.approvals if each.decision == "approve"} == known.approved_by
            assert {each.person_id for each in row.approvals if each.decision == "deny"} == known.denied_by
            assert row.plan.requester == known.requester
            assert row.digest == row.plan.digest

    @invariant()
    def nothing_is_approved_without_enough_different_people(self) -> None:
        for known in self.plans.values():
            if known.state in DECIDED:
                asked = self.needed(known)
                assert asked is not None
                assert len(known.approved_by) >= asked[1]
                assert known.requester not in known.approved_by

    @invariant()
    def one_fix_at_a_time(self) -> None:
        assert sum(known.state in DECIDED for known in self.plans.values()) <= 1

    @invariant()
    def a_plan_is_decided_once(self) -> None:
        for known in self.plans.values():
            assert sum(state in (PlanState.APPROVED, PlanState.DENIED) for state in known.history) <= 1
            over = [index for index, state in enumerate(known.history) if state in NEVER_AGAIN]
            assert over in ([], [len(known.history) - 1])

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self._the_record_says_it_too()
            self.do(self.store.database.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def _the_record_says_it_too(self) -> None:
        """As many approvals, denials and starts on record as happened, in an unbroken chain."""
        log = AuditLog(self.store.database)
        actions = [row.action for row in self.do(log.about(INCIDENT))]
        decided = [name for known in self.plans.values() for name in known.approved_by]
        assert actions.count("plan.approve") == len(decided)
        assert actions.count("plan.deny") == sum(len(known.denied_by) for known in self.plans.values())
        assert actions.count("plan.started") == sum(PlanState.RUNNING in k.history for k in self.plans.values())
        assert self.do(log.verify()).broken_at is None


TestClicks = pytest.mark.integration(Clicks.TestCase)  # a database behind every one of a thousand clicks
TestClicks.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    phases=[Phase.generate],  # shrinking a failure takes minutes; the whole sequence is printed as it was found
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
