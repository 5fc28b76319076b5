"""
Do answers leak personal data, secrets or the system prompt?

Reads the output scanner's hits by kind, prompt version and tenant, per answer. Bad when they tripled, with five hits
or more, beyond chance (exact, two Poisson rates). Verify with hashed matches; never paste the data anywhere. When one
or two tenants carry most of it, it is theirs; otherwise look at the prompt version, the tools and the sources.
"""

from __future__ import annotations

from collections.abc import Mapping

from diagnostics.answer_quality import BY_VERSION, REFUSAL, cells_of, service
from diagnostics.checks.verdicts import measure
from diagnostics.diagnosis import Frame
from diagnostics.findings import Finding, Measure
from diagnostics.look import CannotTellError, Compared, Look
from diagnostics.proportions import ENOUGH_EVENTS, NO_EVENTS, SURE, Share, chance_of_rates, summed
from diagnostics.target import Target
from diagnostics.telemetry.model import Key, Telemetry
from diagnostics.wording import compared

HITS = "llm_app_sensitive_output_total"
LABELS = ("kind", "prompt_version", "tenant")

_LEAST_HITS = 5
_TIMES = 3.0
_CARRIES = 0.7


async def run(target: Target, telemetry: Telemetry, frame: Frame) -> Finding:
    look = Look(target, telemetry, frame)
    await look.require("application", HITS)
    found = hits_of(await look.rates(HITS, "application", by=LABELS), await answers(look), look)
    whole = found.get((), NO_EVENTS)
    ratio = whole.compared(ENOUGH_EVENTS)
    if ratio.now is None or ratio.baseline is None:
        raise CannotTellError(f"only {whole.all_now:.0f} answers in the recent window, {whole.all_then:.0f} before")
    measures = [measure("sensitive_ratio", ratio, "ratio")]
    if not is_rising(whole):
        return Finding.ok("sensitive_output", f"Answers with sensitive data: {compared(ratio, 'ratio')}.", *measures)
    measures += _scoped(found, whole)
    kinds = ", ".join(sorted(value for m in measures for label, value in m.scope if label == "kind"))
    said = f"Answers with sensitive data: {compared(ratio, 'ratio')}{f' ({kinds})' if kinds else ''}."
    return Finding.bad("sensitive_output", said, *measures)


async def answers(look: Look) -> Share:
    """How many answers there were, in both windows; by requests where no answer is counted by its outcome."""
    counted = service(await cells_of(look, REFUSAL, BY_VERSION))
    if counted.all_now:
        return counted
    rate = await look.rate("llm_app_requests_total", "application")
    now_s, then_s = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()
    return Share(all_now=(rate.now or 0.0) * now_s, all_then=(rate.baseline or 0.0) * then_s)


def hits_of(rates: Mapping[Key, Compared], exposed: Share, look: Look) -> dict[Key, Share]:
    """Hits per answer: in all under (), and by each label under (label, value)."""
    now_s, then_s = look.frame.recent.total_seconds(), look.baseline_window.total_seconds()

    def share(cell: Compared) -> Share:
        return Share(
            hits_now=(cell.now or 0.0) * now_s,
            all_now=exposed.all_now,
            hits_then=(cell.baseline or 0.0) * then_s,
            all_then=exposed.all_then,
        )

    found: dict[Key, Share] = {(): share(summed(rates).get((), Compared()))}
    for position, label in enumerate(LABELS):
        found |= {(label, value): share(cell) for (value,), cell in summed(rates, position).items() if value}
    return found


def is_rising(cell: Share) -> bool:
    """Three times as often, five hits or more, and not by chance."""
    if cell.hits_now < _LEAST_HITS or not cell.all_now or not cell.all_then:
        return False
    is_more = cell.hits_now / cell.all_now >= _TIMES * cell.hits_then / cell.all_then
    return is_more and chance_of_rates(cell.hits_now, cell.all_now, cell.hits_then, cell.all_then) < SURE


def _scoped(found: Mapping[Key, Share], whole: Share) -> list[Measure]:
    """The kinds, versions or tenants that carry the rise; tenants only where few of them do."""
    rising = {key: cell for key, cell in found.items() if key and is_rising(cell)}
    tenants = sorted((key for key in rising if key[0] == "tenant"), key=lambda key: _more(rising[key]), reverse=True)[
        :2
    ]
    is_theirs = bool(tenants) and sum(_more(rising[key]) for key in tenants) >= _CARRIES * _more(whole)
    shown = [key for key in rising if key[0] == "kind"]
    shown += tenants if is_theirs else [key for key in rising if key[0] == "prompt_version"]
    return [measure("sensitive_ratio", rising[key].compared(1), "ratio", (key[0], key[1])) for key in sorted(shown)]


def _more(cell: Share) -> float:
    usual = cell.hits_then / cell.all_then * cell.all_now if cell.all_then else 0.0
    return max(cell.hits_now - usual, 0.0)
