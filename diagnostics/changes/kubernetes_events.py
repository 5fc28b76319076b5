"""
What a cluster did to a service: rescaled, evicted, preempted, restarted its pods; cordoned, rebooted, lost its nodes.

Events live for an hour by default, so this sees less than the rest of the time it is asked for; the change journal
keeps what was seen. What only tells that something is wrong already (a crash loop, a pod without a place) is a symptom.
API: GET /api/v1/namespaces/{namespace}/events and .../pods; node events are kept in the namespace `default`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import httpx
from pydantic import AwareDatetime, BaseModel, Field

from diagnostics.changes.api import PATIENCE_S
from diagnostics.changes.change import Change
from diagnostics.changes.kubernetes_reader import ClusterReader, namespace_of
from diagnostics.target import Target

# Reasons by what the event is about. True: a symptom.
_POD = {
    "Evicted": False,
    "Preempted": False,
    "TaintManagerEviction": False,
    "BackOff": True,
    "FailedScheduling": True,
    "FailedMount": True,
}
_SCALER = {"SuccessfulRescale": False, "FailedGetResourceMetric": True, "FailedComputeMetricsReplicas": True}
_NODE = {
    "NodeNotSchedulable": False,
    "Rebooted": False,
    "Shutdown": False,
    "RemovingNode": False,
    "DeletingNode": False,
    "TerminationNotice": False,
    "NodeNotReady": False,
    "SystemOOM": True,
    "OOMKilling": True,
}
_SCALED = re.compile(r"Scaled (up|down) (?:replica set )?(\S+)(?: from (\d+))? to (\d+)(?: from (\d+))?", re.ASCII)
_ROLLOUT = timedelta(minutes=10)
_LONGEST = 300


class _About(BaseModel):
    kind: str = ""
    name: str = ""


class _Metadata(BaseModel):
    name: str
    uid: str = ""
    created_at: AwareDatetime | None = Field(default=None, alias="creationTimestamp")


class _Series(BaseModel):
    count: int = 0
    last_at: AwareDatetime | None = Field(default=None, alias="lastObservedTime")


class _Event(BaseModel):
    """An event of core/v1; which of its times is set depends on who wrote it. Repetitions are the same event."""

    metadata: _Metadata
    about: _About = Field(alias="involvedObject")
    reason: str = ""
    message: str = ""
    first_at: AwareDatetime | None = Field(default=None, alias="firstTimestamp")
    event_at: AwareDatetime | None = Field(default=None, alias="eventTime")
    last_at: AwareDatetime | None = Field(default=None, alias="lastTimestamp")
    component: str = Field(default="", alias="reportingComponent")
    count: int | None = None
    series: _Series | None = None

    @property
    def at(self) -> datetime | None:
        """When it first happened."""
        return self.first_at or self.event_at or self.last_at or self.metadata.created_at

    @property
    def repeated_at(self) -> datetime | None:
        """When it happened last; None where it happened once."""
        last = self.series.last_at if self.series is not None else None
        last = last or self.last_at
        return last if last is not None and self.at is not None and last > self.at else None

    @property
    def times(self) -> int:
        """How often it happened."""
        return max(self.count or 1, self.series.count if self.series is not None else 1)

    def within(self, since: datetime, until: datetime) -> datetime | None:
        """When it happened in this time: at first, or else its last repetition; None when neither was then."""
        return next((at for at in (self.at, self.repeated_at) if at is not None and since <= at <= until), None)


class _Events(BaseModel):
    items: list[_Event]


class _Terminated(BaseModel):
    reason: str = ""
    exit_code: int = Field(default=0, alias="exitCode")
    finished_at: AwareDatetime | None = Field(default=None, alias="finishedAt")


class _State(BaseModel):
    terminated: _Terminated | None = None


class _Container(BaseModel):
    name: str
    restarts: int = Field(default=0, alias="restartCount")
    last: _State = Field(default_factory=_State, alias="lastState")


class _PodSpec(BaseModel):
    node: str = Field(default="", alias="nodeName")


class _PodStatus(BaseModel):
    containers: list[_Container] = Field(default_factory=list, alias="containerStatuses")


class _Pod(BaseModel):
    metadata: _Metadata
    spec: _PodSpec = Field(default_factory=_PodSpec)
    status: _PodStatus = Field(default_factory=_PodStatus)


class _Pods(BaseModel):
    items: list[_Pod]


class KubernetesEvents:
    """The change source of one cluster's events about a service's pods, deployments and autoscalers."""

    def __init__(self, *, cluster: str, url: str, client: httpx.AsyncClient, patience_s: float = PATIENCE_S) -> None:
        self.name = f"{cluster} events"
        self._cluster = cluster
        self._reader = ClusterReader(name=cluster, url=url, client=client, patience_s=patience_s)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """What happened in this time, oldest first. Raises ChangeSourceError."""
        namespace = namespace_of(target)
        events = (await self._reader.list(_Events, f"/api/v1/namespaces/{namespace}/events", "events")).items
        pods = (await self._reader.list(_Pods, f"/api/v1/namespaces/{namespace}/pods", "pods")).items
        found = [
            *self._told(target, events, since, until),
            *self._scaled(target, events),
            *self._restarts(target, pods),
        ]
        return sorted((each for each in found if since <= each.at <= until), key=lambda change: change.at)

    def _told(self, target: Target, events: list[_Event], since: datetime, until: datetime) -> Iterator[Change]:
        """One change for each event that counts; a repetition is the same event with a higher count."""
        for event in events:
            reasons = {"Pod": _POD, "HorizontalPodAutoscaler": _SCALER}.get(event.about.kind, {})
            deployment = deployment_of(target, event.about.name)
            if event.reason in reasons and deployment is not None and (at := event.within(since, until)) is not None:
                pod = {"pod": (event.about.name,)} if event.about.kind == "Pod" else {}
                scope = {"deployment": (deployment,), **pod}
                yield _event_change(self, target, event, at, scope, is_symptom=reasons[event.reason])

    def _scaled(self, target: Target, events: list[_Event]) -> Iterator[Change]:
        """
        Deployments that somebody scaled: not an autoscaler, which says so itself, and not a rollout.

        A rollout scales two replica sets of one deployment within minutes.
        """
        scaled = [
            (event, at, match)
            for event in events
            if event.about.kind == "Deployment" and event.reason == "ScalingReplicaSet"
            if deployment_of(target, event.about.name) == event.about.name
            if (at := event.at) is not None and (match := _SCALED.match(event.message)) is not None
        ]
        rescaled = [e.at for e in events if e.reason == "SuccessfulRescale" and e.at is not None]
        for event, at, match in scaled:
            near = {
                other.group(2)
                for each, when, other in scaled
                if each.about.name == event.about.name and abs(when - at) <= _ROLLOUT
            }
            by_scaler = any(abs(at - when) <= timedelta(minutes=1) for when in rescaled)
            before = match.group(3) or match.group(5)
            if len(near) == 1 and not by_scaler and before not in {None, "0"}:
                yield _event_change(self, target, event, at, {"deployment": (event.about.name,)}, is_symptom=False)

    def _restarts(self, target: Target, pods: list[_Pod]) -> Iterator[Change]:
        """The last restart of each container, which its pod remembers for longer than an event lives."""
        for pod in pods:
            deployment = deployment_of(target, pod.metadata.name)
            for container in pod.status.containers:
                end = container.last.terminated
                if deployment is None or end is None or end.finished_at is None:
                    continue
                why = f"{end.reason or 'ended'}, exit code {end.exit_code}"
                which = f"{pod.metadata.uid or pod.metadata.name}:{container.name}:{container.restarts}"
                yield Change(
                    id=f"{self._cluster}:restart:{which}",
                    at=end.finished_at.astimezone(UTC),
                    kind="infra",
                    service=target.service,
                    source=self.name,
                    summary=f"container {container.name} of {pod.metadata.name} restarted ({why})",
                    scope={"deployment": (deployment,), "pod": (pod.metadata.name,)},
                    is_symptom=True,
                )


class KubernetesNodes:
    """The change source of what happened to the nodes on which a service's pods stand."""

    def __init__(self, *, cluster: str, url: str, client: httpx.AsyncClient, patience_s: float = PATIENCE_S) -> None:
        self.name = f"{cluster} nodes"
        self._reader = ClusterReader(name=cluster, url=url, client=client, patience_s=patience_s)

    async def changes(self, target: Target, since: datetime, until: datetime) -> list[Change]:
        """What happened in this time, oldest first. Raises ChangeSourceError."""
        namespace = namespace_of(target)
        pods = (await self._reader.list(_Pods, f"/api/v1/namespaces/{namespace}/pods", "pods")).items
        nodes = Counter(pod.spec.node for pod in pods if deployment_of(target, pod.metadata.name) and pod.spec.node)
        if not nodes:
            return []
        only_nodes = {"fieldSelector": "involvedObject.kind=Node"}
        events = (
            await self._reader.list(_Events, "/api/v1/namespaces/default/events", "node events", only_nodes)
        ).items
        found = [
            _event_change(self, target, event, at, {"node": (event.about.name,)}, is_symptom=_NODE[event.reason])
            for event in events
            if event.about.name in nodes and event.reason in _NODE
            if (at := event.within(since, until)) is not None
        ]
        return sorted(found, key=lambda change: change.at)


def deployment_of(target: Target, name: str) -> str | None:
    """The target's deployment that an object belongs to by its name; Kubernetes puts a pod's own ending behind it."""
    names = sorted((each.name for each in target.deployments), key=len, reverse=True)
    return next((each for each in names if name == each or name.startswith(f"{each}-")), None)


def _repeated(event: _Event) -> str:
    """How often it happened, and until when, where it was more than once."""
    last = event.repeated_at
    if last is None or event.times < 2:
        return ""
    return f", {event.times} times until {last.astimezone(UTC):%H:%M} UTC"


def _event_change(
    source: KubernetesEvents | KubernetesNodes,
    target: Target,
    event: _Event,
    at: datetime,
    scope: Mapping[str, tuple[str, ...]],
    *,
    is_symptom: bool,
) -> Change:
    said = " ".join(event.message.split())[:_LONGEST]
    return Change(
        id=f"{source.name}:{event.metadata.uid or event.metadata.name}",
        at=at.astimezone(UTC),
        kind="infra",
        service=target.service,
        source=source.name,
        summary=f"{event.about.kind} {event.about.name}: {event.reason}{_repeated(event)}"
        + (f" ({said})" if said else ""),
        author=event.component or None,
        scope=scope,
        is_symptom=is_symptom,
    )
