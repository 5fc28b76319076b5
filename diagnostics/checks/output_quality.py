"""
Did the answers get worse?

Reads the shares of refusals, empty and truncated answers, valid formats, thumbs down, and the judge's score. Bad when,
beyond chance, refusals doubled and gained three points, empty answers passed five times their share, truncated ones
gained ten points, valid formats lost two, thumbs down gained two by half, or the judge's score lost 0.04. A share needs
200 events in each window (100 votes or scores), and so many that chance does not move it by what matters. A judge whose
own version is new is no witness alone: `evaluator` says more. `answers_apart` says whose answers they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.answer_quality import FEEDBACK, FORMATS, RESPONSES, SCORE, Aspect, new_evaluators, parts
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.proportions import SURE, Share
from diagnostics.target import Target
from diagnostics.telemetry.model import Telemetry
from diagnostics.wording import compared


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    found = await parts(Look(target, telemetry, frame))
    if found is None:
        raise CannotTellError(
            f"the application exports no responses by outcome ({RESPONSES}), format checks ({FORMATS}), "
            f"feedback ({FEEDBACK}) or judge scores"
        )
    whole = found.whole
    known = {aspect: share.compared(aspect.enough) for aspect, share in whole.items() if aspect.is_measured(share)}
    if not known:
        raise CannotTellError(f"too few answers were scored to judge: {_thin(whole)}")
    # What got worse in one place only is measured there, by `answers_apart`: the mean hides how much.
    measures = [
        measure(aspect.signal, cell, "" if aspect is SCORE else "ratio")
        for aspect, cell in known.items()
        if not found.is_apart(aspect)
    ]
    complaints = [aspect for aspect in known if _is_complaint(aspect, whole[aspect])]
    if complaints == [SCORE] and new_evaluators(found.judged):
        said = f"Judge's score: {compared(known[SCORE])}, but the judge itself is new and nothing else moved."
        return Finding.ok("output_quality", said, *measures)
    if complaints:
        said = " ".join(_sentence(aspect, known[aspect]) for aspect in complaints)
        return Finding.bad("output_quality", said, *measures)
    rest = _thin({aspect: share for aspect, share in whole.items() if aspect not in known})
    said = "Answers are as good as usual, as far as they are scored."
    return Finding.ok("output_quality", f"{said} Too few to judge: {rest}." if rest else said, *measures)


def _is_complaint(aspect: Aspect, share: Share) -> bool:
    return aspect.is_worse(share.compared(aspect.enough)) and aspect.chance(share) < SURE


def _sentence(aspect: Aspect, cell: Compared) -> str:
    return f"{aspect.words}: {compared(cell, '' if aspect is SCORE else 'ratio')}."


def _thin(whole: Mapping[Aspect, Share]) -> str:
    return ", ".join(f"{aspect.words.lower()} (of {share.all_now:.0f})" for aspect, share in whole.items())
