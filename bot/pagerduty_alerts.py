"""An alert as PagerDuty's REST API gives it -> our alerts; pure. Alertmanager's labels arrive as one text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bot.incidents import Alert
from bot.redact import safe_json, safe_text

_SOURCE = ("Source:",)
_GRAFANA_BEGINS = "Value: "
_GRAFANA_ENDS = (*_SOURCE, "Silence:", "Dashboard:", "Panel:")  # those that are empty are left out
_END = "Source"
_MOST_TAGS = 100
_TAG = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,62}):(.{1,200})")
_PAIR = re.compile(r" - ([A-Za-z_][A-Za-z0-9_]*) = (.*)")


def alerts_of(rest: Mapping[str, Any]) -> list[Alert]:
    """
    One alert for each of Alertmanager's alerts in it, or one for itself when it is not Alertmanager's.

    Everything is cleaned and redacted. The name is the label `alertname`, else the CEF class, else the summary.
    """
    body = _mapping(rest.get("body"))
    cef = _mapping(body.get("cef_details"))
    details = body.get("details") if isinstance(body.get("details"), Mapping) else cef.get("details")
    known: dict[str, Any] = safe_json(details) if isinstance(details, Mapping) else {}
    alert_id = safe_text(str(rest.get("id", "")))
    summary = safe_text(_first_text(rest.get("summary"), cef.get("description"), cef.get("message")))
    blocks = parse_firing(known["firing"]) if isinstance(known.get("firing"), str) else []
    if not blocks:
        labels = {key: value for key, value in _mapping(known.get("labels")).items() if isinstance(value, str)}
        blocks = [(labels or _tags(known.get("tags")), {})]
    event_class = _first_text(cef.get("event_class"), known.get("class"))
    return [
        Alert(
            alert_id=alert_id if index == 0 else f"{alert_id}#{index}",
            name=labels.get("alertname") or _first_text(known.get("alertname"), event_class, summary),
            summary=annotations.get("summary") or summary,
            labels=labels,
            annotations=annotations,
            details=known,
        )
        for index, (labels, annotations) in enumerate(blocks)
    ]


def parse_firing(text: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    """
    Labels and annotations of each alert in Alertmanager's default `firing` text, and in Grafana's.

    The text is `Labels:`, ` - name = value` lines, `Annotations:`, more of them, `Source: url`, for each alert; Grafana
    writes `Value: ...` before it, and further addresses behind it. A value may go on over several lines. A pair once
    read is not replaced, and a new alert begins only after such an address, so that text inside an annotation does not
    rewrite a label.
    """
    ends = _GRAFANA_ENDS if text.lstrip().startswith(_GRAFANA_BEGINS) else _SOURCE
    found: list[tuple[dict[str, str], dict[str, str]]] = []
    part: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.strip() == "Labels:" and (not found or name == _END):
            found.append(({}, {}))
            part, name = found[-1][0], ""
        elif line.strip() == "Annotations:" and found:
            part, name = found[-1][1], ""
        elif line.startswith(ends) and found:
            name = _END
        elif (pair := _PAIR.fullmatch(line)) and found:
            name = pair.group(1)
            part.setdefault(name, pair.group(2).strip())
        elif name in part:
            part[name] += "\n" + line
    return [(labels, {key: value.strip() for key, value in notes.items()}) for labels, notes in found if labels]


def _tags(value: Any) -> dict[str, str]:
    """Datadog's tags (`env:prod, model:llama`, or a list of them) as labels; a tag without a value says too little."""
    tags = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    matches = (_TAG.fullmatch(tag.strip()) for tag in tags[:_MOST_TAGS] if isinstance(tag, str))
    return {match[1]: match[2] for match in matches if match}


def _first_text(*values: Any) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
