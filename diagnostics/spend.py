"""
Why the spend changed: more requests, more tokens per request, dearer models in the mix, or dearer tokens.

Spend is requests x tokens per request x price. Each factor's part is its change at the average of the others (Das
Gupta's split of three factors); the price's part is split once more into mix and rate, as Kitagawa does. The parts sum
to the change, so none is counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diagnostics.look import Compared, total
from diagnostics.telemetry.model import Key
from diagnostics.wording import number

PER_HOUR = 3600.0

Cells = Mapping[Key, Compared]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A change of spend, in dollars per hour, by its reasons."""

    requests: float
    tokens_per_request: float
    mix: float
    price: float

    def reason(self) -> str:
        """The largest part, in words."""
        parts = {
            "more requests": self.requests,
            "more tokens per request": self.tokens_per_request,
            "dearer models in the mix": self.mix,
            "dearer tokens of the same models": self.price,
        }
        top = max(parts, key=lambda name: parts[name])
        return f"mostly {top} ({number(parts[top], 'usd/h')})"


def split(spend: Cells, tokens: Cells, requests: Compared) -> Split | None:
    """
    The parts of the change; None where a number is missing.

    `spend` is in dollars and `tokens` in tokens per second, both by (model,); `requests` are per second.
    """
    paid, used = hourly(total(spend)), total(tokens)
    if not (paid.now and paid.baseline and used.now and used.baseline and requests.now and requests.baseline):
        return None
    r0, r1 = requests.baseline, requests.now
    t0, t1 = used.baseline / r0, used.now / r1
    p0, p1 = paid.baseline / used.baseline, paid.now / used.now
    price = (p1 - p0) * _at_average(r0, r1, t0, t1)
    mix = price * _mix_part(spend, tokens, p1 - p0) if p1 != p0 else 0.0
    return Split(
        requests=(r1 - r0) * _at_average(t0, t1, p0, p1),
        tokens_per_request=(t1 - t0) * _at_average(r0, r1, p0, p1),
        mix=mix,
        price=price - mix,
    )


def prices(spend: Cells, tokens: Cells) -> dict[str, Compared]:
    """Dollars per thousand tokens of each model that both name."""
    return {model: per_1k(cell, tokens[model,]) for (model,), cell in spend.items() if model and (model,) in tokens}


def per_1k(spend: Compared, tokens: Compared) -> Compared:
    """Dollars per thousand tokens, from dollars and tokens per second."""
    return Compared(
        now=None if spend.now is None or not tokens.now else 1000 * spend.now / tokens.now,
        baseline=None if spend.baseline is None or not tokens.baseline else 1000 * spend.baseline / tokens.baseline,
    )


def hourly(per_s: Compared) -> Compared:
    """Dollars per hour, from dollars per second."""
    return Compared(
        now=None if per_s.now is None else per_s.now * PER_HOUR,
        baseline=None if per_s.baseline is None else per_s.baseline * PER_HOUR,
    )


def mix_shift(tokens: Cells) -> float | None:
    """Which part of the tokens changed its model, 0 to 1; None with one model only, or without a past."""
    used = total(tokens)
    if len(tokens) < 2 or not used.now or not used.baseline:
        return None
    moved = [(cell.now or 0.0) / used.now - (cell.baseline or 0.0) / used.baseline for cell in tokens.values()]
    return sum(abs(one) for one in moved) / 2


def _mix_part(spend: Cells, tokens: Cells, change: float) -> float:
    """Which part of a change of price (dollars per hour over tokens per second) the models' shares bring about."""
    used = total(tokens)
    if not used.now or not used.baseline:
        return 0.0
    mix = 0.0
    for model, price in prices(spend, tokens).items():
        known = [value for value in (price.now, price.baseline) if value is not None]
        cell = tokens[model,]
        moved = (cell.now or 0.0) / used.now - (cell.baseline or 0.0) / used.baseline
        mix += moved * sum(known) / len(known) if known else 0.0
    return mix / 1000 * PER_HOUR / change


def _at_average(a0: float, a1: float, b0: float, b1: float) -> float:
    return (a0 * b0 + a1 * b1) / 3 + (a0 * b1 + a1 * b0) / 6
