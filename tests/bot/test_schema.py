"""Migrations make exactly the tables that the code uses, on both databases, there and back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bot.store import schema


@pytest.fixture
def postgres_template() -> str:
    """Here the databases begin empty."""
    return "template0"


def test_a_migrated_database_has_what_the_code_uses(database_url: str) -> None:
    """A forgotten migration shows as drift."""
    assert schema.upgrade(database_url) == schema.head() == schema.current(database_url)
    assert schema.drift(database_url) == []


def test_every_migration_can_be_taken_back(database_url: str) -> None:
    """Down to nothing and up again."""
    schema.upgrade(database_url)
    schema.downgrade(database_url, "base")
    assert schema.current(database_url) is None

    schema.upgrade(database_url)
    assert schema.drift(database_url) == []


def test_replicas_that_start_together_migrate_one_after_the_other(database_url: str) -> None:
    """Both come back with the schema in place; neither dies of the other."""
    with ThreadPoolExecutor(2) as pool:
        revisions = list(pool.map(schema.upgrade, [database_url] * 2))

    assert revisions == [schema.head()] * 2
