"""S03: a rollout leaves the engines a sixth of their KV cache, and callers queue for a place in it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lab.alert_rules import KV_SATURATED
from lab.cluster import ENGINE
from lab.cluster_objects import Json
from lab.engine_physics import BLOCK_TOKENS, EngineLimits, Load, engine_limits, means, utilization_for
from lab.gauges import FULLEST_KV, MEAN_TTFT, Gauge
from lab.people import DANA, Person
from lab.prompt_store import PRODUCTION
from lab.rule import Rule
from lab.scenarios.engine_rollout import EngineRollout, set_argument
from lab.scenarios.prompt_past import DECOY, DECOY_BEFORE_ONSET, shorten_summary, write_prompts
from lab.scenarios.traffic import day_level
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

    def carry_out(self, instruction: str, stage: Stage, at: datetime) -> bool:  # noqa: ARG002 - an API heals it
        return False

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


class KvPoolTooSmall(EngineRollout):
    """The same with other figures: so small a pool that present traffic does not fit, by one argument or another."""

    id = "S03"
    title = "A configuration rollout shrank the KV cache"
    alert = "LLMKVSaturated"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.share = max(0.25, 1 - 0.3 * strength)
        self.by_blocks = False

    def draw(self, stage: Stage) -> None:
        super().draw(stage)
        self.share = max(0.25, 1 - self.strength * float(stage.rng.uniform(0.24, 0.36)))
        self.by_blocks = bool(stage.rng.random() < 0.4)

    def edit(self, container: Json, stage: Stage) -> str:
        """Room for a share of the requests that are in the batch now."""
        normal = stage.normal
        usual = Load(
            rps=normal.replica_rps * day_level(stage),
            prompt_tokens=normal.prompt_tokens,
            output_tokens=normal.output_tokens,
            hit=normal.hit,
            normal=normal,
        )
        tokens = self.share * means(usual).running * (normal.prompt_tokens + normal.output_tokens / 2)
        if self.by_blocks:
            set_argument(container, "--num-gpu-blocks-override", str(round(tokens / BLOCK_TOKENS)))
            return "cap the KV blocks as in the load test"
        set_argument(container, _UTILIZATION, f"{utilization_for(tokens):.3f}")
        return CHANGE_CAUSE


def _leave_room_on_the_gpus(stage: Stage, at: datetime) -> None:
    """Two thirds of each GPU for a model that is not there yet."""
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    args[args.index(_UTILIZATION) + 1] = "0.33"
    deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = CHANGE_CAUSE
    stage.cluster.update_deployment(deployment, at)
