"""One seed of the kill matrix; `make evidence` plays twenty-five on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill_matrix import trial
from tests.kill_points import BOUNDARIES, EXECUTION, FREEZES, INTAKE

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(280)]


async def test_no_boundary_loses_or_repeats_anything(tmp_path: Path) -> None:
    """kill -9 at 22 boundaries, a freeze at three: all are come to, and each step in doubt is shown."""
    tally = await trial(f"sqlite:///{tmp_path}/store.sqlite", tmp_path, 1, list(BOUNDARIES))

    assert tally.violations == []
    assert (len(INTAKE), len(EXECUTION)) == (8, 14)
    assert tally.reached == dict.fromkeys(BOUNDARIES, 1)
    assert tally.in_doubt == 2
    assert tally.late_refused >= len(FREEZES) - 1


@pytest.mark.integration
async def test_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """Where it is most delicate: the call was sent, and its answer is not written down."""
    tally = await trial(postgres_url, tmp_path, 0, ["after exit, before outcome commit"])

    assert tally.violations == []
    assert tally.reached.total() == tally.in_doubt == 1
