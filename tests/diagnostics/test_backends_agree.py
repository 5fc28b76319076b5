"""One diagnosis, two telemetries: a real Prometheus and the recorder must tell the same story."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from diagnostics.diagnosis import Diagnosis
from diagnostics.runner import Diagnoser
from diagnostics.telemetry.prometheus import PrometheusTelemetry
from diagnostics.telemetry.recorded import load_openmetrics
from tests import synthetic
from tests.real_prometheus import start_prometheus

HISTORY = timedelta(minutes=60)


def numbers(diagnosis: Diagnosis) -> dict[tuple[object, ...], float]:
    """Every number that was measured; what could not be measured is absent on both sides or the keys differ."""
    pairs = [
        ((finding.check, measure.signal, measure.scope, which), number)
        for finding in diagnosis.findings
        for measure in finding.measures
        for which, number in (("now", measure.value), ("baseline", measure.baseline))
    ]
    return {key: number for key, number in pairs if number is not None}


@pytest.mark.integration
@pytest.mark.parametrize("scenario", ["S04", "G01", "S01", "none"])
async def test_prometheus_and_the_recorder_diagnose_alike(scenario: str, tmp_path: Path) -> None:
    """Same statuses, same ranked causes, same onset, and every number within one percent."""
    text = synthetic.openmetrics(scenario, history=HISTORY)
    file = tmp_path / "metrics.om"
    file.write_text(text)
    recorded = await Diagnoser(load_openmetrics(text), patience_s=20).diagnose(synthetic.target(), at=synthetic.END)
    with start_prometheus(file) as url:
        async with httpx.AsyncClient() as client:
            telemetry = PrometheusTelemetry(url, client=client)
            asked = await Diagnoser(telemetry, patience_s=20).diagnose(synthetic.target(), at=synthetic.END)

    assert [(f.check, f.status) for f in asked.findings] == [(f.check, f.status) for f in recorded.findings]
    assert [cause.cause for cause in asked.causes] == [cause.cause for cause in recorded.causes]
    assert asked.since == recorded.since
    ours, theirs = numbers(recorded), numbers(asked)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    for key, number in ours.items():
        assert theirs[key] == pytest.approx(number, rel=0.01, abs=1e-9), key
