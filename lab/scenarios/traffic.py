"""How busy the day is when a fault begins: what overloads a fleet at noon takes more of the same at night."""

from __future__ import annotations

from lab.stage import Stage

_QUIETEST = 0.7


def day_level(stage: Stage) -> float:
    """The organic traffic of the last step as a share of the top of the day; 1 before the first step."""
    level = stage.gateway.organic_rps / stage.normal.fleet_rps
    return max(_QUIETEST, level) if level else 1.0


def times_the_peak(stage: Stage, factor: float) -> float:
    """What multiplies today's traffic so that the fleet gets `factor` times what it gets at the top of the day."""
    return max(1.0, factor / day_level(stage))
