"""Did the fix help? The checks that found the trouble are asked again, about the time after the change alone."""

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
from runbooks.engine.values import Plan, PlannedStep

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


def _judged(findings: Sequence[Finding], good: int) -> tuple[Status, str]:
    summary = " ".join(finding.summary for finding in findings)[:1000]
    if good >= 2:
        return Status.OK, summary
    if any(finding.status is Status.UNKNOWN for finding in findings) and not any(
        finding.status is Status.BAD for finding in findings
    ):
        return Status.UNKNOWN, summary
    return Status.BAD, summary or "no check answered"
