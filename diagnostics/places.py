"""Where things run: each pod's node, rack, revision and model, joined from what the engines and the cluster export."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from diagnostics.exporters import remedy_for
from diagnostics.look import CannotTellError, Look
from diagnostics.telemetry.model import Aggregation, Function, Key, Query

RUNNING = "vllm:num_requests_running"
POD_INFO = "kube_pod_info"
POD_OWNER = "kube_pod_owner"

_POD_OF_REPLICASET = re.compile(r"(?P<owner>.+-(?P<hash>[a-z0-9]{5,10}))-[a-z0-9]{5}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """One pod; what nobody exports is empty."""

    pod: str
    node: str = ""
    rack: str = ""
    revision: str = ""
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class Places:
    """
    All pods since the baseline began, also those that are gone.

    `new_revisions` ran nothing when the baseline ended. A revision is the `revision` label where the cluster sets it,
    and otherwise the pod-template hash of the ReplicaSet that owns the pod.
    """

    pods: Mapping[str, Place] = field(default_factory=dict)
    racks: Mapping[str, str] = field(default_factory=dict)  # by node
    new_revisions: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()  # of the names of its engine pods, also of those that never served

    def is_ours(self, pod: str) -> bool:
        """Whether this is one of the service's pods, as far as anybody can tell."""
        return pod in self.pods or bool(self.beginnings and pod.startswith(self.beginnings))

    def revision_of(self, pod: str) -> str:
        return self.pods[pod].revision if pod in self.pods else ""

    def only_pod_on(self, node: str) -> frozenset[str]:
        """The pod of a node that has just one of the service's; none where there is a choice."""
        here = {place.pod for place in self.pods.values() if node and place.node == node}
        return frozenset(here) if len(here) == 1 else frozenset()

    def where(self, pod: str) -> tuple[tuple[str, str], ...]:
        """A pod as a measure's scope, with its node, rack and revision where they are known."""
        place = self.pods.get(pod, Place(pod=pod))
        parts = (("pod", pod), ("node", place.node), ("rack", place.rack), ("revision", place.revision))
        return tuple((label, value) for label, value in parts if value)

    def new_among(self, pods: Iterable[str]) -> frozenset[str]:
        """The new revisions that these pods run."""
        return frozenset(self.revision_of(pod) for pod in pods) & self.new_revisions


async def places(look: Look) -> Places:
    """Where the service's pods run; empty where nothing says so. Each source is asked once."""
    seen, before, info, owner = await asyncio.gather(
        _engines(look, at_baseline=False), _engines(look, at_baseline=True), _cluster(look, POD_INFO), _owners(look)
    )
    pods: dict[str, Place] = {}
    for pod, node, rack, revision, model in seen:
        if pod:
            pods[pod] = _merged(pods.get(pod), Place(pod=pod, node=node, rack=rack, revision=revision, model=model))
    siblings = _siblings(look, pods)
    for pod, node, created_by in info:
        if pod in pods or pod.startswith(siblings):
            revision = owner.get(pod, "") or _hash(pod, created_by)
            pods[pod] = _merged(pods.get(pod), Place(pod=pod, node=node, revision=revision))
    pods = {pod: replace(place, revision=place.revision or owner.get(pod, "")) for pod, place in pods.items()}
    racks = {place.node: place.rack for place in pods.values() if place.node and place.rack}
    pods = {pod: replace(place, rack=place.rack or racks.get(place.node, "")) for pod, place in pods.items()}
    new = _new(pods, {key[0] for key in before})
    return Places(pods=pods, racks=racks, new_revisions=new, beginnings=siblings)


async def where_found(look: Look, family: str, metric: str, label: str, values: Iterable[str]) -> dict[str, str] | None:
    """
    Matchers under which a probe's or a node's metric is found, or None when nobody exports it.

    Such series often carry their exporter's namespace instead of the service's labels. What the family's selector does
    not find is therefore looked for by the names of the service's own pods, nodes or deployments.
    """
    own = {label if name == "Hostname" else name: value for name, value in look.where(family).items()}
    if await look.telemetry.exported(metric, look.frame.at, own):
        return own
    names = sorted({value for value in values if value})
    by_name = {label: "~" + "|".join(re.escape(name) for name in names)}
    return by_name if names and await look.telemetry.exported(metric, look.frame.at, by_name) else None


async def pods_where(look: Look, metric: str) -> dict[str, str]:
    """Matchers of a probe's metric about the service's pods. Raises CannotTellError when nobody exports it."""
    where = await where_found(look, "serving", metric, "pod", (await places(look)).pods)
    if where is None:
        raise CannotTellError(f"{metric} is not exported; {remedy_for(metric)}")
    return where


def _siblings(look: Look, pods: Iterable[str]) -> tuple[str, ...]:
    """What the names of engine pods begin with; the namespace's gateways and exporters do not."""
    named = [deployment.name for deployment in look.target.deployments if deployment.kind == "engine"]
    known = [match["owner"].rpartition("-")[0] for pod in pods if (match := _POD_OF_REPLICASET.fullmatch(pod))]
    return tuple(sorted({f"{name}-" for name in (*named, *known) if name}))


def _new(pods: Mapping[str, Place], before: set[str]) -> frozenset[str]:
    """Revisions of which no pod was there when the baseline ended; unknown (none) when nobody was there."""
    old = {place.revision for pod, place in pods.items() if pod in before}
    return frozenset({place.revision for place in pods.values()} - old - {""}) if old - {""} else frozenset()


def _merged(known: Place | None, found: Place) -> Place:
    if known is None:
        return found
    return Place(
        pod=known.pod,
        node=known.node or found.node,
        rack=known.rack or found.rack,
        revision=known.revision or found.revision,
        model=known.model or found.model,
    )


def _hash(pod: str, created_by: str) -> str:
    """The pod-template hash: what a ReplicaSet's name ends with, or what a pod's name has before its last part."""
    if created_by:
        return created_by.rpartition("-")[2] if pod.startswith(f"{created_by}-") else ""
    match = _POD_OF_REPLICASET.fullmatch(pod)
    return match["hash"] if match and any(character.isdigit() for character in match["hash"]) else ""


async def _engines(look: Look, *, at_baseline: bool) -> Iterable[Key]:
    if "serving" not in look.target.selectors:
        return ()
    labels = ("pod", "node", "rack", "revision", "model_name")
    where = look.where("serving")
    query = Query(metric=RUNNING, where=where, by=labels, aggregation=Aggregation.COUNT)
    if at_baseline:
        return await look.telemetry.vector(query, look.frame.baseline_end)
    long = replace(query, function=Function.MAX_OVER_TIME, window=look.since_start)
    return await look.telemetry.vector(long, look.frame.at)


async def _cluster(look: Look, metric: str) -> Iterable[Key]:
    if "kubernetes" not in look.target.selectors:
        return ()
    query = Query(
        metric=metric,
        where=look.where("kubernetes"),
        function=Function.MAX_OVER_TIME,
        window=look.since_baseline,
        by=("pod", "node", "created_by_name"),
        aggregation=Aggregation.COUNT,
    )
    return [key for key in await look.telemetry.vector(query, look.frame.at) if key[0]]


async def _owners(look: Look) -> dict[str, str]:
    """The hash of each pod's ReplicaSet, from kube_pod_owner."""
    if "kubernetes" not in look.target.selectors:
        return {}
    query = Query(
        metric=POD_OWNER,
        where=look.where("kubernetes", {"owner_kind": "ReplicaSet"}),
        function=Function.MAX_OVER_TIME,
        window=look.since_baseline,
        by=("pod", "owner_name"),
        aggregation=Aggregation.COUNT,
    )
    found = await look.telemetry.vector(query, look.frame.at)
    return {pod: owner.rpartition("-")[2] for pod, owner in found if pod and owner}
