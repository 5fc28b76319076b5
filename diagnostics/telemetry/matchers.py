"""The label matchers of a query: how `Query.where` is read, in one place for all backends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from diagnostics.telemetry.model import TelemetryError


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """One label matcher; `operator` is PromQL's own: `=`, `!=`, `=~` or `!~`."""

    label: str
    operator: str
    value: str


def read_matchers(where: Mapping[str, str]) -> tuple[Matcher, ...]:
    """The matchers of a `where`, in the order of their labels so that equal questions read equally."""
    return tuple(_read(label, where[label]) for label in sorted(where))


def _read(label: str, text: str) -> Matcher:
    if text.startswith("!~"):
        return Matcher(label=label, operator="!~", value=text[2:])
    if text.startswith("!"):
        return Matcher(label=label, operator="!=", value=text[1:])
    if text.startswith("~"):
        return Matcher(label=label, operator="=~", value=text[1:])
    return Matcher(label=label, operator="=", value=text)


def matches(matchers: tuple[Matcher, ...], labels: Mapping[str, str]) -> bool:
    """Whether a series has all that is asked; a label it lacks counts as "". Raises TelemetryError for a bad regex."""
    return all(_holds(matcher, labels.get(matcher.label, "")) for matcher in matchers)


def _holds(matcher: Matcher, value: str) -> bool:
    if matcher.operator in {"=", "!="}:
        return (value == matcher.value) == (matcher.operator == "=")
    try:
        found = re.fullmatch(matcher.value, value) is not None
    except re.error as error:
        raise TelemetryError(f"{matcher.label}: {matcher.value!r} is not a regular expression: {error}") from error
    return found == (matcher.operator == "=~")
