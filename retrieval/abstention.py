"""When to say "no runbook fits": every alert is asked once with its runbooks and once without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.benchmark import Case
from retrieval.candidates import Comparison, candidates
from retrieval.fusion import Weights
from retrieval.ranking import FLOOR

Shares = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """
    How sure the first answers were: the right ones (`right`), and those where no right one was there (`cannot`).

    `raw_right` and `raw_cannot` are BM25 scores of the same two, for comparison.
    """

    right: Shares
    cannot: Shares
    raw_right: Shares
    raw_cannot: Shares

    @property
    def auroc(self) -> float:
        """How often a right first answer is surer than one that cannot be right; 0.5 is chance."""
        return _auroc(self.right, self.cannot)

    @property
    def raw_auroc(self) -> float:
        """The same by BM25's score alone."""
        return _auroc(self.raw_right, self.raw_cannot)

    def figures(self) -> dict[str, float]:
        """At the floor: the share of right first answers that stay, and of alerts refused that nothing answers."""
        return {
            "floor": FLOOR,
            "right_kept": float((self.right >= FLOOR).mean()) if self.right.size else 0.0,
            "refused_without_its_runbook": float((self.cannot < FLOOR).mean()) if self.cannot.size else 0.0,
            "auroc": self.auroc,
            "auroc_raw_score": self.raw_auroc,
        }

    def curve(self, right: Shares, cannot: Shares) -> tuple[Shares, Shares]:
        """For every floor: the share of right answers missed, and of wrong ones suggested where nothing fits."""
        floors = np.unique(np.concatenate([right, cannot, [np.inf]]))
        missed = np.array([(right < floor).mean() for floor in floors])
        suggested = np.array([(cannot >= floor).mean() for floor in floors])
        return missed, suggested


def abstention(asked: Sequence[tuple[Case, Comparison]]) -> Abstention:
    """Judge the first answers to these questions, each with and without its right runbooks."""
    right, cannot, raw_right, raw_cannot = [], [], [], []
    for case, comparison in asked:
        words = comparison.corpus.keywords.body_scores(comparison.asked.stems)
        place = {document.doc_id: at for at, document in enumerate(comparison.corpus.documents)}
        with_it = candidates(comparison, Weights(), floor=0.0)
        if with_it and with_it[0].doc_id in case.relevance:
            right.append(with_it[0].score)
            raw_right.append(words[place[with_it[0].doc_id]])
        without = candidates(comparison, Weights(), floor=0.0, without=frozenset(case.relevance))
        cannot.append(without[0].score if without else 0.0)
        raw_cannot.append(words[place[without[0].doc_id]] if without else 0.0)
    return Abstention(
        right=np.array(right),
        cannot=np.array(cannot),
        raw_right=np.array(raw_right),
        raw_cannot=np.array(raw_cannot),
    )


def draw(found: Abstention, path: Path, title: str) -> None:
    """Wrong suggestions against missed ones, as PNG. Raises OSError."""
    from matplotlib.figure import Figure  # noqa: PLC0415  heavy, and only for this

    figure = Figure(figsize=(6, 5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*found.curve(found.right, found.cannot), label=f"probability (AUROC {found.auroc:.2f})", color="#0b5fff")
    axes.plot(
        *found.curve(found.raw_right, found.raw_cannot),
        label=f"BM25 score (AUROC {found.raw_auroc:.2f})",
        color="#888888",
        linestyle="--",
    )
    missed, suggested = (found.right < FLOOR).mean(), (found.cannot >= FLOOR).mean()
    axes.plot(missed, suggested, "o", color="#0b5fff")
    axes.annotate(
        f"floor {FLOOR:g}",
        (missed, suggested),
        textcoords="offset points",
        xytext=(60, 20),
        arrowprops={"arrowstyle": "-", "color": "#888888"},
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.set_xlabel("right runbooks missed")
    axes.set_ylabel("wrong runbooks suggested where none fits")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def _auroc(right: Shares, cannot: Shares) -> float:
    if not right.size or not cannot.size:
        return 0.5
    return float(((right[:, None] > cannot).mean() + (right[:, None] >= cannot).mean()) / 2)
