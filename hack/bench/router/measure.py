"""Requests a second, latency and CPU time a chunk: every router in turn, round by round."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hack.bench.router import load, tools
from hack.bench.router.load import Round
from hack.bench.router.subjects import DIRECT, OURS, SUBJECTS, Subject
from hack.controlplane.apiserver import free_ports

ENGINES = 4
STREAM_CHUNKS = 100
STREAM_GAP_MS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of load."""

    name: str
    size_bytes: int
    """Of the prompt."""
    connections: int
    """Each sends its next request when the last is answered."""
    rounds: int
    seconds: int
    """Of one subject's turn; wrk knows whole seconds only."""
    stream: bool = False

    def quick(self) -> Part:
        """The same in two short rounds, to see that it works."""
        return Part(
            name=self.name, size_bytes=self.size_bytes, connections=self.connections,
            rounds=2, seconds=2 if self.stream else 1, stream=self.stream,
        )  # fmt: skip


PARTS = (
    # Many short turns, since the speed of a shared machine changes from one second to the next; at
    # 220 KB the slowest answer nothing in the first.
    Part(name="1kb", size_bytes=1_000, connections=64, rounds=8, seconds=1),
    Part(name="220kb", size_bytes=220_000, connections=32, rounds=4, seconds=2),
    Part(name="latency", size_bytes=1_000, connections=1, rounds=3, seconds=2),
    Part(name="stream", size_bytes=1_000, connections=100, rounds=3, seconds=2, stream=True),
)

Rounds = dict[str, list[Round]]
"""Per subject, in the order of the rounds."""


async def measure(
    parts: Sequence[Part], names: Sequence[str], folder: Path
) -> tuple[dict[str, Rounds], dict[str, str]]:
    """Runs the parts against the subjects.

    Returns:
        What was measured, per part; and per subject that cannot run here, a sentence why.
    """
    engines = free_ports(ENGINES)
    absent: dict[str, str] = {}
    running: dict[str, Subject] = {}
    async with AsyncExitStack() as stack:
        stack.enter_context(load.self_on_load_core())
        stack.enter_context(load.stub_engines(engines, chunks=STREAM_CHUNKS, gap_ms=STREAM_GAP_MS))
        for name in names:
            tools.say(f"starting {name} …")
            try:
                started = SUBJECTS[name](folder / name, engines)
                running[name] = await stack.enter_async_context(started)
            except tools.AbsentError as error:
                absent[name] = str(error)
                tools.say(f"{name}: {error}")
        measured = {part.name: await _rounds(part, running, engines[0], absent) for part in parts}
        return measured, absent


async def _rounds(
    part: Part, running: dict[str, Subject], engine: int, absent: dict[str, str]
) -> Rounds:
    """One part; a rival that does not get through it is absent from here on."""
    measured: Rounds = {name: [] for name in running}
    for number in range(part.rounds):
        tools.say(f"{part.name}: round {number + 1} of {part.rounds}")
        for name, subject in list(running.items()):
            try:
                measured[name].append(await asyncio.to_thread(_turn, part, subject, engine))
            except (RuntimeError, OSError) as error:
                if name in {OURS, DIRECT}:
                    raise
                absent[name] = f"it failed in {part.name}, round {number + 1}: {error}"
                tools.say(f"{name}: {absent[name]}")
                del running[name], measured[name]
    return measured


def _turn(part: Part, subject: Subject, engine: int) -> Round:
    load.settled(subject.pid)
    return load.run_wrk(
        subject.port, subject.pid, engine=engine, connections=part.connections,
        seconds=part.seconds, size_bytes=part.size_bytes, stream=part.stream,
    )  # fmt: skip


def paired(
    ours: Sequence[Round], others: Sequence[Round], how: Callable[[Round, Round], float]
) -> float:
    """Median over the rounds of a figure made of both subjects' turns in the same round.

    >>> paired([1.0, 4.0, 9.0], [1.0, 2.0, 2.0], lambda a, b: a / b)  # type: ignore[list-item]
    2.0
    """
    return median(how(one, other) for one, other in zip(ours, others, strict=True))


def speed_ratio(ours: Sequence[Round], others: Sequence[Round]) -> float:
    """Requests a second, as a multiple of the other's; infinite where that answered none."""

    def ratio(a: Round, b: Round) -> float:
        return a.requests_per_second / b.requests_per_second if b.requests_per_second else math.inf

    return paired(ours, others, ratio)


def summary(rounds: Sequence[Round], direct: Sequence[Round] | None) -> dict[str, Any]:
    """The medians of one subject in one part, with what it adds to direct's latency."""
    row: dict[str, Any] = {
        "requests_per_second": median(r.requests_per_second for r in rounds),
        "p50_ms": median(r.p50_ms for r in rounds),
        "p99_ms": median(r.p99_ms for r in rounds),
        "failed": sum(r.failed for r in rounds),
        "cores": median(r.cpu_seconds / r.seconds for r in rounds),
    }
    if all(r.events for r in rounds):
        row["cpu_microseconds_per_event"] = median(1e6 * r.cpu_seconds / r.events for r in rounds)
    if direct is not None:
        row["added_p50_ms"] = paired(rounds, direct, lambda a, b: a.p50_ms - b.p50_ms)
        row["added_p99_ms"] = paired(rounds, direct, lambda a, b: a.p99_ms - b.p99_ms)
    return row
