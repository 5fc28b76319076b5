"""The front matter of a runbook: what it is about, who keeps it true and until when, and what it lets people choose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from runbooks.engine.declared import PARAMETER, Parameter
from runbooks.engine.fields import Fields

FORMAT = 1
FRONT_KEYS = (
    "format", "id", "title", "alerts", "causes", "services", "labels", "owner", "reviewed", "review_by", "params",
)  # fmt: skip
_PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Front:
    """The fields as their author wrote them; see `Runbook` for what they mean."""

    title: str = ""
    owner: str = ""
    alerts: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reviewed: date | None = None
    review_by: date | None = None
    params: Mapping[str, Parameter] = field(default_factory=dict)


def read_front(fields: Fields, runbook_id: str) -> Front:
    """Complete even after complaints."""
    fields.refuse_unknown(FRONT_KEYS)
    _check_format(fields)
    _check_id(fields, runbook_id)
    return Front(
        title=fields.text("title", required=True),
        owner=fields.text("owner"),
        alerts=fields.words("alerts"),
        causes=fields.words("causes"),
        services=fields.words("services"),
        labels=fields.words_by_name("labels"),
        reviewed=fields.day("reviewed"),
        review_by=fields.day("review_by"),
        params=_params(fields),
    )


def _check_format(fields: Fields) -> None:
    entry = fields.entries.get("format")
    if entry is None:
        fields.complain(0, "`format` is missing", f"write `format: {FORMAT}`")
    elif entry.value is True or entry.value != FORMAT:
        fields.complain(entry.line, f"format {entry.value!r} is not known", f"write `format: {FORMAT}`")


def _check_id(fields: Fields, runbook_id: str) -> None:
    entry = fields.entries.get("id")
    if entry is not None and entry.value != runbook_id:
        fields.complain(
            entry.line, f"the id is not the file's name, {runbook_id}", f"write `id: {runbook_id}`, or rename the file"
        )


def _params(fields: Fields) -> dict[str, Parameter]:
    entry = fields.entries.get("params")
    if entry is None:
        return {}
    if not isinstance(entry.value, dict):
        fields.complain(entry.line, "`params` is not a mapping", "write `params: {name: {type: integer, maximum: 8}}`")
        return {}
    found: dict[str, Parameter] = {}
    for name, declared in entry.value.items():
        if not _PARAMETER_NAME.fullmatch(name):
            fields.complain(entry.line, f"`{name[:60]}` cannot be a parameter's name", "use a-z, 0-9 and _, at most 60")
            continue
        parameter = fields.value("params", PARAMETER, declared, _remedy(declared), part=name)
        if parameter is not None:
            found[name] = parameter
    return found


def _remedy(declared: object) -> str:
    if isinstance(declared, dict) and ("secret" in declared or declared.get("type") == "secret"):
        return "a plan is shown and kept with all its values: let the configuration hold the secret, and name its entry"
    return (
        'write `{type: text, pattern: "[a-z]+"}`, `{type: integer, minimum: 1, maximum: 8}`, `{type: number}`, '
        "`{type: boolean}` or `{type: enum, enum: [a, b]}`, with a `default` and a `description` if you like"
    )
