"""Turns: their number, urgent ones first, the others never stopped, nothing lost by cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llmfleet.cluster.turns import Haste, Turns

HASTES = {"u": Haste.URGENT, "o": Haste.ORDINARY, "l": Haste.LATER}


class Crowd:
    """Holders of turns that end when the test says so; a name begins with its haste."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.holding: dict[str, asyncio.Event] = {}

    def start(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._hold(name))

    async def _hold(self, name: str) -> None:
        async with self._turns.take(HASTES[name[0]]):
            self.holding[name] = asyncio.Event()
            await self.holding[name].wait()
            del self.holding[name]

    async def settle(self) -> list[str]:
        for _ in range(10):
            await asyncio.sleep(0)
        return sorted(self.holding)


@pytest.fixture
async def crowd() -> Crowd:
    return Crowd(Turns(3, {Haste.ORDINARY: 1, Haste.LATER: 1}))


async def test_ordinary_when_nothing_is_urgent_then_all_turns_are_theirs(crowd: Crowd) -> None:
    tasks = [crowd.start(f"o{number}") for number in range(5)]
    assert await crowd.settle() == ["o0", "o1", "o2"]
    crowd.holding["o1"].set()
    assert await crowd.settle() == ["o0", "o2", "o3"]
    _cancel(tasks)


async def test_urgent_when_others_wait_then_it_goes_first_and_one_other_goes_on(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(f"o{number}") for number in range(5)]
    await crowd.settle()
    tasks += [crowd.start(f"u{number}") for number in range(3)]
    assert await crowd.settle() == ["o0", "o1", "o2"]
    crowd.holding["o0"].set()
    assert await crowd.settle() == ["o1", "o2", "u0"]
    crowd.holding["o1"].set()
    assert await crowd.settle() == ["o2", "u0", "u1"]
    crowd.holding["o2"].set()
    assert await crowd.settle() == ["o3", "u0", "u1", "u2"]
    for name in ("u0", "u1", "u2"):
        crowd.holding[name].set()
    assert await crowd.settle() == ["o3", "o4"]
    _cancel(tasks)


async def test_late_when_there_are_others_then_they_go_first_and_one_of_each_goes_on(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(name) for name in ("u0", "l0", "l1", "o0", "o1")]
    assert await crowd.settle() == ["l0", "o0", "u0"]
    crowd.holding["l0"].set()
    crowd.holding["o0"].set()
    assert await crowd.settle() == ["l1", "o1", "u0"]
    _cancel(tasks)


async def test_late_when_nothing_is_urgent_then_ordinary_ones_go_first(crowd: Crowd) -> None:
    tasks = [crowd.start(name) for name in ("o0", "o1", "o2", "l0", "o3")]
    await crowd.settle()
    crowd.holding["o0"].set()
    assert await crowd.settle() == ["o1", "o2", "o3"]
    _cancel(tasks)


async def test_waiter_when_cancelled_then_its_turn_goes_to_the_next(crowd: Crowd) -> None:
    tasks = [crowd.start(f"u{number}") for number in range(5)]
    await crowd.settle()
    tasks[3].cancel()
    crowd.holding["u0"].set()
    assert await crowd.settle() == ["u1", "u2", "u4"]
    _cancel(tasks)


async def test_waiter_when_cancelled_as_its_turn_comes_then_the_turn_is_not_lost(
    crowd: Crowd,
) -> None:
    tasks = [crowd.start(f"u{number}") for number in range(4)]
    await crowd.settle()
    crowd.holding["u0"].set()
    await _until(lambda: "u0" not in crowd.holding)
    tasks[3].cancel()
    tasks.append(crowd.start("u4"))
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
