"""
Whose answers got worse: a prompt version's, a model's, a route's, or a pod's?

Looks at every aspect of `output_quality` by prompt version, model and pod, in the same minutes. Bad when some of them
got worse beyond chance (Benjamini and Hochberg over all that had 200 events). Only new versions mean the prompt; some
models while others answer as ever mean the model; some pods mean a sick GPU, or, when they share a revision that the
others do not have, a mixed rollout. When all are alike, look at what they share: retrieval, tools, the users.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from diagnostics.answer_quality import (
    ASPECTS,
    BY_POD,
    FEEDBACK,
    FORMAT,
    FORMATS,
    RESPONSES,
    SCORE,
    TRUNCATED,
    Aspect,
    Cells,
    cells_of,
    every_aspect,
    service,
    worse,
)
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, spread
from diagnostics.places import Places, places
from diagnostics.proportions import NO_EVENTS, SURE, Share, chance_of_shares, folded
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

Worse = Mapping[Aspect, Mapping[Key, Compared]]

_NEW = 0.05
_REST = 0.4  # the others count as unharmed when they moved by less than this part of what the worse ones did
_FORMAT_FLOOR = 0.005  # formats that hardly ever fail on the middle pod would make any ratio huge


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    cells, pods, where, routes = await asyncio.gather(every_aspect(look), _by_pod(look), places(look), _routes(look))
    if not cells:
        raise CannotTellError(
            f"the application exports no responses by outcome ({RESPONSES}), format checks ({FORMATS}), "
            f"feedback ({FEEDBACK}) or judge scores"
        )
    if all(service(share).compared(aspect.enough).now is None for aspect, share in _by_aspect(cells).items()):
        raise CannotTellError("too few answers were scored to compare versions, models or pods")
    versions = {a: folded(share, 0, 1) for a, share in _by_aspect(cells).items()}
    models = {a: folded(share, 2) for a, share in _by_aspect(cells).items()}
    worse_versions, worse_models, worse_pods = _worse(versions), _worse(models), _worse(pods)
    measures = [
        *_new_version(versions, worse_versions),
        *_some("quality_some_models", models, worse_models),
        *_some("quality_some_pods", pods, worse_pods),
        *_revision(pods, worse_pods, where),
        *_formats_apart(pods),
        *_scoped(worse_versions, ("prompt_name", "prompt_version")),
        *_scoped(worse_models, ("model",)),
        *_scoped(worse_pods, ("pod",)),
        *_scoped_routes(worse_versions.get(TRUNCATED, {}), routes),
    ]
    said = _sentences(worse_versions, worse_models, worse_pods)
    if said:
        return Finding.bad("answers_apart", " ".join(said), *measures)
    return Finding.ok("answers_apart", "No version's, model's or pod's answers got worse than they were.", *measures)


async def _by_pod(look: Look) -> dict[Aspect, dict[Key, Share]]:
    found = await asyncio.gather(*(cells_of(look, aspect, BY_POD) for aspect in ASPECTS))
    return {
        aspect: {key: share for key, share in cells.items() if key[0]}
        for aspect, cells in zip(ASPECTS, found, strict=True)
    }


async def _routes(look: Look) -> dict[tuple[str, str], set[str]]:
    """The routes that a prompt version serves."""
    by = ("route", "prompt_name", "prompt_version")
    found: dict[tuple[str, str], set[str]] = {}
    for (route, name, version), cell in (await look.rates("llm_app_requests_total", "application", by=by)).items():
        if route and cell.now:
            found.setdefault((name, version), set()).add(route)
    return found


def _by_aspect(cells: Mapping[str, dict[Key, Share]]) -> dict[Aspect, dict[Key, Share]]:
    return {aspect: cells[aspect.signal] for aspect in ASPECTS if aspect.signal in cells}


def _worse(cells: Mapping[Aspect, Cells]) -> dict[Aspect, dict[Key, Compared]]:
    """Per aspect the named cells that got worse; an aspect without any is absent."""
    found = {}
    for aspect, by_key in cells.items():
        named = {key: share for key, share in by_key.items() if key[-1]}
        guilty = worse(aspect, named, service(by_key))
        if guilty:
            found[aspect] = guilty
    return found


def _new_version(cells: Mapping[Aspect, Cells], guilty: Worse) -> list[Measure]:
    """Whether only versions that are new answer worse; nothing where no version is named."""
    named = {key for by_key in cells.values() for key in by_key if key[1]}
    if not named:
        return []
    bad = {key for by_key in guilty.values() for key in by_key}
    has_new = bool(bad) and all(_is_new(key, cells) for key in bad)
    return [Measure(signal="quality_new_version", value=float(has_new), baseline=0.0)]


def _is_new(key: Key, cells: Mapping[Aspect, Cells]) -> bool:
    """Whether a version hardly answered in the baseline, by the aspect that counts most events of it."""
    seen = max((by_key.get(key, NO_EVENTS) for by_key in cells.values()), key=lambda share: share.all_now)
    siblings = [by_key for by_key in cells.values() if by_key.get(key, NO_EVENTS) is seen]
    then = sum(share.all_then for by_key in siblings[:1] for other, share in by_key.items() if other[0] == key[0])
    return then > 0 and seen.all_then < _NEW * then


def _some(signal: str, cells: Mapping[Aspect, Cells], guilty: Worse) -> list[Measure]:
    """Whether some answer worse while others, as well known, do not; nothing where there is only one to look at."""
    answers = []
    for aspect, by_key in cells.items():
        judged = {key for key, share in by_key.items() if key[-1] and share.compared(aspect.enough).gain is not None}
        if len(judged) > 1:
            bad = set(guilty.get(aspect, {}))
            answers.append(bool(bad) and _gain(by_key, judged - bad) < _REST * _gain(by_key, bad))
    return [Measure(signal=signal, value=float(any(answers)), baseline=0.0)] if answers else []


def _gain(cells: Cells, keys: set[Key]) -> float:
    """How far the share of these cells together has moved, in either direction; endless where nobody can say."""
    share = folded({key: cells[key] for key in keys}).get((), NO_EVENTS)
    gain = share.compared(1).gain
    return math.inf if gain is None else abs(gain)


def _revision(cells: Mapping[Aspect, Cells], guilty: Worse, where: Places) -> list[Measure]:
    """Whether the pods that answer worse run a revision that no other pod runs; nothing where revisions are unknown."""
    bad = {pod for by_key in guilty.values() for (pod,) in by_key}
    others = {pod for by_key in cells.values() for (pod,) in by_key} - bad
    theirs = {where.revision_of(pod) for pod in bad}
    rest = {where.revision_of(pod) for pod in others} - {""}
    if not bad or "" in theirs or not rest:
        return []
    return [Measure(signal="quality_follows_revision", value=float(theirs.isdisjoint(rest)), baseline=0.0)]


def _formats_apart(pods: Mapping[Aspect, Cells]) -> list[Measure]:
    """How many times the middle pod's share of invalid formats the worst pod has; 1 where that may be chance."""
    cells = {key: share for key, share in pods.get(FORMAT, {}).items() if share.compared(FORMAT.enough).now is not None}
    invalid = {key: 1 - share.hits_now / share.all_now for key, share in cells.items()}
    apart = spread([max(ratio, _FORMAT_FLOOR) for ratio in invalid.values()])
    if apart is None:
        return []
    top = max(invalid, key=lambda key: invalid[key])
    rest = folded({key: share for key, share in cells.items() if key != top}).get((), NO_EVENTS)
    if chance_of_shares(cells[top].hits_now, cells[top].all_now, rest.hits_now, rest.all_now) >= SURE:
        return [Measure(signal="format_spread", value=1.0, unit="x")]
    found = Measure(signal="format_spread", value=apart, unit="x")
    return [found, Measure(signal="format_spread", value=apart, unit="x", scope=(("pod", top[0]),))]


def _scoped(guilty: Worse, labels: Sequence[str]) -> list[Measure]:
    return [
        measure(aspect.signal, cell, _unit(aspect), *((label, value) for label, value in zip(labels, key, strict=True)))
        for aspect, by_key in guilty.items()
        for key, cell in sorted(by_key.items())
    ]


def _scoped_routes(truncated: Mapping[Key, Compared], routes: Mapping[tuple[str, str], set[str]]) -> list[Measure]:
    """The routes whose prompts are cut off: a limit is set per route, and responses do not name theirs."""
    found = {route: cell for (name, version), cell in truncated.items() for route in routes.get((name, version), ())}
    return [measure(TRUNCATED.signal, cell, "ratio", ("route", route)) for route, cell in sorted(found.items())]


def _sentences(*guilty: Worse) -> list[str]:
    said = []
    for by_aspect, words in zip(guilty, ("prompt version", "model", "pod"), strict=True):
        for aspect, by_key in by_aspect.items():
            key, cell = max(by_key.items(), key=lambda entry: abs(entry[1].gain or 0.0))
            more = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
            name = " ".join(part for part in key if part)
            said.append(f"{aspect.words} of {words} {name}{more}: {compared(cell, _unit(aspect))}.")
    return said


def _unit(aspect: Aspect) -> str:
    return "" if aspect is SCORE else "ratio"
