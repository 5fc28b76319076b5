"""Roles that Slack's user groups and PagerDuty's schedules give, for as long as they were read lately. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bot import narrate
from bot.config import Config, RoleSource

EVERYWHERE = "*"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Whom a source named (ids of the configuration) when it was last read; `trouble` is why it was not since."""

    people: tuple[str, ...] = ()
    read_at: datetime | None = None
    trouble: str = ""


@dataclass(kw_only=True)
class GivenRoles:
    """
    What the sources of the configuration said, as this process last saw it.

    A reading that is older than its source's `max_age_minutes`, or missing, names nobody.
    """

    sources: Sequence[RoleSource] = ()
    _readings: Mapping[str, Reading] = field(default_factory=dict)
    _now: datetime | None = None

    def see(self, readings: Mapping[str, Reading], now: datetime) -> None:
        """Believe these from now on, by the database's clock."""
        self._readings, self._now = readings, now

    def of(self, person_id: str) -> frozenset[tuple[str, str]]:
        """This person's roles as (service, role); a service of "*" is every one."""
        held = (each for each in self.sources if person_id in self._people(each))
        return frozenset((each.service, each.role) for each in held)

    def lost(self, role: str, service: str) -> str:
        """Why a source of this role names nobody now, in words; "" when none is lost."""
        for each in self.sources:
            if each.role == role and each.service in (EVERYWHERE, service) and self._is_lost(each):
                return self.age(each)
        return ""

    def age(self, source: RoleSource) -> str:
        """How old the reading is, and why it is not younger: "Slack's group T/S was never read"."""
        reading = self._readings.get(source.name, Reading())
        why = f" ({reading.trouble})" if reading.trouble else ""
        if reading.read_at is None or self._now is None:
            return f"{source.told} was never read{why}"
        return f"{source.told} was read {narrate.seconds((self._now - reading.read_at).total_seconds())} ago{why}"

    def _people(self, source: RoleSource) -> tuple[str, ...]:
        return () if self._is_lost(source) else self._readings[source.name].people

    def _is_lost(self, source: RoleSource) -> bool:
        reading = self._readings.get(source.name)
        if reading is None or reading.read_at is None or self._now is None:
            return True
        return self._now - reading.read_at > timedelta(minutes=source.max_age_minutes)


def given_by(config: Config) -> GivenRoles:
    """Nothing is known yet, so nobody has these roles."""
    return GivenRoles(sources=config.role_sources)
