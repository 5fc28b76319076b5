"""
Do requests fail?

Reads the shares of 5xx, 4xx and 429 at the application's edge, or else at the gateway or the engines' API servers. Bad
when 5xx passes the service's budget (5 % without one) or gained one percentage point, 4xx gained two, or 429 gained
one. The routes whose requests fail more are named. `provider_errors` tells whether an outside provider is behind it;
4xx on one route alone, with its prompts longer, is a context window that is too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, share, total
from diagnostics.proportions import SURE, shares, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

_ALLOWED_GAIN = {"5xx": 0.01, "4xx": 0.02, "429": 0.01}


@dataclass(frozen=True, kw_only=True)
class _Source:
    family: str
    metric: str
    by: tuple[str, ...]  # the status is the last


_SOURCES = (
    _Source(family="application", metric="llm_app_requests_total", by=("route", "model", "status")),
    _Source(family="gateway", metric="litellm_proxy_total_requests_metric_total", by=("route", "status_code")),
    _Source(family="serving", metric="http_requests_total", by=("handler", "status")),
)


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    source = await _source(look)
    cells = await look.rates(source.metric, source.family, by=source.by)
    whole = total(cells)
    if not whole.now:
        raise CannotTellError(f"{source.metric} counted no request in the recent window")
    ratios = {kind: share(_of_kind(cells, kind), whole) for kind in _ALLOWED_GAIN}
    measures = [measure(f"error_{kind}_ratio", ratio, "ratio") for kind, ratio in ratios.items()]
    if source.by[0] == "route":
        measures += _routes(look, cells)
    budget = target.budgets.error_ratio if target.budgets.error_ratio is not None else 0.05
    complaints = [
        f"{kind} is {compared(ratio, 'ratio')}."
        for kind, ratio in ratios.items()
        if (ratio.gain or 0.0) >= _ALLOWED_GAIN[kind] or (kind == "5xx" and (ratio.now or 0.0) > budget)
    ]
    if complaints:
        return Finding.bad("error_ratio", " ".join(complaints), *measures)
    said = "; ".join(f"{kind} is {compared(ratios[kind], 'ratio')}" for kind in ("5xx", "429"))
    return Finding.ok("error_ratio", f"{said}.", *measures)


async def _source(look: Look) -> _Source:
    for source in _SOURCES:
        if source.family in look.target.selectors and await look.exported(source.family, source.metric):
            return source
    raise CannotTellError("no request counter with a status is exported by the application, the gateway or the engines")


def _of_kind(cells: dict[Key, Compared], kind: str) -> Compared:
    """The events of one kind; a status is either the class (5xx) or the code (503)."""
    return total({key: cell for key, cell in cells.items() if kind_of(key[-1]) == kind})


def _routes(look: Look, cells: dict[Key, Compared]) -> list[Measure]:
    """The routes on which a kind of failure gained more than is allowed, beyond chance."""
    by_route = summed(cells, 0, -1)
    found = []
    for kind, allowed in _ALLOWED_GAIN.items():
        for (route,), cell in sorted(shares(by_route, look.frame, partial(_is_of, kind)).items()):
            ratio = cell.compared()
            if route and (ratio.gain or 0.0) >= allowed and cell.chance < SURE:
                found.append(measure(f"error_{kind}_ratio", ratio, "ratio", ("route", route)))
    return found


def _is_of(kind: str, status: str) -> bool:
    return kind_of(status) == kind


def kind_of(status: str) -> str:
    """The kind that a status belongs to: 429 by itself, otherwise its class (5xx)."""
    if status == "429" or not status:
        return status
    return f"{status[0]}xx" if status[0].isdigit() else status
