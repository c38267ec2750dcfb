"""Measures the operator with many LLMDeployments, and says which targets hold.

One run: apply all at a steady rate, wait until they are Healthy and the operator is quiet, measure
it idle, restart it by SIGTERM. API server, controllers, scheduler, KWOK and this benchmark share
the machine with the operator; its processor time and memory are its own process's. While all are
applied, controllers and scheduler keep to the 20 calls a second that are their default (KWOK has no
such brake): unbridled they use up both processors with writes that the figures are not about.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hack.bench.operator.fleet import Fleet
from hack.bench.operator.process import Operator
from hack.bench.report import Target, at_most, finish
from hack.controlplane.agents import RouterAgents
from hack.controlplane.apiserver import ApiServer
from hack.controlplane.plane import FAST_PACE, Pace, build_missing, running_control_plane

GATED_COUNT = 1000
APPLIES_PER_SECOND = 20.0
IDLE_SECONDS = 120.0
QUIET_SECONDS = 10.0
HEALTHY_SECONDS_EACH = 0.9
RESTART_SECONDS = 300.0
MEGABYTE = 10**6

JSON = dict[str, Any]


def main() -> int:
    """Measure and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.operator", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=GATED_COUNT, help="LLMDeployments (default 1000)"
    )
    parser.add_argument(
        "--idle", type=float, default=IDLE_SECONDS, help="seconds to measure it idle (default 120)"
    )
    arguments = parser.parse_args()
    build_missing()
    with (
        tempfile.TemporaryDirectory(prefix="llmfleet-bench-") as folder,
        running_control_plane(Path(folder)) as (server, pace),
    ):
        details = asyncio.run(_measure(server, pace, arguments.count, arguments.idle))
    gated = arguments.count == GATED_COUNT
    name = "bench-operator" if gated else f"bench-operator-{arguments.count}"
    return finish(name, _targets(details, gated=gated), details)


async def _measure(server: ApiServer, pace: Pace, count: int, idle_seconds: float) -> JSON:
    fleet = Fleet(server, count)
    operator = Operator(server, server.directory)
    patience = HEALTHY_SECONDS_EACH * max(count, GATED_COUNT)
    try:
        async with RouterAgents(server).running(), fleet.followed():
            await operator.wait_known(0, RESTART_SECONDS)
            await asyncio.to_thread(operator.process.wait_leading)
            _say(f"applying {count} at {APPLIES_PER_SECOND:g} a second")
            used, began = operator.processor_seconds(), time.monotonic()
            await fleet.apply_all(APPLIES_PER_SECOND)
            await fleet.wait_created(patience)
            _say(f"all have their Deployment; controllers at {FAST_PACE} calls a second")
            await asyncio.to_thread(pace.set, FAST_PACE)
            await fleet.wait_healthy(patience)
            healthy = time.monotonic() - began
            used = operator.processor_seconds() - used
            writes = operator.writes()
            _say(f"all Healthy after {healthy:.0f} s; waiting for quiet")
            await operator.wait_quiet(QUIET_SECONDS, patience)
            _say(f"idle for {idle_seconds:g} s")
            idle = await operator.watch_idle(idle_seconds)
            _say("restarting")
            restart, operator = await _restart(server, operator, count)
    finally:
        operator.kill()
    delays = fleet.delays()
    return {
        "count": count,
        "apply_to_deployment_seconds": {
            "p50": _quantile(delays, 0.5),
            "p99": _quantile(delays, 0.99),
            "max": delays[-1],
        },
        "all_healthy_seconds": healthy,
        "processor_seconds_per_object": used / count,
        "writes_per_object": writes / count,
        "idle": asdict(idle),
        "restart": restart,
    }


async def _restart(server: ApiServer, operator: Operator, count: int) -> tuple[JSON, Operator]:
    began = time.monotonic()
    await operator.stop()
    stopped = time.monotonic()
    operator = Operator(server, server.directory)
    steady = await operator.wait_known(count, RESTART_SECONDS)
    await operator.wait_quiet(QUIET_SECONDS, RESTART_SECONDS)
    figures: JSON = {
        "stop_seconds": stopped - began,
        "steady_seconds": steady - began,
        "writes": operator.writes(),
        "processor_seconds": operator.processor_seconds(),
        "after": asdict(await operator.watch_idle(5.0)),
    }
    return figures, operator


def _targets(details: JSON, *, gated: bool) -> list[Target]:
    p99 = details["apply_to_deployment_seconds"]["p99"]
    idle, restart = details["idle"], details["restart"]
    peak = max(idle["peak_bytes"], restart["after"]["peak_bytes"])
    targets = [
        at_most("apply to Deployment created, p99", p99, 2.0, " s"),
        at_most("idle, of one core", idle["cores"] * 100, 10.0, " %", 1),
        at_most("resident memory, peak", peak / MEGABYTE, 250.0, " MB", 0),
        at_most("restart by SIGTERM to steady", restart["steady_seconds"], 10.0, " s"),
        at_most("writes of the restart", restart["writes"], 0.0, "", 0),
        at_most("writes while idle", idle["writes"], 0.0, "", 0),
    ]
    if gated:
        return targets
    sys.stdout.write("stated without a gate, which is for 1,000:\n")
    for each in targets:
        sys.stdout.write(f"  {each.name}: {each.figure}\n")
    return []


def _quantile(ascending: list[float], share: float) -> float:
    """Nearest rank: the smallest value that at least this share does not exceed."""
    return ascending[max(0, -int(-share * len(ascending) // 1) - 1)]


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
