"""How sure a mean is: the scatter of its minutes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from diagnostics.look import Look
from diagnostics.telemetry.ask import mean_matrix

HISTORY = timedelta(minutes=100)
STEP = timedelta(minutes=1)
WINDOW = timedelta(minutes=2)
"""The onset asks for the same minutes, so within a diagnosis they are read once."""

_OVERLAP = math.sqrt(WINDOW / STEP)  # neighbouring points share half their window and tell less than their number

Points = Sequence[tuple[datetime, float]]


async def minutes(look: Look, histograms: Mapping[str, str]) -> dict[str, Points]:
    """Each serving histogram's mean per minute, under the name that it is given here."""
    at = look.frame.at
    where = look.where("serving")
    matrices = await asyncio.gather(
        *(
            mean_matrix(look.telemetry, histogram, where, WINDOW, at - HISTORY, at, STEP)
            for histogram in histograms.values()
        )
    )
    return {name: matrix.get((), ()) for name, matrix in zip(histograms, matrices, strict=True)}


def error_of_change(points: Points, look: Look) -> float | None:
    """
    The standard error of the change from the baseline's mean to the recent one; None for too few minutes.

    It is what resampling the minutes of both windows converges to; the windows' overlap is allowed for.
    """
    frame = look.frame
    now = [value for instant, value in points if frame.at - frame.recent + WINDOW <= instant <= frame.at]
    then = [value for instant, value in points if frame.baseline_start + WINDOW <= instant <= frame.baseline_end]
    if len(now) < 3 or len(then) < 3:
        return None
    return math.hypot(_error(now), _error(then))


def _error(values: Sequence[float]) -> float:
    middle = sum(values) / len(values)
    deviation = math.dist(values, [middle] * len(values)) / math.sqrt(len(values) - 1)  # a power would overflow
    return _OVERLAP * deviation / math.sqrt(len(values))


def difference(whole: Points, *parts: Points) -> Points:
    """What is left of a sum in each minute that all have."""
    known = [dict(part) for part in parts]
    return [
        (instant, value - sum(part[instant] for part in known))
        for instant, value in whole
        if all(instant in part for part in known)
    ]
