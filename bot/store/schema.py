"""The schema's version: migrate it, compare it with what this program needs, and draft the next migration."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bot.store.database import Database, sync_engine, sync_url
from bot.store.vote_tables import metadata

# Any number, the same in every process: two replicas that start together migrate one after the other.
_ADVISORY_LOCK = 7_303_014_918


def _scripts() -> Path:
    """`alembic/` in a checkout; `bot/migrations/` in an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    checkout = root / "alembic"
    return checkout if (checkout / "env.py").exists() else root / "bot" / "migrations"


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this program needs."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    revision = ScriptDirectory.from_config(config).get_current_head()
    if revision is None:
        raise RuntimeError(f"there are no migrations in {_scripts()}")
    return revision


def current(url: str) -> str | None:
    """The revision of this database, None when it has none. Raises sqlalchemy.exc.OperationalError."""
    parsed = sync_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return None  # to look would make the file, and it would be that of whoever looked
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


async def revision_of(database: Database) -> str | None:
    """The same through the application's own connections, for probes. Raises StoreUnavailableError."""
    async with database.read() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


def upgrade(url: str) -> str:
    """Bring the database to `head`, in one transaction and under a lock; returns the new revision."""
    engine = sync_engine(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            command.upgrade(_config(connection), "head")
    finally:
        engine.dispose()
    return head()


def downgrade(url: str, revision: str) -> None:
    """Go back to an older revision (tests, and a rollback of a release)."""
    engine = sync_engine(url)
    try:
        with engine.begin() as connection:
            command.downgrade(_config(connection), revision)
    finally:
        engine.dispose()


def drift(url: str) -> list[object]:
    """What the tables in the code have and the migrated database lacks, or the reverse; empty when they agree."""
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()


def draft(message: str) -> None:
    """Write the next migration from the difference between the tables in the code and the migrations so far."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/draft.sqlite"
        if list((_scripts() / "versions").glob("*.py")):
            upgrade(url)
        engine = sync_engine(url)
        with engine.begin() as connection:
            command.revision(_config(connection), message, autogenerate=True)
        engine.dispose()


if __name__ == "__main__":
    draft(" ".join(sys.argv[1:]) or "schema change")
