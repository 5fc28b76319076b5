"""
How good the answers are, by what the application says of them: outcomes, formats, votes and a judge's scores.

The checks ask here, in few questions by several labels at once, so that looking at versions, models and pods costs
the telemetry no more than looking at the service.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from diagnostics.look import NOTHING, Compared, Look
from diagnostics.proportions import (
    ENOUGH_EVENTS,
    ENOUGH_VOTES,
    NO_EVENTS,
    SURE,
    Share,
    chance_of_shares,
    discoveries,
    folded,
    probability_of_higher,
    shares,
)
from diagnostics.telemetry.model import Key

RESPONSES = "llm_app_responses_total"
FORMATS = "llm_app_format_checks_total"
FEEDBACK = "llm_app_feedback_total"
JUDGE = "llm_app_judge_score"

BY_VERSION = ("prompt_name", "prompt_version", "model")
BY_POD = ("pod",)
_HARDLY = 0.05  # a version with less than this share of the baseline is new
_OFTEN = 0.2
_SURE_OF_MANY = 0.003  # six aspects, each by version, model and pod: healthy services must not seem to suffer somewhere
_REST = 0.4  # the others count as unharmed when they moved by less than this part of what the worse ones did

BY_EVALUATOR = ("prompt_name", "prompt_version", "model", "evaluator_version")


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """
    One way in which answers are good or bad.

    `loss` is the change of the share that counts as worse (negative where more is better); `times` how many times the
    old share it must be as well. `matters` is the smallest change that is evidence of anything.
    """

    signal: str
    metric: str
    label: str
    hit: str
    words: str
    loss: float
    matters: float
    times: float = 1.0
    enough: float = ENOUGH_EVENTS

    def is_worse(self, cell: Compared) -> bool:
        """By enough to matter; whether it is chance is another question."""
        gain = cell.gain
        if gain is None:
            return False
        if self.loss < 0:
            return gain <= self.loss
        return gain >= self.loss and (cell.now or 0.0) >= self.times * (cell.baseline or 0.0)

    def is_harmed(self, cell: Compared) -> bool:
        """Worse by what matters: little for the service, but enough to say where it suffers."""
        gain = cell.gain
        return gain is not None and (gain <= -self.matters if self.loss < 0 else gain >= self.matters)

    def is_measured(self, cell: Share) -> bool:
        """Whether the share says anything: it moved beyond chance, or chance would not move it by what matters."""
        ratio = cell.compared(self.enough)
        if ratio.now is None:
            return False
        usual = ratio.now if ratio.baseline is None else ratio.baseline
        deviation = _SCORE_DEVIATION if self is SCORE else math.sqrt(max(usual * (1 - usual), 0.0))
        error = deviation / math.sqrt(cell.all_now)
        return 2 * error <= self.matters or (ratio.baseline is not None and cell.chance < SURE)

    def chance(self, cell: Share) -> float:
        """How often chance alone makes the share this much worse."""
        return self._against(cell, cell.hits_then, cell.all_then)

    def chance_against(self, cell: Share, normal: Share) -> float:
        """The same for a cell held against another one's past."""
        return self._against(cell, normal.hits_then, normal.all_then)

    def _against(self, cell: Share, hits: float, everything: float) -> float:
        if self is THUMBS:
            return 1 - probability_of_higher(cell.hits_now, cell.all_now, hits, everything)
        if self is SCORE:
            return _chance_of_scores(cell.hits_now, cell.all_now, hits, everything)
        return chance_of_shares(cell.hits_now, cell.all_now, hits, everything)


FORMAT = Aspect(
    signal="format_valid_ratio",
    metric=FORMATS,
    label="result",
    hit="valid",
    words="Valid formats",
    loss=-0.02,
    matters=0.02,
)
REFUSAL = Aspect(
    signal="refusal_ratio",
    metric=RESPONSES,
    label="outcome",
    hit="refusal",
    words="Refusals",
    loss=0.03,
    matters=0.015,
    times=2.0,
)
EMPTY = Aspect(
    signal="empty_answer_ratio",
    metric=RESPONSES,
    label="outcome",
    hit="empty",
    words="Empty answers",
    loss=0.008,
    matters=0.008,
    times=5.0,
    enough=1000.0,  # two in a thousand are empty: among a few hundred, three more are chance
)
TRUNCATED = Aspect(
    signal="length_finish_ratio",
    metric=RESPONSES,
    label="outcome",
    hit="truncated",
    words="Truncated answers",
    loss=0.1,
    matters=0.06,
)
THUMBS = Aspect(
    signal="thumbs_down_ratio",
    metric=FEEDBACK,
    label="rating",
    hit="down",
    words="Thumbs down",
    loss=0.02,
    matters=0.03,
    times=1.5,
    enough=ENOUGH_VOTES,
)
SCORE = Aspect(
    signal="judge_score",
    metric=JUDGE,
    label="",
    hit="",
    words="Judge's score",
    loss=-0.04,
    matters=0.04,
    enough=ENOUGH_VOTES,
)

_SCORE_DEVIATION = 0.25
"""A judge's scores vary by about 0.2; a little more keeps the test on the safe side."""

ASPECTS = (FORMAT, REFUSAL, EMPTY, TRUNCATED, THUMBS, SCORE)

Cells = Mapping[Key, Share]


def _chance_of_scores(sum_1: float, n_1: float, sum_0: float, n_0: float) -> float:
    if n_1 <= 0 or n_0 <= 0:
        return 1.0
    error = _SCORE_DEVIATION * math.sqrt(1 / n_1 + 1 / n_0)
    return math.erfc(abs(sum_1 / n_1 - sum_0 / n_0) / (error * math.sqrt(2)))


async def cells_of(look: Look, aspect: Aspect, by: tuple[str, ...]) -> dict[Key, Share]:
    """The aspect's share per group in both windows; empty where it is not exported."""
    if aspect is not SCORE:
        rates = await look.rates(aspect.metric, "application", by=(*by, aspect.label))
        return shares(rates, look.frame, lambda kind: kind == aspect.hit)
    sums, counts = await asyncio.gather(
        look.rates(f"{JUDGE}_sum", "application", by=by), look.rates(f"{JUDGE}_count", "application", by=by)
    )
    now_s, then_s = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    found = {}
    for key, count in counts.items():
        scored = sums.get(key, NOTHING)
        found[key] = Share(
            hits_now=(scored.now or 0.0) * now_s,
            all_now=(count.now or 0.0) * now_s,
            hits_then=(scored.baseline or 0.0) * then_s,
            all_then=(count.baseline or 0.0) * then_s,
        )
    return found


async def every_aspect(look: Look) -> dict[str, dict[Key, Share]]:
    """Each aspect that is exported, by prompt name, prompt version and model; the judge's also by its own version."""
    found = await asyncio.gather(
        *(cells_of(look, aspect, BY_EVALUATOR if aspect is SCORE else BY_VERSION) for aspect in ASPECTS)
    )
    return {aspect.signal: cells for aspect, cells in zip(ASPECTS, found, strict=True) if cells}


def service(cells: Cells) -> Share:
    """All cells in one."""
    return folded(cells).get((), NO_EVENTS)


def worse(aspect: Aspect, cells: Cells, usual: Share) -> dict[Key, Compared]:
    """
    The cells whose answers got worse, beyond chance and by enough to matter, each against its own past.

    A cell that is new, or had too few events, is held against what was usual for the service.
    """
    asked: list[tuple[Key, Compared, float]] = []
    for key, cell in cells.items():
        own = cell.compared(aspect.enough)
        normal = cell if own.baseline is not None else usual
        against = Compared(now=own.now, baseline=normal.compared(aspect.enough).baseline)
        if against.gain is not None:
            asked.append((key, against, aspect.chance_against(cell, normal)))
    held = discoveries([chance for _, _, chance in asked], q=_SURE_OF_MANY)
    return {
        key: against
        for (key, against, _), holds in zip(asked, held, strict=True)
        if holds and aspect.is_harmed(against)
    }


def new_evaluators(cells: Cells) -> list[str]:
    """The judge's versions that score a fifth of the answers now and hardly any before; none without a past."""
    versions = folded(cells, BY_EVALUATOR.index("evaluator_version"))
    whole = service(cells)
    if whole.all_now <= 0 or whole.all_then <= 0:
        return []
    return sorted(
        name
        for (name,), share in versions.items()
        if name and share.all_now >= _OFTEN * whole.all_now and share.all_then < _HARDLY * whole.all_then
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    One way to part the answers (by version, model or pod): each aspect's cells, and those that got worse.

    `within` parts them once more, with the same last label: a model is the place only where all its versions suffer.
    """

    labels: tuple[str, ...]
    cells: Mapping[Aspect, Cells]
    worse: Mapping[Aspect, Mapping[Key, Compared]]
    within: Mapping[Aspect, Cells] = field(default_factory=dict)

    def is_apart(self, aspect: Aspect) -> bool | None:
        """Whether some cells got worse while the others, as well known, did not; None with fewer than two of them."""
        cells = self.cells.get(aspect, {})
        known = {key for key, share in cells.items() if key[-1] and share.compared(aspect.enough).gain is not None}
        bad = set(self.worse.get(aspect, {}))
        if len(known | bad) < 2:
            return None
        return bool(bad) and _is_alone(cells, bad, known - bad) and self._is_whole(aspect, bad)

    def _is_whole(self, aspect: Aspect, bad: set[Key]) -> bool:
        cells = {key: share for key, share in self.within.get(aspect, {}).items() if (key[-1],) in bad}
        suffering = set(worse(aspect, cells, service(cells)))
        others = {key for key in cells.keys() - suffering if cells[key].compared(aspect.enough).gain is not None}
        return not suffering or not others or not _is_alone(cells, suffering, others)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The answers by prompt name and version, by model and by pod; and all of them, by aspect."""

    whole: Mapping[Aspect, Share]
    judged: Cells  # the judge's scores by its own version too, see BY_EVALUATOR
    versions: Part
    models: Part
    pods: Part

    def is_apart(self, aspect: Aspect) -> bool:
        """Whether the aspect got worse in one place only, so that its mean over the service hides how much."""
        return any(part.is_apart(aspect) for part in (self.versions, self.models, self.pods))


async def parts(look: Look) -> Parts | None:
    """The answers, parted; None where nothing about them is exported."""
    named, by_pod = await asyncio.gather(every_aspect(look), _by_pod(look))
    if not named:
        return None
    cells = {aspect: named[aspect.signal] for aspect in ASPECTS if aspect.signal in named}
    whole = {aspect: service(own) for aspect, own in cells.items()}
    if new_evaluators(cells.get(SCORE, {})):  # a new judge scores all alike, so it says nothing about any place
        cells.pop(SCORE)
        by_pod.pop(SCORE, None)
    cells_by_version = {aspect: folded(own, 0, 1, 2) for aspect, own in cells.items()}
    return Parts(
        whole=whole,
        judged=named.get(SCORE.signal, {}),
        versions=_part(("prompt_name", "prompt_version"), {a: folded(own, 0, 1) for a, own in cells.items()}),
        models=replace(_part(("model",), {a: folded(own, 2) for a, own in cells.items()}), within=cells_by_version),
        pods=_part(BY_POD, by_pod),
    )


async def _by_pod(look: Look) -> dict[Aspect, dict[Key, Share]]:
    found = await asyncio.gather(*(cells_of(look, aspect, BY_POD) for aspect in ASPECTS))
    return {
        aspect: {key: share for key, share in cells.items() if key[0]}
        for aspect, cells in zip(ASPECTS, found, strict=True)
    }


def _part(labels: tuple[str, ...], cells: Mapping[Aspect, Cells]) -> Part:
    found = {}
    for aspect, by_key in cells.items():
        guilty = worse(aspect, {key: share for key, share in by_key.items() if key[-1]}, service(by_key))
        if guilty:
            found[aspect] = guilty
    return Part(labels=labels, cells=cells, worse=found)


def _is_alone(cells: Cells, bad: set[Key], others: set[Key]) -> bool:
    """Whether the others together moved by much less than those that got worse."""
    return _moved(cells, others) < _REST * _moved(cells, bad, service(cells))


def _moved(cells: Cells, keys: set[Key], usual: Share | None = None) -> float:
    """How far the share of these cells together moved, from their own past or the usual one; endless if unknown."""
    share = folded({key: cells[key] for key in keys}).get((), NO_EVENTS)
    cell = share.compared(1)
    baseline = usual.compared(1).baseline if cell.baseline is None and usual is not None else cell.baseline
    return math.inf if cell.now is None or baseline is None else abs(cell.now - baseline)
