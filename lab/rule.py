"""
Alert rules as Prometheus evaluates them: a condition on the telemetry, `for`, and `keep_firing_for`.

What a condition compares is in `conditions.py`; the rules that the lab's service has are in `alert_rules.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from diagnostics.telemetry.model import Key, Telemetry


@dataclass(frozen=True, kw_only=True)
class Excess:
    """What a condition found in one group: the value, and what it was held against."""

    value: float
    limit: float  # the threshold, or the baseline that a factor applies to


class Condition(Protocol):
    """The expression of a rule."""

    @property
    def by(self) -> tuple[str, ...]:
        """The labels that tell its groups apart."""

    @property
    def metrics(self) -> frozenset[str]:
        """The metric families that it reads."""

    async def exceeding(self, telemetry: Telemetry, at: datetime) -> Mapping[Key, Excess]:
        """The groups for which it holds at this instant. Raises TelemetryError."""

    def promql(self) -> str:
        """The same in Prometheus' language."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule as in Prometheus' rule files; the words of `summary` may name {value}, {limit}, {times} and any label."""

    name: str
    condition: Condition
    summary: str = ""
    wait: timedelta = timedelta(minutes=5)  # `for`, which Python keeps for itself
    keep_firing_for: timedelta = timedelta(minutes=10)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One firing alert; the annotations carry the numbers of the latest evaluation."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime


@dataclass(kw_only=True)
class _State:
    """One label set: since when the expression holds, and since when it holds no more although the alert fires."""

    active_since: datetime
    latest: Excess
    fired_at: datetime | None = None
    quiet_since: datetime | None = None


@dataclass(kw_only=True)
class RuleState:
    """A rule and what became of each group so far. Evaluate it once per step, in order of time."""

    rule: Rule
    telemetry: Telemetry
    _states: dict[Key, _State] = field(default_factory=dict)

    async def evaluate(self, at: datetime) -> list[Alert]:
        """The alerts that fire at this instant, groups in order. Raises TelemetryError."""
        exceeding = await self.rule.condition.exceeding(self.telemetry, at)
        for key, excess in exceeding.items():
            state = self._states.setdefault(key, _State(active_since=at, latest=excess))
            state.latest, state.quiet_since = excess, None
            if state.fired_at is None and at - state.active_since >= self.rule.wait:
                state.fired_at = at
        for key in self._states.keys() - exceeding.keys():
            self._calm_down(key, at)
        firing = sorted((key, state) for key, state in self._states.items() if state.fired_at is not None)
        return [self._alert(key, state) for key, state in firing]

    def _calm_down(self, key: Key, at: datetime) -> None:
        """A pending alert is dropped at once, a firing one after `keep_firing_for` without excess."""
        state = self._states[key]
        state.quiet_since = state.quiet_since or at
        if state.fired_at is None or at - state.quiet_since >= self.rule.keep_firing_for:
            del self._states[key]

    def _alert(self, key: Key, state: _State) -> Alert:
        found = state.latest
        where = dict(zip(self.rule.condition.by, key, strict=True))
        times = found.value / found.limit if found.limit else 0.0
        summary = self.rule.summary.format_map({**where, "value": found.value, "limit": found.limit, "times": times})
        return Alert(
            labels={"alertname": self.rule.name, **where, **self.rule.labels},
            annotations={"summary": summary},
            starts_at=state.fired_at or state.active_since,
        )
