"""`watchkeeper runbook coverage`: what no runbook is for, and which runbooks do not help, with their counts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from bot.coverage import as_json, coverage, in_words
from bot.incidents import PlanState
from bot.library import FOLDER
from runbooks.engine.library import load_folder
from runbooks.engine.values import Runbook
from tests.bot.test_cli import Run, run
from tests.kit import NOW, config_in, open_store, plan, renamed

__all__ = ["run"]

TODAY = date(2026, 11, 22)
SHIPPED: tuple[Runbook, ...] = load_folder(FOLDER)[0]


def of(*names: str) -> list[Runbook]:
    return [book for book in SHIPPED if book.runbook_id in names]


async def test_the_files_alone_say_what_is_missing_and_stale() -> None:
    """Without a database nothing is claimed about alerts and use."""
    [book] = of("queue-backlog")
    old = replace(book, reviewed=TODAY - timedelta(days=400), review_by=TODAY - timedelta(days=1))
    found = await coverage([old], today=TODAY, database=None)

    assert "S04" in found.causes
    assert "S01" not in found.causes
    assert (found.missing, found.stale, found.unreviewed) == (True, True, ())
    assert (found.alerts, found.unused, found.records) == (None, None, None)
    assert "  queue-backlog  since 2026-11-21" in list(in_words(found))
    assert not (await coverage([replace(old, review_by=TODAY)], today=TODAY, database=None)).stale


async def test_the_past_says_which_alerts_nobody_wrote_for_and_what_failed(tmp_path: Path) -> None:
    """By the plans that were put before people; alternatives and undos count for nothing."""
    config = config_in(tmp_path)
    async with open_store(f"sqlite:///{tmp_path}/w.db", config) as store:
        await store.page()
        await store.page(incident_id="Q2", event_id="e2", title="[FIRING:2] NobodyKnowsThis chat")
        made = plan(config.policy_version)
        states = [PlanState.VERIFIED, PlanState.NOT_VERIFIED, PlanState.FAILED, PlanState.DENIED, PlanState.ALTERNATIVE]
        for rank, state in enumerate(states):
            await store.plans.save(renamed(made, f"plan-{rank}"), run=1, rank=rank, state=state, now=NOW)
        undo = renamed(made, "plan-undo", undoes="plan-1")
        await store.plans.save(undo, run=1, rank=9, state=PlanState.FAILED, now=NOW)
        found = await coverage(of("prefix-cache-collapse", "queue-backlog"), today=TODAY, database=store.database)

    told: dict[str, Any] = as_json(found)
    assert told["alerts_without_runbook"] == {"NobodyKnowsThis": 1}
    assert told["never_offered"] == ["queue-backlog"]
    assert told["records"]["prefix-cache-collapse"] == {"offered": 4, "helped": 1, "failed": 2, "failing": 2 / 3}
    assert "  prefix-cache-collapse  2 of 3 (67%)" in list(in_words(found))


def test_a_pipeline_can_fail_on_it(run: Run, tmp_path: Path) -> None:
    """Ours have a runbook for every cause; a team's overdue one is stale."""
    status, shown, _ = run("runbook", "coverage", "--json", "--fail-on", "missing", "--fail-on", "stale")
    assert (status, json.loads(shown)["causes_without_runbook"]) == (0, {})

    (tmp_path / "own").mkdir()
    text = (FOLDER / "queue-backlog.md").read_text(encoding="utf-8")
    day = datetime.now(UTC).date() - timedelta(days=3)
    (tmp_path / "own" / "own.md").write_text(text.replace("owner:", f"review_by: {day}\nowner:", 1), encoding="utf-8")
    (tmp_path / "watchkeeper.toml").write_text('format = 1\n[[runbooks]]\npath = "own"\n', encoding="utf-8")
    assert run("runbook", "coverage", "--fail-on", "missing")[0] == 0
    assert run("runbook", "coverage", "--fail-on", "stale")[0] == 1
