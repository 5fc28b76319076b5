"""Whole diagnoses: the reference story, verification after a fix, and parts that hang, fail or lie."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from diagnostics.answer import RecordedChanges
from diagnostics.changes.change import Change, ChangeSourceError
from diagnostics.checks import CHECKS
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Status
from diagnostics.memory import RememberedTelemetry
from diagnostics.onset import History, Onset
from diagnostics.runner import SILENT, Diagnoser, frame_for
from diagnostics.target import Target
from diagnostics.telemetry.model import Matrix, Query, Telemetry, TelemetryError, Vector
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.diagnosed import recorded
from tests.diagnostics_prompts import DECOY, GUILTY

PATIENCE_S = 30.0
"""What is tested is not how quick the machine is just now."""


class Broken:
    """Telemetry that refuses every question."""

    async def now(self) -> datetime:
        raise TelemetryError("connection refused")

    async def vector(self, query: Query, at: datetime) -> Vector:
        raise TelemetryError("connection refused")

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        raise TelemetryError("connection refused")

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        raise TelemetryError("connection refused")


class Hanging(Broken):
    """Telemetry that never answers but knows the time."""

    async def now(self) -> datetime:
        return synthetic.END

    async def vector(self, query: Query, at: datetime) -> Vector:
        return await asyncio.Event().wait() and {}

    async def matrix(self, query: Query, start: datetime, end: datetime, step: timedelta) -> Matrix:
        return await asyncio.Event().wait() and {}

    async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
        return await asyncio.Event().wait()


class Source:
    """A change source that does what it was told."""

    def __init__(self, *, error: Exception | None = None, hangs: bool = False) -> None:
        self.name = "prompts"
        self.error = error
        self.hangs = hangs

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return []


async def test_the_reference_story() -> None:
    """A lost prefix cache: cause, onset, culprit with diff, breakdown, next step, and nobody else accused."""
    sources = [RecordedChanges([GUILTY, DECOY])]
    diagnosis = await Diagnoser(recorded("S04"), sources, patience_s=PATIENCE_S).diagnose(
        synthetic.target(), alert="LLMHighTTFT"
    )

    assert diagnosis.causes[0].cause == "S04"
    assert diagnosis.causes[0].probability > 0.8
    assert diagnosis.user_impact
    assert diagnosis.since is not None
    assert abs(diagnosis.since - synthetic.ONSET) <= timedelta(minutes=2)
    assert diagnosis.culprit_change == "prompts:chat-system:8"
    assert diagnosis.suspects[0].change.undo["previous_version"] == "7"
    assert "+Current time: {{now}}" in diagnosis.suspects[0].diff
    assert {stage.stage for stage in diagnosis.stages} >= {"queue", "prefill", "decode"}
    assert diagnosis.scope is not None
    assert diagnosis.scope.dimension == "fleet"
    assert diagnosis.next_check


async def test_a_decoy_alone_is_no_culprit() -> None:
    """The cause stays, the innocent change is not blamed for it."""
    diagnosis = await Diagnoser(recorded("S04"), [RecordedChanges([DECOY])], patience_s=PATIENCE_S).diagnose(
        synthetic.target()
    )
    assert diagnosis.causes[0].cause == "S04"
    assert diagnosis.culprit_change is None


async def test_a_change_after_the_onset_is_never_named() -> None:
    """Whatever it changed, it came too late."""
    late = replace(GUILTY, at=synthetic.ONSET + timedelta(minutes=4))
    diagnosis = await Diagnoser(recorded("S04"), [RecordedChanges([late])], patience_s=PATIENCE_S).diagnose(
        synthetic.target()
    )
    assert diagnosis.culprit_change is None
    assert late.id not in {suspect.change.id for suspect in diagnosis.suspects}


async def test_a_healthy_service_with_changes_blames_none() -> None:
    """Changes without trouble are no suspects worth naming."""
    diagnosis = await Diagnoser(recorded("none"), [RecordedChanges([GUILTY, DECOY])], patience_s=PATIENCE_S).diagnose(
        synthetic.target()
    )
    assert diagnosis.causes[0].cause == "none"
    assert diagnosis.culprit_change is None


async def test_a_page_soon_after_the_onset_is_understood() -> None:
    """Five minutes in, the baseline still lies before the trouble."""
    early = synthetic.ONSET + timedelta(minutes=5)
    diagnosis = await Diagnoser(recorded("S04"), patience_s=PATIENCE_S).diagnose(synthetic.target(), at=early)
    assert diagnosis.causes[0].cause == "S04"
    assert diagnosis.frame.baseline_end <= synthetic.ONSET


@pytest.mark.parametrize(("is_cured", "status"), [(True, Status.OK), (False, Status.BAD)])
async def test_verification_tells_a_fix_from_a_wrong_one(*, is_cured: bool, status: Status) -> None:
    """The same checks against the same baseline, over the last two minutes: ok after the right fix, bad otherwise."""
    cure = synthetic.END + timedelta(minutes=1)
    later = cure + timedelta(minutes=3)
    text = synthetic.openmetrics(
        "S04", end=later, onset=synthetic.ONSET, cure=cure if is_cured else None, history=timedelta(minutes=45)
    )
    diagnoser = Diagnoser(load_openmetrics(text))
    diagnosis = await diagnoser.diagnose(synthetic.target(), at=synthetic.END)
    frame = replace(diagnosis.frame, at=later, recent=timedelta(minutes=2))

    findings = await diagnoser.check(["time_to_first_token", "prefix_cache"], synthetic.target(), frame)

    assert [finding.check for finding in findings] == ["time_to_first_token", "prefix_cache"]
    assert [finding.status for finding in findings] == [status, status], [f.summary for f in findings]


async def test_an_unheard_of_check_is_unknown() -> None:
    """A runbook may name what this version does not have; that is an answer, not a crash."""
    frame = Frame(at=synthetic.END, baseline_start=synthetic.ONSET, baseline_end=synthetic.END)
    [finding] = await Diagnoser(recorded("none")).check(["tea_leaves"], synthetic.target(), frame)
    assert (finding.status, finding.check) == (Status.UNKNOWN, "tea_leaves")


async def test_a_check_that_hangs_or_breaks_is_a_blind_spot() -> None:
    """The others answer, the diagnosis comes back, and what failed is said."""

    async def hangs(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def breaks(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
        raise ZeroDivisionError

    checks = {**CHECKS, "hangs": hangs, "breaks": breaks}
    diagnoser = Diagnoser(recorded("S04"), patience_s=4.0, checks=checks)
    diagnosis = await diagnoser.diagnose(synthetic.target())
    blind = {spot.check: spot.why for spot in diagnosis.blind_spots}
    assert blind["hangs"] == "no answer within 4 s"
    assert "ZeroDivisionError" in blind["breaks"]
    assert diagnosis.causes[0].cause == "S04"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (Source(hangs=True), "no answer within"),
        (Source(error=ChangeSourceError("prompts refuses the credential (401)")), "refuses the credential"),
        (Source(error=KeyError("oops")), "the source itself failed (KeyError)"),
    ],
)
async def test_a_source_that_fails_is_a_blind_spot(source: Source, why: str) -> None:
    """No answer about changes is not an absence of changes."""
    diagnosis = await Diagnoser(recorded("S04"), [source], patience_s=1.5).diagnose(synthetic.target())
    [spot] = [spot for spot in diagnosis.blind_spots if spot.check == "changes in prompts"]
    assert why in spot.why
    assert diagnosis.causes[0].cause == "S04"


async def test_a_telemetry_that_answers_nothing_is_not_asked_everything() -> None:
    """One patience is over before that is known; the checks do not wait another."""
    diagnosis = await Diagnoser(Hanging(), patience_s=0.3).diagnose(synthetic.target())
    assert {finding.summary for finding in diagnosis.findings} == {SILENT}


async def test_a_slow_history_does_not_silence_the_checks() -> None:
    """A Prometheus that is too busy for ranges may well answer instants."""

    real = recorded("S04")

    class NoRanges(Hanging):
        async def vector(self, query: Query, at: datetime) -> Vector:
            return await real.vector(query, at)

        async def exported(self, metric: str, at: datetime, where: Mapping[str, str] | None = None) -> bool:
            return await real.exported(metric, at, where)

    diagnosis = await Diagnoser(NoRanges(), patience_s=2.0).diagnose(synthetic.target())
    assert "onset" in {spot.check for spot in diagnosis.blind_spots}
    assert {finding.status for finding in diagnosis.findings} > {Status.UNKNOWN}


async def test_a_diagnosis_asks_only_so_much() -> None:
    """A label with too many values makes nobody ask for ever; what was asked already is still answered."""
    remembered = RememberedTelemetry(recorded("S04"), most_questions=2)
    await remembered.vector(Query(metric="up"), synthetic.END)
    await remembered.exported("up", synthetic.END)
    with pytest.raises(TelemetryError, match="asked its 2 questions"):
        await remembered.vector(Query(metric="down"), synthetic.END)
    assert await remembered.exported("up", synthetic.END)
    await remembered.close()


@pytest.mark.parametrize("telemetry", [Broken(), Hanging()])
async def test_without_telemetry_there_is_still_an_answer(telemetry: Telemetry) -> None:
    """Every check is unknown, nobody is accused or acquitted, and it does not take for ever."""
    started = asyncio.get_running_loop().time()
    diagnosis = await Diagnoser(telemetry, patience_s=0.2).diagnose(synthetic.target())
    assert {finding.status for finding in diagnosis.findings} == {Status.UNKNOWN}
    assert diagnosis.causes[0].cause == "other"
    assert diagnosis.causes[0].probability < 0.5
    assert not diagnosis.user_impact
    assert asyncio.get_running_loop().time() - started < 5


async def test_a_question_is_asked_once() -> None:
    """Many checks want the same numbers; the telemetry is asked for each of them one time."""

    class Counting(Broken):
        def __init__(self) -> None:
            self.asked: list[Query] = []

        async def vector(self, query: Query, at: datetime) -> Vector:
            self.asked.append(query)
            await asyncio.sleep(0)
            return {(): 1.0}

    counting = Counting()
    remembered = RememberedTelemetry(counting)
    query = Query(metric="up", where={"job": "vllm"})
    answers = await asyncio.gather(*(remembered.vector(query, synthetic.END) for _ in range(5)))
    await remembered.vector(replace(query, where={"job": "other"}), synthetic.END)
    await remembered.close()
    assert answers == [{(): 1.0}] * 5
    assert len(counting.asked) == 2


async def test_a_waiter_that_leaves_does_not_take_the_answer_along() -> None:
    """A check whose patience ends must not cancel the question that others wait for."""
    release = asyncio.Event()

    class Slow(Broken):
        async def vector(self, query: Query, at: datetime) -> Vector:
            await release.wait()
            return {(): 2.0}

    remembered = RememberedTelemetry(Slow())
    query = Query(metric="up")
    staying = asyncio.ensure_future(remembered.vector(query, synthetic.END))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(remembered.vector(query, synthetic.END), 0.01)
    release.set()
    assert await staying == {(): 2.0}
    await remembered.close()


@pytest.mark.parametrize("minutes", [None, 12, 40])
def test_the_baseline_keeps_its_distance(minutes: int | None) -> None:
    """It ends a quarter of an hour before now, or well before the onset, and never before the data begins."""
    at = synthetic.END
    onset = None
    if minutes is not None:
        began = at - timedelta(minutes=minutes)
        slack = timedelta(minutes=2)
        onset = Onset(at=began, earliest=began - slack, latest=began + slack, signal="ttft")
    frame = frame_for(at, History(begins=at - timedelta(minutes=70), onset=onset))
    assert frame.baseline_end <= at - timedelta(minutes=15)
    assert onset is None or frame.baseline_end < onset.earliest
    assert frame.baseline_start >= at - timedelta(minutes=70)
    assert frame.baseline_start < frame.baseline_end
