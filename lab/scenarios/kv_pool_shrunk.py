"""S03: a rollout leaves the engines a sixth of their KV cache, and callers queue for a place in it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.alert_rules import KV_SATURATED
from lab.cluster import ENGINE
from lab.engine_physics import EngineLimits, engine_limits
from lab.gauges import FULLEST_KV, MEAN_TTFT, Gauge
from lab.people import DANA, Person
from lab.prompt_store import PRODUCTION
from lab.rule import Rule
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.stage import Deed, Stage

CHANGE_CAUSE = "leave room on the GPUs for the reranker"

_UTILIZATION = "--gpu-memory-utilization"
_HEALTHY_BLOCKS = 0.8 * EngineLimits().kv_blocks


@dataclass(frozen=True, kw_only=True)
class KvPoolShrunk:
    """
    Heals when the deployment's arguments leave the engines their cache again; pods follow one or two at a time.

    The deployment may surge by two pods: two GPU nodes are spare, and a rollout takes 8 minutes of lab time, not 16.
    """

    id: str = "S03"
    title: str = "A configuration rollout shrank the KV cache"
    onset_before_live: timedelta = timedelta(minutes=9)
    pace: float = 30.0
    rules: tuple[Rule, ...] = (KV_SATURATED,)
    approver: Person = DANA
    gauges: tuple[Gauge, Gauge] = (MEAN_TTFT, FULLEST_KV)

    def set_up(self, stage: Stage, start: datetime) -> None:
        write_prompts(stage, start)
        deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
        deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 2, "maxUnavailable": 0}
        stage.cluster.update_deployment(deployment, start)

    def deeds(self, onset: datetime) -> list[Deed]:
        before = onset - DECOY_BEFORE_ONSET
        return [
            Deed(at=before, do=lambda stage: shorten_summary(stage, before)),
            Deed(at=onset, do=lambda stage: _leave_room_on_the_gpus(stage, onset)),
        ]

    def is_healthy(self, stage: Stage) -> bool:
        template = stage.cluster.get("deployments", ENGINE)["spec"]["template"]
        return engine_limits(template["spec"]["containers"][0]["args"]).kv_blocks >= _HEALTHY_BLOCKS

    def truth(self, _stage: Stage) -> dict[str, Any]:
        return {
            "cause": "S03",
            "class": "S",
            "scope": {"dimension": "revision", "values": []},
            "control": False,
            "culprit_change": f"lab:{ENGINE}:3",
            "culprit": {"deployment": ENGINE, "revision": 3, "previous_revision": 2},
            "decoys": [{**DECOY, "label": PRODUCTION}],
        }


def _leave_room_on_the_gpus(stage: Stage, at: datetime) -> None:
    """Two thirds of each GPU for a model that is not there yet."""
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    args[args.index(_UTILIZATION) + 1] = "0.33"
    deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = CHANGE_CAUSE
    stage.cluster.update_deployment(deployment, at)
