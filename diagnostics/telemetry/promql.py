"""A query of ours as PromQL text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from diagnostics.telemetry.matchers import read_matchers
from diagnostics.telemetry.model import Function, Query

PLACE = "watchkeeper_question"


def to_promql(query: Query) -> str:
    """
    The PromQL that means exactly this query, for Prometheus and whatever speaks its language.

    Raises ValueError for a window below a millisecond, the finest that PromQL can say.
    """
    if query.function is Function.QUANTILE:
        return _quantile(query)
    series = f"{query.metric}{_braces(query.where)}"
    inner = series if query.window is None else f"{query.function}({series}[{duration(query.window)}])"
    return f"{query.aggregation}{_by(query.by)}({inner})"


def to_union(queries: Sequence[str]) -> str:
    """The answers to all queries in one, each series with its query's place in the label `PLACE`."""
    return " or ".join(f'label_replace({query}, "{PLACE}", "{place}", "", "")' for place, query in enumerate(queries))


def to_names(metrics: Collection[str], where: Mapping[str, str], within: timedelta) -> str:
    """The names, of these, that had any sample in the time before."""
    either = "|".join(sorted(metrics))  # a metric's name holds nothing that a regular expression reads otherwise
    matchers = ", ".join(part for part in (f'__name__=~"{either}"', _braces(where)[1:-1]) if part)
    return f"count by (__name__) (last_over_time({{{matchers}}}[{duration(within)}]))"


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
