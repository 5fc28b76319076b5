"""
Did the judge change, rather than the answers?

Reads who scores: the judge's versions and the mean score that each gives. Bad when a version that gave less than 5 %
of the scores before gives a fifth of them now and its scores differ by 0.04 from what was usual. `output_quality` says
whether anything but the judge has moved; when nothing has, score old answers again with the new judge.
"""

from __future__ import annotations

from diagnostics.answer_quality import BY_EVALUATOR, JUDGE, SCORE, cells_of, new_evaluators, service
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.exporters import remedy_for
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.proportions import folded
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    cells = await cells_of(look, SCORE, BY_EVALUATOR)
    if not cells:
        raise CannotTellError(f"{JUDGE}_count is not exported; {remedy_for(JUDGE)}")
    versions = folded(cells, BY_EVALUATOR.index("evaluator_version"))
    if set(versions) == {("",)}:
        raise CannotTellError(f"{JUDGE}_count has no label evaluator_version, so a new judge cannot be told")
    whole = service(cells)
    if whole.compared().now is None or whole.compared().baseline is None:
        raise CannotTellError(f"only {whole.all_now:.0f} answers were judged in the recent window")
    newcomers = new_evaluators(cells)
    found = Measure(signal="new_evaluator", value=float(bool(newcomers)), baseline=0.0)
    if not newcomers:
        return Finding.ok("evaluator", "The answers are scored by the same judge as before.", found)
    usual = whole.compared().baseline
    scored = {name: Compared(now=versions[name,].compared(30).now, baseline=usual) for name in newcomers}
    measures = [measure("new_evaluator", Compared(now=1.0, baseline=0.0), "", ("evaluator", name)) for name in scored]
    said = " ".join(
        f"Judge version {name} is new; its mean score is {compared(cell)}." for name, cell in scored.items()
    )
    differs = any(abs(cell.gain or 0.0) >= abs(SCORE.loss) for cell in scored.values())
    return (Finding.bad if differs else Finding.ok)("evaluator", said, found, *measures)
