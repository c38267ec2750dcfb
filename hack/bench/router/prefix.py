"""Prefix-cache hits behind a router: real requests to engines that keep a KV cache of blocks.

Eight pods, each with an LRU of 16-token blocks that holds a sixth of what all live chats need; so
a pod can keep its share of the chats, and no pod can keep all. The engines take the time of the
missing blocks and of the answer, twenty times faster than a GPU would (``stub/cache.go``); a
thousand chats ask, read the answer, think and ask again (``stub/chats.go``).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hack.bench.router import load, subjects, tools
from hack.controlplane.apiserver import free_ports

JSON = dict[str, Any]

PODS = 8
ROUNDS = 2
WARM_SECONDS = 3.0
SECONDS = 4.0
CONVERSATIONS = 1024
WORKLOADS = {"one system prompt": 1, "32 system prompts": 32, "no system prompt": 0}
"""How many system prompts of 3 KB the chats share, drawn by Zipf's law."""
ORACLE = "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One subject's turn with one workload."""

    hit_rate: float
    """Blocks found in the cache, of all blocks asked for."""
    requests_max_over_mean: float
    busy_max_over_mean: float
    """Of the seconds pods were busy, so also of requests they had at a time."""
    requests: int
    failed: int


@asynccontextmanager
async def llmfleet(folder: Path, engines: list[int]) -> AsyncIterator[subjects.Subject]:
    """Our router with one revision."""
    async with subjects.serving(folder, {"a": engines}) as (subject, _):
        yield subject


def _envoy(policy: str) -> subjects.Start:
    def start(
        folder: Path, engines: list[int]
    ) -> AbstractAsyncContextManager[subjects.Subject]:  # fmt: skip
        return subjects.plain_envoy(folder, engines, policy, split=False)

    return start


ROUTERS: dict[str, subjects.Start] = {
    "llmfleet": llmfleet,
    "random": _envoy("RANDOM"),
    "least request": _envoy("LEAST_REQUEST"),
    "vllm-router": subjects.vllm_router("cache_aware"),
}


def summarize(result: JSON) -> Run:
    """The figures of what the engines counted.

    >>> pods = [{"requests": 30, "blocks": 60, "hit_blocks": 30, "busy_seconds": 1.0},
    ...         {"requests": 10, "blocks": 40, "hit_blocks": 20, "busy_seconds": 1.0}]
    >>> run = summarize({"pods": pods, "failed": 0})
    >>> run.hit_rate, run.requests_max_over_mean, run.busy_max_over_mean
    (0.5, 1.5, 1.0)
    """
    pods = result["pods"]

    def uneven(what: Callable[[JSON], float]) -> float:
        values = [what(pod) for pod in pods]
        return max(values) * len(values) / sum(values)

    return Run(
        hit_rate=sum(pod["hit_blocks"] for pod in pods) / sum(pod["blocks"] for pod in pods),
        requests_max_over_mean=uneven(lambda pod: pod["requests"]),
        busy_max_over_mean=uneven(lambda pod: pod["busy_seconds"]),
        requests=sum(pod["requests"] for pod in pods),
        failed=result["failed"],
    )


async def simulate(names: Sequence[str], folder: Path, *, quick: bool) -> JSON:
    """Every workload with every router, in turn.

    Returns:
        Workload → router → list of runs, a run a round.
    """
    engines = free_ports(PODS)
    rounds, warm, seconds = (1, 2.0, 2.0) if quick else (ROUNDS, WARM_SECONDS, SECONDS)
    command = [tools.stub(), "-ports", ",".join(map(str, engines)), "-simulate"]
    measured: JSON = {name: {} for name in WORKLOADS}
    async with AsyncExitStack() as stack:
        stack.enter_context(load.self_on_load_core())
        fleet = stack.enter_context(
            load.process(
                load.on_core(load.LOAD_CORE, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        await asyncio.to_thread(_line, fleet)
        targets = {ORACLE: ORACLE}
        for name in names:
            try:
                started = await stack.enter_async_context(ROUTERS[name](folder / name, engines))
                targets[name] = f"127.0.0.1:{started.port}"
            except tools.AbsentError as error:
                tools.say(f"{name}: {error}")
        for seed in range(1, rounds + 1):
            for workload, prompts in WORKLOADS.items():
                tools.say(f"prefix: {workload}, round {seed} of {rounds}")
                for name, target in targets.items():
                    order = {
                        "target": target, "prompts": prompts, "conversations": CONVERSATIONS,
                        "seed": seed, "warm_seconds": warm, "seconds": seconds,
                    }  # fmt: skip
                    run = summarize(await asyncio.to_thread(_ask, fleet, order))
                    measured[workload].setdefault(name, []).append(asdict(run))
    return measured


def of_oracle(runs: JSON, name: str) -> float:
    """Hit rate as a multiple of the oracle's, the median of the rounds."""
    pairs = zip(runs[name], runs[ORACLE], strict=True)
    return median(float(one["hit_rate"] / best["hit_rate"]) for one, best in pairs)


def unevenness(runs: JSON, name: str) -> float:
    """Max over mean of the pods' load, by requests or by busy time, whichever is worse."""
    return median(
        float(max(run["requests_max_over_mean"], run["busy_max_over_mean"])) for run in runs[name]
    )


def _ask(fleet: subprocess.Popen[bytes], order: JSON) -> JSON:
    assert fleet.stdin is not None
    fleet.stdin.write(json.dumps(order).encode() + b"\n")
    fleet.stdin.flush()
    answer: JSON = json.loads(_line(fleet))
    return answer


def _line(fleet: subprocess.Popen[bytes]) -> bytes:
    assert fleet.stdout is not None
    line = fleet.stdout.readline()
    if not line:
        raise RuntimeError("the simulated engines ended")
    return line
