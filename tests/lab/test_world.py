"""The world as the rest of the lab sees it: its faces, its files, and the truth that it tells."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from lab.scenarios import UnknownScenarioError
from lab.world import World
from tests.lab.played_worlds import CREDENTIALS, LIVE_START, new_world, prepared_world


async def test_metrics_are_served_as_prometheus_wants_them() -> None:
    """The live endpoint goes on exactly where the history ends."""
    world = prepared_world()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=world.metrics_app)) as client:
        answer = await client.get("http://metrics.lab/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f" {int(LIVE_START.timestamp() * 1000)}" in answer.text
    last = world.history_path.read_text().splitlines()[-1]
    assert last == "# EOF"


def test_the_truth_names_cause_culprit_and_decoy() -> None:
    """What a judge compares an answer with; nothing is healed yet."""
    truth = prepared_world().truth()
    assert (truth["scenario"], truth["cause"], truth["class"]) == ("S04", "S04", "S")
    assert truth["culprit"] == {"prompt": "chat-system", "label": "production", "version": 8, "previous_version": 7}
    assert [decoy["prompt"] for decoy in truth["decoys"]] == ["chat-summary"]
    assert truth["onset"] == (LIVE_START - timedelta(minutes=6)).isoformat()
    assert (truth["healed"], truth["healed_at"]) == (False, None)


def test_the_changes_have_the_times_of_the_story() -> None:
    """The guilty version was labelled at the onset, the harmless one six minutes before."""
    prompts = prepared_world().prompts
    guilty, decoy = prompts.labelled("chat-system"), prompts.labelled("chat-summary")
    assert (guilty.version, guilty.created_at) == (8, LIVE_START - timedelta(minutes=6))
    assert (decoy.version, decoy.created_at) == (4, LIVE_START - timedelta(minutes=12))
    assert guilty.prompt.startswith("Current time:")
    assert prompts.get("chat-system", 7).prompt in guilty.prompt


async def test_a_world_that_is_not_run_stands_still(tmp_path: Path) -> None:
    """Everything may be served before the product is ready; lab time waits."""
    world = new_world(tmp_path)
    assert world.clock.now() == LIVE_START
    assert world.truth()["now"] == LIVE_START.isoformat()


def test_an_unknown_scenario_is_named(tmp_path: Path) -> None:
    """The error says which ones there are."""
    with pytest.raises(UnknownScenarioError, match=r"no scenario 'S99'; there is .*S04"):
        World(
            "S99",
            pace=20,
            seed=1,
            folder=tmp_path,
            live_start=LIVE_START,
            pagerduty_events_url="",
            credentials=CREDENTIALS,
        )
