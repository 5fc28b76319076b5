"""The alert rules for Watchkeeper itself: Prometheus reads them, they fire when they should, and name what exists."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from lab.evaluation.real_prometheus import INSTALL
from tests.kit import Store
from tests.needs import need_program
from tests.operator_house import operator_house

FOLDER = Path(__file__).parents[2] / "deploy/prometheus"
RULES = FOLDER / "watchkeeper-alerts.yml"
MADE_BY_PROMETHEUS = {"up", "process_start_time_seconds"}


@pytest.mark.integration
def test_the_rules_fire_when_they_should_and_not_otherwise() -> None:
    """Prometheus' own tool plays the time lines of the rules' test file."""
    promtool = need_program("promtool", INSTALL)

    run = subprocess.run(
        [promtool, "test", "rules", "watchkeeper-alerts.test.yml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 0, run.stdout + run.stderr


def rules() -> list[dict[str, str]]:
    [group] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


def test_every_rule_is_tested_in_peace_and_in_trouble() -> None:
    """A rule that nobody saw firing, or saw quiet, is a guess."""
    tests = yaml.safe_load((FOLDER / "watchkeeper-alerts.test.yml").read_text(encoding="utf-8"))["tests"]
    names = {rule["alert"] for rule in rules()}
    quiet = {case["alertname"] for case in tests[0]["alert_rule_test"] if not case["exp_alerts"]}
    fired = set(re.findall(r'alertname="(\w+)"', str(tests[1:])))

    assert quiet == names
    assert fired == names


async def test_rules_name_only_what_the_product_shows(store: Store) -> None:
    """A renamed metric would make its rule silent for ever."""
    async with operator_house(store) as house:
        house.parts.far_ends.failed("metrics", "vector", "unreachable", "connection refused")
        house.parts.vitals.watch([Loop()])
        async with house.client() as client:
            await client.post("/webhooks/pagerduty", content=b"forged")
            shown = set(re.findall(r"^(\w+?)(?:\{| )", (await client.get("/metrics")).text, flags=re.MULTILINE))

    named = {name for rule in rules() for name in re.findall(r"\b(?:watchkeeper_\w+|up|process_\w+)\b", rule["expr"])}
    assert len(named) >= 12
    assert named - MADE_BY_PROMETHEUS - shown == set()


class Loop:
    """A loop that has not gone through yet."""

    name = "inbox"
    healthy_at: datetime | None = None
