"""One look at one service: checks in parallel, changes, onset; each with its patience, so that it always comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog

from diagnostics import latency
from diagnostics.alerting import alerting_finding
from diagnostics.causes import knowledge
from diagnostics.causes.knowledge import Knowledge
from diagnostics.changes.change import Change, ChangeSource, ChangeSourceError
from diagnostics.changes.merge import distinct
from diagnostics.checks import CHECKS, TRACES, Check, with_traces
from diagnostics.conclusion import Gathered, conclude
from diagnostics.diagnosis import BlindSpot, Diagnosis, Frame, Stage
from diagnostics.engines import speaking
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Look
from diagnostics.memory import RememberedTelemetry
from diagnostics.onset import History, change_points, look_back
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry, TelemetryError
from diagnostics.traces.model import TraceSource

BASELINE = timedelta(minutes=60)
DISTANCE = timedelta(minutes=15)
"""The baseline ends at least this long before now, so that a slow onset does not leak into it."""

UNSEEN = timedelta(minutes=30)
"""So long where no onset was found: what is wrong may have begun before the alert's own window."""

CHANGES_BEFORE = timedelta(hours=6)
"""How far back changes are asked for: the slow ones (certificates, memory) take hours to bite."""

SILENT = "the telemetry answers nothing at all"

log = structlog.get_logger()


class Diagnoser:
    """
    Diagnoses services over one telemetry and any number of change sources. Reads only.

    A check or a source that fails, or takes longer than `patience_s`, becomes unknown and a blind spot; a diagnosis
    always comes back. `known` are the causes it chooses among, those of the package by default; `traces` the service's
    own, where it has any.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        sources: Sequence[ChangeSource] = (),
        *,
        patience_s: float = 3.0,
        checks: Mapping[str, Check] = CHECKS,
        known: Knowledge | None = None,
        traces: TraceSource | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._sources = tuple(sources)
        self._patience_s = patience_s
        self._checks = checks if traces is None else with_traces(checks, traces)
        # Who keeps no traces misses nothing: a blind spot on every card would say otherwise.
        self._asked = [name for name in self._checks if traces is not None or name != TRACES]
        self._known = known

    @property
    def telemetry(self) -> Telemetry:
        """What it asks; whoever waits for a verification waits by this clock."""
        return self._telemetry

    async def warm_up(self) -> None:
        """Load what the first diagnosis would otherwise wait a second for (numpy, scipy, ruptures, the knowledge)."""
        await asyncio.gather(asyncio.to_thread(change_points, [0.0, 1.0] * 10), asyncio.to_thread(knowledge.load))

    async def diagnose(self, target: Target, *, at: datetime | None = None, alert: str = "") -> Diagnosis:
        """Look at the service at `at` (the telemetry's now by default); `alert` is the rule's name or page's title."""
        started = time.monotonic()
        blind: list[BlindSpot] = []
        remembered = RememberedTelemetry(self._telemetry)
        telemetry = speaking(remembered, target)
        try:
            instant = await self._instant(telemetry, blind) if at is None else at
            changes = asyncio.ensure_future(self._all_changes(target, instant))
            history = await self._history(telemetry, target, instant, alert, blind)
            frame = frame_for(instant, history)
            stages: tuple[Stage, ...] = ()
            if remembered.is_silent:  # every check would wait as long again, and in vain
                findings = [Finding.unknown(name, SILENT) for name in self._asked]
            else:
                findings, stages = await asyncio.gather(
                    self._run(self._asked, target, telemetry, frame), self._stages(telemetry, target, frame)
                )
            if (alerting := alerting_finding(history)) is not None:
                findings = [*findings, alerting]
            found, unread = await changes
        finally:
            await remembered.close()
        gathered = Gathered(
            frame=frame,
            onset=history.onset,
            findings=findings,
            stages=stages,
            changes=found,
            changes_known=bool(self._sources) and not unread,
            blind_spots=[*blind, *unread],
        )
        diagnosis = conclude(target, gathered, seconds=time.monotonic() - started, known=self._known)
        top = diagnosis.causes[0]
        log.info(
            "diagnosed",
            service=target.service,
            alert=alert,
            cause=top.cause,
            probability=top.probability,
            seconds=round(diagnosis.seconds, 3),
        )
        return diagnosis

    async def check(self, names: Sequence[str], target: Target, frame: Frame) -> list[Finding]:
        """
        Answer some checks again, in their order: for a verification, with the diagnosis' frame and a later `at`.

        A name that is no check answers unknown.
        """
        remembered = RememberedTelemetry(self._telemetry)
        try:
            return await self._run(names, target, speaking(remembered, target), frame)
        finally:
            await remembered.close()

    async def _run(self, names: Sequence[str], target: Target, telemetry: Telemetry, frame: Frame) -> list[Finding]:
        return list(await asyncio.gather(*(self._answer(name, target, telemetry, frame) for name in names)))

    async def _answer(self, name: str, target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
        check = self._checks.get(name)
        if check is None:
            return Finding.unknown(name, f"there is no check named {name!r}")
        try:
            return await asyncio.wait_for(check(target, telemetry, frame), self._patience_s)
        except TimeoutError:
            return Finding.unknown(name, f"no answer within {self._patience_s:g} s")
        except Exception as error:  # the outer boundary of one check: its defect must not take the diagnosis down
            log.exception("check failed", check=name, service=target.service)
            return Finding.unknown(name, f"the check itself failed ({type(error).__name__}); the log says where")

    async def _instant(self, telemetry: Telemetry, blind: list[BlindSpot]) -> datetime:
        try:
            return await asyncio.wait_for(telemetry.now(), self._patience_s)
        except (TelemetryError, TimeoutError) as error:
            blind.append(BlindSpot(check="telemetry", why=f"its clock cannot be read: {str(error) or 'no answer'}"))
            return datetime.now(UTC)

    async def _history(
        self, telemetry: Telemetry, target: Target, instant: datetime, alert: str, blind: list[BlindSpot]
    ) -> History:
        async def knock() -> None:
            """A question so small that only a telemetry that answers nothing leaves it open."""
            with suppress(TelemetryError):
                await telemetry.exported("up", instant)

        both = asyncio.gather(look_back(telemetry, target, instant, alert), knock())
        try:
            return (await asyncio.wait_for(both, self._patience_s))[0]
        except (TelemetryError, TimeoutError, ArithmeticError, ValueError) as error:
            blind.append(
                BlindSpot(check="onset", why=f"the history cannot be read: {str(error) or 'no answer in time'}")
            )
            return History(begins=None, onset=None)

    async def _stages(self, telemetry: Telemetry, target: Target, frame: Frame) -> tuple[Stage, ...]:
        """The breakdown's stages for the picture; its check has asked the same questions, so they cost nothing."""
        try:
            found = await asyncio.wait_for(latency.breakdown(Look(target, telemetry, frame)), self._patience_s)
        except (CannotTellError, TelemetryError, TimeoutError, ArithmeticError, ValueError):
            return ()  # the check latency_breakdown says why
        return found.stages

    async def _all_changes(self, target: Target, until: datetime) -> tuple[list[Change], list[BlindSpot]]:
        """The changes of all sources, each once, oldest first, and the sources that could not be asked."""
        answers = await asyncio.gather(*(self._changes(source, target, until) for source in self._sources))
        changes = distinct(found for found, _ in answers)
        return changes, [spot for _, spot in answers if spot is not None]

    async def _changes(
        self, source: ChangeSource, target: Target, until: datetime
    ) -> tuple[list[Change], BlindSpot | None]:
        try:
            found = await asyncio.wait_for(source.changes(target, until - CHANGES_BEFORE, until), self._patience_s)
        except (ChangeSourceError, TimeoutError) as error:
            why = str(error) or f"no answer within {self._patience_s:g} s"
            return [], BlindSpot(check=f"changes in {source.name}", why=why)
        except Exception as error:  # the outer boundary of one source, as for one check
            log.exception("change source failed", source=source.name, service=target.service)
            why = f"the source itself failed ({type(error).__name__}); the log says where"
            return [], BlindSpot(check=f"changes in {source.name}", why=why)
        return found, None


def frame_for(at: datetime, history: History) -> Frame:
    """The hour before the trouble as baseline: it ends before the onset and before the last quarter of an hour."""
    end = at - UNSEEN
    if history.onset is not None:
        end = min(at - DISTANCE, history.onset.earliest - DISTANCE / 2)
    start = end - BASELINE
    if history.begins is not None:
        start = min(max(start, history.begins), end)
    return Frame(at=at, baseline_start=start, baseline_end=end)
