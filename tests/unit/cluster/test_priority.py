"""Permits: their number, high ones first, the others never stopped, nothing lost by cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llmfleet.cluster.priority import Priority, PrioritySemaphore

PRIORITIES = {"h": Priority.HIGH, "n": Priority.NORMAL, "l": Priority.LOW}


class Crowd:
    """Holders of permits that end when the test says so; a name begins with its priority."""

    def __init__(self, semaphore: PrioritySemaphore) -> None:
        self._semaphore = semaphore
        self.holding: dict[str, asyncio.Event] = {}

    def start(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._hold(name))

    async def _hold(self, name: str) -> None:
        async with self._semaphore.acquire(PRIORITIES[name[0]]):
            self.holding[name] = asyncio.Event()
            await self.holding[name].wait()
            del self.holding[name]

    async def settle(self) -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        return sorted(self.holding)


@pytest.fixture
async def crowd() -> Crowd:
    return Crowd(PrioritySemaphore(3, {Priority.NORMAL: 1, Priority.LOW: 1}))


async def test_normal_when_nothing_is_high_then_all_permits_are_theirs(crowd: Crowd) -> None:
    tasks = [crowd.start(f"n{number}") for number in range(5)]
    assert await crowd.settle() == ["n0", "n1", "n2"]
    crowd.holding["n1"].set()
    assert await crowd.settle() == ["n0", "n2", "n3"]
    _cancel(tasks)


async def test_high_when_others_wait_then_it_goes_first_and_one_other_goes_on(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(f"n{number}") for number in range(5)]
    await crowd.settle()
    tasks += [crowd.start(f"h{number}") for number in range(3)]
    assert await crowd.settle() == ["n0", "n1", "n2"]
    crowd.holding["n0"].set()
    assert await crowd.settle() == ["h0", "n1", "n2"]
    crowd.holding["n1"].set()
    assert await crowd.settle() == ["h0", "h1", "n2"]
    crowd.holding["n2"].set()
    assert await crowd.settle() == ["h0", "h1", "h2", "n3"]
    for name in ("h0", "h1", "h2"):
        crowd.holding[name].set()
    assert await crowd.settle() == ["n3", "n4"]
    _cancel(tasks)


async def test_low_when_there_are_others_then_they_go_first_and_one_of_each_goes_on(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(name) for name in ("h0", "l0", "l1", "n0", "n1")]
    assert await crowd.settle() == ["h0", "l0", "n0"]
    crowd.holding["l0"].set()
    crowd.holding["n0"].set()
    assert await crowd.settle() == ["h0", "l1", "n1"]
    _cancel(tasks)


async def test_low_when_nothing_is_high_then_normal_ones_go_first(crowd: Crowd) -> None:
    tasks = [crowd.start(name) for name in ("n0", "n1", "n2", "l0", "n3")]
    await crowd.settle()
    crowd.holding["n0"].set()
    assert await crowd.settle() == ["n1", "n2", "n3"]
    _cancel(tasks)


async def test_waiter_when_cancelled_then_its_permit_goes_to_the_next(crowd: Crowd) -> None:
    tasks = [crowd.start(f"h{number}") for number in range(5)]
    await crowd.settle()
    tasks[3].cancel()
    crowd.holding["h0"].set()
    assert await crowd.settle() == ["h1", "h2", "h4"]
    _cancel(tasks)


async def test_waiter_when_cancelled_as_its_permit_comes_then_the_permit_is_not_lost(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(f"h{number}") for number in range(4)]
    await crowd.settle()
    crowd.holding["h0"].set()
    await _until(lambda: "h0" not in crowd.holding)
    tasks[3].cancel()
    tasks.append(crowd.start("h4"))
    assert len(await crowd.settle()) == 3
    _cancel(tasks)


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it did not come to that")


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
