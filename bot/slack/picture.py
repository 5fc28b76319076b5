"""
The two pictures of a thread: where the time goes, normally and now; and the key signals around the onset.

Drawn by matplotlib without a display, in a thread, since it takes a few hundred milliseconds of CPU. Read on phones:
few words, large, dark on white; every colour has a word or a place beside it.
"""

from __future__ import annotations

import asyncio
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from string import ascii_uppercase
from typing import Any

from bot import narrate

# A phone shows 1,200 pixels over about 7 cm, so that 13 points here are some 2 mm there.
_WIDTH_IN, _DPI = 6.0, 200
_INK, _QUIET, _FAINT = "#1d1c1d", "#616061", "#e3e3e3"
# Of Okabe and Ito's colours, which colour-blind readers tell apart.
_NORMAL, _NOW, _CARRIES, _TROUBLE = "#9a9a9a", "#0072b2", "#d55e00", "#f7d9c8"
_LARGE, _TEXT, _SMALL = 15, 13, 11.5
_LONGEST = 62  # characters of a line of small text


@dataclass(frozen=True, kw_only=True)
class StageBar:
    """Mean seconds of one stage; None where it was not measured."""

    stage: str
    now_s: float | None
    baseline_s: float | None

    @property
    def gained_s(self) -> float:
        """By how much it grew; nothing where that is not known."""
        return 0.0 if self.now_s is None or self.baseline_s is None else self.now_s - self.baseline_s


@dataclass(frozen=True, kw_only=True)
class LatencyPicture:
    """The stages in the order in which a request passes them."""

    service: str
    stages: tuple[StageBar, ...]


@dataclass(frozen=True, kw_only=True)
class SignalPanel:
    """One signal over time; `points` are (time, value) pairs, oldest first, in the unit of `now` and `baseline`."""

    title: str
    unit: str
    now: float | None
    baseline: float | None
    points: tuple[tuple[datetime, float], ...]


@dataclass(frozen=True, kw_only=True)
class ChangeMark:
    """A change at its time; the culprit stands out."""

    at: datetime
    summary: str
    is_culprit: bool = False


@dataclass(frozen=True, kw_only=True)
class SignalsPicture:
    """Up to four signals over the same time, where the trouble began, and which changes came before it."""

    service: str
    panels: tuple[SignalPanel, ...]
    since: datetime | None = None
    until: datetime | None = None
    changes: tuple[ChangeMark, ...] = ()


Picture = LatencyPicture | SignalsPicture


async def draw(picture: Picture) -> bytes:
    """A PNG."""
    return await asyncio.to_thread(_draw, picture)


def describe(picture: Picture) -> str:
    """What the picture shows, for those who do not see it."""
    if isinstance(picture, SignalsPicture):
        signals = [f"{panel.title} {_moved(panel)}" for panel in picture.panels]
        since = f" The trouble began at {narrate.clock(picture.since)}." if picture.since else ""
        return f"Key signals of {picture.service}: " + ("; ".join(signals) or "none was measured") + f".{since}"
    parts = [
        f"{bar.stage} {narrate.seconds(bar.baseline_s)} to {narrate.seconds(bar.now_s)}"
        for bar in picture.stages
        if bar.now_s is not None and bar.baseline_s is not None
    ]
    return f"Latency of {picture.service}, baseline to now: " + (", ".join(parts) or "no stage was measured")


def _draw(picture: Picture) -> bytes:
    # The object-oriented interface keeps no global state, so that threads do not meet; pyplot would.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (0.3 s that only pictures need)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(_WIDTH_IN, 2.0), dpi=_DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    if isinstance(picture, SignalsPicture):
        _signals(figure, picture)
    else:
        _stages(figure, picture)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _stages(figure: Any, picture: LatencyPicture) -> None:
    """A pair of bars per stage with its numbers; the stages that carry the change have the warm colour."""
    shown = [bar for bar in picture.stages if _known(bar.now_s, bar.baseline_s)]
    gained = sum(max(bar.gained_s, 0.0) for bar in shown)
    figure.set_size_inches(_WIDTH_IN, 1.5 + 0.62 * max(len(shown), 1))
    title = f"Where a request's time goes: {picture.service}"
    figure.suptitle(_plain(title[:_LONGEST]), fontsize=_LARGE, color=_INK, x=0.02, ha="left")
    axes = figure.subplots()
    for row, bar in enumerate(shown):
        colour = _CARRIES if _stands_out(bar, gained) else _NOW
        axes.barh(row - 0.2, sum(_known(bar.baseline_s)), height=0.36, color=_NORMAL)
        axes.barh(row + 0.2, sum(_known(bar.now_s)), height=0.36, color=colour)
        axes.annotate(
            f"{_seconds(bar.baseline_s)} → {_seconds(bar.now_s)}", (max(_known(bar.now_s, bar.baseline_s)), row),
            xytext=(6, 0), va="center", textcoords="offset points", fontsize=_TEXT,
            color=colour if colour == _CARRIES else _INK,
        )  # fmt: skip
    widest = max((value for bar in shown for value in _known(bar.now_s, bar.baseline_s)), default=1.0)
    axes.set_xlim(0, max(widest, 1e-6) * 1.62)  # room for the numbers behind the longest bar
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [_plain(bar.stage.replace("_", " ")) for bar in shown])
    axes.set_xlabel("mean seconds: grey normally, coloured now", fontsize=_SMALL, color=_QUIET)
    _calm(axes)


def _stands_out(bar: StageBar, gained: float) -> bool:
    """It grew by a tenth, and carries a fifth of what all stages gained."""
    return bar.baseline_s is not None and bar.gained_s > max(0.1 * bar.baseline_s, 0.2 * gained)


def _signals(figure: Any, picture: SignalsPicture) -> None:
    """Small multiples with one time axis; letters at the top mark the changes that are named below."""
    panels = picture.panels
    marks = sorted(_within(picture), key=lambda mark: mark.at)
    figure.set_size_inches(_WIDTH_IN, 0.7 + 1.55 * max(len(panels), 1) + 0.4 * len(marks))
    if panels:
        every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for number, (axes, panel) in enumerate(zip(every, panels, strict=True)):
            _panel(axes, panel, picture)
            _mark(axes, marks, with_letters=number == 0)
        _clock(every[-1])
    legend = "\n".join(_line(letter, mark) for letter, mark in zip(ascii_uppercase, marks, strict=False))
    figure.supxlabel(_plain(legend) or "UTC", fontsize=_SMALL, color=_INK, x=0.02, ha="left")
    figure.suptitle(_plain(f"What moved: {picture.service}"), fontsize=_LARGE, color=_INK, x=0.02, ha="left")


def _line(letter: str, mark: ChangeMark) -> str:
    """A change in at most two lines."""
    text = f"{letter}  {narrate.clock(mark.at)}  {mark.summary}"
    return "\n".join(textwrap.wrap(text, _LONGEST, max_lines=2, placeholder=" …", subsequent_indent="     "))


def _panel(axes: Any, panel: SignalPanel, picture: SignalsPicture) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 (as above)

    points = [(at, value) for at, value in panel.points if math.isfinite(value)]
    axes.plot([at for at, _ in points], [value for _, value in points], color=_NOW, linewidth=2.2)
    if panel.baseline is not None and math.isfinite(panel.baseline):
        axes.axhline(panel.baseline, color=_NORMAL, linewidth=1.4, linestyle=":")
    if picture.since is not None:
        end = picture.until or max((at for at, _ in points), default=picture.since)
        axes.axvspan(picture.since, max(end, picture.since), color=_TROUBLE, linewidth=0, zorder=0)
    low, high = _range(panel, points)
    axes.set_ylim(low, high)
    title = "\n".join(textwrap.wrap(f"{panel.title}: {_moved(panel)}", 52))
    axes.set_title(_plain(title), loc="left", fontsize=_TEXT, color=_INK)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(narrate.amount(value, panel.unit))))
    _calm(axes)


def _range(panel: SignalPanel, points: Sequence[tuple[datetime, float]]) -> tuple[float, float]:
    """From zero, so that a small move looks small; a level far from zero (a clock, a temperature) is shown near."""
    values = [value for _, value in points] + _known(panel.baseline)
    highest, lowest = max(values, default=1.0), min(values, default=0.0)
    near = lowest > 0 and panel.unit not in {"s", "ratio", "1/s"} and lowest > 0.4 * highest
    top = highest + 0.25 * (highest - (lowest if near else 0.0)) or 1.0
    return (max(lowest - 0.25 * (highest - lowest), 0.0) if near else min(lowest, 0.0)), max(top, 1e-9)


def _mark(axes: Any, marks: Sequence[ChangeMark], *, with_letters: bool) -> None:
    for number, mark in enumerate(marks):
        colour = _CARRIES if mark.is_culprit else _QUIET
        axes.axvline(mark.at, color=colour, linewidth=2.4 if mark.is_culprit else 1.4, linestyle="--")
        if with_letters:
            axes.annotate(
                ascii_uppercase[number], (mark.at, 0.97), xycoords=("data", "axes fraction"), xytext=(-5, 0),
                textcoords="offset points", ha="right", va="top", fontsize=_LARGE, color=colour, fontweight="bold",
            )  # fmt: skip


def _within(picture: SignalsPicture) -> list[ChangeMark]:
    """The changes of the time that is drawn; with the culprit, four are told apart."""
    times = [at for panel in picture.panels for at, _ in panel.points]
    if not times:
        return []
    inside = [mark for mark in picture.changes if min(times) <= mark.at <= max(times)]
    return sorted(inside, key=lambda mark: not mark.is_culprit)[:4]


def _clock(axes: Any) -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter  # noqa: PLC0415 (as above)

    axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6, tz=UTC))  # type: ignore[no-untyped-call]  # untyped there
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M", tz=UTC))  # type: ignore[no-untyped-call]  # untyped there


def _moved(panel: SignalPanel) -> str:
    now = narrate.amount(panel.now, panel.unit)
    return now if panel.baseline is None else f"{narrate.amount(panel.baseline, panel.unit)} → {now}"


def _seconds(value: float | None) -> str:
    return narrate.seconds(value) if value is not None and math.isfinite(value) else "?"


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _plain(text: str) -> str:
    """Matplotlib would typeset text between dollar signs."""
    return text.replace("$", r"\$")


def _calm(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL, colors=_INK, length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
