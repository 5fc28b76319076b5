"""The result of an evaluation for people: tables on a terminal, the same as plain text anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

Figures = Mapping[str, Any]

_LEAST_WIDTH = 136
_FOUND = ("", "n", "AC@1", "AC@3", "culprit", "culprit if any", "scope F1", "p95 s")
_RESTRAINT = ("", "n", "class", "false accusation", "confident-wrong", "abstention", "ECE")


class Report:
    """Writes to `file`; rich when that is a terminal."""

    def __init__(self, file: TextIO | None = None) -> None:
        target = file or sys.stdout
        self._is_terminal = target.isatty()
        self._console = Console(file=target, highlight=False, markup=False, soft_wrap=True)
        self._console.width = max(self._console.width, _LEAST_WIDTH)  # a cut figure is worse than a wrapped line

    def evaluation(self, result: Figures) -> None:
        """Everything that `evaluate` found, worst pairs and skipped cases last."""
        self._head(result)
        groups = {name.replace("_", " "): part for name, part in result["groups"].items() if name != "pairs"}
        baselines = {f"baseline: {name.replace('_', ' ')}": part for name, part in result["baselines"].items()}
        self._figures("all", {"all": result, **groups, **baselines})
        self._apart(result["groups"])
        self._figures("by class", {**result["per_class"], "all": result})
        self._causes(result["per_cause"])
        self._confusion(result["confusion"])
        self._calibration(result["calibration"])
        self._skipped(result["skipped_cases"])
        for check, count in result["failed_checks"].items():
            self._say(f"failed by a defect of its own in {count} cases: {check}")

    def comparison(self, result: Figures) -> None:
        """What `compare` found."""
        self._figures("both telemetries", {name: result[name] for name in ("recorder", "prometheus")})
        self._say(f"{len(result['different'])} of {result['n']} answers differ")
        for one in result["different"]:
            self._say(f"  {one['case']}: {one['why']}")
        self._say(f"again: {result['command']}")

    def _head(self, result: Figures) -> None:
        self._say(f"diagnosis of {result['n']} cases through the {result['telemetry']}, {result['skipped']} skipped")
        self._say("shares in per cent with their Wilson 95 % interval")
        for made in result["manifests"]:
            self._say(f"{made.get('count', 'some')} cases of seed {made.get('seed')}: {made.get('command')}")
        if result["left_out"] is not None:
            self._say("each case without its own cause in the knowledge base")
        self._say(f"again: {result['command']}")

    def _apart(self, groups: Figures) -> None:
        """Half magnitude and pairs have figures of their own."""
        half, pairs = groups.get("half_magnitude"), groups.get("pairs")
        if half is not None:
            self._say(
                f"half magnitude, {half['n']} cases: AC@3 {_with_interval(half, 'ac3')}, abstained "
                f"{_with_interval(half, 'abstained')}, AC@3 where it spoke {_with_interval(half, 'ac3_when_it_spoke')}"
            )
        if pairs is not None:
            self._say(
                f"two faults at once, {pairs['n']} cases: both among three {_with_interval(pairs, 'both_in_3')}, "
                f"confident and wrong {_with_interval(pairs, 'confident_wrong')}"
            )

    def _figures(self, title: str, rows: Mapping[str, Figures]) -> None:
        self._table(f"{title}: what was found, per cent", _FOUND, (_found(name, part) for name, part in rows.items()))
        self._table(
            f"{title}: class and restraint, per cent",
            _RESTRAINT,
            (_restraint(name, part) for name, part in rows.items()),
        )

    def _causes(self, causes: Figures) -> None:
        self._table(
            "by cause, per cent",
            ("", "n", "AC@1", "AC@3", "scope F1", "culprit", "confident-wrong"),
            (
                (
                    name,
                    str(part["n"]),
                    _with_interval(part, "ac1"),
                    _percent(part["ac3"]),
                    _number(part["scope_f1"], 2),
                    _percent(part["culprit"]),
                    _percent(part["confident_wrong"]),
                )
                for name, part in causes.items()
            ),
        )

    def _confusion(self, pairs: Sequence[Figures]) -> None:
        self._table(
            "mixed up most",
            ("was", "said", "cases", "of its cases", "mean probability"),
            (
                (p["truth"], p["said"], str(p["cases"]), _percent(p["share"]), _percent(p["mean_probability"]))
                for p in pairs
            ),
        )

    def _calibration(self, bins: Sequence[Figures]) -> None:
        self._table(
            "calibration of the first cause's probability",
            ("from", "cases", "said", "right"),
            (
                (f"{one['from']:.1f}", str(one["n"]), _percent(one["said"]), _with_interval(one, "right"))
                for one in bins
                if one["n"]
            ),
        )

    def _skipped(self, cases: Sequence[Figures]) -> None:
        for one in cases:
            self._say(f"skipped, counted as wrong: {one['case']}: {one['why']}")

    def _table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD if self._is_terminal else None, pad_edge=False)
        for at, column in enumerate(columns):
            table.add_column(column, justify="right" if at and "was" not in columns else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        if table.row_count:
            self._console.print()
            self._console.print(table)

    def _say(self, line: str) -> None:
        self._console.print(line)


def _found(name: str, part: Figures) -> tuple[str, ...]:
    shares = (_with_interval(part, share) for share in ("ac1", "ac3", "culprit", "culprit_where_one"))
    return (name, str(part["n"]), *shares, _number(part["scope_f1"], 2), _number(part["p95_s"], 2))


def _restraint(name: str, part: Figures) -> tuple[str, ...]:
    names = ("class", "false_accusation", "confident_wrong", "abstention")
    return (name, str(part["n"]), *(_with_interval(part, share) for share in names), _number(part["ece"], 3))


def _with_interval(part: Figures, name: str) -> str:
    if part[name] is None:
        return "-"
    low, high = part[f"{name}_ci95"]
    return f"{_percent(part[name])} [{100 * low:.1f} {100 * high:.1f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
