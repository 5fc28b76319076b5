"""How containers end and start again: what ends them, the kubelet's back-off, and the status that tells of it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lab import cluster_objects as objects
from lab.cluster_objects import Json

_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 10, 300
_FORGIVEN_AFTER = timedelta(minutes=10)
"""A container that ran for so long starts again without back-off; all three are Kubernetes' own figures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PodFailure:
    """
    Something that ends the containers of some pods.

    `hits` chooses pods by their JSON, node included, and is asked again at every step: a failure whose cause is gone
    hits nobody. A container ends somewhere between the two ages of `lives`, counted from its start and including the
    time that it loads weights; one that is older when the failure comes ends at once. `times` is how many of a pod's
    containers it ends (None: all). With `replaced_after` the pod is taken away so long after its first end, as when
    its node has no healthy device for it any more, and its controller creates another one. `ends` is what else comes
    with each end, told the pod.
    """

    hits: Callable[[Json], bool]
    reason: str = "Error"
    exit_code: int = 1
    message: str = ""
    lives: tuple[timedelta, timedelta] = (timedelta(seconds=20), timedelta(seconds=50))
    times: int | None = None
    replaced_after: timedelta | None = None
    ends: Callable[[Json], None] = lambda _pod: None


@dataclass(kw_only=True)
class Life:
    """
    What the kubelet knows of a pod's container: the one that runs, or the one that starts when the back-off is over.

    `loading` is how long a container takes from its start until the pod is ready.
    """

    starts: datetime
    loading: timedelta
    is_waiting: bool = False
    restarts: int = 0
    last_end: Json | None = None  # as `lastState.terminated`
    first_ended: datetime | None = None
    _streak: int = 0
    _ended_by: Counter[PodFailure] = field(default_factory=Counter)

    @property
    def ready_at(self) -> datetime:
        return self.starts + self.loading

    def is_over(self, failure: PodFailure, pod: Json, now: datetime) -> bool:
        """Whether this failure ends the container that runs now."""
        if self.is_waiting or (failure.times is not None and self._ended_by[failure] >= failure.times):
            return False
        shortest, longest = failure.lives
        luck = zlib.crc32(f"{pod['metadata']['uid']}/{self.restarts}".encode()) / 2**32
        return now - self.starts >= shortest + luck * (longest - shortest) and failure.hits(pod)

    def end(self, failure: PodFailure, pod: Json, now: datetime) -> timedelta:
        """Let the container end; returns the back-off before the next one starts (none after a first end)."""
        failure.ends(pod)
        started = objects.stamp(self.starts)
        self.last_end = {"exitCode": failure.exit_code, "reason": failure.reason, "startedAt": started}
        self.last_end |= {"finishedAt": objects.stamp(now)} | ({"message": failure.message} if failure.message else {})
        self.first_ended = self.first_ended or now
        self._ended_by[failure] += 1
        self._streak = 1 if now - self.starts >= _FORGIVEN_AFTER else self._streak + 1
        wait_s = 0 if self._streak == 1 else min(_LONGEST_BACK_OFF_S, _FIRST_BACK_OFF_S * 2 ** (self._streak - 2))
        self.is_waiting = True
        self.starts = now + timedelta(seconds=wait_s)
        return timedelta(seconds=wait_s)

    def start_again(self, now: datetime) -> bool:
        """Start the next container when its back-off is over; says whether it did."""
        if not self.is_waiting or now < self.starts:
            return False
        self.is_waiting = False
        self.restarts += 1
        return True

    def is_replaced(self, failure: PodFailure, now: datetime) -> bool:
        """Whether this failure has the pod taken away by now."""
        if failure.replaced_after is None or self.first_ended is None:
            return False
        return self._ended_by[failure] > 0 and now - self.first_ended >= failure.replaced_after


def status_of(pod: Json, life: Life, now: datetime) -> Json:
    """A scheduled pod's status; while its first container loads, the kubelet has not reported any."""
    is_ready = not life.is_waiting and life.ready_at <= now
    since = life.ready_at if is_ready else life.starts
    if not is_ready and not life.last_end:
        return dict(pod["status"])
    conditions = [objects.condition(kind, "True", since) for kind in ("PodScheduled", "Initialized")]
    conditions.append(objects.condition("Ready", str(is_ready), since))
    return {
        "phase": "Running",
        "startTime": pod["metadata"]["creationTimestamp"],
        "conditions": conditions,
        "containerStatuses": [
            {
                "name": c["name"],
                "image": c["image"],
                "imageID": f"registry.lab/{c['name']}@sha256:{objects.uid(c['image']).replace('-', '') * 2}",
                "ready": is_ready,
                "started": not life.is_waiting,
                "restartCount": life.restarts,
                "state": _state(pod, life, since),
                "lastState": {"terminated": life.last_end} if life.last_end else {},
            }
            for c in pod["spec"]["containers"]
        ],
    }


def _state(pod: Json, life: Life, since: datetime) -> Json:
    if not life.is_waiting:
        return {"running": {"startedAt": objects.stamp(since)}}
    message = f"back-off restarting failed container in pod {pod['metadata']['name']}"
    return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
