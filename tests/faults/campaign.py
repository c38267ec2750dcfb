"""The campaign: the plans, and running many of them at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.controlplane.apiserver import ApiServer
from hack.processes.operator import operator_token

from tests.faults.faults import Fault, Kind
from tests.faults.operators import World
from tests.faults.player import ROUTER_DELAY_SECONDS, Player
from tests.faults.run import Outcome, Run
from tests.faults.workloads import WORKLOADS, Workload
from tests.faults.zygote import Zygote

ON_CALLS = (
    Kind.KILL_BEFORE,
    Kind.KILL_AFTER,
    Kind.LOSE_REPLY,
    Kind.CONFLICT,
    Kind.THROTTLE,
    Kind.OUTAGE,
    Kind.SLOW,
)
ON_EVENTS = (Kind.CUT, Kind.GONE, Kind.DUPLICATE, Kind.REORDER, Kind.HIDE, Kind.STALE_LIST)
LASTING = frozenset({Kind.STALL, Kind.LONG_OUTAGE})
"""They take minutes, so only a few are made."""
STALLED_FIRST = ("pods", "llmdeployments")
"""Whose silence does most harm: what runs, and what is asked for."""
EVENTS_PER_WATCH = 4
"""Of longer watches the first ones and the last are struck."""
CONCURRENT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One fault in one workload."""

    workload: Workload
    fault: Fault
    place: str
    """The call that is struck, as the undisturbed run made it, or the kind whose watch is."""

    def __str__(self) -> str:
        return f"{self.workload.name}: {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a plan."""

    plan: Plan
    struck: bool
    """Whether the fault happened: a run may be shorter than the undisturbed one."""
    problem: str | None
    """Which oracle was violated, None when none was."""


@contextlib.asynccontextmanager
async def world(
    server: ApiServer, folder: Path, router_delay_seconds: float = ROUTER_DELAY_SECONDS
) -> AsyncIterator[World]:
    """Everything that runs need, for the time of a ``with``."""
    tls = ssl.create_default_context(cafile=str(server.ca_file))
    player = Player(server.url, server.token, tls, router_delay_seconds)
    await player.start()
    try:
        async with Zygote() as zygote:
            yield World(
                url=server.url,
                tls=tls,
                token=operator_token(server),
                player=player,
                zygote=zygote,
                folder=folder,
            )
    finally:
        await player.stop()


async def references(
    shared: World, workloads: Iterable[Workload] = WORKLOADS
) -> dict[str, Outcome]:
    """Run every workload undisturbed.

    Raises:
        AssertionError: one fails without any fault.
    """
    listed = list(workloads)
    runs = (Run(shared, workload, None, None).reference() for workload in listed)
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    found = {}
    for workload, outcome in zip(listed, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise AssertionError(  # noqa: TRY004 - a failed oracle, no wrong type
                f"{workload.name} fails undisturbed: {outcome}"
            ) from outcome
        found[workload.name] = outcome
    return found


def plans(outcomes: dict[str, Outcome], *, lasting: int = 2) -> list[Plan]:
    """One plan for each fault at each call and watch event of each workload.

    Args:
        outcomes: of the undisturbed runs.
        lasting: how many per workload of each kind that takes minutes.
    """
    found = []
    for workload in WORKLOADS:
        if workload.name not in outcomes:
            continue
        outcome = outcomes[workload.name]
        faults = [*_faults_of_calls(outcome, lasting), *_faults_of_watches(outcome, lasting)]
        found += [
            Plan(workload=workload, fault=fault, place=fault.plural or outcome.calls[fault.at])
            for fault in faults
        ]
    return found


def _faults_of_calls(outcome: Outcome, lasting: int) -> Iterator[Fault]:
    calls = len(outcome.calls)
    for kind in ON_CALLS:
        for at in outcome.writes if kind is Kind.CONFLICT else range(calls):
            yield Fault(kind=kind, at=at)
    for at in sorted({calls * (n + 1) // (lasting + 1) for n in range(lasting)} if calls else ()):
        yield Fault(kind=Kind.LONG_OUTAGE, at=at)


def _faults_of_watches(outcome: Outcome, lasting: int) -> Iterator[Fault]:
    for plural, events in sorted(outcome.watched.items()):
        places = sorted({*range(min(events, EVENTS_PER_WATCH)), events - 1})
        for kind in ON_EVENTS:
            for at in places:
                yield Fault(kind=kind, at=at, plural=plural)
    watched = [plural for plural, events in outcome.watched.items() if events]
    watched.sort(key=lambda plural: (plural not in STALLED_FIRST, plural))
    for plural in watched[:lasting]:
        yield Fault(kind=Kind.STALL, at=0, plural=plural)


def spread(listed: Sequence[Plan], count: int, seed: int) -> list[Plan]:
    """``count`` plans in random order, every workload and kind of fault as evenly as possible."""
    rng = random.Random(seed)
    groups: dict[tuple[str, Kind], list[Plan]] = {}
    for plan in rng.sample(list(listed), len(listed)):
        groups.setdefault((plan.workload.name, plan.fault.kind), []).append(plan)
    order = sorted(groups)
    rng.shuffle(order)
    chosen: list[Plan] = []
    while len(chosen) < min(count, len(listed)):
        chosen += [groups[key].pop() for key in order if groups[key]]
    return chosen[:count]


async def run_all(
    shared: World,
    listed: Sequence[Plan],
    outcomes: dict[str, Outcome],
    *,
    bug: str | None = None,
    report: Callable[[Result], None] = lambda result: None,
    until: Callable[[Result], bool] = lambda result: False,
    concurrent: int = CONCURRENT,
) -> list[Result]:
    """Run plans, many at a time; stop early once ``until`` holds for a result."""
    queue = list(reversed(listed))
    results: list[Result] = []

    async def work() -> None:
        while queue:
            plan = queue.pop()
            result = await _run(shared, plan, outcomes[plan.workload.name], bug)
            results.append(result)
            report(result)
            if until(result):
                queue.clear()

    await asyncio.gather(*(work() for _ in range(concurrent)))
    return results


async def _run(shared: World, plan: Plan, expected: Outcome, bug: str | None) -> Result:
    run = Run(shared, plan.workload, plan.fault, bug)
    try:
        struck = await run.disturbed(expected)
    except AssertionError as error:
        return Result(plan=plan, struck=run.proxy.struck, problem=f"{error} [{run.namespace}]")
    return Result(plan=plan, struck=struck, problem=None)
