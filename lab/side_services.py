"""
The deployments beside the engines on which a request's answer depends: the embedder's model, the guardrail's room.

A fault changes what the world is like and knows nothing of Kubernetes. `step` rolls that change out as somebody would
have done it, and the other way round: when the former template's pods serve again, what it says is true again.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from lab import cluster_objects as objects
from lab.cluster_objects import Json
from lab.guardrails import Guardrails
from lab.knowledge_store import Embedder
from lab.stage import Stage

EMBEDDER, GUARDRAIL = "chat-embedder", "chat-guardrail"
_MODEL = "--model-id"
_REPLICAS = 2
_PAST = timedelta(days=40)
_LONG_ENOUGH = timedelta(minutes=2)  # for pods without a GPU


@dataclass(kw_only=True)
class SideServices:
    """`built` is when the world's past begins. The pods' names are drawn apart from everything else in the world."""

    stage: Stage
    built: datetime
    _known: dict[str, Embedder] = field(default_factory=dict)
    _serves: str = ""
    _short_of_room: Guardrails | None = None

    def __post_init__(self) -> None:
        store, cluster = self.stage.knowledge_store, self.stage.cluster
        self._serves = store.embedder.name
        self._known[self._serves] = store.embedder
        embedder = objects.plain_template(EMBEDDER, "ghcr.io/huggingface/text-embeddings-inference:1.8")
        embedder["spec"]["containers"][0]["args"] = [_MODEL, store.embedder.name]
        guardrail = objects.plain_template(GUARDRAIL, "registry.lab/chat-guardrail:3.2.0")
        since = self.built - _PAST
        drawn, cluster.rng = cluster.rng, np.random.default_rng(7)
        for name, template in ((EMBEDDER, embedder), (GUARDRAIL, guardrail)):
            cluster.put("deployments", objects.deployment(name, _REPLICAS, template, created=since))
        for at in (since, since + _LONG_ENOUGH):
            cluster.advance(at)
        cluster.rng = drawn
        cluster.kinds["events"].clear()

    def step(self, now: datetime) -> None:
        self._follow_embedder(now)
        self._follow_room()

    def _follow_embedder(self, now: datetime) -> None:
        store, deployment = self.stage.knowledge_store, self.stage.cluster.get("deployments", EMBEDDER)
        if store.embedder.name != self._serves:
            self._serves = store.embedder.name
            self._known[self._serves] = store.embedder
            self._roll_out(deployment, self._serves, now)
            return
        models = {_model(pod) for pod in self.stage.cluster.pods_of(EMBEDDER, ready=True)}
        if models == {_model_of(deployment)} and models <= self._known.keys():
            self._serves = models.pop()
            store.embedder = self._known[self._serves]

    def _roll_out(self, deployment: Json, model: str, now: datetime) -> None:
        changed = copy.deepcopy(deployment)
        [container] = changed["spec"]["template"]["spec"]["containers"]
        container["args"] = [_MODEL, model]
        changed["metadata"]["annotations"]["kubernetes.io/change-cause"] = f"embed questions with {model}"
        self.stage.cluster.update_deployment(changed, now)

    def _follow_room(self) -> None:
        """Twice the usual replicas keep up with what the usual ones do not; a slow policy is slow on any number."""
        rails, usual = self.stage.guardrails, Guardrails()
        ready = len(self.stage.cluster.pods_of(GUARDRAIL, ready=True))
        is_slow = rails.seconds > usual.seconds and rails.policy_version == usual.policy_version
        if ready >= 2 * _REPLICAS and is_slow:
            self._short_of_room = copy.copy(rails)
            rails.seconds, rails.error_ratio = usual.seconds, usual.error_ratio
        elif ready < 2 * _REPLICAS and self._short_of_room is not None:
            rails.seconds, rails.error_ratio = self._short_of_room.seconds, self._short_of_room.error_ratio
            self._short_of_room = None


def _model(pod: Json) -> str:
    return str(pod["spec"]["containers"][0]["args"][-1])


def _model_of(deployment: Json) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["args"][-1])
