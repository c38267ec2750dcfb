"""``python -m tests.faults``: the campaign of API faults, or of seeded bugs."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from hack.bench.report import Target, finish
from hack.controlplane.apiserver import running_api_server
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults import campaign
from tests.faults.campaign import Plan, Result
from tests.faults.operators import World
from tests.faults.player import ROUTER_DELAY_SECONDS
from tests.faults.run import Outcome
from tests.faults.seeded import BUGS

LEAST_PLANS = 2000
LEAST_BUGS = 20
LEAST_CAUGHT = 0.95
SEEDED_PATIENCE_SECONDS = 20.0
"""A bug that makes a run hang costs this much; a plan counts only if it passes without the bug."""
CONFIRMED_AT_ONCE = 4
SEEDED_ROUTER_DELAY_SECONDS = 1.5
"""Longer than from one pass to the next, so that not waiting for routers shows every time."""


def main() -> int:
    """Run it; the exit status is 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--plans", type=int, help="how many plans (default: all there are)")
    parser.add_argument("--only", help="plans whose text contains this")
    parser.add_argument("--seeded", action="store_true", help="plant bugs and see them caught")
    parser.add_argument("--bug", action="append", help="only this seeded bug (repeatable)")
    parser.add_argument("--plans-per-bug", type=int, default=150, help="at most (default 150)")
    parser.add_argument("--seed", type=int, default=0, help="order of the plans")
    parser.add_argument("--concurrent", type=int, default=campaign.CONCURRENT)
    parser.add_argument("--list", action="store_true", help="print the plans and end")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="llmfleet-faults-"))
    with running_api_server(folder / "api") as server:
        server.install_crd()
        return asyncio.run(_run(server, folder, arguments))


async def _run(server: Any, folder: Path, arguments: argparse.Namespace) -> int:
    seeded = bool(arguments.seeded or arguments.bug)
    delay = SEEDED_ROUTER_DELAY_SECONDS if seeded else ROUTER_DELAY_SECONDS
    async with campaign.world(server, folder, delay) as shared:
        started = time.monotonic()
        outcomes = await campaign.references(shared)
        every = campaign.plans(outcomes)
        if arguments.only:
            every = [plan for plan in every if arguments.only in str(plan)]
        for name, outcome in outcomes.items():
            sys.stdout.write(
                f"{name}: {len(outcome.calls)} calls, {len(outcome.writes)} writes,"
                f" {sum(outcome.watched.values())} watch events\n"
            )
        if arguments.list:
            sys.stdout.write("".join(f"{plan}\n" for plan in every))
            return 0
        if seeded:
            return await _seeded(shared, every, outcomes, arguments)
        chosen = campaign.spread(every, arguments.plans or len(every), arguments.seed)
        results = await _with_progress(shared, chosen, outcomes, arguments, None)
        part = bool(arguments.plans or arguments.only)
        return _summarise(results, time.monotonic() - started, shared, part=part)


async def _with_progress(
    shared: World,
    chosen: list[Plan],
    outcomes: dict[str, Outcome],
    arguments: argparse.Namespace,
    bug: str | None,
) -> list[Result]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress:
        bar = progress.add_task(bug or "plans", total=len(chosen))

        def report(result: Result) -> None:
            progress.advance(bar)
            done = progress.tasks[bar].completed
            if not progress.console.is_terminal and bug is None and done % 100 == 0:
                sys.stdout.write(f"{done:.0f} of {len(chosen)} plans\n")
                sys.stdout.flush()
            if result.problem and bug is None:
                where = f"{result.plan} ({result.plan.place})"
                progress.console.print(f"FAILED {where}: {result.problem}", markup=False)

        return await campaign.run_all(
            shared,
            chosen,
            outcomes,
            bug=bug,
            report=report,
            until=lambda result: bug is not None and result.problem is not None,
            concurrent=arguments.concurrent,
        )


async def _caught(
    shared: World, results: list[Result], outcomes: dict[str, Outcome], bug: str
) -> Result | None:
    """A plan that fails with the bug, again with few beside it, and passes without the bug.

    Among many others a plan may also fail because the machine is busy.
    """

    async def repeat(listed: list[Result], planted: str | None) -> list[Result]:
        plans = [result.plan for result in listed if result.problem]
        return await campaign.run_all(
            shared, plans, outcomes, bug=planted, concurrent=CONFIRMED_AT_ONCE
        )

    again = await repeat(results, bug)
    passed = {control.plan for control in await repeat(again, None) if not control.problem}
    return next((each for each in again if each.problem and each.plan in passed), None)


def _summarise(results: list[Result], seconds: float, shared: World, *, part: bool) -> int:
    struck = [result for result in results if result.struck]
    failed = [result for result in struck if result.problem]
    failed += [result for result in results if result.problem and not result.struck]
    kinds = Counter(str(result.plan.fault.kind) for result in struck)
    targets = [
        Target(
            name="plans that pass",
            figure=f"{len(struck) - len(failed)} of {len(struck)} in {seconds:.0f} s",
            target="100 %",
            holds=bool(struck) and not failed,
        ),
        Target(
            name="plans whose fault struck",
            figure=f"{len(struck)} of {len(results)}",
            target=f"at least {LEAST_PLANS}",
            holds=len(struck) >= LEAST_PLANS or (None if part else False),
        ),
    ]
    details = {
        "struckByKind": kinds,
        "failed": {str(result.plan): result.problem for result in failed},
        "logs": str(shared.folder),
        "writes": shared.usage.writes(),
        "usage": shared.usage.rows(),
    }
    return finish("test-faults", targets, details)


def _likeliest_first(listed: list[Plan], bug: str) -> list[Plan]:
    """Plans that the bug names first; those that are alike keep their order."""
    rank = BUGS[bug].rank
    return sorted(listed, key=lambda plan: rank(plan.fault.kind, plan.workload.name, plan.place))


async def _seeded(
    shared: World, every: list[Plan], outcomes: dict[str, Outcome], arguments: argparse.Namespace
) -> int:
    caught: dict[str, str | None] = {}
    shared = replace(shared, patience_seconds=SEEDED_PATIENCE_SECONDS)
    every = [plan for plan in every if plan.fault.kind not in campaign.LASTING]
    for bug in arguments.bug or BUGS:
        chosen = _likeliest_first(campaign.spread(every, len(every), arguments.seed), bug)
        chosen = chosen[: arguments.plans_per_bug]
        shown, left, tried = None, chosen, 0
        while left and shown is None:
            results = await _with_progress(shared, left, outcomes, arguments, bug)
            shown = await _caught(shared, results, outcomes, bug)
            done = {result.plan for result in results}
            left, tried = [plan for plan in left if plan not in done], tried + len(done)
        caught[bug] = f"{shown.plan} ({shown.plan.place}): {shown.problem}" if shown else None
        verdict = "caught" if shown else "MISSED"
        sys.stdout.write(f"{verdict} {bug}: {caught[bug] or tried}"[:400] + "\n")
    share = sum(one is not None for one in caught.values()) / len(caught)
    targets = [
        Target(
            name="seeded bugs",
            figure=str(len(caught)),
            target=f"at least {LEAST_BUGS}",
            holds=len(caught) >= LEAST_BUGS,
        ),
        Target(
            name="seeded bugs caught",
            figure=f"{share:.0%}, missed: {[n for n, one in caught.items() if one is None]}",
            target=f"at least {LEAST_CAUGHT:.0%}",
            holds=share >= LEAST_CAUGHT,
        ),
    ]
    return finish("test-faults-seeded", targets, {"caught": caught})


if __name__ == "__main__":
    raise SystemExit(main())
