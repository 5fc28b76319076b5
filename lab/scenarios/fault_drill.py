"""A fault of the catalogue as something to play: who pages, when it began, and what is told about it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from diagnostics.telemetry.model import Function
from lab.alert_rules import RULES
from lab.gauges import (
    ANSWERED_4XX,
    EMPTY_RETRIEVALS,
    FAILING_TOOLS,
    MEAN_ITL,
    MEAN_TTFT,
    REFUSALS,
    REFUSED_429,
    SPENDING,
    VALID_FORMATS,
    WAITING,
    Gauge,
)
from lab.level_conditions import AnyOf, LevelAbove
from lab.people import DANA, Person
from lab.rule import Condition, Rule
from lab.scenarios.fault import Fault, Shape
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary
from lab.stage import Deed, Stage

_RAMP = timedelta(minutes=10)
_SHOWN: Mapping[str, tuple[Gauge, Gauge]] = {
    "LLMHighITL": (MEAN_ITL, MEAN_TTFT),
    "LLMQueueBacklog": (WAITING, MEAN_TTFT),
    "LLMFormatValidity": (VALID_FORMATS, MEAN_TTFT),
    "LLMRefusalRate": (REFUSALS, MEAN_TTFT),
    "LLMProvider429": (REFUSED_429, MEAN_TTFT),
    "LLMSpend": (SPENDING, MEAN_TTFT),
    "LLMRetrievalEmpty": (EMPTY_RETRIEVALS, MEAN_TTFT),
    "LLMToolErrors": (FAILING_TOOLS, MEAN_TTFT),
    "LLM4xx": (ANSWERED_4XX, MEAN_TTFT),
}


class FaultDrill:
    """
    One fault with the magnitudes that the world's seed draws, and a harmless prompt change before it.

    It begins so long before the live start that its rule is about to fire, whatever its window and its `for`.
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._stage: Stage | None = None
        self._onset: datetime | None = None

    @property
    def id(self) -> str:
        return self._fault.id

    @property
    def title(self) -> str:
        return self._fault.title

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (RULES[self._fault.alert],)

    @property
    def onset_before_live(self) -> timedelta:
        [rule] = self.rules
        ramp = _RAMP if self._shape is Shape.RAMP else timedelta(0)
        return rule.wait + _fills_in(rule.condition) + ramp + timedelta(minutes=1)

    @property
    def pace(self) -> float:
        return 30.0

    @property
    def approver(self) -> Person:
        return DANA

    @property
    def gauges(self) -> tuple[Gauge, Gauge]:
        return _SHOWN.get(self._fault.alert, (MEAN_TTFT, WAITING))

    @property
    def is_only_recorded(self) -> bool:
        return self._fault.is_only_recorded

    @property
    def _shape(self) -> Shape:
        return self._fault.drill_shape or self._fault.shapes[0]

    def set_up(self, stage: Stage, start: datetime) -> None:
        self._stage = stage
        self._fault.set_up(stage, start)
        self._fault.draw(stage)

    def deeds(self, onset: datetime) -> list[Deed]:
        if self._stage is None:
            raise ValueError("a fault's deeds depend on the stage: set it up first")
        self._onset, before = onset, onset - DECOY_BEFORE_ONSET
        deeds = [Deed(at=before, do=lambda stage: shorten_summary(stage, before))]
        deeds += self._fault.deeds(onset, onset + self.onset_before_live, self._shape, self._stage)
        return sorted(deeds, key=lambda deed: deed.at)

    def is_healthy(self, stage: Stage) -> bool:
        return self._fault.is_healthy(stage)

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:
        return self._fault.carry_out(instruction, stage, at)

    def truth(self, stage: Stage) -> dict[str, Any]:
        if self._onset is None:
            raise ValueError("the truth begins with the onset: ask for the deeds first")
        return {**self._fault.truth(stage, self._onset, None), "culprit": None, "decoys": [DECOY]}


def _fills_in(condition: Condition) -> timedelta:
    """How long a fault has to last until it fills the condition's window; a single event counts at once."""
    if isinstance(condition, AnyOf):
        return max(map(_fills_in, condition.conditions))
    if isinstance(condition, LevelAbove) and condition.function is Function.DELTA:
        return timedelta(0)
    return getattr(condition, "window", None) or timedelta(0)
