"""What is known when a plan is made, and what each placeholder's name stands for in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from runbooks.engine.declared import CheckAnswers, Condition
from runbooks.engine.placeholders import (
    Literal,
    Placeholder,
    PlaceholderError,
    placeholders,
    resolve,
    texts_in,
    with_texts,
)
from runbooks.engine.values import CannotPlanError, JsonObject

# Parameters that a step may leave out: they are the service's own, and a runbook that names another's is refused.
CONTEXT_DEFAULTS = ("namespace", "cluster", "gateway", "service", "incident")


@dataclass(frozen=True, kw_only=True)
class PlanContext:
    """
    What is known when a plan is made.

    `deployments` are the service's engine deployments, `deployed` all of them by kind. `retrieval` is the `store` that
    its passages come from and the `alias` by which it reads there. `kill_switches` are keys of flags by what they
    switch off (tool, agent), with its name in braces. `suspect` is the id of the change that the diagnosis holds
    guilty and `suspect_undo` its literals (for a prompt: prompt, label, version, previous_version). `scope` is where
    the trouble is: a dimension of the diagnosis (node, pod, api_key, ...) and its values. `answers` are the diagnosis'
    by check (ok, bad, unknown). `params` are values for the parameters that a runbook declares. `requester` is the
    person who asked or edited; None for Watchkeeper's own unedited plan. `frame` is the diagnosis' frame as JSON.
    `undoes_itself`: the service takes back by itself what does not verify.
    """

    incident_id: str
    service: str
    environment: str
    policy_version: str
    now: datetime
    namespace: str = ""
    cluster: str = ""
    gateway: str = ""
    deployments: tuple[str, ...] = ()
    deployed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retrieval: Mapping[str, str] = field(default_factory=dict)
    kill_switches: Mapping[str, str] = field(default_factory=dict)
    suspect: str | None = None
    suspect_undo: Mapping[str, str] = field(default_factory=dict)
    scope: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expiry: timedelta = timedelta(minutes=15)
    requester: str | None = None
    frame: JsonObject = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Literal] = field(default_factory=dict)
    undoes_itself: bool = False

    @property
    def incident(self) -> str:
        """The incident's id, by the name that placeholders and parameters have for it."""
        return self.incident_id

    def holds(self, condition: Condition | None) -> bool:
        """Does the diagnosis say so? What it did not ask is `unknown`."""
        if isinstance(condition, CheckAnswers):
            return self.answers.get(condition.check, "unknown") == condition.answer
        return condition is None or len(self.scope.get(condition.scope, ())) == 1

    def value_of(self, name: str) -> Literal:
        """What `{name}` stands for. Raises CannotPlanError when nobody knows."""
        if name == "deployment":
            return self._deployment()
        group, _, key = name.partition(".")
        among = {
            "suspect": self._suspect,
            "scope": self._only,
            "params": self._chosen,
            "deployment": self._deployed,
            "retrieval": self._retrieval,
            "kill_switch": self._kill_switch,
        }
        if key and group in among:
            return among[group](key)
        plain = {
            "service": self.service,
            "namespace": self.namespace,
            "cluster": self.cluster,
            "gateway": self.gateway,
            "environment": self.environment,
            "incident": self.incident_id,
        }
        if name not in plain:
            raise CannotPlanError(f"`{{{name}}}` is not a known placeholder")
        if not plain[name]:
            raise CannotPlanError(f"the service {self.service} has no {name} in the configuration")
        return plain[name]

    def _deployment(self) -> str:
        blamed = self.suspect_undo.get("deployment")
        if blamed in self.deployments:
            return str(blamed)
        if len(self.deployments) == 1:
            return self.deployments[0]
        if not self.deployments:
            raise CannotPlanError(f"the service {self.service} has no engine deployment in the configuration")
        names = ", ".join(self.deployments)
        raise CannotPlanError(f"{self.service} has {len(self.deployments)} engine deployments ({names}): choose one")

    def _deployed(self, kind: str) -> str:
        """The service's one deployment of this kind."""
        names = self.deployed.get(kind, ())
        if len(names) == 1:
            return names[0]
        told = f"{len(names)} deployments of the kind {kind} ({', '.join(names)})" if names else f"no {kind} deployment"
        raise CannotPlanError(f"the service {self.service} has {told} in the configuration")

    def _retrieval(self, key: str) -> str:
        if key not in self.retrieval:
            raise CannotPlanError(f"the service {self.service} has no [service.retrieval] in the configuration")
        return self.retrieval[key]

    def _kill_switch(self, dimension: str) -> str:
        """The flag that switches off the one tool (agent) that the trouble is confined to."""
        flag = self.kill_switches.get(dimension)
        if flag is None:
            raise CannotPlanError(
                f"the service {self.service} has no kill switch for a {dimension} in the configuration"
            )
        return flag.replace(f"{{{dimension}}}", self._only(dimension))

    def _only(self, dimension: str) -> str:
        """The one value of this dimension that the trouble is confined to."""
        words = dimension.replace("_", " ")
        values = self.scope.get(dimension, ())
        if not values:
            raise CannotPlanError(f"the diagnosis does not confine the trouble to one {words}")
        if len(values) > 1:
            raise CannotPlanError(f"the trouble is on {len(values)} {words}s ({', '.join(values)}): choose one")
        return values[0]

    def _chosen(self, name: str) -> Literal:
        if name not in self.params:
            raise CannotPlanError(f"the runbook declares no parameter `{name}`")
        return self.params[name]

    def _suspect(self, key: str) -> Literal:
        if self.suspect is None:
            raise CannotPlanError("the diagnosis holds no change guilty, so there is nothing to take back")
        if key == "id":
            return self.suspect
        value = self.suspect_undo.get(key)
        if value is None or value == "":
            raise CannotPlanError(f"the suspected change {self.suspect} does not say its {key.replace('_', ' ')}")
        return value


def parsed(title: str, name: str, value: Any) -> list[Placeholder]:
    """The placeholders of the step's parameter. Raises CannotPlanError naming both."""
    try:
        return [found for text in texts_in(value) for found in placeholders(text)]
    except PlaceholderError as error:
        raise CannotPlanError(f"{title}: {name}: {error}") from error


def filled(title: str, name: str, value: Any, context: PlanContext, state: JsonObject | None = None) -> Any:
    """The parameter with its placeholders filled in, from the context and from the state that was read."""

    def value_of(placeholder: str) -> Literal:
        if state is not None and (placeholder == "replicas_now" or placeholder.startswith("before.")):
            return _from_state(placeholder, state)
        return context.value_of(placeholder)

    try:
        return with_texts(value, lambda text: resolve(text, value_of))
    except (PlaceholderError, CannotPlanError) as error:
        raise CannotPlanError(f"{title}: {name}: {error}") from error


def _from_state(placeholder: str, state: JsonObject) -> Literal:
    key = "replicas" if placeholder == "replicas_now" else placeholder.removeprefix("before.")
    value = state.get(key)
    if value is None or isinstance(value, dict | list):
        raise CannotPlanError(f"the present state has no `{key}`")
    result: Literal = value
    return result
