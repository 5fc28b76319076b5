"""
Thread pool for torch and faiss: one thread of their own, said once, here.

Neither may run on the event loop (a batch takes seconds), and one thread is the right number: FAISS asks that searches
on one GPU's resources be serialised, and two torch threads are no faster than one on contended cores (measured: 44 ms
a query instead of 22).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch-and-faiss")


async def in_heavy_thread(function: Callable[[], T]) -> T:
    """Run this where torch and faiss live; calls queue up and run one at a time."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, function)
