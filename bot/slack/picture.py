"""
The latency picture: where the time to the first token goes, normally and now, and how it moved.

Drawn by matplotlib without a display, in a thread, since it takes a few hundred milliseconds of CPU.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bot import narrate

# Slack shows a picture about 720 px wide; twice that stays sharp.
_WIDTH_IN, _DPI = 7.2, 200
_INK, _FAINT, _ALARM = "#1d1c1d", "#9a9a9a", "#a30200"
# Okabe and Ito's colours: told apart by colour-blind readers too.
_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#f0e442", "#999999")


@dataclass(frozen=True, kw_only=True)
class StageBar:
    """Mean seconds of one stage; None where it was not measured."""

    stage: str
    now_s: float | None
    baseline_s: float | None


@dataclass(frozen=True, kw_only=True)
class LatencyPicture:
    """`ttft` are (time, seconds) pairs, oldest first; `since` and `budget_s` are drawn when they are known."""

    service: str
    stages: tuple[StageBar, ...]
    ttft: tuple[tuple[datetime, float], ...] = ()
    since: datetime | None = None
    budget_s: float | None = None
    budget_label: str = "budget"


async def draw(picture: LatencyPicture) -> bytes:
    """A PNG."""
    return await asyncio.to_thread(_draw, picture)


def describe(picture: LatencyPicture) -> str:
    """What the picture shows, for those who do not see it."""
    parts = [
        f"{bar.stage} {narrate.seconds(bar.baseline_s)} to {narrate.seconds(bar.now_s)}"
        for bar in picture.stages
        if bar.now_s is not None and bar.baseline_s is not None
    ]
    return f"Latency of {picture.service}, baseline to now: " + (", ".join(parts) or "no stage was measured")


def _draw(picture: LatencyPicture) -> bytes:
    # The object-oriented interface keeps no global state, so that threads do not meet; pyplot would.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (0.3 s that only pictures need)
    from matplotlib.figure import Figure  # noqa: PLC0415

    points = [(at, value) for at, value in picture.ttft if math.isfinite(value)]
    rows = 2 if len(points) >= 2 else 1
    figure = Figure(figsize=(_WIDTH_IN, 1.9 + 2.1 * (rows - 1)), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    _bars(axes[0], picture.stages)
    if rows == 2:
        _line(axes[1], picture, points)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _bars(axes: Any, stages: Sequence[StageBar]) -> None:
    """Two stacked bars: what stays grey in the memory is the width of the colour that grew."""
    totals = [0.0, 0.0]  # baseline, now
    shown = [bar for bar in stages if bar.now_s is not None or bar.baseline_s is not None]
    for index, bar in enumerate(shown):
        for row, value in enumerate((bar.baseline_s, bar.now_s)):
            width = value if value is not None and math.isfinite(value) else 0.0
            axes.barh(
                row, width, left=totals[row], height=0.6, color=_COLOURS[index % len(_COLOURS)],
                label=_plain(bar.stage) if row == 1 else None, edgecolor="white", linewidth=0.6,
            )  # fmt: skip
            totals[row] += width
    for row, total in enumerate(totals):
        axes.annotate(
            narrate.seconds(total),
            (total, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
            fontsize=9,
        )
    axes.set_xlim(0, max(*totals, 1e-6) * 1.12)
    axes.set_yticks([0, 1], ["baseline", "now"])
    axes.set_ylim(1.5, -0.5)
    axes.set_title("Time to first token by stage (mean)", loc="left", fontsize=10, color=_INK)
    axes.set_xlabel("seconds", fontsize=8, color=_INK)
    if shown:
        axes.legend(ncols=min(len(shown), 6), fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.28))
    _calm(axes)


def _line(axes: Any, picture: LatencyPicture, points: Sequence[tuple[datetime, float]]) -> None:
    from matplotlib.dates import DateFormatter  # noqa: PLC0415 (as above)

    axes.plot([at for at, _ in points], [value for _, value in points], color=_COLOURS[4], linewidth=1.6)
    if picture.since is not None and points[0][0] <= picture.since <= points[-1][0]:
        axes.axvline(picture.since, color=_ALARM, linewidth=1, linestyle="--")
        axes.annotate(
            f" since {narrate.clock(picture.since)}", (picture.since, 0.04), xycoords=("data", "axes fraction"),
            va="bottom", fontsize=8, color=_ALARM,
        )  # fmt: skip
    if picture.budget_s is not None:
        axes.axhline(picture.budget_s, color=_FAINT, linewidth=1, linestyle=":")
        label = f"{_plain(picture.budget_label)} {narrate.seconds(picture.budget_s)}"
        axes.annotate(
            label, (0, picture.budget_s), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=_FAINT
        )
    highest = max([value for _, value in points] + ([picture.budget_s] if picture.budget_s is not None else []))
    axes.set_ylim(0, max(highest, 1e-6) * 1.2)
    axes.set_title("Time to first token (s), over time (UTC)", loc="left", fontsize=10, color=_INK)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M", tz=UTC))  # type: ignore[no-untyped-call]  # untyped there
    _calm(axes)


def _plain(text: str) -> str:
    """Matplotlib would typeset text between dollar signs."""
    return text.replace("$", r"\$")


def _calm(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_INK, length=0)
    axes.grid(axis="both", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
