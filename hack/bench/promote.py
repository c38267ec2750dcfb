"""How long a promotion takes: from the act to the first request that the new revision answers.

A real API server, controllers, scheduler and KWOK pods, the operator's own process with the chart's
rights, the router's own process with its own, Envoy, and a client that asks all the time. The new
revision's pods are ready before the act, so what is timed is act → watch → decision → status →
watch → Envoy. It runs in a network namespace of its own, as the other benchmarks of weights do.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from hack.bench.report import Target, at_most, finish, skipped
from hack.bench.router import isolated, tools
from hack.controlplane.plane import build_missing

JSON = dict[str, Any]

COMMAND = "bench-promote"
PROMOTIONS = 30
HTTP_PORT, AGENT_PORT = 8080, 9090
"""The operator asks the agent at a router pod's address, which KWOK takes from loopback."""
ROLLOUT: JSON = {
    "strategy": "Canary",
    "maxSurge": "100%",
    "scaleDownDelay": "0s",
    "steps": [{"setCanaryScale": {"percent": 100}}, {"pause": {}}],
}


def main() -> int:
    """Measure and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.promote", description=__doc__)
    parser.add_argument("--promotions", type=int, default=PROMOTIONS)
    chosen = parser.parse_args()
    build_missing()
    try:
        details = isolated.run(
            "hack.bench.promote_inside", [str(chosen.promotions)],
            timeout_seconds=120 + 20 * chosen.promotions,
        )  # fmt: skip
    except tools.AbsentError as error:
        return finish(COMMAND, [skipped("promotions", "p50 50 ms", str(error))], {})
    return finish(COMMAND, targets(details), details)


def targets(details: JSON) -> list[Target]:
    """What must hold, judged by what was measured."""
    ms = details["promote_to_first_request_ms"]
    worst = ms[max(0, -int(-0.99 * len(ms) // 1) - 1)]
    return [
        at_most(f"promote act to first request, p50 of {len(ms)}", median(ms), 50.0, " ms", 1),
        at_most("promote act to first request, p99", worst, 250.0, " ms", 1),
        at_most(f"requests failed of {details['requests']}", details["failed"], 0, "", 0),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
