"""
Does retrieval find what it should, in time?

Reads the time spent in retrieval, the shares of retrievals that come back empty, fail or time out, by data source, the
similarity of the best passage, and of a Qdrant its own failures and the points of its largest collection. Bad when the
time gained 0.5 s, empty results 0.1, failures 0.05, the similarity lost 0.05, or the points fell by a third. Slow and
timing out is a database in trouble, quick and failing a mismatch of dimensions, quick and empty a wrong or emptied
index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from operator import eq

from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import NOTHING, CannotTellError, Compared, Look, share, total
from diagnostics.proportions import ENOUGH_VOTES, NO_EVENTS, SURE, Share, folded, shares
from diagnostics.target import Target
from diagnostics.telemetry.model import Aggregation, Key, Telemetry
from diagnostics.wording import compared

CALLS = "llm_app_retrieval_total"
SCORE = "llm_app_retrieval_score"
DATABASE_CALLS = "rest_responses_total"
DATABASE_POINTS = "collection_points"

_LIMITS = {
    "retrieval_unanswered_ratio": 0.1,
    "retrieval_empty_ratio": 0.1,
    "retrieval_error_ratio": 0.05,
    "retrieval_timeout_ratio": 0.05,
}
_WORDS = {
    "retrieval_empty_ratio": "Empty retrievals",
    "retrieval_error_ratio": "Failing retrievals",
    "retrieval_timeout_ratio": "Retrievals that time out",
}
_OUTCOMES = {"retrieval_empty_ratio": "empty", "retrieval_error_ratio": "error", "retrieval_timeout_ratio": "timeout"}


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    rates, scores, time, database = await asyncio.gather(
        look.rates(CALLS, "application", by=("data_source", "outcome")),
        look.means(SCORE, "application", by=("data_source",)),
        _time(look),
        _database(look),
    )
    if not rates and not scores and not database:
        await look.require("application", CALLS)
    kinds = _kinds(rates, frame)
    whole = {signal: folded(cells).get((), NO_EVENTS) for signal, cells in kinds.items()}
    ratios = {signal: cell.compared(ENOUGH_VOTES) for signal, cell in whole.items() if cell.all_now >= ENOUGH_VOTES}
    score = _weighted(scores, rates)
    if not ratios and score == NOTHING and not database:
        asked = whole["retrieval_unanswered_ratio"].all_now
        raise CannotTellError(f"only {asked:.0f} retrievals in the recent window")
    measures = [measure(signal, ratio, "ratio") for signal, ratio in ratios.items()]
    measures += [measure("retrieval", time, "s")] if time != NOTHING else []
    measures += [measure("retrieval_score", score, "")] if score != NOTHING else []
    measures += database
    worse = {signal: cell for signal, cell in whole.items() if _is_worse(signal, cell)}
    complaints = [f"{_WORDS[signal]}: {compared(ratios[signal], 'ratio')}." for signal in worse if signal in _WORDS]
    complaints += _others(score, time, database)
    if complaints:
        return Finding.bad("retrieval", " ".join(complaints), *measures, *_sources(kinds, scores))
    empty = ratios.get("retrieval_empty_ratio")
    said = "Retrieval is as good as usual" if empty is None else f"Empty retrievals: {compared(empty, 'ratio')}"
    return Finding.ok("retrieval", f"{said}.", *measures)


async def _time(look: Look) -> Compared:
    return (await look.means("llm_app_stage_seconds", "application", by=("stage",))).get(("retrieval",), NOTHING)


async def _database(look: Look) -> list[Measure]:
    """What a Qdrant in the service's namespace says of itself; nothing where none is scraped."""
    where = {"namespace": look.target.namespace} if look.target.namespace else None
    if where is None or "kubernetes" not in look.target.selectors:
        return []
    calls, points = await asyncio.gather(
        look.rates(DATABASE_CALLS, "kubernetes", by=("status",)),
        look.level(DATABASE_POINTS, "kubernetes", aggregation=Aggregation.MAX),
    )
    found = []
    if calls:
        failed = {key: cell for key, cell in calls.items() if not key[0].startswith("2")}
        found.append(measure("vector_database_error_ratio", share(total(failed), total(calls)), "ratio"))
    if points != NOTHING:
        found.append(measure("index_points", points, "points"))
    return found


def _kinds(rates: Mapping[Key, Compared], frame: Frame) -> dict[str, dict[Key, Share]]:
    """By signal, the share of each data source's retrievals that brought nothing, in all and by outcome."""
    kinds = {"retrieval_unanswered_ratio": shares(rates, frame, lambda outcome: outcome != "ok")}
    for signal, wanted in _OUTCOMES.items():
        kinds[signal] = shares(rates, frame, partial(eq, wanted))
    return kinds


def _weighted(scores: Mapping[Key, Compared], rates: Mapping[Key, Compared]) -> Compared:
    """The mean similarity over the data sources, each with its baseline's weight: a shift of load moves nothing."""
    weights = {key: total({k: c for k, c in rates.items() if k[0] == key[0]}).baseline for key in scores}
    if not rates:  # without a count of the calls each source weighs the same
        weights = dict.fromkeys(scores, 1.0)
    known = {key: cell for key, cell in scores.items() if cell.gain is not None and weights[key]}
    whole = sum(weights[key] or 0.0 for key in known)
    if not known:
        return NOTHING
    return Compared(
        now=sum((weights[key] or 0.0) * (cell.now or 0.0) for key, cell in known.items()) / whole,
        baseline=sum((weights[key] or 0.0) * (cell.baseline or 0.0) for key, cell in known.items()) / whole,
    )


def _is_worse(signal: str, cell: Share) -> bool:
    return (cell.compared(ENOUGH_VOTES).gain or 0.0) >= _LIMITS[signal] and cell.chance < SURE


def _others(score: Compared, time: Compared, database: list[Measure]) -> list[str]:
    said = []
    if (score.gain or 0.0) <= -0.05:
        said.append(f"Similarity of the best passage: {compared(score)}.")
    if (time.gain or 0.0) >= 0.5:
        said.append(f"Time in retrieval: {compared(time, 's')}.")
    for found in database:
        cell = Compared(now=found.value, baseline=found.baseline)
        if found.signal == "index_points" and cell.factor is not None and cell.factor <= 2 / 3:
            said.append(f"Points in the vector database: {compared(cell)}.")
        if found.signal == "vector_database_error_ratio" and (cell.gain or 0.0) >= 0.05:
            said.append(f"Failing calls in the vector database: {compared(cell, 'ratio')}.")
    return said


def _sources(kinds: Mapping[str, Mapping[Key, Share]], scores: Mapping[Key, Compared]) -> list[Measure]:
    """The data sources that bring less than they did; all of them where only the time tells."""
    found = [
        measure(signal, cell.compared(ENOUGH_VOTES), "ratio", ("data_source", source))
        for signal, cells in kinds.items()
        for (source,), cell in sorted(cells.items())
        if source and _is_worse(signal, cell)
    ]
    found += [
        measure("retrieval_score", cell, "", ("data_source", source))
        for (source,), cell in sorted(scores.items())
        if source and (cell.gain or 0.0) <= -0.05
    ]
    if found:
        return found
    everything = kinds["retrieval_unanswered_ratio"]
    return [
        measure("retrieval_unanswered_ratio", cell.compared(ENOUGH_VOTES), "ratio", ("data_source", source))
        for (source,), cell in sorted(everything.items())
        if source
    ]
