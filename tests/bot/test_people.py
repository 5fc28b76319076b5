"""Who is who comes from the configuration alone, by team and user, and from nothing that looks alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.incidents import NotAllowedError
from bot.policy import accounts, person_of
from bot.store import tables
from bot.store.people import PeopleTable
from tests.kit import CONFIG, Store, config_in

TEAM = "T0LAB00001"


async def test_a_slack_account_is_one_person(store: Store) -> None:
    """With everything that decisions need."""
    bob = await store.people.by_slack(TEAM, "U0BOB")

    assert bob is not None
    assert (bob.person_id, bob.name, bob.slack_user) == ("bob", "Bob Brandt", "U0BOB")
    assert (bob.email, bob.pagerduty, bob.roles) == ("bob@example.com", "PBOB001", frozenset())


async def test_global_roles_come_with_the_person(store: Store) -> None:
    """Roles of a service do not: the policy adds them."""
    paul = await store.people.by_slack(TEAM, "U0PAUL")

    assert paul is not None
    assert paul.roles == {"platform"}


@pytest.mark.parametrize(
    ("team", "user"),
    [
        ("T0OTHER", "U0BOB"),
        (TEAM, "U0MALLORY"),
        (TEAM, "u0bob"),
        (TEAM, "bob"),
        (TEAM, "bob@example.com"),
        ("", ""),
        (TEAM, "U0BOB' OR '1'='1"),
        (TEAM, "%"),
    ],
)
async def test_everybody_else_is_nobody(store: Store, team: str, user: str) -> None:
    """The same user id in another workspace is somebody else; neither e-mail nor name nor pattern makes a person."""
    assert await store.people.by_slack(team, user) is None


async def test_the_configuration_replaces_all_that_was(store: Store, tmp_path: Path) -> None:
    """Whoever left is nobody from the next start on, by account and by id; whoever came is somebody."""
    text = CONFIG.replace('id = "bob"', 'id = "bea"').replace("U0BOB", "U0BEA").replace('["bob"]', '["bea"]')

    await store.people.replace(accounts(config_in(tmp_path, text)))

    assert await store.people.by_slack(TEAM, "U0BOB") is None
    assert await store.people.get("bob") is None
    bea = await store.people.by_slack(TEAM, "U0BEA")
    assert bea is not None
    assert (await store.people.get("bea")) is not None
    async with store.database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(tables.person))).scalar_one() == 4


async def test_replacing_is_one_transaction(store: Store, tmp_path: Path) -> None:
    """Two people with one account cannot be written, and then everything stays as it was."""
    entries = accounts(config_in(tmp_path))
    [(first, its_accounts), (second, _), *_] = entries

    with pytest.raises(sa.exc.IntegrityError):
        await store.people.replace([(first, its_accounts), (second, its_accounts)])

    assert await store.people.by_slack(TEAM, "U0PAUL") is not None


async def test_somebody_with_two_accounts_is_one_person(store: Store, tmp_path: Path) -> None:
    """Two workspaces, one set of rights."""
    text = CONFIG.replace('slack = ["T0LAB00001/U0BOB"]', 'slack = ["T0LAB00001/U0BOB", "T0OTHER/U0BOB2"]')

    await store.people.replace(accounts(config_in(tmp_path, text)))

    here, there = await store.people.by_slack(TEAM, "U0BOB"), await store.people.by_slack("T0OTHER", "U0BOB2")
    assert here is not None
    assert there is not None
    assert here.person_id == there.person_id == "bob"


async def test_a_person_without_an_account_cannot_click(store: Store, tmp_path: Path) -> None:
    """They may be paged and be named as owners all the same."""
    text = CONFIG.replace('slack = ["T0LAB00001/U0DANA"]\n', "")

    await store.people.replace(accounts(config_in(tmp_path, text)))

    assert await store.people.by_slack(TEAM, "U0DANA") is None
    assert await store.people.get("dana") is not None


def test_whoever_is_not_configured_has_no_rights(tmp_path: Path) -> None:
    """A person id in an old row is not enough."""
    with pytest.raises(NotAllowedError, match="mallory is not in the configuration"):
        person_of(config_in(tmp_path), "mallory")


async def test_an_older_process_brings_nobody_back(store: Store, tmp_path: Path) -> None:
    """In the middle of a rollout one with the old configuration restarts; here Bob stays gone and Paul's role, too."""
    text = CONFIG.replace('id = "bob"', 'id = "bea"').replace("U0BOB", "U0BEA").replace('["bob"]', '["bea"]')
    text = text.replace('roles = ["platform"]', "roles = []")
    await store.people.replace(accounts(config_in(tmp_path, text)))

    await PeopleTable(store.database).replace(accounts(store.config))

    assert await store.people.get("bob") is None
    assert await store.people.by_slack(TEAM, "U0BOB") is None
    paul = await store.people.by_slack(TEAM, "U0PAUL")
    assert paul is not None
    assert paul.roles == frozenset()
