"""
Every boundary at which the kill matrix ends a process, and how: the product's own functions, wrapped in that process.

`play` is the whole life of one process. The product has no hook for this. A process writes down that it came to its
boundary (`FOLDER/reached`) before it sends itself SIGKILL, or SIGSTOP.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from bot.slack.client import SlackClient
from bot.store import inbox_writer, plans
from bot.store.inbox_writer import InboxWriter
from bot.store.incidents import Incidents
from bot.store.journal import Journal
from bot.store.plans import Plans
from bot.store.workers import Workers
from bot.verify import Verifier
from bot.web import pagerduty_door
from tests.kill_worker import DeadError, Ledger, Scene, Telemetry, Worker, note

DECLARED_DEAD = 75
Call = dict[str, Any]
"""The arguments of a call by name, and under "result" what it returned."""


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Before or after the first call of `owner.name` that `fits` the scene."""

    owner: Any
    name: str
    fits: Callable[[Scene, Call], bool] = lambda scene, call: True
    before: bool = False


def _records(kind: str) -> Callable[[Scene, Call], bool]:
    return lambda scene, call: (call["item"].plan_id, call["kind"], call["step"]) == (scene.plan_id, kind, scene.hit)


def _of_plan(scene: Scene, call: Call) -> bool:
    item: Any = call["item"]
    plan: Any = getattr(item, "plan", item)
    return bool(plan.plan_id == scene.plan_id)


def _approves(scene: Scene, call: Call) -> bool:
    return call["action"] == "plan.approve" and _of_plan(scene, call)


def _undoes(scene: Scene, call: Call) -> bool:
    return bool(call["item"].undoes == scene.plan_id)


def _writes(scene: Scene, call: Call) -> bool:
    line = call["params"]
    return bool((line.plan, line.step, line.back) == (scene.plan_id, scene.hit, False))


def _takes_back(scene: Scene, call: Call) -> bool:
    return bool(call["params"].plan == scene.plan_id and call["params"].back)


def _verifies(scene: Scene, call: Call) -> bool:
    return bool(call["plan"].plan_id == scene.plan_id)


def _in_thread(scene: Scene, call: Call) -> bool:
    return call["thread_ts"] is not None


INTAKE = {
    "intake: before read": Boundary(owner=pagerduty_door, name="read_body", before=True),
    "intake: after verify": Boundary(owner=pagerduty_door, name="verify_pagerduty"),
    "intake: in transaction": Boundary(owner=inbox_writer, name="insert_all_new"),
    "intake: after commit, before ack": Boundary(owner=InboxWriter, name="write"),
    "intake: after ack": Boundary(owner=Worker, name="acknowledged"),
    "intake: after claim": Boundary(owner=Incidents, name="claim_card", fits=lambda _, call: bool(call["result"])),
    "intake: after post, before its ts is stored": Boundary(owner=SlackClient, name="post"),
    "intake: after store": Boundary(owner=Incidents, name="card_shown"),
}
EXECUTION = {
    "before approval commit": Boundary(owner=plans, name="note", fits=_approves),
    "after approval commit": Boundary(owner=Plans, name="decide", fits=_of_plan),
    "after lease": Boundary(owner=Plans, name="begin", fits=_of_plan),
    "after intent commit": Boundary(owner=Journal, name="append", fits=_records("intent")),
    "after spawn": Boundary(owner=Ledger, name="call", fits=_writes),
    "mid-run": Boundary(owner=Ledger, name="until_written", fits=_writes),
    "after exit, before outcome commit": Boundary(owner=Ledger, name="act", fits=_writes),
    "after outcome commit": Boundary(owner=Journal, name="append", fits=_records("outcome")),
    "before verify": Boundary(owner=Verifier, name="watch", fits=_verifies, before=True),
    "mid verify": Boundary(owner=Telemetry, name="check"),
    "before rollback": Boundary(owner=Plans, name="save", fits=_undoes),
    "mid rollback": Boundary(owner=Ledger, name="until_written", fits=_takes_back),
    "before final post": Boundary(owner=SlackClient, name="post", fits=_in_thread, before=True),
    "after final post": Boundary(owner=SlackClient, name="post", fits=_in_thread),
}
FREEZES = {
    "frozen before intent": Boundary(owner=Journal, name="append", fits=_records("intent"), before=True),
    "frozen after intent": Boundary(owner=Journal, name="append", fits=_records("intent")),
    "frozen before outcome": Boundary(owner=Journal, name="append", fits=_records("outcome"), before=True),
}
BOUNDARIES = {**INTAKE, **EXECUTION, **FREEZES}

_no_beat = asyncio.Lock()
"""SQLite belongs to whoever is in a transaction, so nobody is frozen in the middle of a beat."""


def play(scene: Scene) -> None:
    """The life of one process; its exit status says whether it was declared dead."""
    with (scene.folder / f"log-{os.getpid()}").open("w", buffering=1) as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        if scene.point:
            _arm(scene, BOUNDARIES[scene.point])
        sys.exit(asyncio.run(_life(scene)))


async def _life(scene: Scene) -> int:
    try:
        await Worker(scene).work()
    except DeadError:
        return DECLARED_DEAD
    return 0


def _arm(scene: Scene, boundary: Boundary) -> None:
    original = getattr(boundary.owner, boundary.name)
    if scene.point in FREEZES:
        _beat_apart()
        wrapped = _freezing(scene, boundary, original)
    elif inspect.iscoroutinefunction(original):
        wrapped = _killing(scene, boundary, original)
    else:
        wrapped = _killing_at_once(scene, boundary, original)
    setattr(boundary.owner, boundary.name, wrapped)


def _killing(scene: Scene, boundary: Boundary, original: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        call = _call_of(original, arguments, named)
        if boundary.before and boundary.fits(scene, call):
            _die(scene)
        result = await original(*arguments, **named)
        if not boundary.before and boundary.fits(scene, {**call, "result": result}):
            _die(scene)
        return result

    return wrapped


def _killing_at_once(scene: Scene, boundary: Boundary, original: Callable[..., Any]) -> Callable[..., Any]:
    """The same for what is not asynchronous; only ever after the call."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if boundary.fits(scene, {**_call_of(original, arguments, named), "result": result}):
            _die(scene)
        return result

    return wrapped


def _freezing(scene: Scene, boundary: Boundary, original: Callable[..., Any]) -> Callable[..., Any]:
    """Once; and whatever the call is answered afterwards is written down (`FOLDER/late`)."""
    frozen: list[Call] = []

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        call = _call_of(original, arguments, named)
        fits = not frozen and boundary.fits(scene, call)
        if fits and boundary.before:
            frozen.append(call)
            await _freeze(scene)
        try:
            result = await original(*arguments, **named)
        except BaseException as refusal:  # also of who is cut off in the middle; it is passed on
            if frozen:
                note(scene.folder / "late", f"{scene.plan_id} {call['kind']} {type(refusal).__name__}")
            raise
        if frozen:
            note(scene.folder / "late", f"{scene.plan_id} {call['kind']} written")
        if fits and not boundary.before:
            frozen.append(call)
            await _freeze(scene)
        return result

    return wrapped


def _call_of(original: Callable[..., Any], arguments: tuple[Any, ...], named: Call) -> Call:
    bound = inspect.signature(original).bind(*arguments, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def _die(scene: Scene) -> None:
    note(scene.folder / "reached", f"{scene.incident_id} {scene.point}")
    os.kill(os.getpid(), signal.SIGKILL)


async def _freeze(scene: Scene) -> None:
    async with _no_beat:
        note(scene.folder / "reached", f"{scene.incident_id} {scene.point}")
        os.kill(os.getpid(), signal.SIGSTOP)


def _beat_apart() -> None:
    beat = Workers.beat

    async def apart(self: Workers, executor_id: str) -> bool:
        async with _no_beat:
            return await beat(self, executor_id)

    Workers.beat = apart  # type: ignore[method-assign]
