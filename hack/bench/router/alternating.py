"""Two routers loaded in turn, 50 ms each, on their one core: how fast one is beside the other.

A shared machine is a third faster in one second than in the next, and one process of a program some
percent faster than another. So turns are short, and both routers are started anew for every run.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from hack.bench.router import load, tools
from hack.bench.router.measure import ENGINES, STREAM_CHUNKS, STREAM_GAP_MS, Part
from hack.bench.router.subjects import SUBJECTS
from hack.controlplane.apiserver import free_ports

RUNS = 4
"""An even number: who has the first turn has the more of them by one."""
SECONDS = 6
"""Of a run, both routers together; wrk knows whole seconds only."""
TURN_SECONDS = 0.05
WARM_UP_SECONDS = 1


async def speed_ratios(
    part: Part, names: tuple[str, str], folder: Path, *, seconds: int = SECONDS
) -> list[float]:
    """Requests a second of the first router as multiples of the second's, a ratio for each run.

    Args:
        part: the load.
        names: of the two routers.
        folder: for what they need.
        seconds: of a run, both routers together.

    Raises:
        tools.AbsentError: one of them cannot run here.
        RuntimeError: a request failed.
    """
    engines = free_ports(ENGINES)
    ratios = []
    with (
        load.self_on_load_core(),
        load.stub_engines(engines, chunks=STREAM_CHUNKS, gap_ms=STREAM_GAP_MS),
    ):
        for number in range(RUNS):
            tools.say(f"{part.name}: {' and '.join(names)} in turn, run {number + 1} of {RUNS}")
            order = names if number % 2 == 0 else names[::-1]
            async with AsyncExitStack() as stack:
                ports = []
                for name in order:
                    started = SUBJECTS[name](folder / f"{part.name}-{number}-{name}", engines)
                    ports.append((await stack.enter_async_context(started)).port)
                counts = await asyncio.to_thread(_run, part, ports, seconds)
            counted = dict(zip(order, counts, strict=True))
            ratios.append(counted[names[0]] / counted[names[1]])
    return ratios


def _run(part: Part, ports: Sequence[int], seconds: int) -> list[int]:
    """The requests that each router answered."""
    for port in ports:
        load.answered(_start(part, port, WARM_UP_SECONDS), 60)
    running = [_start(part, port, seconds) for port in ports]
    try:
        _take_turns(running, time.monotonic() + seconds)
    finally:
        for each in running:
            each.send_signal(signal.SIGCONT)
    figures = [load.answered(each, 60) for each in running]
    if failed := sum(said["failed"] for said in figures):
        raise RuntimeError(f"{failed} requests failed while routers were loaded in turn")
    return [said["requests"] for said in figures]


def _start(part: Part, port: int, seconds: int) -> subprocess.Popen[str]:
    return load.wrk(port, connections=part.connections, seconds=seconds, size_bytes=part.size_bytes)


def _take_turns(running: Sequence[subprocess.Popen[str]], end: float) -> None:
    """One of them runs at a time; the first begins."""
    for waiting in running[1:]:
        waiting.send_signal(signal.SIGSTOP)
    turn = 0
    while time.monotonic() < end - TURN_SECONDS:
        time.sleep(TURN_SECONDS)
        running[turn].send_signal(signal.SIGSTOP)
        turn = (turn + 1) % len(running)
        running[turn].send_signal(signal.SIGCONT)
