"""Runs a control plane without kubelets until Ctrl-C, and says how to reach it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from hack.controlplane.agents import RouterAgents
from hack.controlplane.apiserver import ApiServer
from hack.controlplane.plane import FAST_PACE, build_missing, running_control_plane


def main() -> int:
    """Start, wait for SIGINT or SIGTERM, stop."""
    parser = argparse.ArgumentParser(prog="python -m hack.controlplane", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10, help="how many nodes (default 10)")
    parser.add_argument(
        "--agents", action="store_true", help="answer for the agents of all router pods"
    )
    arguments = parser.parse_args()
    build_missing()
    with tempfile.TemporaryDirectory(prefix="llmfleet-plane-") as folder:
        directory = Path(folder)
        with running_control_plane(directory, arguments.nodes) as (server, pace):
            pace.set(FAST_PACE)
            sys.stdout.write(f"export KUBECONFIG={server.kubeconfig}\n")
            sys.stdout.flush()
            sys.stderr.write(f"logs lie in {directory}; Ctrl-C ends and removes everything\n")
            asyncio.run(_wait(server, agents=arguments.agents))
    return 0


async def _wait(server: ApiServer, *, agents: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        if agents:
            await stack.enter_async_context(RouterAgents(server).running())
        await stop.wait()


if __name__ == "__main__":
    raise SystemExit(main())
