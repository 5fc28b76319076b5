"""`watchkeeper lab make-cases`: the folders it writes have everybody's format, and the same seed writes them again."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from diagnostics.answer import load_case
from lab.cases.files import MOST_SERIES, write
from lab.cases.life import Recipe, live
from lab.cases.make import CasesError, CasesOptions, make_cases, recipes
from lab.evaluation.cases import read_truth
from lab.evaluation.real_prometheus import INSTALL
from lab.scenarios.faults import FAULTS
from tests.needs import need_program

SEED = 4711


@dataclass(frozen=True, kw_only=True)
class Written:
    """One case on disk, and what its maker noted."""

    folder: Path
    note: dict[str, Any]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def lines(self) -> list[str]:
        with gzip.open(self.folder / "metrics.om.gz", "rt") as file:
            return file.read().splitlines()

    @property
    def alerted_at(self) -> datetime:
        return datetime.fromisoformat(self.json("alert.json")["incident"]["created_at"])


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """While pods are replaced there are twice as many of them, old and new: the most series of all cases."""
    return written(tmp_path_factory, faults=("S03",))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory, faults=("G04", "Q01"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory, faults=())


def written(factory: pytest.TempPathFactory, faults: tuple[str, ...], name: str = "case") -> Written:
    folder = factory.mktemp("cases") / name
    note = write(live(Recipe(seed=(SEED, len(faults)), faults=faults)), folder)
    return Written(folder=folder, note=note)


def series_of(lines: Sequence[str]) -> set[str]:
    return {line.rsplit(" ", 2)[0] for line in lines if not line.startswith("#")}


def test_a_case_is_what_its_reader_expects(rollout: Written) -> None:
    """It loads; the onset lies two hours in; nothing is later than the alert; the guilty change is in the list."""
    case = load_case(rollout.folder)
    truth = read_truth(rollout.folder)
    times = [float(line.rsplit(" ", 1)[1]) for line in rollout.lines() if not line.startswith("#")]
    onset = datetime.fromisoformat(rollout.json("truth.json")["onset"])

    assert (case.at, truth.cause) == (rollout.alerted_at, "S03")
    assert onset.timestamp() - min(times) >= timedelta(hours=2).total_seconds()
    assert max(times) <= rollout.alerted_at.timestamp()
    assert truth.culprit in {change["id"] for change in rollout.json("changes.json")}
    assert all(datetime.fromisoformat(change["at"]) <= rollout.alerted_at for change in rollout.json("changes.json"))


def test_a_case_stays_small(rollout: Written) -> None:
    """With too many series the buckets go first, and never those of what somebody promised."""
    series = series_of(rollout.lines())

    assert MOST_SERIES * 0.8 < len(series) <= rollout.note["series"] <= MOST_SERIES
    assert any(name.startswith("vllm:time_to_first_token_seconds_bucket") for name in series)
    assert any(name.startswith("vllm:request_prompt_tokens_sum") for name in series)


def test_promtool_takes_it(two: Written, tmp_path: Path) -> None:
    """A foreign evaluation loads the file as it is."""
    plain = tmp_path / "metrics.om"
    plain.write_text("\n".join(two.lines()) + "\n")
    command = [need_program("promtool", INSTALL), "tsdb", "create-blocks-from", "openmetrics", str(plain)]
    subprocess.run([*command, str(tmp_path / "blocks")], check=True, capture_output=True)

    assert list((tmp_path / "blocks").iterdir())


def test_two_faults_are_told_apart_in_the_truth(two: Written) -> None:
    """The first is the cause, the other a note."""
    truth = two.json("truth.json")
    assert (truth["cause"], truth["notes"]["also"]) == ("G04", ["Q01"])


def test_a_healthy_run_has_no_cause_and_may_have_changes(healthy: Written) -> None:
    """Nothing is guilty, whatever was changed."""
    truth = healthy.json("truth.json")
    assert (truth["cause"], truth["scope"], truth["culprit_change"], truth["onset"]) == ("none", None, None, None)


def test_the_same_seed_writes_the_same_case(healthy: Written, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every file, sample by sample."""
    again = written(tmp_path_factory, faults=())

    assert again.lines() == healthy.lines()
    for name in ("alert.json", "changes.json", "truth.json", "service.toml"):
        assert (again.folder / name).read_bytes() == (healthy.folder / name).read_bytes(), name


def test_every_scenario_gets_its_turn(tmp_path: Path) -> None:
    """Healthy runs lie evenly between them, and no round repeats a scenario."""
    planned = recipes(CasesOptions(folder=tmp_path, seed=1, count=60, healthy=0.2))
    themes = [recipe.faults[0] for recipe in planned if recipe.faults]

    assert sorted(themes) == sorted(FAULTS)
    assert [not recipe.faults for recipe in planned[:10]].count(True) == 2
    assert len({recipe.seed for recipe in planned}) == 60


def test_two_at_once_come_from_two_families(tmp_path: Path) -> None:
    """And none of them is a control, which hurts nobody."""
    planned = recipes(CasesOptions(folder=tmp_path, seed=1, count=40, pairs=True))

    assert all(first[0] != second[0] for first, second in (recipe.faults for recipe in planned))
    assert not any(FAULTS[name].is_control for recipe in planned for name in recipe.faults)


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """An unknown scenario, and a folder that holds something, before anything is written."""
    with pytest.raises(CasesError, match="there is no scenario 'Z99'"):
        next(make_cases(CasesOptions(folder=tmp_path / "new", seed=1, count=1, scenario="Z99"), "test"))
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(CasesError, match="is not empty"):
        next(make_cases(CasesOptions(folder=tmp_path, seed=1, count=1), "test"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine"]
