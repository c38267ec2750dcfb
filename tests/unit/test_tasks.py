"""Waking, single flight, backing off and ending; what a pass does is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llmfleet import tasks as tasks_module
from llmfleet.cluster.errors import Conflict, NotFound, NotLeading, Unavailable
from llmfleet.tasks import Done, Gone, Outcome, Tasks

OWNER = ("a", "chat")
OTHER = ("a", "other")


class World:
    """The work of the tasks; every pass waits until the test lets it through."""

    def __init__(self) -> None:
        self.passes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.outcome: dict[tuple[str, str], Callable[[], None]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once: dict[tuple[str, str], int] = {}
        self.most_at_once = 0
        self.completed = 0
        self.requeue_after: float | None = None
        self.forgotten: list[tuple[str, str]] = []
        self.from_events: list[Any] = []
        self.serves = False

    async def reconcile(self, owner: tuple[str, str], from_event: Any) -> Outcome:
        self.at_once[owner] = self.at_once.get(owner, 0) + 1
        self.most_at_once = max(self.most_at_once, *self.at_once.values())
        self.from_events.append(from_event)
        self.passes.put_nowait(owner)
        try:
            await self.gate.wait()
            self.outcome.get(owner, lambda: None)()
        except NotFound:
            return Gone()
        finally:
            self.at_once[owner] -= 1
        self.completed += 1
        return Done(version=7, serves=self.serves, requeue_after=self.requeue_after)

    def forget(self, owner: tuple[str, str]) -> None:
        self.forgotten.append(owner)

    async def next(self, seconds: float = 5.0) -> tuple[str, str]:
        return await asyncio.wait_for(self.passes.get(), seconds)

    def fail_with(self, error: Exception, times: int, owner: tuple[str, str] = OWNER) -> None:
        left = times

        def fail() -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                raise error

        self.outcome[owner] = fail


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def tasks(world: World) -> AsyncIterator[Tasks]:
    made = Tasks(world)
    yield made
    world.gate.set()
    await made.stop(1)


async def test_wakeup_when_it_comes_during_a_pass_then_one_more_pass_follows(
    world: World, tasks: Tasks
) -> None:
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    for _ in range(5):
        tasks.wake(OWNER)
    world.gate.set()
    await world.next()
    with pytest.raises(TimeoutError):
        await world.next(0.2)
    assert world.most_at_once == 1


async def test_object_when_another_one_hangs_then_it_is_not_delayed(
    world: World, tasks: Tasks
) -> None:
    world.gate.clear()
    tasks.wake(OWNER)
    assert await world.next() == OWNER
    tasks.wake(OTHER)
    assert await world.next() == OTHER


async def test_conflict_when_it_happens_then_observed_again_at_once(
    world: World, tasks: Tasks
) -> None:
    world.fail_with(Conflict("", status=409), 3)
    tasks.wake(OWNER)
    for _ in range(4):
        await world.next(0.5)


@pytest.mark.parametrize(
    "error", [Unavailable("", status=503), ValueError("a bug")], ids=["API trouble", "crash"]
)
async def test_failure_when_it_happens_then_tried_again_after_a_pause(
    world: World, tasks: Tasks, error: Exception
) -> None:
    world.fail_with(error, 1)
    tasks.wake(OWNER)
    await world.next()
    with pytest.raises(TimeoutError):
        await world.next(0.4)
    await world.next(2)


@pytest.mark.long
async def test_failure_when_events_keep_waking_then_at_most_one_try_a_second(
    world: World, tasks: Tasks
) -> None:
    world.fail_with(Unavailable("", status=503), 1000)
    tasks.wake(OWNER)
    tries = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + 2.5
    while loop.time() < end:
        tasks.wake(OWNER)
        try:
            await world.next(0.05)
            tries += 1
        except TimeoutError:
            continue
    assert 2 <= tries <= 3


async def test_server_when_it_asks_to_wait_then_waited_for(world: World, tasks: Tasks) -> None:
    world.fail_with(Unavailable("", status=429, retry_after_seconds=60), 1)
    tasks.wake(OWNER)
    await world.next()
    with pytest.raises(TimeoutError):
        await world.next(1.5)


@pytest.mark.parametrize("error", [NotFound("", status=404), NotLeading("", status=0)])
async def test_task_when_its_object_or_the_lead_is_gone_then_it_ends(
    world: World, tasks: Tasks, error: Exception
) -> None:
    world.fail_with(error, 1)
    tasks.wake(OWNER)
    await world.next()
    await asyncio.wait_for(_until(lambda: tasks.known() == 0), 2)
    assert world.forgotten == [OWNER]


async def test_object_when_made_again_while_its_task_ends_then_it_is_looked_at(
    world: World, tasks: Tasks
) -> None:
    world.fail_with(NotFound("", status=404), 1)
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    tasks.wake(OWNER)
    world.gate.set()
    await world.next()


async def test_plan_when_it_asks_for_a_requeue_then_looked_at_again_without_an_event(
    world: World, tasks: Tasks
) -> None:
    world.requeue_after = 0.1
    tasks.wake(OWNER)
    for _ in range(3):
        await world.next(1)


async def test_event_when_the_last_pass_read_or_wrote_it_then_nobody_is_woken(
    world: World, tasks: Tasks
) -> None:
    tasks.wake(OWNER, version=3)
    await world.next()
    tasks.wake(OWNER, version=7)
    with pytest.raises(TimeoutError):
        await world.next(0.2)
    tasks.wake(OWNER, version=8)
    await world.next()
    tasks.wake(OWNER)  # a list comes after etcd was restored: whatever the version
    await world.next()


async def test_events_when_they_are_of_children_then_passes_are_apart_but_people_do_not_wait(
    world: World, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "BATCH_SECONDS", 3600.0)
    tasks.wake(OWNER, batch=True)
    await world.next()
    tasks.wake(OWNER, batch=True)
    with pytest.raises(TimeoutError):
        await world.next(0.2)
    tasks.wake(OWNER, version=8)
    await world.next()


async def test_liveness_when_a_pass_runs_too_long_then_it_says_so(
    world: World, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "OVERDUE_SECONDS", 0.0)
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    problem = tasks.problem()
    assert problem is not None
    assert "a/chat" in problem
    world.gate.set()
    await asyncio.wait_for(_until(lambda: tasks.problem() is None), 2)


async def test_stop_when_a_pass_is_under_way_then_it_is_waited_for_and_none_starts(
    world: World, tasks: Tasks
) -> None:
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    stopping = asyncio.create_task(tasks.stop(5))
    await asyncio.wait({stopping}, timeout=0.2)
    tasks.wake(OTHER)
    assert not stopping.done()
    world.gate.set()
    await asyncio.wait_for(stopping, 2)
    assert world.completed == 1
    assert world.passes.empty()
    assert world.at_once == {OWNER: 0}


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing announces the end of a task
        await asyncio.sleep(0.01)


async def test_event_when_it_brings_the_resource_then_the_next_pass_alone_uses_it(
    world: World, tasks: Tasks
) -> None:
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    tasks.wake(OWNER, version=8, from_event={"old": 1})
    tasks.wake(OWNER, version=9, from_event={"new": 1})
    tasks.wake(OWNER, batch=True)
    world.gate.set()
    await world.next()
    tasks.wake(OWNER)
    await world.next()
    assert world.from_events == [None, {"new": 1}, None]


async def test_event_when_the_resource_is_gone_then_nothing_before_counts(
    world: World, tasks: Tasks
) -> None:
    world.gate.clear()
    tasks.wake(OWNER)
    await world.next()
    tasks.wake(OWNER, version=8, from_event={"there": 1})
    tasks.wake(OWNER, from_event={})
    world.gate.set()
    await world.next()
    assert world.from_events == [None, None]


async def test_event_when_what_it_brought_is_refused_as_outdated_then_the_resource_is_read(
    world: World, tasks: Tasks
) -> None:
    world.fail_with(Conflict("changed", status=409), 1)
    tasks.wake(OWNER, from_event={"old": 1})
    await world.next()
    await world.next()
    assert world.from_events == [{"old": 1}, None]


async def test_event_when_new_resources_are_about_then_what_serves_does_not_wait_behind_the_rest(
    world: World, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfleet.tasks.BATCH_SECONDS", 0.0)
    serving, making = [("a", "s1"), ("a", "s2")], [("a", "m1"), ("a", "m2")]
    for owners, served in ((serving, True), (making, False)):
        world.serves = served
        for owner in owners:
            tasks.wake(owner)
            await world.next()
        await asyncio.sleep(0)
    world.gate.clear()
    tasks.wake(("a", "new"), urgent=True)
    assert await world.next() == ("a", "new")
    for owner in (*making, *serving):
        tasks.wake(owner, batch=True)
    assert {await world.next() for _ in range(3)} == {making[0], *serving}
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.passes.empty()
    world.gate.set()
    assert await world.next() == making[1]
