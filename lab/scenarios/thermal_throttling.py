"""G04: a node loses its cooling, and its GPU slows down to stay alive."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.alert_rules import HIGH_ITL
from lab.fleet import gpu_racks
from lab.gauges import HOTTEST_GPU, MEAN_ITL, Gauge
from lab.people import DANA, Person
from lab.rule import Rule
from lab.scenarios.fault import Shape
from lab.scenarios.node_fault import NodeFault, serving_nodes
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage


@dataclass(frozen=True, kw_only=True)
class ThermalThrottling:
    """Nothing in software mends a fan: it is healthy again once no request goes to a pod on the hot node."""

    id: str = "G04"
    title: str = "A node overheats and its GPU throttles"
    onset_before_live: timedelta = timedelta(minutes=12)
    pace: float = 30.0
    rules: tuple[Rule, ...] = (HIGH_ITL,)
    approver: Person = DANA
    gauges: tuple[Gauge, Gauge] = (MEAN_ITL, HOTTEST_GPU)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=_stop_a_fan),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        weights = stage.gateway.engine_weights()
        hot = stage.hardware.uncooled.keys() & set(serving_nodes(stage))
        return not any(weights.get(node, 1.0) > 0 for node in hot)

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

    def truth(self, stage: Stage) -> dict[str, Any]:
        return {
            "cause": "G04",
            "class": "G",
            "scope": {"dimension": "node", "values": sorted(stage.hardware.uncooled)},
            "control": False,
            "culprit_change": None,
            "culprit": None,
            "decoys": [DECOY],
        }


class Overheating(NodeFault):
    """G04 with a drawn node and a drawn depth. The heat ramps by itself: a GPU takes minutes to warm up."""

    id = "G04"
    title = ThermalThrottling.title
    alert = HIGH_ITL.name
    shapes = (Shape.RAMP,)

    def set_up(self, stage: Stage, start: datetime) -> None:
        super().set_up(stage, start)
        self.depth = self.strength

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.depth = self.strength * float(stage.rng.uniform(0.85, 1.15))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        del at
        if level:
            stage.hardware.uncooled[self.node] = self.depth
        else:
            stage.hardware.uncooled.pop(self.node, None)

    def is_broken(self, stage: Stage) -> bool:
        return self.node in stage.hardware.uncooled


def _stop_a_fan(stage: Stage) -> None:
    """On a node that serves requests, in the rack where most others do: they feel its warm air."""
    racks = gpu_racks(stage.cluster)
    serving = serving_nodes(stage)
    busiest = Counter(racks[node] for node in serving).most_common(1)[0][0]
    stage.hardware.uncooled[next(node for node in serving if racks[node] == busiest)] = 1.0
