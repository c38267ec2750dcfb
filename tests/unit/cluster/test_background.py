"""A background task that dies of an error is started again, counted and logged."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from llmfleet.cluster import background
from llmfleet.cluster.background import keep_running


def restarts(task: str) -> float:
    name = "llmfleet_background_restarts_total"
    return REGISTRY.get_sample_value(name, {"task": task}) or 0.0


async def test_task_when_it_dies_of_errors_then_it_is_started_again_until_it_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0.0)
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise ValueError("a bug")

    before = restarts("poll")
    await asyncio.wait_for(keep_running("poll", work), 5)
    assert starts == 3
    assert restarts("poll") == before + 2


async def test_task_when_cancelled_then_it_ends() -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    task = keep_running("poll", work)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
