"""The lab's metric registry: series in one flat vector, rendered as Prometheus text with the lab's own timestamps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from math import isnan

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Key = tuple[str, tuple[tuple[str, str], ...]]
"""A family's name and a series' labels, in the order in which its exporter writes them."""

STEP = timedelta(seconds=15)
"""The scrape interval of the reference fleet; nothing in the lab changes between two steps."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A metric family. `steps` is how many scrape steps apart its exporter renews it (DCGM: 2, that is 30 s)."""

    name: str
    kind: str  # counter, gauge or histogram
    help: str
    steps: int = 1


def counter(name: str, text: str) -> Family:
    return Family(name=name, kind="counter", help=text)


def histogram(name: str, text: str) -> Family:
    return Family(name=name, kind="histogram", help=text)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of a family: its name as written in a sample line and its place in the vector."""

    family: Family
    text: str  # `name{label="value",...}`
    index: int
    labels: Mapping[str, str]

    @property
    def is_bucket(self) -> bool:
        return self.family.kind == "histogram" and "le" in self.labels


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The places of one histogram: cumulative buckets (the last is +Inf), then sum, then count."""

    bounds: Floats
    first: int

    @property
    def buckets(self) -> slice:
        return slice(self.first, self.first + len(self.bounds) + 1)

    @property
    def sum(self) -> int:
        return self.first + len(self.bounds) + 1

    @property
    def count(self) -> int:
        return self.first + len(self.bounds) + 2


@dataclass(kw_only=True)
class Registry:
    """
    Every series there is. Values live in one vector, so that a snapshot for the history is one copy.

    A series that vanished (its pod is gone) holds NaN and is not written any more.
    """

    values: Floats = field(default_factory=lambda: np.zeros(0))  # the part of `_room` that is taken
    series: list[Series] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)  # places that nobody reads right now, though they count on
    _room: Floats = field(default_factory=lambda: np.zeros(256))
    _places: dict[_Key, int] = field(default_factory=dict)
    _histograms: dict[_Key, Histogram] = field(default_factory=dict)

    def place(self, family: Family, labels: Mapping[str, str]) -> int:
        """The place of a counter or gauge, made with the value 0 when it is new."""
        key = (family.name, tuple(labels.items()))
        found = self._places.get(key)
        if found is None:
            found = self._places[key] = self._append(family, family.name + label_text(labels), labels)
        return found

    def histogram(self, family: Family, bounds: Sequence[float], labels: Mapping[str, str]) -> Histogram:
        """
        The places of a histogram, made empty when it is new or had vanished. `bounds` are upper bounds without +Inf.
        """
        key = (family.name, tuple(labels.items()))
        if key not in self._histograms:
            first = len(self.series)
            for bound in (*(f"{b:g}" if b < 1e6 else f"{b:.0f}" for b in bounds), "+Inf"):
                bucket = {**labels, "le": bound}
                self._append(family, f"{family.name}_bucket{label_text(bucket)}", bucket)
            self._append(family, f"{family.name}_sum{label_text(labels)}", labels)
            self._append(family, f"{family.name}_count{label_text(labels)}", labels)
            self._histograms[key] = Histogram(bounds=np.asarray(bounds, dtype=float), first=first)
        found = self._histograms[key]
        if np.isnan(self.values[found.count]):  # its container started again
            self.values[found.first : found.count + 1] = 0.0
        return found

    def _append(self, family: Family, text: str, labels: Mapping[str, str]) -> int:
        index = len(self.series)
        self.series.append(Series(family=family, text=text, index=index, labels=dict(labels)))
        if index == len(self._room):
            self._room = np.concatenate((self._room, np.zeros(len(self._room))))
        self.values = self._room[: index + 1]
        return index

    def has(self, family: Family, labels: Mapping[str, str]) -> bool:
        """Whether there is, or was, such a counter or gauge."""
        return (family.name, tuple(labels.items())) in self._places

    def visible(self) -> Floats:
        """A copy of all values, with NaN where nobody reads."""
        values = self.values.copy()
        values[list(self.hidden)] = np.nan
        return values

    def set(self, family: Family, labels: Mapping[str, str], value: float) -> None:
        place = self.place(family, labels)
        self.values[place] = value

    def add(self, family: Family, labels: Mapping[str, str], amount: float) -> None:
        place = self.place(family, labels)
        self.values[place] = amount + (0.0 if np.isnan(self.values[place]) else self.values[place])

    def spread(
        self,
        rng: np.random.Generator,
        family: Family,
        about: Mapping[str, str],
        over: tuple[str, Mapping[str, float]],
        n: int,
    ) -> None:
        """
        Draw how n events fall on one label's values (name, and value -> share), and count them.

        Every value exists from the first call on, so that a rate can see it rise.
        """
        label, shares = over
        whole = sum(shares.values())
        drawn = rng.multinomial(n, [share / whole for share in shares.values()]).tolist()
        for value, amount in zip(shares, drawn, strict=True):
            self.add(family, {**about, label: value}, amount)

    def observe(self, histogram: Histogram, samples: Floats, weight: int = 1) -> None:
        """Count samples (each standing for `weight` observations) into the histogram."""
        if not samples.size:
            return
        landed = np.searchsorted(histogram.bounds, samples, side="left")
        counts = np.bincount(landed, minlength=len(histogram.bounds) + 1).cumsum() * weight
        self.values[histogram.buckets] += counts
        self.values[histogram.sum] += float(samples.sum()) * weight
        self.values[histogram.count] += samples.size * weight

    def forget(self, label: str, gone: Iterable[str], *, prefix: str = "") -> None:
        """
        Let every series with one of these label values vanish, as an exporter does when its pod is gone.

        `prefix` names the families that vanish, where an exporter lives on and only another one has died.
        """
        values = set(gone)
        for series in self.series if values else ():
            if series.labels.get(label) in values and series.family.name.startswith(prefix):
                self.values[series.index] = np.nan

    def families(self, only: AbstractSet[str] | None = None) -> dict[Family, list[Series]]:
        """Series by family, in order of creation; a format wants a family's lines together. `only` names families."""
        grouped: dict[Family, list[Series]] = {}
        for series in self.series:
            if only is None or series.family.name in only:
                grouped.setdefault(series.family, []).append(series)
        return grouped


def label_text(labels: Mapping[str, str]) -> str:
    """Labels as written in a sample line; values are escaped as both text formats ask."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """A sample's value, short and exact enough: integers stay integers, the rest has ten significant digits."""
    return str(int(value)) if value.is_integer() else f"{value:.10g}"


def render(registry: Registry, step: int, start_ms: int, *, only: AbstractSet[str] | None = None) -> str:
    """
    The text exposition (format 0.0.4) at one step, each line with its explicit lab time in milliseconds.

    `start_ms` is the time of step 0. A family that is renewed every second step carries the time of its renewal.
    `only` names the families that are wanted.
    """
    lines: list[str] = []
    step_ms = int(STEP.total_seconds() * 1000)
    values = registry.visible().tolist()
    for family, members in registry.families(only).items():
        stamp = start_ms + (step - step % family.steps) * step_ms
        body = [f"{s.text} {number(values[s.index])} {stamp}" for s in members if not isnan(values[s.index])]
        if body:
            lines += (f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}", *body)
    return "\n".join(lines) + "\n"
