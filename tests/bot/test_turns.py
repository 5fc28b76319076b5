"""Turns are taken one at a time; those in a hurry come first, and the others are not forgotten."""

from __future__ import annotations

import asyncio

import pytest

from bot.store.turns import Turns


class Queue:
    """Everybody holds the turn until `step` lets them go."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.order: list[str] = []
        self.held = 0
        self._gate = asyncio.Event()

    async def take(self, name: str, *, first: bool = False) -> None:
        async with self.turns.take(first=first):
            self.held += 1
            assert self.held == 1
            self.order.append(name)
            await self._gate.wait()
            self._gate.clear()
            self.held -= 1

    async def step(self) -> None:
        self._gate.set()
        for _ in range(5):
            await asyncio.sleep(0)

    def begin(self, name: str, *, first: bool = False) -> asyncio.Task[None]:
        return asyncio.create_task(self.take(name, first=first))


async def test_who_is_in_a_hurry_goes_first_but_not_twice_in_a_row() -> None:
    """Two webhook batches and two sweeps wait for the one who writes: they alternate, the webhooks begin."""
    queue = Queue()
    tasks = [queue.begin("now")]
    await asyncio.sleep(0)
    tasks += [queue.begin("sweep 1"), queue.begin("sweep 2")]
    tasks += [queue.begin("batch 1", first=True), queue.begin("batch 2", first=True)]
    for _ in range(6):
        await queue.step()
    await asyncio.gather(*tasks)

    assert queue.order == ["now", "batch 1", "sweep 1", "batch 2", "sweep 2"]


@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_who_stops_waiting_holds_up_nobody(*, is_its_turn: bool) -> None:
    """Cancelled in the queue, or in the very moment in which the turn comes."""
    queue = Queue()
    holder = queue.begin("now")
    await asyncio.sleep(0)
    impatient, patient = queue.begin("impatient"), queue.begin("patient")
    await asyncio.sleep(0)
    if is_its_turn:
        queue._gate.set()
        while not holder.done():
            await asyncio.sleep(0)
            impatient.cancel()
    impatient.cancel()
    for _ in range(4):
        await queue.step()
    await asyncio.gather(holder, patient)

    assert queue.order == ["now", "patient"]
    async with asyncio.timeout(1), queue.turns.take():
        pass


async def test_who_gives_up_while_the_turn_is_passed_on_breaks_nothing() -> None:
    """Their time-out and the end of the turn fall into one round of the loop: the next one in the queue gets it."""
    queue = Queue()
    holder = queue.begin("now")
    await asyncio.sleep(0)
    impatient, patient = queue.begin("impatient"), queue.begin("patient")
    await asyncio.sleep(0)
    queue._gate.set()
    impatient.cancel()
    await asyncio.gather(holder, impatient, return_exceptions=True)
    await queue.step()
    await patient

    assert not holder.exception()
    assert queue.order == ["now", "patient"]
    async with asyncio.timeout(1), queue.turns.take():
        pass
