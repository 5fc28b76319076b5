"""
Who is hurt, and how much: the share of requests that fail, are too slow or answered uselessly, and how many tenants.

A burn rate of 1 uses up exactly the promised budget; at 41 a month's budget is gone in eighteen hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diagnostics.diagnosis import Diagnosis
from diagnostics.findings import Finding, Measure, Status
from diagnostics.look import Compared
from diagnostics.wording import number

MONTH_H = 30 * 24
SLOW_ALLOWED = 0.05
"""A promised 95th percentile lets one request in twenty be slower."""

UNSEEN = "Users feel it, though no more requests than usual fail, are late or answered uselessly."

_SHARES = ("failing_ratio", "slow_ratio", "spoiled_ratio")


@dataclass(frozen=True, kw_only=True)
class Impact:
    """
    Shares of requests, 0 to 1, now and normally; None where nothing measures them.

    `slow` is beyond the promised time, `spoiled` an answer that nobody can use (refused, empty, cut off, malformed).
    `hurt` names the tenants that fail more than they did, of `tenants` that sent requests. `burn_rate` is how many
    times too fast the promised budget goes, None without a promise.
    """

    failing: Compared
    slow: Compared
    spoiled: Compared
    tenants: int | None = None
    hurt: tuple[str, ...] = ()
    burn_rate: float | None = None

    @property
    def is_felt(self) -> bool:
        """Whether users notice: a percentage point more failures, or three (five) more useless (slow) answers."""
        limits = ((self.failing, 0.01), (self.spoiled, 0.03), (self.slow, SLOW_ALLOWED))
        return any((cell.gain or 0.0) >= limit for cell, limit in limits)

    @property
    def budget_per_hour(self) -> float | None:
        """The part of a month's error budget that an hour like this uses up."""
        return None if self.burn_rate is None else self.burn_rate / MONTH_H

    def sentence(self) -> str:
        """What the card says: "4.1 % of requests fail (normally 0.2 %), 12 of 60 tenants are hit, ..." ."""
        parts: list[str] = []
        for cell, words in (
            (self.failing, "of requests fail"),
            (self.slow, "are slower than promised"),
            (self.spoiled, "of answers are useless"),
        ):
            if cell.now is not None and (cell.gain is None or cell.gain >= 0.005):
                usual = "" if cell.baseline is None else f" (normally {number(cell.baseline, 'ratio')})"
                whose = "" if parts or words.startswith("of ") else "of requests "
                parts.append(f"{number(cell.now, 'ratio')} {whose}{words}{usual}")
        if not parts:
            return "Users notice nothing, as far as it is measured."
        if self.hurt and self.tenants:
            parts.append(f"{len(self.hurt)} of {self.tenants} tenants are hit")
        if self.burn_rate is not None and self.burn_rate > 1:
            parts.append(f"the error budget burns {self.burn_rate:.3g} times too fast")
        return f"{', '.join(parts)}."


def impact_of(findings: Iterable[Finding]) -> Impact | None:
    """What the check `impact` measured; None where it could not tell, or did not run."""
    for finding in findings:
        if finding.check == "impact" and finding.status is not Status.UNKNOWN:
            return _read(finding.measures)
    return None


def who_is_hurt(found: Diagnosis) -> str:
    """Who and how many, with the names of those who are hit and how long the budget lasts; "" where nobody knows."""
    measured = impact_of(found.findings)
    if measured is None or (found.causes and found.causes[0].cause == "none"):
        return ""
    if not measured.is_felt:
        return UNSEEN if found.user_impact else measured.sentence()
    names, more = ", ".join(measured.hurt[:3]), len(measured.hurt) - 3
    hit = f" Hit: {names}{f' and {more} more' if more > 0 else ''}." if names else ""
    return f"{measured.sentence()}{hit}{_lasting(measured)}"


def _lasting(measured: Impact) -> str:
    per_hour = measured.budget_per_hour
    if per_hour is None or per_hour * MONTH_H <= 1:
        return ""
    hours = 1 / per_hour
    lasts = f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
    return f" At this rate a month's budget lasts {lasts}."


def burn_rate(failing: float | None, slow: float | None, allowed: float | None) -> float | None:
    """How many times too fast the budget goes: of failures where some are allowed, of slow answers by their promise."""
    rates = []
    if failing is not None and allowed:
        rates.append(failing / allowed)
    if slow is not None:
        rates.append(slow / SLOW_ALLOWED)
    return max(rates, default=None)


def share_above(buckets: Mapping[float, float], limit: float) -> float | None:
    """
    The share of observations above a limit, from cumulative counts by upper edge; between edges it is interpolated.

    None where nothing was observed, or the limit lies beyond the last finite edge while something is beyond it.
    """
    edges = sorted(buckets)
    if not edges or not math.isinf(edges[-1]) or buckets[edges[-1]] <= 0:
        return None
    whole = buckets[edges[-1]]
    below, count = 0.0, 0.0
    for edge in edges:
        if edge >= limit:
            if math.isinf(edge):
                return None if whole > count else 0.0
            at_limit = count + (buckets[edge] - count) * (limit - below) / (edge - below)
            return min(max(1 - at_limit / whole, 0.0), 1.0)
        below, count = edge, buckets[edge]
    return None


def _read(measures: Iterable[Measure]) -> Impact:
    known = {found.signal: found for found in measures if not found.scope}
    failing, slow, spoiled = (_compared(known.get(signal)) for signal in _SHARES)
    tenants, burn = known.get("tenants_seen"), known.get("burn_rate")
    hurt = [
        value for found in measures for label, value in found.scope if found.signal == _SHARES[0] and label == "tenant"
    ]
    return Impact(
        failing=failing,
        slow=slow,
        spoiled=spoiled,
        tenants=None if tenants is None or tenants.value is None else round(tenants.value),
        hurt=tuple(sorted(hurt)),
        burn_rate=None if burn is None else burn.value,
    )


def _compared(found: Measure | None) -> Compared:
    return Compared() if found is None else Compared(now=found.value, baseline=found.baseline)
