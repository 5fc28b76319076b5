"""The entries of watchkeeper.toml that say when fixes rest, and how often they may run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from bot.config.entries import Environment
from bot.config.fields import Entry, Name

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(rf"({'|'.join(DAYS)}) ([01]\d|2[0-3]):([0-5]\d)", re.IGNORECASE)
_WEEK = timedelta(weeks=1)


def _written(value: object) -> object:
    """TOML has instants of its own; both ways of writing one are the same."""
    return value.isoformat() if isinstance(value, datetime) else value


def _weekly(value: str) -> timedelta | None:
    """How long after Monday, 00:00; None for an instant. Raises ValueError for neither."""
    if found := _WEEKLY.fullmatch(value.strip()):
        day, hour, minute = found.groups()
        return timedelta(days=DAYS.index(day.lower()), hours=int(hour), minutes=int(minute))
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ValueError(
            f"{value!r} is no time; write 2026-12-24T00:00:00+01:00, with its offset, or for every week Fri 17:00"
        )
    return None


class Freeze(Entry):
    """
    A time in which no fix is approved or started: once, between two instants, or every week, by a zone's clocks.

    It holds for these services, environments and tiers; for all where none is named. R0 and undos are never frozen.
    """

    name: Name
    timezone: str | None = None
    start: Annotated[str, BeforeValidator(_written)]
    end: Annotated[str, BeforeValidator(_written)]
    services: tuple[str, ...] = ()
    environments: tuple[Environment, ...] = ()
    tiers: tuple[Literal["R1", "R2", "R3"], ...] = Field(default=("R1", "R2", "R3"), min_length=1)
    reason: str = Field(min_length=1)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        try:
            if name is not None:
                ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {name!r}; write one such as Europe/Berlin") from error
        return name

    @field_validator("start")
    @classmethod
    def _is_a_time(cls, start: str, info: ValidationInfo) -> str:
        zone = info.data.get("timezone")
        if _weekly(start) is None and zone is not None:
            raise ValueError(
                "an instant has an offset of its own; leave timezone out, or write a day such as Fri 17:00"
            )
        if _weekly(start) is not None and zone is None and "timezone" in info.data:
            raise ValueError("a time of the week needs its clock; add timezone, such as Europe/Berlin")
        return start

    @field_validator("end")
    @classmethod
    def _comes_after(cls, end: str, info: ValidationInfo) -> str:
        start = info.data.get("start")
        if start is None:
            return end
        if (_weekly(start) is None) != (_weekly(end) is None):
            raise ValueError(f"{start!r} and {end!r} do not fit; write two instants or two times of the week")
        if _weekly(end) is None and datetime.fromisoformat(end) <= datetime.fromisoformat(start):
            raise ValueError("it ends before it starts; write an end after the start")
        if _weekly(end) is not None and _weekly(end) == _weekly(start):
            raise ValueError("it ends when it starts; for all of the week put the services into mode observe")
        return end

    def concerns(self, service: str, environment: str, tiers: frozenset[str]) -> bool:
        """Does it hold for a fix like this, when it is time?"""
        return (
            (not self.services or service in self.services)
            and (not self.environments or environment in self.environments)
            and bool(tiers & set(self.tiers))
        )

    def until(self, now: datetime) -> datetime | None:
        """When the freeze of this moment ends (UTC); None when there is none."""
        return max((end for start, end in self._around(now) if start <= now < end), default=None)

    def _around(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The windows near this moment. A clock that is put back or forward makes one longer, never shorter."""
        start, end = _weekly(self.start), _weekly(self.end)
        if start is None or end is None:
            yield datetime.fromisoformat(self.start).astimezone(UTC), datetime.fromisoformat(self.end).astimezone(UTC)
            return
        zone = ZoneInfo(self.timezone or "UTC")
        local = now.astimezone(zone).replace(tzinfo=None)
        monday = local.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=local.weekday())
        for week in (-1, 0, 1):
            begins = monday + week * _WEEK + start
            ends = begins + ((end - start) % _WEEK)
            yield min(_both(begins, zone)), max(_both(ends, zone))


def _both(local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """A local time comes twice, or never, when clocks are changed; the earlier and the later reading of it."""
    early, late = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return early, late


class Limit(Entry):
    """At most so many steps like this start within an hour, on all targets together and on each of them."""

    tier: Literal["R0", "R1", "R2", "R3", "*"] = "*"
    environment: Literal["prod", "staging", "dev", "*"] = "*"
    service: str = "*"
    action: str = "*"
    per_target_per_hour: int | None = Field(default=None, ge=1)
    per_hour: int | None = Field(default=None, ge=1, validate_default=True)

    @field_validator("per_hour")
    @classmethod
    def _limits(cls, per_hour: int | None, info: ValidationInfo) -> int | None:
        if per_hour is None and info.data.get("per_target_per_hour", 0) is None:
            raise ValueError("this limits nothing; write per_hour or per_target_per_hour")
        return per_hour

    def covers(self, *, tier: str, environment: str, service: str, action: str) -> bool:
        """Does it count such a step?"""
        return (
            self.tier in ("*", tier)
            and self.environment in ("*", environment)
            and self.service in ("*", service)
            and self.action in ("*", action)
        )
