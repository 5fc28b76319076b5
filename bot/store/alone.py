"""One process works on a database at a time, until several can take over from each other."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from bot.incidents import WatchkeeperError
from bot.store.database import sync_engine, sync_url

PATIENCE_S = 10.0
"""A killed predecessor's connection may take a moment to be noticed."""

_SESSION_LOCK = 7_303_014_921


class NotAloneError(WatchkeeperError):
    """Another `watchkeeper serve` works on this database; two would resume each other's fixes in mid-call."""


@contextlib.contextmanager
def only_process(url: str, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the database for this process; the lock ends with the process, however it ends. Raises NotAloneError."""
    parsed = sync_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    if is_file:
        with _file_lock(Path(f"{parsed.database}.lock"), patience_s):
            yield
    elif parsed.get_backend_name() == "postgresql":
        with _session_lock(url, patience_s):
            yield
    else:
        yield


@contextlib.contextmanager
def _file_lock(path: Path, patience_s: float) -> Iterator[None]:
    with path.open("w") as file:
        _insist(lambda: _try_file(file.fileno()), patience_s)
        yield


def _try_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _session_lock(url: str, patience_s: float) -> Iterator[None]:
    engine = sync_engine(url)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wanted = sa.select(sa.func.pg_try_advisory_lock(_SESSION_LOCK))
            _insist(lambda: bool(connection.execute(wanted).scalar_one()), patience_s)
            yield
    finally:
        engine.dispose()


def _insist(attempt: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not attempt():
        if time.monotonic() >= deadline:
            raise NotAloneError("another `watchkeeper serve` works on this database; stop it first")
        time.sleep(0.2)
