"""A short round of the chaos test on both databases; `make chaos` plays the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import Options, trial

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def test_kills_and_freezes_neither_lose_nor_repeat(database_url: str, tmp_path: Path) -> None:
    """Every plan ends, verified or in doubt; no act happens twice, none is missing; the record's chain holds."""
    options = Options(runs=36, steps=5, processes=3, seed=7, one_host=True, patience_s=200.0)

    report = await trial(database_url, tmp_path, options)

    assert report.violations == [], f"{report}\n{(tmp_path / 'output').read_text()[-3000:]}"
    assert sum(report.ends.values()) == options.runs
    assert report.kills + report.freezes >= 2
