"""What to ask of the runbooks about an incident; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.incidents import Alert
from diagnostics.diagnosis import Diagnosis
from retrieval.documents import Question

_ALERT_IN_TITLE = re.compile(r"^(?:\[[A-Z]+(?::\d+)?\]\s*)?(?P<name>[A-Za-z][A-Za-z0-9_]{3,})")


def alert_name_in(title: str, alerts: Sequence[Alert]) -> str:
    """The alert rule's name: from the alert's labels, else the first word of the title; "" when there is none."""
    for alert in alerts:
        if alert.labels.get("alertname"):
            return alert.labels["alertname"]
    match = _ALERT_IN_TITLE.match(title)
    return match["name"] if match else ""


def question_of(title: str, service: str, alerts: Sequence[Alert], found: Diagnosis | None) -> Question:
    """The alert in its author's words, and what the diagnosis found."""
    texts = [title]
    texts += [text for alert in alerts for text in (alert.summary, *alert.annotations.values()) if text]
    if found is not None:
        texts += [cause.title for cause in found.causes[:1]]
    return Question(
        text="\n".join(dict.fromkeys(texts)),
        alert=alert_name_in(title, alerts),
        expr=next((alert.details["expr"] for alert in alerts if isinstance(alert.details.get("expr"), str)), ""),
        service=service,
        runbook_url=next((a.annotations["runbook_url"] for a in alerts if a.annotations.get("runbook_url")), ""),
        causes=tuple((cause.cause, cause.probability) for cause in found.causes) if found else (),
    )
