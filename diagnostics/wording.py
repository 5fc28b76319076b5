"""Numbers as people read them at 3 a.m.: few digits, with their unit."""

from __future__ import annotations

from diagnostics.look import Compared


def number(value: float | None, unit: str = "") -> str:
    """A value with its unit: 466 ms, 2.4 s, 40 %, 3000 tokens; "unknown" for None."""
    if value is None:
        return "unknown"
    if unit == "s":
        return f"{value * 1000:.0f} ms" if abs(value) < 0.0995 else f"{value:.2f} s"
    if unit == "ratio":
        return f"{value * 100:.1f} %" if abs(value) < 0.1 else f"{value * 100:.0f} %"
    text = f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def compared(cell: Compared, unit: str = "") -> str:
    """ "466 ms, normally 432 ms"; without a baseline it says so."""
    if cell.baseline is None:
        return f"{number(cell.now, unit)} (no baseline)"
    return f"{number(cell.now, unit)}, normally {number(cell.baseline, unit)}"


def change(now: float | None, baseline: float | None, unit: str = "") -> str:
    """ "rose from 0.43 s to 0.67 s"; for a move too small to see in the digits, "is 0.43 s"."""
    if baseline is None or now is None:
        return f"is {number(now, unit)}"
    before, after = number(baseline, unit), number(now, unit)
    if before == after:
        return f"stays at {after}"
    return f"{'rose' if now > baseline else 'fell'} from {before} to {after}"
