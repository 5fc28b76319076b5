"""No credential reaches the log, whoever writes it and however it is wrapped."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator

import pytest
import structlog

from bot.logs import set_up_logging
from bot.redact import REDACTED
from tests.made_up_secrets import KINDS

TEXT, SECRET = KINDS["github token"](random.Random(3))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The set-up is the process's; other tests get theirs back."""
    factory, handlers = logging.getLogRecordFactory(), list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.setLogRecordFactory(factory)
    logging.getLogger().handlers[:] = handlers


TOLD = "told " + TEXT


def fail() -> None:
    raise ValueError("refused " + TEXT)


def test_our_events_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """In the event, its values, nested ones, objects, behind telling names and in a traceback."""
    set_up_logging()
    log = structlog.get_logger()
    try:
        fail()
    except ValueError:
        log.exception(TOLD, why=TEXT, deep={"a": [TEXT]}, error=ValueError(TEXT), password="hunter22", n=3)

    shown = capsys.readouterr().err
    line = json.loads(shown)

    assert SECRET not in shown
    assert "hunter22" not in shown
    assert line["event"] == f"told {REDACTED}"
    assert line["n"] == 3
    assert f"ValueError: refused {REDACTED}" in line["exception"]


def test_what_libraries_log_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """Even through a handler of the library's own: message, arguments and traceback."""
    set_up_logging()
    library = logging.getLogger("some.library")
    library.propagate = False
    library.addHandler(logging.StreamHandler())
    try:
        fail()
    except ValueError:
        library.exception("cannot log in with %s", TEXT)
    finally:
        library.handlers.clear()

    shown = capsys.readouterr().err

    assert SECRET not in shown
    assert f"cannot log in with {REDACTED}" in shown
    assert f"ValueError: refused {REDACTED}" in shown
