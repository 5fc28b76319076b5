"""
Did the fix help, and did a step happen? Checks and queries are asked again: about the time after the change alone for
the first, and for the second whatever the step's own `check` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from bot.config import Config
from bot.measured import longest_window, measured
from bot.respond import FRAME
from diagnostics.findings import Finding, Status
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.ask import wait_until
from diagnostics.telemetry.model import TelemetryError
from runbooks.engine.declared import CheckSays, Range
from runbooks.engine.values import Happened, Plan, PlannedStep

VERIFY_WINDOW = timedelta(minutes=2)
VERIFY_STEP = timedelta(seconds=30)
VERIFY_PATIENCE = timedelta(minutes=5)
"""By the telemetry's clock: two good samples VERIFY_STEP apart, each over VERIFY_WINDOW, within VERIFY_PATIENCE."""

STALLED_AFTER_S = 60.0


class Verifier:
    """Waits by the telemetry's clock, so that a drill and production are verified alike."""

    def __init__(self, *, diagnosers: Mapping[str, Diagnoser], config: Config) -> None:
        self._diagnosers = diagnosers
        self._config = config

    async def now(self, service: str) -> datetime | None:
        """The telemetry's time for this service, None when it cannot be told."""
        diagnoser = self._diagnosers.get(service)
        if diagnoser is None:
            return None
        try:
            return await diagnoser.telemetry.now()
        except TelemetryError:
            return None

    async def watch(self, plan: Plan, step: PlannedStep, changed_at: datetime | None) -> tuple[Status, str]:
        """
        OK after two good samples in a row, BAD or UNKNOWN when patience ends without them; and what was seen.

        `changed_at` is when the step took place, by the telemetry's clock; no sample looks at the time before it.
        """
        service = self._config.service(plan.service)
        diagnoser = self._diagnosers.get(plan.service)
        if service is None or diagnoser is None or changed_at is None:
            return Status.UNKNOWN, "there is no telemetry to verify with"
        settled = changed_at + timedelta(seconds=step.settle_s)
        frame = replace(FRAME.validate_python(plan.frame), recent=VERIFY_WINDOW, events_from=settled)
        at = settled + max(VERIFY_WINDOW, longest_window(step.verify_ranges))
        deadline = at + VERIFY_PATIENCE
        good, findings = 0, list[Finding]()
        while at <= deadline and good < 2:
            try:
                await wait_until(diagnoser.telemetry, at, stalled_after_s=STALLED_AFTER_S)
                findings = await diagnoser.check(step.verify, service.target(), replace(frame, at=at))
                findings += await measured(step.verify_ranges, service.target(), diagnoser.telemetry, at)
            except TelemetryError as error:
                return Status.UNKNOWN, f"the telemetry stopped answering: {error}"
            good = good + 1 if findings and all(finding.status is Status.OK for finding in findings) else 0
            at += VERIFY_STEP
        return _judged(findings, good)

    async def had_happened(self, plan: Plan, step: PlannedStep) -> bool:
        """Does the step's check show, before anything is called, that it has happened? A single yes counts for none."""
        now = None if step.check is None else await self.now(plan.service)
        if now is None or await self._shown(plan, step, now) is not Happened.YES:
            return False
        return await self._shown(plan, step, now + VERIFY_STEP) is Happened.YES

    async def settled(self, plan: Plan, step: PlannedStep) -> Happened:
        """
        What the step's check says of a call whose answer was lost, asked twice after all of it can be seen.

        That is when the change had its time to settle and the look back is over; CANNOT_TELL unless both agree.
        """
        now = None if step.check is None else await self.now(plan.service)
        if now is None:
            return Happened.CANNOT_TELL
        looks_back = longest_window([step.check]) if isinstance(step.check, Range) else VERIFY_WINDOW
        at = now + timedelta(seconds=step.settle_s) + looks_back
        first = await self._shown(plan, step, at)
        agrees = first is not Happened.CANNOT_TELL and first is await self._shown(plan, step, at + VERIFY_STEP)
        return first if agrees else Happened.CANNOT_TELL

    async def _shown(self, plan: Plan, step: PlannedStep, at: datetime) -> Happened:
        """One sample of the step's check, at `at` by the telemetry's clock."""
        service, diagnoser = self._config.service(plan.service), self._diagnosers.get(plan.service)
        if service is None or diagnoser is None or step.check is None:
            return Happened.CANNOT_TELL
        frame = replace(FRAME.validate_python(plan.frame), at=at, recent=VERIFY_WINDOW, events_from=at - VERIFY_WINDOW)
        try:
            await wait_until(diagnoser.telemetry, at, stalled_after_s=STALLED_AFTER_S)
            if isinstance(step.check, CheckSays):
                findings = await diagnoser.check([step.check.check], service.target(), frame)
            else:
                findings = await measured([step.check], service.target(), diagnoser.telemetry, at)
        except TelemetryError:
            return Happened.CANNOT_TELL
        if not findings or any(finding.status not in (Status.OK, Status.BAD) for finding in findings):
            return Happened.CANNOT_TELL
        says = Status(step.check.answer) if isinstance(step.check, CheckSays) else Status.OK
        return Happened.YES if all(finding.status is says for finding in findings) else Happened.NO


def _judged(findings: Sequence[Finding], good: int) -> tuple[Status, str]:
    summary = " ".join(finding.summary for finding in findings)[:1000]
    if good >= 2:
        return Status.OK, summary
    if any(finding.status is Status.UNKNOWN for finding in findings) and not any(
        finding.status is Status.BAD for finding in findings
    ):
        return Status.UNKNOWN, summary
    return Status.BAD, summary or "no check answered"
