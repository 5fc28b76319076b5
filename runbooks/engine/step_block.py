"""One `yaml step` block: what shall be done, when it applies, and what proves that it helped."""

from __future__ import annotations

import re
from typing import Any

from runbooks.engine.declared import (
    CHECK_ANSWERS,
    CHECK_SAYS,
    CONFINED_TO,
    DURATION,
    RANGE,
    Condition,
    Range,
    Sign,
    seconds,
)
from runbooks.engine.fields import Fields
from runbooks.engine.values import JsonObject, StepTemplate

STEP_KEYS = ("action", "with", "when", "verify", "undo", "irreversible", "check", "settle", "timeout", "otherwise")
FEWEST_WORDS = 3  # of a reason
SETTLE_S = 120.0
_RANGE_HELP = "write `{query: {metric: NAME}, below: NUMBER}`"


def read_step(fields: Fields, *, title: str, prose: str) -> StepTemplate:
    """The step under the heading `title`; complete even after complaints."""
    fields.refuse_unknown(STEP_KEYS)
    checks, ranges = _verify(fields)
    return StepTemplate(
        title=title,
        action=_action(fields),
        params=_params(fields),
        when=_when(fields),
        verify=checks,
        verify_ranges=ranges,
        undo=_undo(fields),
        irreversible=_irreversible(fields),
        check=_check(fields),
        settle_s=_duration(fields, "settle") or SETTLE_S,
        timeout_s=_duration(fields, "timeout"),
        otherwise=_otherwise(fields),
        prose=prose,
        line=fields.start + 1,
        lines={name: entry.line + 1 for name, entry in fields.entries.items()},
    )


def _action(fields: Fields) -> str:
    entry = fields.entries.get("action")
    if entry is None or not isinstance(entry.value, str):
        fields.complain(entry.line if entry else fields.start, "the step names no action", "write `action: manual`")
        return ""
    return entry.value


def _params(fields: Fields) -> JsonObject:
    entry = fields.entries.get("with")
    if entry is None or entry.value is None:
        return {}
    if not isinstance(entry.value, dict):
        fields.complain(entry.line, "`with` is not a mapping", "write `with: {name: value}`")
        return {}
    for name, value in entry.value.items():
        if _has_bare_placeholder(value):
            fields.complain(
                entry.line,
                f"the value of `{name[:60]}` is not plain",
                f'quote placeholders: {name[:60]}: "{{service}}"',
            )
    params: JsonObject = entry.value
    return params


def _when(fields: Fields) -> Condition | None:
    entry = fields.entries.get("when")
    if entry is None:
        return None
    remedy = "write `when: {check: NAME, is: bad}` or `when: {scope: node}`"
    if isinstance(entry.value, dict) and "scope" in entry.value:
        return fields.value("when", CONFINED_TO, entry.value, remedy)
    return fields.value("when", CHECK_ANSWERS, entry.value, remedy)


def _verify(fields: Fields) -> tuple[tuple[str, ...], tuple[Range, ...]]:
    """Names of checks, and queries with the range that they must return to."""
    entry = fields.entries.get("verify")
    if entry is None:
        return (), ()
    given: list[Any] = entry.value if isinstance(entry.value, list) else [entry.value]
    asked = [fields.value("verify", RANGE, each, _RANGE_HELP) for each in given if isinstance(each, dict)]
    names = [each for each in given if not isinstance(each, dict)]
    if not all(isinstance(name, str) and name.strip() for name in names):
        fields.complain(entry.line, "`verify` is not a list of checks and queries", "write `verify: [First, Second]`")
        return (), ()
    if any(each in given[:position] for position, each in enumerate(given)):
        fields.complain(entry.line, "`verify` names something twice", "keep one of them")
    return tuple(names), tuple(each for each in asked if each is not None)


def _check(fields: Fields) -> Sign | None:
    """What shows that the step has happened: the name of a check that is then ok, its answer, or a query's range."""
    entry = fields.entries.get("check")
    if entry is None:
        return None
    if isinstance(entry.value, dict) and "check" not in entry.value:
        return fields.value("check", RANGE, entry.value, _RANGE_HELP)
    given = {"check": entry.value} if isinstance(entry.value, str) else entry.value
    return fields.value("check", CHECK_SAYS, given, "write `check: NAME` or `check: {check: NAME, is: bad}`")


def _undo(fields: Fields) -> str:
    entry = fields.entries.get("undo")
    if entry is None:
        return "none"
    if entry.value not in ("previous", "none"):
        fields.complain(
            entry.line,
            f"undo cannot be {entry.value!r}"[:120],
            "write `undo: previous`, or `irreversible: WHY` instead of `undo: none`",
        )
        return "none"
    return str(entry.value)


def _irreversible(fields: Fields) -> str:
    entry = fields.entries.get("irreversible")
    if entry is None:
        return ""
    if "undo" in fields.entries:
        fields.complain(entry.line, "both `undo` and `irreversible`", "keep the one that is true")
    if not isinstance(entry.value, str) or len(entry.value.split()) < FEWEST_WORDS:
        fields.complain(entry.line, "`irreversible` gives no reason", "say in a few words why it cannot be undone")
        return ""
    return " ".join(entry.value.split())


def _otherwise(fields: Fields) -> str:
    entry = fields.entries.get("otherwise")
    if entry is None:
        return ""
    if not isinstance(entry.value, str) or not entry.value.strip():
        fields.complain(entry.line, "`otherwise` asks for nothing", "say what a person shall do and report")
        return ""
    return " ".join(entry.value.split())


def _duration(fields: Fields, name: str) -> float | None:
    entry = fields.entries.get(name)
    if entry is None:
        return None
    if isinstance(entry.value, str) and re.fullmatch(DURATION, entry.value):
        return seconds(entry.value)
    fields.complain(entry.line, f"{name} cannot be {entry.value!r}"[:120], "write `90s` or `4m`, at most `1h`")
    return None


def _has_bare_placeholder(value: Any) -> bool:
    """Without quotes YAML reads `{service}` as a mapping of a name to nothing."""
    if isinstance(value, list):
        return any(map(_has_bare_placeholder, value))
    if not isinstance(value, dict):
        return False
    return all(member is None for member in value.values()) or any(map(_has_bare_placeholder, value.values()))
