"""`watchkeeper eval diagnosis`: case folders in, figures out; what cannot be read is named and counts as wrong."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bot.cli import app
from diagnostics.answer import CaseError
from lab.evaluation.cases import EvaluationError, find_cases, read_manifests, read_truth, sample_of
from lab.evaluation.evaluate import difference
from lab.evaluation.reading import Job
from lab.evaluation.real_prometheus import INSTALL
from lab.evaluation.scoring import Answer, Scored
from lab.evaluation.workers import Worker, read_all
from tests.case_folders import truth_json, write_case
from tests.diagnostics_prompts import DECOY, GUILTY
from tests.needs import need_program

Run = Callable[..., tuple[int, str, str]]
JOB = Job(folder="here", source="recorder")
EVERYBODYS_KEYS = {
    "n", "ac1", "ac3", "class", "scope_f1", "culprit", "false_accusation", "confident_wrong", "abstention", "ece",
    "p95_s", "per_cause", "cases",
}  # fmt: skip
"""What any evaluation of such cases writes, so that figures of different authors can be compared."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command as a person types it: status, standard output, standard error."""

    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["watchkeeper", "eval", "diagnosis", *words])
        found = CliRunner().invoke(app, ["eval", "diagnosis", *words])
        return found.exit_code, found.stdout, found.stderr

    return typed


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A prompt change that hurts, a healthy run with a decoy, packed, and a control; with their maker's manifest."""
    root = tmp_path / "cases"
    write_case(root / "prompt", truth_json("S04", culprit_change=GUILTY.id, notes={"strength": 1.2, "also": []}))
    write_case(root / "deep/calm", truth_json("none"), changes=(DECOY,), is_packed=True)
    write_case(root / "remap", truth_json("G11", control=True), alert="GPURowRemapInfo", changes=())
    (root / "cases.json").write_text(json.dumps({"seed": 77, "count": 3, "command": "make them"}))
    return root


def test_every_folder_with_a_file_of_a_case_is_a_case(three: Path) -> None:
    """At any depth, by name; a folder that lacks its truth is a case with a fault, and not overlooked."""
    (three / "prompt/truth.json").unlink()

    found = find_cases(three)

    assert [case.name for case in found] == ["deep/calm", "prompt", "remap"]
    assert [case.fault for case in found if case.truth is None] == [
        "truth.json cannot be read: No such file or directory"
    ]


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    """A typo is no empty set of cases."""
    with pytest.raises(EvaluationError, match="is not a folder"):
        find_cases(tmp_path / "nowhere")


def test_a_truth_is_read_with_its_notes(three: Path) -> None:
    """What the maker of a case noted about strength and a second fault is known; other notes may be anything."""
    path = three / "prompt/truth.json"
    path.write_text(json.dumps(truth_json("S04", notes={"strength": 0.3, "also": ["G04"], "mood": "grim"})))
    noted = read_truth(path.parent)
    path.write_text(json.dumps(truth_json("S04", notes="just text")))

    assert noted.strength == 0.3
    assert noted.right == {"S04", "G04"}
    assert read_truth(path.parent).strength is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cause": "S4"}, "truth.json: cause: "),
        ({"class": "Z"}, "truth.json: class: "),
        ({"class": "G"}, "truth.json: class: G is not the class of S04"),
        ({"scope": {"dimension": "planet", "values": []}}, "truth.json: scope.dimension: "),
        ({"scope": {"dimension": "pod"}}, "truth.json: scope.values: Field required"),
        ({"culprit_change": "c-9"}, "truth.json: culprit_change: c-9 is not in changes.json"),
        ({"onset": "noon"}, "truth.json: onset: "),
        ({"notes": {"also": ["everything"]}}, "truth.json: also.0: "),
    ],
)
def test_a_broken_truth_is_named_with_its_place(three: Path, wrong: dict[str, Any], words: str) -> None:
    """Whoever wrote the case learns which file, where in it, and why."""
    (three / "prompt/truth.json").write_text(json.dumps(truth_json("S04", **wrong)))

    with pytest.raises(CaseError) as refused:
        read_truth(three / "prompt")

    assert words in str(refused.value)


def test_a_manifest_is_read_or_refused(three: Path, tmp_path: Path) -> None:
    """Its seed is printed beside the figures, so half a manifest is an error; none at all is fine."""
    [manifest] = read_manifests(tmp_path)
    none = read_manifests(three / "deep")
    (three / "cases.json").write_text("[1]")

    assert manifest == {"folder": "cases", "seed": 77, "count": 3, "command": "make them"}
    assert none == []
    with pytest.raises(EvaluationError, match="is not an object"):
        read_manifests(three)


def test_a_sample_is_the_same_for_the_same_seed(three: Path) -> None:
    """So that sixty random cases can be read again."""
    cases = find_cases(three)
    samples = [[case.name for case in sample_of(cases, 2, seed)] for seed in (1, 1, 2, 3, 4)]

    assert samples[0] == samples[1]
    assert len({tuple(sample) for sample in samples}) > 1
    assert sample_of(cases, 9, 1) == cases


def test_answers_are_alike_within_a_hundredth(three: Path) -> None:
    """First cause and culprit have to be the same, and no probability may differ by more than 0.01."""
    [case, *_] = find_cases(three)
    assert case.truth is not None

    def said(*ranked: tuple[str, float], culprit: str | None = None) -> Scored:
        assert case.truth is not None
        return Scored(case="c", truth=case.truth, answer=Answer(ranked=ranked, culprit=culprit))

    ours = said(("S04", 0.80), ("S02", 0.10))
    silent = Scored(case="c", truth=case.truth, answer=None, skipped="broken")

    assert difference(ours, said(("S04", 0.795), ("S02", 0.105), ("other", 0.009))) is None
    assert difference(ours, said(("S04", 0.78), ("S02", 0.10))) == "S04 at 0.800, Prometheus 0.780"
    assert difference(ours, said(("S02", 0.5), ("S04", 0.4))) == "first S04, Prometheus S02"
    assert difference(ours, said(("S04", 0.80), culprit="x")) == "culprit None, Prometheus x"
    assert difference(ours, silent) == "skipped: broken"


def _saying(script: str) -> Worker:
    return Worker((sys.executable, "-c", script))


ECHO = 'import sys\nfor line in sys.stdin: print("{\\"outcome\\": %d}" % len(line), flush=True)'


async def test_a_worker_that_dies_costs_its_case_only() -> None:
    """The case is skipped with the last words of the process, and the next one gets a new process."""
    dying = _saying("import sys; sys.stdin.readline(); sys.exit('out of memory')")
    first = await dying.read(JOB, patience_s=20)
    second = await dying.read(JOB, patience_s=20)

    assert first == second == {"skipped": "the worker died (status 1): out of memory"}


def _dies(pid: int, patience_s: float = 20.0) -> bool:
    """True once the process is gone, or dead and not yet collected by its new parent: a kill takes its moment."""
    over = time.monotonic() + patience_s
    while time.monotonic() < over:
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if ") Z " in status:
            return True
        time.sleep(0.05)
    return False


async def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    """The case is skipped when its time is over, and what its process has started (a Prometheus) ends with it."""
    file = tmp_path / "pid"
    hanging = _saying(
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))\n"
        "child.wait()"
    )

    answer = await hanging.read(JOB, patience_s=2)

    assert answer == {"skipped": "no answer within 2 s"}
    assert _dies(int(file.read_text()))


async def test_lines_come_back_in_the_order_of_the_jobs() -> None:
    """Two workers share five jobs; each job is told when it is done."""
    jobs = [Job(folder="x" * length, source="recorder") for length in (5, 1, 4, 2, 3)]
    told: list[Job] = []

    lines = await read_all(jobs, workers=2, patience_s=20, told=told.append, start=lambda: _saying(ECHO))

    lengths = [line["outcome"] for line in lines]
    assert [length - min(lengths) for length in lengths] == [4, 0, 3, 1, 2]
    assert sorted(told, key=lambda job: job.folder) == sorted(jobs, key=lambda job: job.folder)


@pytest.mark.integration
def test_cases_are_scored_and_the_figures_written(run: Run, three: Path, tmp_path: Path) -> None:
    """Three cases of a small fleet: all right; figures, baselines, every answer and the command are in the file."""
    file, picture = tmp_path / "figures.json", tmp_path / "calibration.png"

    status, shown, _ = run("--cases", str(three), "--json", str(file), "--figure", str(picture), "--jobs", "1")

    result = json.loads(file.read_text())
    assert status == 0
    assert result.keys() >= EVERYBODYS_KEYS
    assert result["cases"][0].keys() >= {"case", "truth", "ranked", "culprit", "seconds"}
    assert (result["n"], result["ac1"], result["false_accusation"], result["culprit"]) == (3, 1.0, 0.0, 1.0)
    assert result["per_cause"].keys() == {"S04", "none", "G11"}
    assert result["baselines"].keys() == {"latest_change", "alert_name", "fixed_thresholds", "nearest_signature"}
    assert (
        result["baselines"]["latest_change"]["false_accusation"] == 0.5
    )  # blames the decoy; the control has no change
    assert [(case["case"], case["truth"], case["ranked"][0]["cause"]) for case in result["cases"]] == [
        ("deep/calm", "none", "none"),
        ("prompt", "S04", "S04"),
        ("remap", "G11", "G11"),
    ]
    assert result["command"] == f"watchkeeper eval diagnosis --cases {three} --json {file} --figure {picture} --jobs 1"
    assert result["command"] in shown
    assert "3 cases of seed 77: make them" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.integration
def test_a_broken_case_is_listed_and_wrong(run: Run, three: Path, tmp_path: Path) -> None:
    """One of six has cut telemetry: it counts as wrong, and the file and its place are told."""
    for copy in range(3):
        write_case(three / f"more-{copy}", truth_json("none"), changes=())
    (three / "prompt/metrics.om").write_text("up 1 2\n# EOF\nafter the end\n")

    status, shown, _ = run("--cases", str(three), "--json", str(tmp_path / "f.json"))

    result = json.loads((tmp_path / "f.json").read_text())
    assert status == 0
    assert (result["n"], result["skipped"]) == (6, 1)
    assert result["ac1"] == pytest.approx(5 / 6)
    assert "prompt: metrics.om: " in shown
    assert "there is text after # EOF" in shown


@pytest.mark.integration
def test_a_mostly_skipped_run_has_no_score(run: Run, three: Path, tmp_path: Path) -> None:
    """More than a fifth skipped: exit 1, the reasons on standard error, no figures anywhere."""
    (three / "prompt/truth.json").write_text("{}")
    file = tmp_path / "figures.json"

    status, shown, told = run("--cases", str(three), "--json", str(file))

    assert status == 1
    assert "1 of 3 cases were skipped" in told
    assert "prompt: truth.json: cause: Field required" in told
    assert "AC@1" not in shown
    assert not file.exists()


def test_an_empty_folder_has_no_score(run: Run, tmp_path: Path) -> None:
    """Nothing was measured, so nothing is said."""
    status, shown, told = run("--cases", str(tmp_path))

    assert (status, shown) == (1, "")
    assert "there is no case in" in told


@pytest.mark.integration
def test_a_cause_can_be_taken_out_of_the_knowledge(run: Run, three: Path, tmp_path: Path) -> None:
    """Only its cases are read, they are `other` now, and nobody answers with what is not known any more."""
    status, _, _ = run("--cases", str(three), "--leave-out", "S04", "--json", str(tmp_path / "f.json"))

    [case] = json.loads((tmp_path / "f.json").read_text())["cases"]
    assert status == 0
    assert (case["truth"], case["taken_out"]) == ("other", "S04")
    assert "S04" not in {cause["cause"] for cause in case["ranked"]}


def test_only_what_is_known_can_be_left_out(run: Run, three: Path) -> None:
    """A typo would otherwise read no case at all."""
    status, _, told = run("--cases", str(three), "--leave-out", "S99")

    assert status == 2
    assert "S99" in told


@pytest.mark.integration
def test_a_real_prometheus_gives_the_same_answers(run: Run, three: Path, tmp_path: Path) -> None:
    """promtool fills a Prometheus from a packed case, and the comparison with the recorder finds no difference."""
    need_program("promtool", INSTALL)
    need_program("prometheus", INSTALL)

    status, shown, _ = run("--cases", str(three / "deep"), "--compare", "--json", str(tmp_path / "f.json"))

    result = json.loads((tmp_path / "f.json").read_text())
    assert (status, result["different"], result["n"]) == (0, [], 1)
    assert result["prometheus"]["skipped"] == 0
    assert "0 of 1 answers differ" in shown
