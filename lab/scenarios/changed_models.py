"""Q03 and Q04: another model than yesterday's answers, behind a provider's name or in some of our own pods."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime

from lab.answers import AnswerQuality, drawn
from lab.cluster import ENGINE
from lab.exposition import STEP
from lab.gateway import OVERFLOW
from lab.scenarios.fault import Fault, Shape
from lab.stage import Deed, Stage

_TERSER = AnswerQuality(length=0.62, judge=0.79, valid=0.955, refusal=0.035, thumbs_down=0.06)
_MISMATCHED = AnswerQuality(length=1.2, judge=0.71, valid=0.94, thumbs_down=0.09)


class ProviderModelChanged(Fault):
    """A provider serves other weights under the same name; a snapshot with a date, or another model, heals."""

    id = "Q03"
    title = "A provider changed its model without a word"
    alert = "LLMJudgeDrop"
    by_hand = "replace .* by its dated snapshot"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.model = "gpt-4.1-nano"
        self.quality = _TERSER
        self.is_told = False

    def draw(self, stage: Stage) -> None:
        outside = {one.model: one for one in stage.gateway.deployments.values() if one.group == OVERFLOW}
        weights = [float(one.weight or 1) for one in outside.values()]
        self.model = str(stage.rng.choice(list(outside), p=[weight / sum(weights) for weight in weights]))
        self.quality = drawn(stage.rng, _TERSER, self.strength)
        self.is_told = bool(stage.rng.random() < 0.4)

    def begin(self, stage: Stage, at: datetime) -> None:
        if self.is_told:
            summary = f"provider's changelog: the name {self.model} now stands for a newer snapshot"
            scope = {"model": (self.model,)}
            stage.log.append(self.guilty(at, "external", summary, "provider-changelog", scope=scope))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:  # noqa: ARG002 - a step has no time of its own
        if level > 0:
            stage.answering.outside[self.model] = self.quality
        else:
            stage.answering.outside.pop(self.model, None)

    def scope(self, _stage: Stage) -> tuple[str, list[str]]:
        return "model", [self.model]

    def is_healthy(self, stage: Stage) -> bool:
        asked = {load.model for load in stage.gateway.traffic().providers if load.asked > 0}
        return not stage.answering.outside.keys() & asked


class RolloutSkew(Fault):
    """
    A rollout of other weights, or of an adapter, stops halfway, and the pods that have them answer worse.

    Heals when no pod has them any more: the deployment goes on and has the arguments that it had before.
    """

    id = "Q04"
    title = "A rollout stopped halfway, and two models answer"
    alert = "LLMJudgeDrop"
    by_hand = "Resume the paused rollout"

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.surge = 2
        self.weights = "7c1e2f04ab"
        self.is_adapter = False
        self.quality = _MISMATCHED

    def draw(self, stage: Stage) -> None:
        self.surge = int(stage.rng.choice([1, 2], p=[0.25, 0.75]))
        self.weights = stage.rng.bytes(5).hex()
        self.is_adapter = bool(stage.rng.random() < 0.4)
        self.quality = drawn(stage.rng, _MISMATCHED, self.strength)

    @property
    def args(self) -> list[str]:
        if self.is_adapter:
            return ["--enable-lora", "--lora-modules", f"support={self.weights}"]
        return ["--revision", self.weights]

    def deeds(self, onset: datetime, until: datetime, shape: Shape, stage: Stage) -> Iterator[Deed]:
        yield from super().deeds(onset, until, shape, stage)
        # By then the first new pods serve, and have just replaced as many old ones.
        paused_at = onset + stage.cluster.loading + STEP
        yield Deed(at=paused_at, do=lambda stage: _pause(stage, paused_at))

    def begin(self, stage: Stage, at: datetime) -> None:
        what = "adapter support" if self.is_adapter else "model weights"
        self._set_args(stage, at, f"{what}: revision {self.weights}")
        kind = "adapter" if self.is_adapter else "model"
        scope = {"deployment": (ENGINE,)}
        change = self.guilty(
            at, kind, f"{ENGINE}: {what} at revision {self.weights}", "argocd", author="dana", scope=scope
        )
        stage.log.append(change)

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        stage.answering.weights[self.weights] = self.quality
        if level <= 0:
            self._set_args(stage, at, "back to the weights of before")

    def _set_args(self, stage: Stage, at: datetime, cause: str) -> None:
        """Add the arguments to the deployment, or take them away where it has them."""
        deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
        deployment["spec"].pop("paused", None)
        deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = self.surge
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        usual = [arg for arg in container["args"] if arg not in self.args]
        container["args"] = usual if len(usual) < len(container["args"]) else [*usual, *self.args]
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = cause
        stage.cluster.update_deployment(deployment, at)

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        pods = stage.cluster.pods_of(ENGINE, ready=True)
        return "pod", [
            str(pod["metadata"]["name"]) for pod in pods if self.args[-1] in pod["spec"]["containers"][0]["args"]
        ]

    def is_healthy(self, stage: Stage) -> bool:
        pods = stage.cluster.pods_of(ENGINE)
        return not any(arg in pod["spec"]["containers"][0].get("args", []) for pod in pods for arg in self.args)


def _pause(stage: Stage, at: datetime) -> None:
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    deployment["spec"]["paused"] = True
    stage.cluster.update_deployment(deployment, at)
