"""Run a command line with a time limit, and leave nothing of it behind; the work is done by `subtree_keeper.py`."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runbooks.engine.actions import subtree_keeper

GRACE_S = 5.0
"""Between TERM and KILL."""

KEEPER_PATIENCE_S = GRACE_S + subtree_keeper.KILL_PATIENCE_S + 3.0
"""How much longer than the time limit an answer may take: to end the tree, and to start on a busy machine."""


class SubtreeLostError(Exception):
    """Nobody can say how the command ended: the process that ran it gave no answer."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to run; `environment` is all that it gets, but for `HOME`, which is a new folder."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    timeout_s: float
    grace_s: float = GRACE_S


@dataclass(frozen=True, kw_only=True)
class Ended:
    """
    How it ended. `status` is the exit status, negative for a signal, None when the time was up.

    `left` counts processes that even KILL did not end. `head` and `tail` are the output's beginning and end, with
    `dropped` bytes between them. `refusal` says why it was never started, else "".
    """

    status: int | None = None
    refusal: str = ""
    left: int = 0
    head: bytes = b""
    tail: bytes = b""
    dropped: int = 0


async def run_subtree(order: Order) -> Ended:
    """
    Run it and wait for the end. When this is cancelled the tree is ended all the same.

    Raises SubtreeLostError.
    """
    keeper = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(Path(subtree_keeper.__file__)),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={}, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(order.timeout_s + order.grace_s + KEEPER_PATIENCE_S):
            answer = await _answer(keeper, order)
    except (TimeoutError, ValueError, OSError) as error:
        raise SubtreeLostError(f"the process that ran it gave no answer ({type(error).__name__})") from error
    finally:
        await _dismiss(keeper, order)
    return answer


async def _answer(keeper: asyncio.subprocess.Process, order: Order) -> Ended:
    assert keeper.stdin is not None  # noqa: S101 - both are pipes
    assert keeper.stdout is not None  # noqa: S101
    wanted = {
        "argv": order.argv,
        "environment": dict(order.environment),
        "timeout_s": order.timeout_s,
        "grace_s": order.grace_s,
    }
    keeper.stdin.write(json.dumps(wanted).encode() + b"\n")
    await keeper.stdin.drain()  # and it stays open: its end tells the keeper that we are gone
    said = json.loads(await keeper.stdout.read())
    if not said["started"]:
        return Ended(refusal=said["why"])
    return Ended(
        status=said["status"],
        left=said["left"],
        head=base64.b64decode(said["head"]),
        tail=base64.b64decode(said["tail"]),
        dropped=said["dropped"],
    )


async def _dismiss(keeper: asyncio.subprocess.Process, order: Order) -> None:
    """Close its input, so that it ends what it may still run, and wait until it is gone."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    try:
        async with asyncio.timeout(order.grace_s + KEEPER_PATIENCE_S):
            await keeper.wait()
    except TimeoutError:
        keeper.kill()  # its child dies with it (PR_SET_PDEATHSIG); what that one started may live on
        await keeper.wait()
