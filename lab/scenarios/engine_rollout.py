"""Faults that come with a rollout of the engines: half an hour ago somebody changed their template, for a reason."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

from lab.cluster import ENGINE, WEIGHT_LOADING
from lab.cluster_objects import Json, template_hash
from lab.scenarios.fault import Fault, Shape
from lab.stage import Deed, Stage

_PEOPLE = ("frank", "grace", "heidi", "ivan", "mallory", "oscar")
_SOURCES = ("argocd", "kubernetes", "git")


class EngineRollout(Fault):
    """
    Heals when the deployment has a template without the fault again, as pods follow.

    `lead` is how long before the onset the change is made: the first new pods need that long until they serve.
    """

    kind: ClassVar[str] = "config"
    lead: ClassVar[timedelta] = WEIGHT_LOADING
    unavailable: ClassVar[int] = 0

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__(strength)
        self.surge = 2
        self.author, self.source = _PEOPLE[0], _SOURCES[0]
        self._before: tuple[str, ...] = ()

    def set_up(self, stage: Stage, start: datetime) -> None:
        """This team rolls out two pods at a time: two GPU nodes are spare."""
        super().set_up(stage, start)
        let_roll_out(stage, start, surge=self.surge, unavailable=self.unavailable)

    def draw(self, stage: Stage) -> None:
        self.author = str(stage.rng.choice(_PEOPLE))
        self.source = str(stage.rng.choice(_SOURCES))

    def deeds(self, onset: datetime, until: datetime, shape: Shape, stage: Stage) -> Iterator[Deed]:
        del until, shape, stage  # a rollout takes its own time
        at = onset - self.lead
        yield Deed(at=at, do=lambda stage: self.begin(stage, at))

    @abstractmethod
    def edit(self, container: Json, stage: Stage) -> str:
        """Change the engine's container in the template; returns what the author says that it is for."""

    def begin(self, stage: Stage, at: datetime) -> None:
        deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        before, self._before = _spoken(container), _what_runs(container)
        why = self.edit(container, stage)
        deployment["metadata"]["annotations"]["kubernetes.io/change-cause"] = why
        revision = template_hash(deployment["spec"]["template"])
        stage.cluster.update_deployment(deployment, at)
        about: dict[str, Any] = {"scope": {"deployment": (ENGINE,), "revision": (revision,)}, "author": self.author}
        about |= {"before": before, "after": _spoken(container)}
        stage.log.append(self.guilty(at, self.kind, f"{ENGINE}: {why}", self.source, **about))

    def apply(self, stage: Stage, level: float, at: datetime) -> None:
        """The rollout takes its own time."""

    def scope(self, stage: Stage) -> tuple[str, list[str]]:
        return "revision", [template_hash(stage.cluster.get("deployments", ENGINE)["spec"]["template"])]

    def is_healthy(self, stage: Stage) -> bool:
        [container] = stage.cluster.get("deployments", ENGINE)["spec"]["template"]["spec"]["containers"]
        return self._before in ((), _what_runs(container))


def let_roll_out(stage: Stage, at: datetime, *, surge: int, unavailable: int = 0) -> None:
    """How many engines a rollout may add at a time, and how many it may take away before others serve."""
    deployment = copy.deepcopy(stage.cluster.get("deployments", ENGINE))
    deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    stage.cluster.update_deployment(deployment, at)


def _what_runs(container: Json) -> tuple[str, ...]:
    """What makes an engine behave as it does, apart from its processor time."""
    return (container["image"], *container["args"], str(container["resources"]["limits"].get("memory", "")))


def set_argument(container: Json, name: str, value: str) -> None:
    """Give an engine's argument another value, or add it."""
    args = container["args"]
    if name in args:
        args[args.index(name) + 1] = value
    else:
        args += [name, value]


def _spoken(container: Json) -> str:
    """What a person would compare of two templates."""
    limits = container["resources"]["limits"]
    return f"{container['image']} {' '.join(container['args'])} (cpu {limits['cpu']}, memory {limits['memory']})"
