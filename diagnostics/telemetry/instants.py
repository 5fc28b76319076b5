"""Times as Prometheus counts them: whole milliseconds since 1970 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from diagnostics.telemetry.model import TelemetryError

MOST_POINTS = 11_000
"""Prometheus' own limit of instants per range query."""

MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_milliseconds(instant: datetime) -> int:
    """Cut to the millisecond. Raises TypeError for a time without a zone."""
    return (instant - _EPOCH) // MILLISECOND


def to_datetime(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def instants_between(start: datetime, end: datetime, step: timedelta) -> range:
    """
    start, start+step, ... up to and including end, in milliseconds; empty when the end lies before the start.

    Raises TelemetryError for a step below a millisecond, or for more points than Prometheus would answer.
    """
    if step < MILLISECOND:
        raise TelemetryError(f"a step of {step} is shorter than a millisecond")
    instants = range(to_milliseconds(start), to_milliseconds(end) + 1, step // MILLISECOND)
    if len(instants) > MOST_POINTS:
        raise TelemetryError(f"{start} to {end} in steps of {step} are more than {MOST_POINTS} points")
    return instants
