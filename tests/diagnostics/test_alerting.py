"""The signal that the alert watches: found by the alert's name, dated, and held against what moved first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from diagnostics.alerting import CHECK, alerting_finding
from diagnostics.causes import alerts, knowledge
from diagnostics.causes.alerts import watched_by
from diagnostics.findings import Finding, Status
from diagnostics.key_signals import QUESTIONS
from diagnostics.onset import History, Onset, look_back
from diagnostics.runner import Diagnoser
from tests import synthetic
from tests.application_signals import counter, telemetry
from tests.diagnosed import recorded


async def looked(scenario: str, alert: str) -> History:
    return await look_back(recorded(scenario), synthetic.target(), synthetic.END, alert)


def said(history: History) -> Finding:
    found = alerting_finding(history)
    assert found is not None
    return found


def test_every_alert_of_the_table_watches_what_can_be_asked() -> None:
    """Its signal is one of the knowledge base's, and its history one quotient; a misspelt one is refused when read."""
    for alert in knowledge.read_file("alerts"):
        watched = watched_by(alert)
        assert watched is not None
        assert watched.signal.name in QUESTIONS, alert


@pytest.mark.parametrize(
    ("text", "alert"),
    [
        ("LLMHighTTFT", "LLMHighTTFT"),
        ("[FIRING:1] llmspend (chat warning)", "LLMSpend"),
        ("LLMHighTTFTs", None),
        ("", None),
    ],
)
def test_an_alert_is_known_by_its_name(text: str, alert: str | None) -> None:
    """A rule's name, or a title that has it as a word; a longer word is another alert."""
    watched = watched_by(text)
    assert (None if watched is None else watched.alert) == alert


async def test_the_alerts_signal_is_dated() -> None:
    """The first token came late with the lost cache, to the minute."""
    history = await looked("S04", "LLMHighTTFT")
    assert history.alerting is not None
    assert history.alerting.left_at is not None
    assert abs(history.alerting.left_at - synthetic.ONSET) <= timedelta(minutes=2)
    finding = said(history)
    assert finding.status is Status.BAD
    assert "LLMHighTTFT watches the time to first token, which rose from 0.4" in finding.summary


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (3, "Before it, by 3 min, moved: prompt length"),
        (-4, "It moved first; 4 min after it"),
        (0, "In the same minute"),
    ],
)
async def test_which_moved_first_is_said(minutes: int, words: str) -> None:
    """Held against the signal that dates the onset."""
    history = await looked("S04", "LLMHighTTFT")
    assert history.alerting is not None
    assert history.alerting.left_at is not None
    instant = history.alerting.left_at - timedelta(minutes=minutes)
    other = Onset(at=instant, earliest=instant, latest=instant, signal="prompt_tokens")
    assert words in said(replace(history, onset=other)).summary


async def test_a_false_alert_is_told_by_its_calm_signal() -> None:
    """Nothing left its level: that is said, and accuses nobody."""
    history = await looked("none", "LLMHighTTFT")
    assert said(history).status is Status.OK
    assert history.onset is None


async def test_an_alert_without_history_is_a_blind_spot() -> None:
    """The signal is known, its metric is not exported."""
    history = await look_back(
        recorded("none", without=("llm_app_judge",)), synthetic.target(), synthetic.END, "LLMJudgeDrop"
    )
    assert said(history).status is Status.UNKNOWN
    assert alerting_finding(await looked("none", "SomethingElse")) is None


async def test_the_alerts_signal_dates_what_nothing_else_does() -> None:
    """Failures at a provider that the gateway's deployments count, and no other history tells of."""
    series = [
        counter("litellm_deployment_total_requests_total", 10, 10, api_provider="openai"),
        counter("litellm_deployment_failure_responses_total", 0.01, 4, api_provider="openai", exception_status="429"),
    ]
    target = replace(synthetic.target(), selectors={"gateway": {"service": "chat"}})
    unnamed = await look_back(telemetry(series), target, synthetic.END)
    named = await look_back(telemetry(series), target, synthetic.END, "LLMProvider429")
    assert named.onset is not None
    assert named.onset.earliest <= synthetic.ONSET <= named.onset.latest
    assert unnamed.onset is None or unnamed.onset.signal != "provider_429_ratio"


async def test_the_diagnosis_has_it_among_its_findings() -> None:
    """Beside the checks, and changing none of the probabilities."""
    diagnoser = Diagnoser(recorded("S04"), patience_s=30)
    without, named = [await diagnoser.diagnose(synthetic.target(), alert=alert) for alert in ("", "LLMHighTTFT")]
    assert [one.check for one in named.findings if one.check == CHECK] == [CHECK]
    assert [(one.cause, one.probability) for one in without.causes] == [
        (one.cause, one.probability) for one in named.causes
    ]


def test_a_misspelt_entry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file and the entry."""
    monkeypatch.setattr(alerts, "read_file", lambda _: {"LLMOops": {"signal": "ttft", "moves": "sideways"}})
    alerts._table.cache_clear()
    with pytest.raises(knowledge.KnowledgeError, match="LLMOops"):
        watched_by("LLMOops")
    alerts._table.cache_clear()
