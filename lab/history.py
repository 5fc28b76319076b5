"""The past as a file: OpenMetrics text with timestamps, thinned so that two hours load within seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from lab.exposition import STEP, Floats, Registry, Series, label_text, number

Rename = Callable[[Mapping[str, str]], Mapping[str, str]]

BUCKET_STEPS = 4
"""Buckets are kept once a minute: they are most of the series and only quantiles need them."""

KEEP_ALIVE_STEPS = 16
"""An unchanged series is kept every four minutes, within the five after which Prometheus calls it gone."""


@dataclass(kw_only=True)
class History:
    """Snapshots of a registry, one per step; series that came later are absent (NaN) before."""

    start: datetime
    rows: list[Floats] = field(default_factory=list)

    def record(self, registry: Registry) -> None:
        self.rows.append(registry.visible())

    def matrix(self, width: int) -> Floats:
        """Steps x series."""
        table = np.full((len(self.rows), width), np.nan)
        for step, row in enumerate(self.rows):
            table[step, : len(row)] = row
        return table

    def write(
        self,
        registry: Registry,
        path: Path,
        *,
        only: AbstractSet[str] | None = None,
        every: int = 1,
        bucket_steps: int = BUCKET_STEPS,
        without_buckets: AbstractSet[str] = frozenset(),
        rename: Rename | None = None,
    ) -> int:
        """
        Write the file whole, by way of a neighbour with another name, and return the number of samples.

        `only` names the families that are wanted. `every` keeps each so-many-th step only, as a slower scrape does, and
        `bucket_steps` is the same for buckets; `without_buckets` names histograms of which only sum and count are kept.
        `rename` may give labels other values.

        OpenMetrics has no counters without `_total` in their name, so such ones (DCGM's) are declared `unknown`.
        """
        table = self.matrix(len(registry.series))
        samples = 0
        draft = path.with_suffix(".part")
        with draft.open("w", encoding="utf-8") as file:
            for family, members in registry.families(only).items():
                counts = family.kind == "counter"
                name = family.name.removesuffix("_total") if counts else family.name
                kind = "unknown" if counts and name == family.name else family.kind
                file.write(f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n")
                for series in members:
                    if series.is_bucket and family.name in without_buckets:
                        continue
                    apart = max(every, bucket_steps if series.is_bucket else series.family.steps)
                    lines = self._lines(_text(series, rename), table[:, series.index], apart)
                    samples += len(lines)
                    file.writelines(lines)
            file.write("# EOF\n")
        draft.replace(path)
        return samples

    def _lines(self, text: str, values: Floats, apart: int) -> list[str]:
        steps = kept_steps(values, every=apart)
        start_s, step_s = int(self.start.timestamp()), int(STEP.total_seconds())
        return [
            f"{text} {number(value)} {start_s + step * step_s}\n"
            for step, value in zip(steps.tolist(), values[steps].tolist(), strict=True)
        ]


def _text(series: Series, rename: Rename | None) -> str:
    if rename is None:
        return series.text
    return series.text.partition("{")[0] + label_text(rename(series.labels))


def kept_steps(values: Floats, *, every: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """
    The steps of one series that are worth a line.

    Of every `every`th step, those around a change, the first, the last and one per four minutes: a rate over any
    window comes out the same as from all of them.
    """
    steps = np.arange(0, len(values), every)
    sampled = values[steps]
    changed = np.diff(sampled, prepend=np.nan) != 0  # a comparison with NaN is a change, too
    keep = changed | np.append(changed[1:], True)
    keep |= steps % KEEP_ALIVE_STEPS < every
    kept: np.ndarray[tuple[int], np.dtype[np.intp]] = steps[keep & ~np.isnan(sampled)]
    return kept
