"""The database: one engine, one transaction per public method, one writer on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.incidents import StoreUnavailableError
from bot.store.turns import Turns

_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_SYNC_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
BUSY_TIMEOUT_MS = 5_000
T = TypeVar("T")


def tune_sqlite(connection: sqlite3.Connection, _: object = None) -> None:
    """
    WAL for readers beside the writer, and synchronous=FULL: our 202 says "never lost", power cuts included.

    `isolation_level = None` takes the decision to begin away from the driver; `_begin` does it.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    _switch_to_wal(cursor)
    cursor.close()


def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    """
    The mode stays with the file, so this is done once in its life.

    Two processes that open a new file together meet here, and SQLite does not wait its busy time for this switch.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def sync_url(url: str) -> sa.URL:
    """The URL for Alembic and the workflow engine, which are synchronous."""
    parsed = make_url(url)
    return parsed.set(drivername=_SYNC_DRIVERS.get(parsed.get_backend_name(), parsed.drivername))


def sync_engine(url: str | sa.URL) -> sa.Engine:
    """A synchronous engine with the same durability as the application's own."""
    engine = sa.create_engine(sync_url(str(url)) if isinstance(url, str) else url, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", tune_sqlite)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def workflow_engine(url: sa.URL) -> sa.Engine:
    """
    The engine that DBOS works on: durable as ours, but transactions begin as DBOS expects it.

    DBOS begins some of its own with BEGIN IMMEDIATE, so the driver may not have begun one already.
    """
    engine = sa.create_engine(url, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _tune_for_dbos)
    return engine


def _tune_for_dbos(connection: sqlite3.Connection, _: object) -> None:
    tune_sqlite(connection)
    connection.isolation_level = "IMMEDIATE"


class Database:
    """
    Opens transactions. `write` is serialised on SQLite, where many writers only wait for each other asleep.

    Raises StoreUnavailableError when the database cannot be reached, is locked, full or read-only.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.url = parsed.set(drivername=_ASYNC_DRIVERS.get(parsed.get_backend_name(), parsed.drivername))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine: AsyncEngine = create_async_engine(self.url, pool_pre_ping=not self.is_sqlite, hide_parameters=True)
        self._turns = Turns()
        self._threads = {
            first: ThreadPoolExecutor(1, f"write-{'first' if first else 'later'}") for first in (True, False)
        }
        self.failures = 0  # how often it did not answer this process
        if self.is_sqlite:
            sa.event.listen(self.engine.sync_engine, "connect", tune_sqlite)
            sa.event.listen(self.engine.sync_engine, "begin", _begin)
        self._in_one_go = _engine_of_threads(sync_url(url))

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One read-write transaction; commits at the end, rolls back on any error."""
        async with self._turns.take() if self.is_sqlite else contextlib.nullcontext():
            with self._translated():
                async with self.engine.begin() as connection:
                    yield connection

    async def write_at_once(self, work: Callable[[sa.Connection], T], *, first: bool = False) -> T:
        """
        One read-write transaction in one go, if wished before all that wait; `work` only uses the connection.

        Every statement of `write` hops to a thread or waits for the loop, and every hop waits while others compute.
        """
        async with self._turns.take(first=first) if self.is_sqlite else contextlib.nullcontext():
            with self._translated():
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads[first], _transaction, self._in_one_go, work)

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One read-only transaction, a consistent picture on both databases."""
        with self._translated():
            async with self.engine.connect() as connection:
                await connection.execution_options(watchkeeper_read=True)
                yield connection

    async def close(self) -> None:
        await self.engine.dispose()
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._in_one_go.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as error:
            if (absence := _translation(error)) is None:
                raise
            self.failures += 1
            raise absence from error


def _engine_of_threads(url: sa.URL) -> sa.Engine:
    """A synchronous engine whose threads never hang for ever: nobody can cancel them."""
    if url.get_backend_name() == "sqlite":
        return sync_engine(url)  # waits its busy time
    waits = {"connect_timeout": 5, "tcp_user_timeout": 8_000}  # seconds, milliseconds
    return sa.create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=waits)


def _transaction(engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _translation(error: DBAPIError | PoolTimeoutError) -> StoreUnavailableError | None:
    """
    What this means to those who know no SQL; None for what is no absence, but a mistake of ours.

    An InternalError is PostgreSQL's state and never a row's fault: for a moment after a failover it only reads.
    """
    if isinstance(error, OperationalError | InterfaceError | InternalError | PoolTimeoutError):
        return StoreUnavailableError(f"the database does not answer: {_reason(error)}")
    if error.connection_invalidated:
        return StoreUnavailableError(f"the database went away: {_reason(error)}")
    return None


def _reason(error: Exception) -> str:
    """The driver's own words, without the statement and its values."""
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0][:200] if str(cause) else type(cause).__name__


def _begin(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("watchkeeper_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
