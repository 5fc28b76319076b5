"""
The alert rule as Prometheus evaluates it: an expression on the telemetry, `for`, and `keep_firing_for`.

    LLMHighTTFT: mean time to first token per pod over 5 m  >  1.4 x the model's mean over 6 h, offset 30 m
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from diagnostics.telemetry.model import Function, Key, Query, Telemetry, Vector


@dataclass(frozen=True, kw_only=True)
class MeanRule:
    """A rule on the mean of a histogram: each pod against its model's own past. Times as in Prometheus' rule files."""

    name: str
    metric: str  # the histogram, without _sum and _count
    factor: float
    window: timedelta = timedelta(minutes=5)
    baseline_window: timedelta = timedelta(hours=6)
    baseline_offset: timedelta = timedelta(minutes=30)
    wait: timedelta = timedelta(minutes=5)  # `for`, which Python keeps for itself
    keep_firing_for: timedelta = timedelta(minutes=10)
    labels: Mapping[str, str] = field(default_factory=dict)
    what: str = ""


HIGH_TTFT = MeanRule(
    name="LLMHighTTFT",
    metric="vllm:time_to_first_token_seconds",
    factor=1.4,
    labels={"severity": "warning", "service": "chat", "namespace": "chat"},
    what="mean time to first token",
)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One firing alert; the annotations carry the numbers of the latest evaluation."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime


@dataclass(frozen=True, kw_only=True)
class _Excess:
    value: float
    baseline: float


@dataclass(kw_only=True)
class _State:
    """One label set: since when the expression holds, and since when it holds no more although the alert fires."""

    active_since: datetime
    latest: _Excess
    fired_at: datetime | None = None
    quiet_since: datetime | None = None


@dataclass(kw_only=True)
class RuleState:
    """A rule and what became of each pod so far. Evaluate it once per step, in order of time."""

    rule: MeanRule
    telemetry: Telemetry
    _states: dict[Key, _State] = field(default_factory=dict)

    async def evaluate(self, at: datetime) -> list[Alert]:
        """The alerts that fire at this instant, pods in order. Raises TelemetryError."""
        exceeding = await self._exceeding(at)
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

    async def _exceeding(self, at: datetime) -> dict[Key, _Excess]:
        rule = self.rule
        now = await self._mean(at, rule.window, ("model_name", "pod"))
        past = await self._mean(at - rule.baseline_offset, rule.baseline_window, ("model_name",))
        return {
            (model, pod): _Excess(value=value, baseline=past[model,])
            for (model, pod), value in now.items()
            if (model,) in past and value > rule.factor * past[model,]
        }

    async def _mean(self, at: datetime, window: timedelta, by: tuple[str, ...]) -> Vector:
        sums, counts = [
            await self.telemetry.vector(
                Query(metric=f"{self.rule.metric}_{part}", function=Function.RATE, window=window, by=by), at
            )
            for part in ("sum", "count")
        ]
        return {key: sums[key] / count for key, count in counts.items() if key in sums and count > 0}

    def _alert(self, key: Key, state: _State) -> Alert:
        model, pod = key
        times = state.latest.value / state.latest.baseline
        summary = f"{self.rule.what} of {pod} is {state.latest.value:.2f} s, {times:.1f} times the model's usual"
        return Alert(
            labels={"alertname": self.rule.name, "model_name": model, "pod": pod, **self.rule.labels},
            annotations={"summary": f"{summary} {state.latest.baseline:.2f} s"},
            starts_at=state.fired_at or state.active_since,
        )
