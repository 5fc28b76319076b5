"""
What engines and drivers say of themselves: a configuration, a model or a driver that is not what it was.

This finds changes that nobody declared. vLLM exports its cache configuration as the labels of
`vllm:cache_config_info`, each engine the model it serves, dcgm-exporter the driver's version; OpenTelemetry's GenAI
metrics hold the model that a provider answered with. A declared change that explains the same is told instead of this
one (diagnostics/changes/merge.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.engines import speaking
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Matrix, Query, Telemetry, TelemetryError

NAME = "self-report"

_COARSE, _FINE = timedelta(minutes=5), timedelta(seconds=15)
_MOST_VALUES = 8


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    What one metric's labels tell; `place` is the label that says where, and `scope` the dimension it stands for.

    `family` is the selector of the target by which the service's series are found. vLLM's `num_gpu_blocks` is left out:
    it comes from a measurement at each start, and differs a little every time.
    """

    metric: str
    labels: tuple[str, ...]
    family: str
    kind: str
    what: str
    place: str
    scope: str


REPORTS = (
    Report(
        metric="vllm:cache_config_info",
        labels=(
            "block_size",
            "cache_dtype",
            "calculate_kv_scales",
            "cpu_offload_gb",
            "enable_prefix_caching",
            "gpu_memory_utilization",
            "num_gpu_blocks_override",
            "prefix_caching_hash_algo",
            "sliding_window",
            "swap_space_bytes",
        ),
        family="serving",
        kind="config",
        what="engine cache configuration",
        place="pod",
        scope="pod",
    ),
    Report(
        metric="vllm:num_requests_running",
        labels=("model_name",),
        family="serving",
        kind="model",
        what="model served",
        place="pod",
        scope="pod",
    ),
    Report(
        metric="DCGM_FI_DEV_GPU_TEMP",
        labels=("DCGM_FI_DRIVER_VERSION",),
        family="gpu",
        kind="infra",
        what="GPU driver",
        place="Hostname",
        scope="node",
    ),
    Report(
        metric="gen_ai_client_operation_duration_seconds_count",
        labels=("gen_ai_response_model",),
        family="application",
        kind="model",
        what="model that answered",
        place="gen_ai_request_model",
        scope="model",
    ),
)


class SelfReport:
    """The change source over a service's own telemetry; a metric that is not exported tells nothing."""

    name = NAME

    def __init__(self, telemetry: Telemetry, reports: Sequence[Report] = REPORTS) -> None:
        self._telemetry = telemetry
        self._reports = tuple(reports)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """Where what is reported began to differ within this time, oldest first. Raises ChangeSourceError."""
        wanted = [report for report in self._reports if report.family in target.selectors]
        try:
            telemetry = speaking(self._telemetry, target)
            found = await asyncio.gather(*(self._of(telemetry, report, target, since, until) for report in wanted))
        except TelemetryError as error:
            raise ChangeSourceError(f"the telemetry cannot be asked what it reports of itself: {error}") from error
        return sorted((change for changes in found for change in changes), key=lambda change: change.at)

    @staticmethod
    async def _of(
        telemetry: Telemetry, report: Report, target: Target, since: datetime, until: datetime
    ) -> list[Change]:
        where = target.selectors[report.family]
        by = (report.place, *report.labels)
        query = Query(metric=report.metric, where=where, by=by, aggregation=Aggregation.MAX)
        coarse = await telemetry.matrix(query, _on_grid(since), until, _COARSE)
        changes = []
        for places, before, after, seen in differences(coarse):
            fine = await telemetry.matrix(query, seen - _COARSE, seen, _FINE)
            at = min((points[0][0] for key, points in fine.items() if key[1:] == after and points), default=seen)
            changes.append(_change(report, target, places, before, after, at))
        return [change for change in changes if since <= change.at]


def _on_grid(at: datetime) -> datetime:
    """Whoever looks, and whenever: the same instants are asked for, so that a change keeps its time and its id."""
    return at - (at - datetime(1970, 1, 1, tzinfo=at.tzinfo)) % _COARSE


def differences(matrix: Matrix) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], datetime]]:
    """
    Each new set of values: the places where it is, what was there before, the new values, and when it was first seen.

    A value is new when it appears after others of its kind were there; what scrapes merely brought back is not. Too
    many values of one metric are no configuration, and are left alone.
    """
    first: dict[tuple[str, ...], datetime] = {}
    places: dict[tuple[str, ...], list[str]] = {}
    begins = min((points[0][0] for points in matrix.values() if points), default=None)
    for key, points in matrix.items():
        if points and any(key[1:]):
            first[key[1:]] = min(first.get(key[1:], points[0][0]), points[0][0])
            places.setdefault(key[1:], []).append(key[0])
    if begins is None or len(first) > _MOST_VALUES:
        return
    order = sorted(first, key=lambda values: first[values])
    for values in order:
        earlier = [each for each in order if first[each] < first[values]]
        if not earlier or first[values] <= begins:
            continue
        before = _replaced(matrix, earlier, places[values], first[values])
        if before is not None:
            yield tuple(sorted(set(places[values]))), before, values, first[values]


def _replaced(
    matrix: Matrix, earlier: Sequence[tuple[str, ...]], places: Sequence[str], at: datetime
) -> tuple[str, ...] | None:
    """
    What the new values took the place of: in the same place, else whatever ended around then.

    Pods get new names when their deployment changes. A second configuration beside one that goes on is a change, too:
    a canary.
    """
    ends = {
        values: max(points[-1][0] for key, points in matrix.items() if key[1:] == values and points)
        for values in earlier
    }
    here = [key[1:] for key in matrix if key[0] in places and key[1:] in ends]
    candidates = [values for values in (here or earlier) if ends[values] >= at - 12 * _COARSE]
    return max(candidates, key=lambda values: ends[values], default=None)


def _change(
    report: Report,
    target: Target,
    places: tuple[str, ...],
    before: tuple[str, ...],
    after: tuple[str, ...],
    at: datetime,
) -> Change:
    old, new = (dict(zip(report.labels, values, strict=True)) for values in (before, after))
    differing = [label for label in report.labels if old[label] != new[label]]
    said = "; ".join(f"{label} {old[label] or 'unset'} -> {new[label] or 'unset'}" for label in differing[:3])
    return Change(
        id=f"{NAME}:{report.metric}:{int(at.timestamp())}",
        at=at,
        kind=report.kind,
        service=target.service,
        source=NAME,
        summary=f"{report.what} differs, as it reports itself: {said}",
        scope=_scope(report, places, new),
        before=_lines(old),
        after=_lines(new),
    )


def _scope(report: Report, places: tuple[str, ...], new: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    named = tuple(place for place in places if place)
    model = new.get("model_name") or new.get("gen_ai_response_model")
    found = {report.scope: named} if named else {}
    return {**found, "model": (model,)} if model else found


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{label} {value}" for label, value in values.items() if value)
