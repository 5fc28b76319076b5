"""One-time codes: what cannot be undone starts only for who has the phone in their hand, once for each code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest
import sqlalchemy as sa

from bot.approvals import Approvals
from bot.incidents import (
    NotAllowedError,
    PlanState,
    StaleError,
    StepUpNeededError,
    StepUpRefusedError,
    WatchkeeperError,
)
from bot.operate_codes import enrol, holders
from bot.settings import Settings
from bot.step_up import Enrolment, Seal, StepUp, UnusableKeyError, counter_of, new_key
from bot.store import tables
from bot.store.audit import AuditLog
from bot.store.step_up import LOCKED_FOR, MOST_FAILURES, StepUpCodes
from bot.store.trust_tables import totp
from runbooks.engine.values import Tier
from tests.kit import CONFIG, INCIDENT, NOW, Store, config_in, open_store, plan, renamed, step
from tests.operator_house import operator_house, own_form

R3 = """
[[policy]]
tier = "R3"
environment = "*"
service = "*"
roles = ["service-owner", "platform"]
count = 2
"""
TEAMS = {
    'id = "dana"': 'id = "dana"\nteam = "chat"',
    'id = "paul"': 'id = "paul"\nteam = "core"',
    "owners =": 'team = "chat"\nowners =',
}
KEY = new_key()
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
OFF_BY_S = (-60, -30, 0, 30, 60, -86_400)
LATER = NOW + timedelta(minutes=5)


def configuration() -> str:
    """The usual one, with teams, and a rule for what cannot be undone."""
    text = CONFIG + R3
    for old, new in TEAMS.items():
        text = text.replace(old, new)
    return text


def authenticator(shown: str) -> pyotp.TOTP:
    """The phone that was shown this, as every app reads it."""
    phone = pyotp.parse_uri(next(word for word in shown.split() if word.startswith("otpauth://")))
    assert isinstance(phone, pyotp.TOTP)
    return phone


class House:
    """Dana and Paul may approve what cannot be undone; Dana has her phone."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.codes = StepUpCodes(store.database)
        self.seal = Seal(KEY)
        self.step_up = StepUp(self.codes, self.seal, page="https://watch.example.com")
        self.approvals = Approvals(
            plans=store.plans,
            incidents=store.incidents,
            people=store.people,
            policy=store.policy,
            proof=self.step_up,
        )
        self.phones: dict[str, pyotp.TOTP] = {}

    async def enrol(self, name: str) -> None:
        enrolment = Enrolment(name, name, self.seal, self.codes)
        phone = self.phones[name] = authenticator(enrolment.uri)
        await enrolment.confirm(phone.at(NOW), actor="unix:root", now=NOW)

    async def offer(self, plan_id: str = "plan-1", rank: int = 0, **more: Any) -> None:
        item = plan(self.store.policy.version, steps=(step(tier=Tier.R3, target=f"fake/{plan_id}"),), **more)
        await self.store.offer(renamed(item, plan_id), rank=rank)

    async def approve(self, name: str, code: str | None, *, plan_id: str = "plan-1", now: datetime = LATER) -> bool:
        return await self.approvals.approve(plan_id, by=self.store.person(name), now=now, code=code)

    async def on_record(self, name: str) -> list[str]:
        rows = await AuditLog(self.store.database).about(f"operator:{name}")
        return [row.action for row in rows if row.action.startswith("step_up.")]


@pytest.fixture
async def house(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """A paged incident, a plan of an irreversible step, and one phone."""
    async with open_store(database_url, config_in(tmp_path, configuration())) as store:
        house = House(store)
        await store.page()
        await house.enrol("dana")
        await house.offer()
        yield house


async def test_two_people_with_codes_start_what_cannot_be_undone(house: House) -> None:
    """Each approval says how it was proved, the record too, and they hold when the plan starts."""
    await house.enrol("paul")
    first = await house.approve("dana", house.phones["dana"].at(LATER))
    second = await house.approve("paul", house.phones["paul"].at(LATER))

    row = await house.store.plans.get("plan-1")
    assert (first, second, row.state) == (False, True, PlanState.APPROVED)
    assert [(each.person_id, each.step_up) for each in row.approvals] == [("dana", "totp"), ("paul", "totp")]
    await house.approvals.still_hold(row, now=LATER)
    said = [row for row in await AuditLog(house.store.database).about(INCIDENT) if row.action == "plan.approve"]
    assert [each.details["step_up"] for each in said] == ["totp", "totp"]
    assert await house.on_record("dana") == ["step_up.set_up", "step_up.proved"]


async def test_a_click_alone_gets_a_link(house: House) -> None:
    """A stolen Slack session can click all day: it is told where the code is typed, and nothing is decided."""
    with pytest.raises(StepUpNeededError, match="watchkeeper approve plan-1") as asked:
        await house.approve("dana", None)

    assert asked.value.url == "https://watch.example.com/plans/plan-1"
    assert (await house.store.plans.get("plan-1")).approvals == ()


async def test_who_may_not_approve_is_not_asked_for_a_code(house: House) -> None:
    """Bob has no role for it: his guesses say nothing about codes."""
    with pytest.raises(NotAllowedError, match="This fix needs"):
        await house.approve("bob", "000000")


async def test_without_a_phone_or_a_key_it_says_how_to_get_one(house: House) -> None:
    """Until it is set up nobody approves R3, whatever they type."""
    with pytest.raises(StepUpNeededError, match="watchkeeper operator totp set-up paul"):
        await house.approve("paul", "000000")

    house.approvals._proof = StepUp(house.codes, None)
    with pytest.raises(StepUpNeededError, match="WATCHKEEPER_STEP_UP_KEY"):
        await house.approve("dana", house.phones["dana"].at(LATER))


def test_a_clock_may_be_one_step_off() -> None:
    """Phones are a few seconds off; a code of a minute ago has been seen by somebody. RFC 6238 B is the measure."""
    phone = pyotp.TOTP(SECRET)
    step_s = int(phone.timecode(NOW))
    off = {seconds: counter_of(SECRET, phone.at(NOW + timedelta(seconds=seconds)), NOW) for seconds in OFF_BY_S}

    assert off == {-60: None, -30: step_s - 1, 0: step_s, 30: step_s + 1, 60: None, -86_400: None}
    assert counter_of(SECRET, "287082", datetime.fromtimestamp(59, UTC)) == 1
    assert [counter_of(SECRET, odd, NOW) for odd in ("", "12345", "1234567", "٣٣٣٣٣٣", "\ud800", " 12345")] == [
        None
    ] * 6


async def test_a_code_is_typed_as_phones_show_it(house: House) -> None:
    """With a space in the middle."""
    code = house.phones["dana"].at(LATER)

    assert await house.approve("dana", f"{code[:3]} {code[3:]}") is False


async def test_a_code_counts_once_and_for_one_plan(house: House) -> None:
    """Whoever looks over a shoulder types the code again, for the same plan or for another one."""
    await house.store.page(incident_id="Q0INCIDENT2", event_id="other")
    await house.offer("plan-2", incident_id="Q0INCIDENT2")
    code = house.phones["dana"].at(LATER)
    await house.approve("dana", code)

    for plan_id in ("plan-1", "plan-2"):
        with pytest.raises(StepUpRefusedError, match="used already"):
            await house.approve("dana", code, plan_id=plan_id)

    assert (await house.store.plans.get("plan-2")).approvals == ()


async def test_of_many_requests_with_one_code_one_counts(house: House) -> None:
    """A stolen token and one code seen: a hundred requests at once are still one approval."""
    for number in range(2, 6):
        await house.store.page(incident_id=f"Q0INCIDENT{number}", event_id=f"other-{number}")
        await house.offer(f"plan-{number}", incident_id=f"Q0INCIDENT{number}")
    code = house.phones["dana"].at(LATER)
    tries = [house.approve("dana", code, plan_id=f"plan-{number}") for number in range(1, 6)]

    ends = await asyncio.gather(*tries, return_exceptions=True)

    assert sorted(type(end).__name__ for end in ends) == ["StepUpRefusedError"] * 4 + ["bool"]


async def test_five_wrong_codes_lock_for_a_quarter_of_an_hour(house: House) -> None:
    """Even the right one does not count then; afterwards it does, and all of it is on record."""
    guesses = [house.approve("dana", f"{number:06}") for number in range(MOST_FAILURES + 20)]
    ends = await asyncio.gather(*guesses, return_exceptions=True)
    with pytest.raises(StepUpRefusedError, match="Too many wrong codes"):
        await house.approve("dana", house.phones["dana"].at(LATER))

    after = LATER + LOCKED_FOR
    [row] = await _plans(house)
    await house.offer("plan-2", rank=1, made_at=after, expires_at=after + timedelta(minutes=5))
    assert await house.approve("dana", house.phones["dana"].at(after), plan_id="plan-2", now=after) is False
    assert [type(end).__name__ for end in ends] == ["StepUpRefusedError"] * (MOST_FAILURES + 20)
    assert row.approvals == ()
    record = await house.on_record("dana")
    assert record.count("step_up.refused") == MOST_FAILURES
    assert record[-2:] == ["step_up.locked", "step_up.proved"]


async def _plans(house: House) -> Any:
    return await house.store.plans.of_incident(INCIDENT)


async def test_an_approval_without_its_code_does_not_start(house: House) -> None:
    """Not even one that we sealed: the code is asked for at the start again."""
    await house.enrol("paul")
    for name in ("dana", "paul"):
        await house.approve(name, house.phones[name].at(LATER))
    row = await house.store.plans.get("plan-1")
    [word] = [each for each in row.approvals if each.person_id == "paul"]
    without = house.store.plans.seals.row("plan-1", replace(word, step_up=None))
    async with house.store.database.write() as connection:
        await connection.execute(tables.approval.update().where(tables.approval.c.person_id == "paul").values(without))

    with pytest.raises(StaleError, match="1 more person who confirm it outside Slack"):
        await house.approvals.still_hold(await house.store.plans.get("plan-1"), now=LATER)


async def test_a_secret_is_sealed_for_its_owner(house: House) -> None:
    """A row copied to another person opens nothing, and the database holds no secret that somebody could read."""
    async with house.store.database.write() as connection:
        [row] = (await connection.execute(sa.select(totp))).all()
        copied = {**row._asdict(), "person_id": "paul"}
        await connection.execute(totp.insert().values(copied))

    assert house.phones["dana"].secret not in row.sealed
    with pytest.raises(UnusableKeyError, match="remove paul"):
        await house.approve("paul", house.phones["dana"].at(LATER))
    with pytest.raises(UnusableKeyError, match="restore the key"):
        Seal(new_key()).open("dana", row.sealed)
    with pytest.raises(UnusableKeyError, match="new-key"):
        Seal("not a key")


async def test_a_phone_is_added_once_and_only_if_it_works(house: House, tmp_path: Path) -> None:
    """The secret is shown, its first code typed; who has codes already, or is nobody, gets no second secret."""
    url = house.store.database.url.render_as_string(hide_password=False)
    settings = Settings(database_url=url, watchkeeper_step_up_key=KEY)
    config = config_in(tmp_path, configuration())
    shown: list[str] = []

    def ask() -> str:
        return authenticator(shown[-1]).at(datetime.now(UTC))

    said = await enrol(settings, config, "paul", actor="unix:root", show=shown.append, ask=ask)

    assert "Paul Park" in said
    assert "paul" in await holders(settings)
    for name, why in (("paul", "already"), ("eve", "not in")):
        with pytest.raises(WatchkeeperError, match=why):
            await enrol(settings, config, name, actor="unix:root", show=shown.append, ask=ask)
    assert len(shown) == 1


async def test_the_page_shows_the_plan_and_asks_for_the_code(house: House) -> None:
    """What Slack's link leads to: exactly what will run, and one field more than for other plans."""
    now = datetime.now(UTC)
    fresh = plan(house.store.policy.version, steps=(step(tier=Tier.R3),), made_at=now)
    await house.store.offer(replace(fresh, plan_id="plan-2", expires_at=now + timedelta(minutes=9)), rank=1)
    async with operator_house(house.store, watchkeeper_step_up_key=KEY) as site, site.signed_in("dana") as browser:
        page = (await browser.get("/plans/plan-2")).text
        csrf, digest = (_field(page, name) for name in ("csrf", "digest"))
        form = {"csrf": csrf, "digest": digest, "decision": "approve"}
        none = await browser.post("/plans/plan-2", data=form, headers=own_form())
        wrong = await browser.post("/plans/plan-2", data=form | {"code": "000000"}, headers=own_form())
        code = house.phones["dana"].at(datetime.now(UTC))
        right = await browser.post("/plans/plan-2", data=form | {"code": code}, headers=own_form())
        async with site.signed_in("paul") as other:
            unready = (await other.get("/plans/plan-2")).text

    assert "Set the thing from 8 to 7." in page
    assert 'name="code"' in page
    assert (none.status_code, wrong.status_code, right.status_code) == (403, 403, 303)
    assert "one-time code" in none.text
    assert "does not count" in wrong.text
    assert right.headers["location"] == "/plans/plan-2"
    assert "watchkeeper operator totp set-up paul" in unready
    assert 'value="approve"' not in unready


def _field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([0-9a-f]+)"', page)
    assert found, f"no {name} in the form"
    return found.group(1)
