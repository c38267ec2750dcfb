"""One attack on one router: started, attacked, watched, and asked at the end whether it lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from tests.hostile.attack import Outcome, attack
from tests.hostile.engine import WatchedEngine

WARM_UP: Final = 0.3
"""Share of the requests after which memory must not grow any more."""


@dataclass
class Report:
    """What an attack showed."""

    outcome: Outcome
    engine_trouble: list[str]
    """Requests that should not have reached the engine as they did."""
    reached_engine: int
    alive: bool
    """The processes are the ones of the start, and a plain request is answered 200."""
    memory: dict[str, list[int]] = field(default_factory=dict)
    """Resident bytes of ``envoy`` and ``agent``, sampled evenly over the attack."""

    def growth(self, process: str) -> float:
        """Peak of the last third over the peak of the warm-up, 1.0 = no growth."""
        samples = self.memory[process]
        warm = samples[: max(1, int(len(samples) * WARM_UP))]
        return max(samples[-len(samples) // 3 :]) / max(warm)


async def run(
    directory: Path, count: int, seed: int, *, progress: Callable[[int], None] = lambda sent: None
) -> Report:
    """Attack a fresh router with ``count`` requests."""
    engine = WatchedEngine()
    await engine.start()
    every = max(1, count // 60)
    try:
        async with _router(directory, engine.port) as (process, port, envoy):
            memory: dict[str, list[int]] = {"envoy": [], "agent": []}

            def sample(sent: int) -> None:
                progress(sent)
                if sent % every == 0:
                    memory["envoy"].append(resident_bytes(envoy))
                    memory["agent"].append(resident_bytes(process.pid))

            outcome = await attack(port, count, seed, progress=sample)
            alive = process.returncode is None and await _serves(port) and resident_bytes(envoy) > 0
            return Report(
                outcome=outcome,
                engine_trouble=engine.troubles,
                reached_engine=engine.count,
                alive=alive,
                memory=memory,
            )
    finally:
        await engine.stop()


def resident_bytes(pid: int) -> int:
    """Memory of a process that lies in RAM; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return 1024 * int(found[0]) if found else 0


@contextlib.asynccontextmanager
async def _router(
    directory: Path, engine_port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile.router_process", str(directory), str(engine_port),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
        yield process, ready["port"], ready["envoy"]
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _serves(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/v1/completions"
    async with aiohttp.ClientSession() as session:
        try:
            async with session.post(url, json={"prompt": "hello"}) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False
