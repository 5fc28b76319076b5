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
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Compared, Look, share, total
from diagnostics.proportions import NO_EVENTS, SURE, shares, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared, number

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
    routes = {kind: _routes(look, cells, kind) for kind in _ALLOWED_GAIN} if source.by[0] == "route" else {}
    measures = []
    for kind, ratio in ratios.items():
        guilty, is_apart = routes.get(kind, ({}, False))
        if not is_apart:  # on some routes only, the service's mean hides how much
            measures.append(measure(f"error_{kind}_ratio", ratio, "ratio"))
        measures += [measure(f"error_{kind}_ratio", cell, "ratio", ("route", name)) for name, cell in guilty.items()]
    budget = target.budgets.error_ratio if target.budgets.error_ratio is not None else 0.05
    complaints = [
        f"{kind} is {compared(ratio, 'ratio')}{_on(routes.get(kind))}."
        for kind, ratio in ratios.items()
        if (ratio.gain or 0.0) >= _ALLOWED_GAIN[kind]
        or (kind == "5xx" and (ratio.now or 0.0) > budget)
        or routes.get(kind, ({}, False))[1]
    ]
    if complaints:
        return Finding.bad("error_ratio", " ".join(complaints), *measures)
    said = "; ".join(f"{kind} is {compared(ratios[kind], 'ratio')}" for kind in ("5xx", "429"))
    return Finding.ok("error_ratio", f"{said}.", *measures)


def _on(routes: tuple[dict[str, Compared], bool] | None) -> str:
    """The routes that fail, where the others do not."""
    if routes is None or not routes[1]:
        return ""
    return ", on " + ", ".join(f"{name} {number(cell.now, 'ratio')}" for name, cell in routes[0].items())


async def _source(look: Look) -> _Source:
    for source in _SOURCES:
        if source.family in look.target.selectors and await look.exported(source.family, source.metric):
            return source
    raise CannotTellError("no request counter with a status is exported by the application, the gateway or the engines")


def _of_kind(cells: dict[Key, Compared], kind: str) -> Compared:
    """The events of one kind; a status is either the class (5xx) or the code (503)."""
    return total({key: cell for key, cell in cells.items() if kind_of(key[-1]) == kind})


def _routes(look: Look, cells: dict[Key, Compared], kind: str) -> tuple[dict[str, Compared], bool]:
    """The routes on which a kind of failure gained more than is allowed, and whether the others are as they were."""
    by_route = shares(summed(cells, 0, -1), look.frame, partial(_is_of, kind))
    known = {route: cell for (route,), cell in sorted(by_route.items()) if route and cell.compared().gain is not None}
    guilty = {
        route: cell.compared()
        for route, cell in known.items()
        if (cell.compared().gain or 0.0) >= _ALLOWED_GAIN[kind] and cell.chance < SURE
    }
    rest = sum((cell for route, cell in known.items() if route not in guilty), NO_EVENTS).compared()
    least = min((cell.gain or 0.0 for cell in guilty.values()), default=0.0)
    return guilty, bool(guilty) and rest.gain is not None and abs(rest.gain) < 0.4 * least


def _is_of(kind: str, status: str) -> bool:
    return kind_of(status) == kind


def kind_of(status: str) -> str:
    """The kind that a status belongs to: 429 by itself, otherwise its class (5xx)."""
    if status == "429" or not status:
        return status
    return f"{status[0]}xx" if status[0].isdigit() else status
