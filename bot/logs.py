"""Logs are events: JSON lines, or colours on a terminal; without credentials, whoever wrote them."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import structlog

from bot.redact import gitleaks, safe_json, safe_text


def set_up_logging() -> None:
    """
    Our own events through structlog; libraries only from warnings on, since they log bodies at INFO.

    Raises RulesMissingError: nothing may run that cannot keep credentials out of what it writes.
    """
    gitleaks.rules()
    logging.setLogRecordFactory(RedactedRecord)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redacted,
            renderer,
        ],
        # Asked for each time, since whoever runs a command in his own process may exchange the stream.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )


class RedactedRecord(logging.LogRecord):
    """A library's log record; some libraries bring a handler of their own, so the record itself has to be clean."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info:
            self.exc_text = safe_text("".join(traceback.format_exception(*self.exc_info)).rstrip())

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        return safe_text(super().getMessage())


def redacted(_: Any, __: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """The event without credentials; what is no JSON becomes text first."""
    return {key: _plain(key, value) for key, value in event.items()}


def _plain(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | Mapping | list | tuple):
        return safe_json({key: value})[key]  # with its name, which may say that the value is a credential
    return safe_text(repr(value))
