"""Background tasks that must go on: one that dies of an error is started again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from llmfleet.cluster import metrics
from llmfleet.cluster.backoff import Backoff

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0

log: Any = structlog.get_logger(__name__)


def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Run ``work`` beside everything else until it returns or is cancelled.

    When it raises, that is logged and counted, and after a pause it is called again: nobody awaits
    a background task, so without this its error would be silent and its work left undone for good.

    Args:
        name: of the task, in the log and in the metric; one of a few, not one an object.
        work: called without arguments for every start.
    """
    return asyncio.create_task(_run(name, work), name=name)


async def _run(name: str, work: Callable[[], Awaitable[None]]) -> None:
    pauses = Backoff(first_seconds=FIRST_PAUSE_SECONDS, longest_seconds=LONGEST_PAUSE_SECONDS)
    while True:
        started = time.monotonic()
        try:
            await work()
        except Exception:
            if time.monotonic() - started > LONGEST_PAUSE_SECONDS:
                pauses.reset()
            pause = pauses.next_seconds(random.random())  # noqa: S311 - jitter
            metrics.BACKGROUND_RESTARTS.labels(name).inc()
            log.exception("background task crashed", task=name, again_in=round(pause, 1))
            await asyncio.sleep(pause)
        else:
            return
