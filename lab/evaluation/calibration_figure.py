"""The calibration figure: what was said against what was right, per tenth of probability, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_calibration(bins: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Write a PNG of `scoring.calibration`'s bins. Raises OSError when the file cannot be written."""
    filled = [one for one in bins if one["n"]]
    figure = Figure(figsize=(6, 6), layout="constrained")
    FigureCanvasAgg(figure)
    shares, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    shares.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="as sure as it is right")
    right = [one["right"] for one in filled]
    low = [max(one["right"] - one["right_ci95"][0], 0.0) for one in filled]
    high = [max(one["right_ci95"][1] - one["right"], 0.0) for one in filled]
    shares.errorbar([one["said"] for one in filled], right, yerr=[low, high], fmt="o", capsize=3, label="diagnosis")
    shares.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share of first causes that were right", title=title)
    shares.legend(loc="upper left")
    counts.bar([one["from"] + 0.5 / len(bins) for one in bins], [one["n"] for one in bins], width=0.9 / len(bins))
    counts.set(xlabel="probability of the first cause", ylabel="cases")
    figure.savefig(path, format="png", dpi=120)
