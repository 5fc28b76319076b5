"""Diagnosing past incidents from history, without leaving a trace."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bot.backtest import LOOK_AFTER, Verdict, backtest, in_words, period
from bot.config import Config, load_config
from bot.incidents import WatchkeeperError
from bot.settings import Settings
from tests import synthetic
from tests.rows_server import rows_served

CONFIG = """
format = 1
[[datasource]]
name = "metrics"
kind = "recorder"
scrape = ["http://127.0.0.1:9/metrics"]
history = "history.om"
clock = "samples"
[[service]]
name = "chat"
pagerduty_service = "PCHAT"
namespace = "chat"
[service.selectors]
serving = {namespace = "chat"}
gpu = {namespace = "chat"}
application = {service = "chat"}
"""
PAGED = synthetic.END - LOOK_AFTER


def incident(**more: Any) -> dict[str, Any]:
    return {
        "id": "Q1",
        "incident_number": 7,
        "title": "[#7] LLMHighTTFT chat",
        "created_at": PAGED.isoformat(),
        "service": {"id": "PCHAT"},
        **more,
    }


def databases(folder: Path) -> list[Path]:
    return list(folder.glob("*.sqlite*"))


async def looked_back(
    rows: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str | None = None
) -> list[Verdict]:
    config = configured(tmp_path)
    async with rows_served(rows, tmp_path) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        settings = Settings.load({"PAGERDUTY_API_KEY": "key", "PAGERDUTY_API_BASE_URL": url})
        return await backtest(settings, config, timedelta(days=30), only)


def configured(tmp_path: Path) -> Config:
    (tmp_path / "history.om").write_text(_history(), encoding="utf-8")
    (tmp_path / "watchkeeper.toml").write_text(CONFIG, encoding="utf-8")
    return load_config(tmp_path / "watchkeeper.toml")


@cache
def _history() -> str:
    return synthetic.openmetrics("S04", history=timedelta(minutes=35))


async def test_a_past_incident_gets_the_verdict_that_its_card_would_have_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The telemetry of then names the cause of then, and the runbook that fits; no database of ours is made."""
    [verdict] = await looked_back({"incidents": [incident()]}, tmp_path, monkeypatch)

    assert (verdict.cause, verdict.runbook, verdict.number) == ("S04", "prefix-cache-collapse", 7)
    assert verdict.probability > 0.5
    assert verdict.why_not == ""
    assert {path.name.removesuffix(".lock") for path in databases(tmp_path)} == {"recorder.sqlite"}


async def test_what_the_telemetry_forgot_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month-old incident whose samples are gone is not diagnosed as "nothing wrong"."""
    old = incident(created_at=(PAGED - timedelta(days=29)).isoformat())

    [verdict] = await looked_back({"incidents": [old]}, tmp_path, monkeypatch)

    assert verdict.cause == ""
    assert "not kept" in verdict.why_not


async def test_others_incidents_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PagerDuty filters by service, and what slips through is not ours to judge."""
    assert await looked_back({"incidents": [incident(service={"id": "POTHER"})]}, tmp_path, monkeypatch) == []


async def test_a_refusal_of_pagerduty_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an empty list that looks like a quiet month."""
    with pytest.raises(WatchkeeperError, match="403"):
        await looked_back({"incidents": 403}, tmp_path, monkeypatch)


async def test_an_unknown_service_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing mistake in --service."""
    with pytest.raises(WatchkeeperError, match="chta"):
        await looked_back({}, tmp_path, monkeypatch, only="chta")


@pytest.mark.parametrize(("text", "length"), [("12h", timedelta(hours=12)), ("30d", timedelta(days=30))])
def test_periods(text: str, length: timedelta) -> None:
    """Hours, days and weeks."""
    assert period(text) == length


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "181d", "30 d", "1y", "٣d"])
def test_what_is_no_period_is_refused(text: str) -> None:
    """PagerDuty lists half a year at most."""
    with pytest.raises(WatchkeeperError, match="period"):
        period(text)


def test_the_words_promise_no_more_than_was_done() -> None:
    """Counts, the most frequent causes, and that people judge."""
    told = Verdict(
        incident_id="Q1",
        number=7,
        title="slow",
        service="chat",
        at=PAGED,
        cause="S04",
        cause_title="t",
        probability=0.9,
    )
    forgotten = Verdict(incident_id="Q2", number=None, title="old", service="chat", at=PAGED, why_not="gone")

    text = in_words([told, forgotten])

    assert "2 incidents, 1 could be looked at; nothing was posted or stored." in text
    assert "named first: S04 1 times" in text
