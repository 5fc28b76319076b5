"""Whether the signal that the alert watches moved, and whether something else moved before it."""

from __future__ import annotations

from datetime import timedelta

from diagnostics.causes import knowledge
from diagnostics.findings import Finding
from diagnostics.minutes import STEP
from diagnostics.onset import Alerting, History, Onset
from diagnostics.wording import change

CHECK = "alerting_signal"


def alerting_finding(history: History) -> Finding | None:
    """What the history says of the alert's own signal; None without an alert whose signal is known here."""
    alerting = history.alerting
    if alerting is None:
        return None
    alert, words = alerting.watched.alert, alerting.watched.signal.words
    if not alerting.is_measured:
        return Finding.unknown(CHECK, f"{alert} watches the {words}, of which there is no history")
    if alerting.left_at is None:
        return Finding.ok(
            CHECK,
            f"{alert} watches the {words}: over the whole service it stays at its usual level, so the alert is about "
            "one instance, or is over.",
        )
    moved = change(alerting.since, alerting.before, alerting.watched.signal.unit)
    when = f"{alerting.left_at:%H:%M} UTC"
    return Finding.bad(
        CHECK, f"{alert} watches the {words}, which {moved} at {when}. {_first(alerting, history.onset)}"
    )


def _first(alerting: Alerting, onset: Onset | None) -> str:
    """Which of both moved first: the alert's signal, or the one that dates the onset."""
    if alerting.left_at is None or onset is None or onset.signal == alerting.watched.signal.name:
        return "Nothing that was measured moved before it."
    signal = knowledge.load().signals.get(onset.signal)
    other = onset.signal if signal is None else signal.words
    gap = alerting.left_at - onset.latest
    if abs(gap) <= STEP:
        return f"In the same minute moved: {other}."
    if gap > timedelta(0):
        return f"Before it, by {_minutes(gap)}, moved: {other}."
    return f"It moved first; {_minutes(-gap)} after it: {other}."


def _minutes(gap: timedelta) -> str:
    return f"{gap / timedelta(minutes=1):.0f} min"
