"""A router as its pod runs it, agent and Envoy in processes of their own; for ``attack``.

Prints one JSON line with its public port and Envoy's process id, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

import structlog
from hack.processes.agent import running_router

from llmfleet_router.model import Endpoint
from tests.hostile.requests import LIMIT


async def serve(directory: Path, engine_port: int) -> None:
    """Serve one engine on loopback until standard input ends."""
    async with running_router(directory, body_limit_bytes=LIMIT) as router:
        endpoint = Endpoint(address="127.0.0.1", port=engine_port)
        router.agent.store.set_endpoints({"aaaa": (endpoint,)})
        router.command(1, aaaa=100)
        await router.confirmed(1)
        ready = {"port": router.agent.settings.http_port, "envoy": router.launcher.envoy.pid}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
