"""``make test-split``: requests at the real Envoy under every weight, and what chance allows."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
from hack.bench.report import Target, at_least, at_most, finish, skipped
from hack.bench.router import tools
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import RunningRouter, running_router

from llmfleet_router.model import Command, Endpoint
from tests.split.chance import chi_square_tail, sigmas
from tests.split.client import CONNECTIONS, ask

MOST_SIGMAS = 5.0
LEAST_P = 1e-6
ARMS = ("aaaa", "bbbb", "cccc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One command, what has endpoints, and the share the last revision that is left shall get."""

    weights: tuple[int, ...]
    engines: tuple[int, ...]
    """Of each arm."""
    arm: str
    percent: int
    """Of requests, that ``arm`` shall get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What became of one split."""

    rollout: int
    split: Split
    answers: dict[str, int]
    sigmas: float
    """From the mean of what ``arm`` shall get."""
    as_reported: bool
    """The router's own state says the same: effective weight, and requests."""


EVERY_WEIGHT = tuple(
    Split(weights=(100 - weight, weight), engines=(1, 1), arm="bbbb", percent=weight)
    for weight in range(1, 100)
)
WITHOUT_SOME = (
    Split(weights=(75, 25), engines=(1, 2), arm="bbbb", percent=25),
    Split(weights=(75, 25), engines=(1, 1), arm="bbbb", percent=25),  # one of two pods gone
    Split(weights=(60, 30, 10), engines=(1, 1, 1), arm="bbbb", percent=30),
    Split(weights=(60, 30, 10), engines=(1, 1, 0), arm="bbbb", percent=33),  # 30 of 90
    Split(weights=(60, 30, 10), engines=(0, 1, 1), arm="cccc", percent=25),
)


def main() -> int:
    """Measure and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.split", description=__doc__)
    parser.add_argument(
        "--requests", type=int, default=2000, help="for each weight of each rollout (default 2000)"
    )
    parser.add_argument(
        "--rollouts", type=int, default=3, help="each with a router of its own (default 3)"
    )
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began = time.monotonic()
    try:
        engine = tools.stub()
    except tools.AbsentError as error:
        return finish("test-split", [skipped("the split", "exact", str(error))], {})
    with tempfile.TemporaryDirectory(prefix="llmfleet-split-") as folder:
        work = _count(Path(folder), engine, chosen.requests, chosen.rollouts)
        counted = asyncio.run(work)
    seconds = round(time.monotonic() - began)
    details = {
        "requests_a_split": chosen.requests,
        "rollouts": chosen.rollouts,
        "seconds": seconds,
        "splits": [asdict(one) for one in counted],
    }
    return finish("test-split", targets(counted), details)


async def _count(folder: Path, binary: str, requests: int, rollouts: int) -> list[Counted]:
    """Every rollout meets the same splits in an order of its own, the first in theirs."""
    ports = free_ports(4)
    pods = [Endpoint(address="127.0.0.1", port=port) for port in ports]
    counted = []
    with _engines(binary, ports):
        for rollout in range(rollouts):
            splits = [*EVERY_WEIGHT, *WITHOUT_SOME]
            if rollout:
                random.Random(rollout).shuffle(splits)
            (folder / str(rollout)).mkdir()
            async with running_router(folder / str(rollout)) as router:
                for number, split in enumerate(splits, start=1):
                    counted.append(await _one(router, rollout, number, split, pods, requests))
            tools.say(f"  {len(counted)} splits, {rollout + 1} of {rollouts} rollouts")
    return counted


@contextmanager
def _engines(binary: str, ports: list[int]) -> Iterator[None]:
    command = [binary, "-ports", ",".join(map(str, ports))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()  # it listens
            yield
        finally:
            process.terminate()


async def _one(
    router: RunningRouter,
    rollout: int,
    generation: int,
    split: Split,
    pods: list[Endpoint],
    requests: int,
) -> Counted:
    arms = ARMS[: len(split.weights)]
    # Each arm has a pod of its own, and the second arm perhaps one more.
    endpoints = {
        arm: (pods[i], *pods[3:])[:count]
        for i, (arm, count) in enumerate(zip(arms, split.engines, strict=True))
    }
    weights = tuple(zip(arms, split.weights, strict=True))
    router.agent.store.set_endpoints(endpoints)
    router.agent.store.set_command(Command(generation=generation, weights=weights))
    able = {arm for arm, found in endpoints.items() if found}
    await router.confirmed(generation)
    await router.until(lambda applied: {a for a, p in applied.routes.effective if p} == able)
    port = router.agent.settings.http_port
    await ask(port, CONNECTIONS)  # not counted: workers take a new table a moment later
    before = _requests(await router.confirmed(generation))
    answers = await ask(port, requests)
    state = await router.confirmed(generation)
    effective = {row["revision"]: row["effective"] for row in state["revisions"]}
    return Counted(
        rollout=rollout,
        split=split,
        answers=dict(answers),
        sigmas=sigmas(answers[split.arm], requests, split.percent / 100),
        as_reported=effective[split.arm] == split.percent and _requests(state) - before == answers,
    )


def _requests(state: dict[str, list[dict[str, int]]]) -> Counter[str]:
    return Counter({str(row["revision"]): row["requests"] for row in state["revisions"]})


def targets(counted: list[Counted]) -> list[Target]:
    """What must hold, judged by what was counted."""
    every = [one for one in counted if one.split in EVERY_WEIGHT]
    rest = [one for one in counted if one.split not in EVERY_WEIGHT]
    failed = sum(n for one in counted for who, n in one.answers.items() if who not in ARMS)
    outside = sum(one.answers.get(arm, 0) for one in counted for arm in _without(one.split))
    return [
        _farthest(f"farthest of {len(every)} splits, 1 to 99 %, from the binomial mean", every),
        at_least("all weights together, chi-square's p",
                 chi_square_tail(one.sigmas for one in every), LEAST_P, "", 6),
        _farthest("farthest of the splits after endpoints went", rest),
        at_most("requests to a revision without endpoints", outside, 0, "", 0),
        at_most("splits that the router's state tells otherwise",
                sum(not one.as_reported for one in counted), 0, "", 0),
        at_most("requests failed", failed, 0, "", 0),
    ]  # fmt: skip


def _farthest(name: str, counted: list[Counted]) -> Target:
    worst = max(counted, key=lambda one: abs(one.sigmas))
    return at_most(name, abs(worst.sigmas), MOST_SIGMAS, " sigma")


def _without(split: Split) -> list[str]:
    return [arm for arm, count in zip(ARMS, split.engines, strict=False) if not count]


if __name__ == "__main__":
    raise SystemExit(main())
