"""
Whose answers got worse: a prompt version's, a model's, a route's, or a pod's?

Looks at every aspect of `output_quality` by prompt version, model and pod, in the same minutes. Bad when some of them
got worse beyond chance (Benjamini and Hochberg over all that had enough events). Only new versions mean the prompt;
some models while others answer as ever mean the model; some pods mean a sick GPU, or, when they share a revision that
the others do not have, a mixed rollout. When all are alike, look at what they share: retrieval, tools, the users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from diagnostics.answer_quality import (
    FEEDBACK,
    FORMAT,
    FORMATS,
    RESPONSES,
    SCORE,
    TRUNCATED,
    Aspect,
    Cells,
    Part,
    parts,
)
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look, spread
from diagnostics.places import Places, places
from diagnostics.proportions import NO_EVENTS, SURE, chance_of_shares, folded
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

_NEW = 0.05
_FORMAT_FLOOR = 0.005  # formats that hardly ever fail on the middle pod would make any ratio huge


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    found, where, routes = await asyncio.gather(parts(look), places(look), _routes(look))
    if found is None:
        raise CannotTellError(
            f"the application exports no responses by outcome ({RESPONSES}), format checks ({FORMATS}), "
            f"feedback ({FEEDBACK}) or judge scores"
        )
    if all(share.compared(aspect.enough).now is None for aspect, share in found.whole.items()):
        raise CannotTellError("too few answers were scored to compare versions, models or pods")
    measures = [
        *_new_version(found.versions),
        *_some("quality_some_models", found.models),
        *_some("quality_some_pods", found.pods),
        *_revision(found.pods, where),
        *_formats_apart(found.pods.cells.get(FORMAT, {})),
        *(one for part in (found.versions, found.models, found.pods) for one in _scoped(part)),
        *_scoped_routes(found.versions.worse.get(TRUNCATED, {}), routes),
    ]
    said = [
        *_sentences(found.versions, "prompt version"),
        *_sentences(found.models, "model"),
        *_sentences(found.pods, "pod"),
    ]
    if said:
        return Finding.bad("answers_apart", " ".join(said), *measures)
    return Finding.ok("answers_apart", "No version's, model's or pod's answers got worse than they were.", *measures)


async def _routes(look: Look) -> dict[tuple[str, str], set[str]]:
    """The routes that a prompt version serves."""
    by = ("route", "prompt_name", "prompt_version")
    found: dict[tuple[str, str], set[str]] = {}
    for (route, name, version), cell in (await look.rates("llm_app_requests_total", "application", by=by)).items():
        if route and cell.now:
            found.setdefault((name, version), set()).add(route)
    return found


def _new_version(part: Part) -> list[Measure]:
    """Whether only versions that are new answer worse; nothing where no version is named."""
    if not any(key[1] for by_key in part.cells.values() for key in by_key):
        return []
    bad = {key for by_key in part.worse.values() for key in by_key}
    has_new = bool(bad) and all(_is_new(key, part.cells) for key in bad)
    return [Measure(signal="quality_new_version", value=float(has_new), baseline=0.0)]


def _is_new(key: Key, cells: Mapping[Aspect, Cells]) -> bool:
    """Whether a version hardly answered for its prompt in the baseline, by the aspect that counts most events of it."""
    by_key = max(cells.values(), key=lambda own: own.get(key, NO_EVENTS).all_now)
    then = sum(share.all_then for other, share in by_key.items() if other[0] == key[0])
    return then > 0 and by_key[key].all_then < _NEW * then


def _some(signal: str, part: Part) -> list[Measure]:
    """Whether some answer worse while the others do not; nothing where there is only one to look at."""
    answers = [apart for aspect in part.cells if (apart := part.is_apart(aspect)) is not None]
    return [Measure(signal=signal, value=float(any(answers)), baseline=0.0)] if answers else []


def _revision(part: Part, where: Places) -> list[Measure]:
    """Whether the pods that answer worse run a revision that no other pod runs; nothing where revisions are unknown."""
    bad = {pod for by_key in part.worse.values() for (pod,) in by_key}
    others = {pod for by_key in part.cells.values() for (pod,) in by_key} - bad
    theirs = {where.revision_of(pod) for pod in bad}
    rest = {where.revision_of(pod) for pod in others} - {""}
    if not bad or "" in theirs or not rest:
        return []
    return [Measure(signal="quality_follows_revision", value=float(theirs.isdisjoint(rest)), baseline=0.0)]


def _formats_apart(pods: Cells) -> list[Measure]:
    """How many times the middle pod's share of invalid formats the worst pod has; 1 where that may be chance."""
    cells = {key: share for key, share in pods.items() if share.compared(FORMAT.enough).now is not None}
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


def _scoped(part: Part) -> list[Measure]:
    return [
        measure(aspect.signal, cell, _unit(aspect), *zip(part.labels, key, strict=True))
        for aspect, by_key in part.worse.items()
        for key, cell in sorted(by_key.items())
    ]


def _scoped_routes(truncated: Mapping[Key, Compared], routes: Mapping[tuple[str, str], set[str]]) -> list[Measure]:
    """The routes whose prompts are cut off: a limit is set per route, and responses do not name theirs."""
    found = {route: cell for (name, version), cell in truncated.items() for route in routes.get((name, version), ())}
    return [measure(TRUNCATED.signal, cell, "ratio", ("route", route)) for route, cell in sorted(found.items())]


def _sentences(part: Part, words: str) -> list[str]:
    said = []
    for aspect, by_key in part.worse.items():
        key, cell = max(by_key.items(), key=lambda entry: abs(entry[1].gain or 0.0))
        more = f" (and {len(by_key) - 1} more)" if len(by_key) > 1 else ""
        name = " ".join(value for value in key if value)
        said.append(f"{aspect.words} of {words} {name}{more}: {compared(cell, _unit(aspect))}.")
    return said


def _unit(aspect: Aspect) -> str:
    return "" if aspect is SCORE else "ratio"
