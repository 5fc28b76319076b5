"""
One thread for what computes: answers of the recorder, bodies of Prometheus, change points.

Python computes in one thread at a time anyway. Many that compute take turns of milliseconds with the event loop, and
then every webhook waits for all of them (measured: with twenty, a commit of 10 ms takes a second).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")


async def in_compute_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run this beside the event loop; calls queue up and run one at a time."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, partial(function, *args, **kwargs))
