"""
Application telemetry from a list of rates: what each counter did before the onset and since, and nothing else.

For the checks on answers, tools, safety and cost, whose numbers follow from no equation: a test says them outright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from diagnostics.checks import CHECKS
from diagnostics.findings import Finding, Measure
from diagnostics.target import Target
from diagnostics.telemetry.recorded import Recorded, load_openmetrics
from tests import synthetic
from tests.diagnosed import HISTORY, frame_of

STEP = timedelta(seconds=30)
SERVICE = {"service": "chat"}


@dataclass(frozen=True)
class Series:
    """One series: events per second (or a gauge's value) before the onset and since; None where it is not there."""

    name: str
    labels: tuple[tuple[str, str], ...]
    before: float | None
    since: float | None
    is_gauge: bool = False


def counter(name: str, before: float | None, since: float | None = None, /, **labels: str) -> Series:
    """Events per second; without a second number they stay as they were."""
    return Series(name, tuple(labels.items()), before, before if since is None else since)


def gone(name: str, before: float, /, **labels: str) -> Series:
    """A counter that is no longer exported since the onset."""
    return Series(name, tuple(labels.items()), before, None)


def born(name: str, since: float, /, **labels: str) -> Series:
    """A counter that is exported only since the onset."""
    return Series(name, tuple(labels.items()), None, since)


def gauge(name: str, before: float | None, since: float | None, /, **labels: str) -> Series:
    return Series(name, tuple(labels.items()), before, since, is_gauge=True)


def telemetry(series: Iterable[Series], *, selector: dict[str, str] | None = None) -> Recorded:
    """Thirty-five minutes of these series, with the onset twelve minutes before the end."""
    return load_openmetrics(text(series, selector=selector))


def text(series: Iterable[Series], *, selector: dict[str, str] | None = None) -> str:
    """The same as OpenMetrics text."""
    families: dict[str, list[str]] = {}
    for one in series:
        labels = {**(SERVICE if selector is None else selector), **dict(one.labels)}
        inside = ",".join(f'{label}="{value}"' for label, value in labels.items())
        kind, family, name = _kind(one)
        lines = families.setdefault(f"# TYPE {family} {kind}", [])
        lines += [f"{name}{{{inside}}} {value:.6f} {stamp:.3f}" for stamp, value in _points(one)]
    body = [line for kind, lines in families.items() for line in (kind, *lines)]
    return "\n".join([*body, "# EOF"]) + "\n"


def _kind(one: Series) -> tuple[str, str, str]:
    """The type, the family's name and the series' name, as OpenMetrics spells them."""
    base, _, part = one.name.rpartition("_")
    if one.is_gauge:
        return "gauge", one.name, one.name
    if part in {"sum", "count"}:
        return "summary", base, one.name
    family = one.name.removesuffix("_total")
    return "counter", family, f"{family}_total"


def _points(one: Series) -> Iterable[tuple[float, float]]:
    instant, count = synthetic.END - HISTORY, 0.0
    while instant <= synthetic.END:
        value = one.before if instant < synthetic.ONSET else one.since
        if value is not None:
            count += value * STEP.total_seconds()
            yield instant.timestamp(), value if one.is_gauge else count
        instant += STEP


async def answer(check: str, series: Iterable[Series], target: Target | None = None) -> Finding:
    """What one check says of these series."""
    return await CHECKS[check](target or synthetic.target(), telemetry(series), frame_of())


def of_service(finding: Finding, signal: str) -> Measure:
    """The measure of the whole service."""
    [found] = [measure for measure in finding.measures if measure.signal == signal and not measure.scope]
    return found


def values(finding: Finding, label: str, signal: str | None = None) -> set[str]:
    """The values of a label that the finding's measures name."""
    return {
        value
        for measure in finding.measures
        if signal is None or measure.signal == signal
        for name, value in measure.scope
        if name == label
    }


def has(finding: Finding, signal: str) -> bool:
    return any(measure.signal == signal for measure in finding.measures)
