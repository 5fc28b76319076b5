"""A query of ours as PromQL text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from diagnostics.telemetry.matchers import read_matchers
from diagnostics.telemetry.model import Function, Query


def to_promql(query: Query) -> str:
    """
    The PromQL that means exactly this query, for Prometheus and whatever speaks its language.

    Raises ValueError for a window below a millisecond, the finest that PromQL can say.
    """
    if query.function is Function.QUANTILE:
        return _quantile(query)
    series = to_selector(query.metric, query.where)
    inner = series if query.window is None else f"{query.function}({series}[{duration(query.window)}])"
    return f"{query.aggregation}{_by(query.by)}({inner})"


def to_selector(metric: str, where: Mapping[str, str]) -> str:
    """The series of one metric: `name{label="value"}`."""
    return f"{metric}{_braces(where)}"


def duration(window: timedelta) -> str:
    """A window in whole seconds, or in milliseconds where it has a fraction."""
    milliseconds = window // timedelta(milliseconds=1)
    if milliseconds <= 0:
        raise ValueError(f"a window of {window} is shorter than a millisecond")
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _quantile(query: Query) -> str:
    window = duration(query.window or timedelta())  # a quantile without a window cannot be made, see Query
    rate = f"rate({query.metric}_bucket{_braces(query.where)}[{window}])"
    return f"histogram_quantile({query.quantile!r}, sum{_by((*query.by, 'le'))}({rate}))"


def _braces(where: Mapping[str, str]) -> str:
    matchers = [f'{matcher.label}{matcher.operator}"{_escape(matcher.value)}"' for matcher in read_matchers(where)]
    return "{" + ", ".join(matchers) + "}" if matchers else ""


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
