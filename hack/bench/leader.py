"""`make bench-leader`: kills the leading operator again and again, and times until the other acts.

Two operators, one Lease, a real API server. Each time the leader gets SIGKILL and, at once, spec is
edited; what is timed is how long it takes until the engine Deployment follows. The kills fall at
different moments between two renewals, as they would in life.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from hack.bench.report import at_most, finish
from hack.controlplane.apiserver import running_api_server
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.operator import OperatorProcess, running_operator
from hack.processes.waiting import eventually

TARGET_SECONDS = 20.0
RENEW_SECONDS = 2.0
NAMESPACE = "team-a"
NAME = "chat"


def main() -> int:
    """Measure and report; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.leader", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="how often (default 10)")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="llmfleet-leader-") as folder,
        running_api_server(Path(folder) / "api") as server,
        contextlib.ExitStack() as stack,
    ):
        server.install_crd()
        server.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        fleet = Fleet(server, NAMESPACE)

        def start() -> OperatorProcess:
            variables = {"LLMFLEET_WATCH_NAMESPACES": NAMESPACE}
            operator = stack.enter_context(running_operator(server, Path(folder), **variables))
            eventually(lambda: operator.answer("/healthz").status_code == 200, "it is up")
            return operator

        leader = start()
        leader.wait_leading()
        fleet.apply(llm_deployment(NAME))
        eventually(lambda: _replicas(fleet) == 1, "the engine Deployment exists")
        seconds = []
        source = random.Random(0)
        for number in range(arguments.kills):
            standby = start()
            time.sleep(source.uniform(0, 2 * RENEW_SECONDS))
            seconds.append(_take_over(fleet, leader, 2 + number % 2))
            sys.stderr.write(f"  kill {number + 1}: the other acted after {seconds[-1]:.1f} s\n")
            leader = standby
    seconds.sort()
    slowest = at_most(
        "kill of the leader to the other acting, slowest", seconds[-1], TARGET_SECONDS, " s"
    )
    return finish("bench-leader", [slowest], {"seconds": seconds})


def _take_over(fleet: Fleet, leader: OperatorProcess, replicas: int) -> float:
    leader.stop(signal.SIGKILL)
    killed = time.monotonic()
    fleet.patch(fleet.resource_path(NAME), {"spec": {"replicas": replicas}})
    eventually(lambda: _replicas(fleet) == replicas, "the other acts", 3 * TARGET_SECONDS)
    return time.monotonic() - killed


def _replicas(fleet: Fleet) -> int | None:
    """Of the engine Deployment; there is one revision."""
    engines = (
        found
        for found in fleet.children("Deployment")
        if found["metadata"]["name"].startswith(f"{NAME}-rev-")
    )
    return next((int(found["spec"]["replicas"]) for found in engines), None)


if __name__ == "__main__":
    raise SystemExit(main())
