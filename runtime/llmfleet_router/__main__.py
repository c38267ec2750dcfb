"""``python -m llmfleet_router``: the first process of each container of the router pod."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes its time to be imported
    import llmfleet_router.stoppable  # noqa: F401

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from llmfleet_router.launcher import EnvoyEndedError, Launcher
from llmfleet_router.settings import Settings, SettingsError, read_settings

log = structlog.get_logger("router")

TERMINATION_LOG = Path("/dev/termination-log")

_DESCRIPTION = """Routes the requests of one LLMDeployment, in two containers that share
LLMFLEET_XDS_DIR: `envoy` runs Envoy, `agent` tells it what to serve.

All settings come from the environment: LLMFLEET_NAMESPACE and LLMFLEET_NAME (required),
LLMFLEET_POLICY, LLMFLEET_PREFIX_BYTES, LLMFLEET_BODY_LIMIT_BYTES, LLMFLEET_DRAIN_TIMEOUT_SECONDS,
LLMFLEET_POD_NAME, LLMFLEET_POD_UID, LLMFLEET_ACCESS_LOG (off|errors|all),
LLMFLEET_ENVOY_CONCURRENCY, LLMFLEET_PREVIEW_PORT, LLMFLEET_LOG_LEVEL.
docs/router.md explains each."""


def main() -> None:
    """Runs a part; exit 0 after a graceful end, 1 if Envoy ended on its own, 2 bad settings."""
    parser = argparse.ArgumentParser(
        prog="llmfleet_router",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=sorted(PARTS))
    part = parser.parse_args().part
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        run = PARTS[part](settings)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        _tell_kubelet(str(error))
        sys.exit(2)
    try:
        asyncio.run(_until_told(run))
    except EnvoyEndedError as error:
        log.critical("envoy_ended", error=str(error))
        _tell_kubelet(str(error))
        sys.exit(1)


def _agent(settings: Settings) -> Callable[[asyncio.Event], Awaitable[None]]:
    # Imported here: the launcher needs none of it, and would have it in memory.
    from llmfleet_router.agent import Agent  # noqa: PLC0415
    from llmfleet_router.kube import KubeSource  # noqa: PLC0415
    from llmfleet_router.kubeconfig import load_access  # noqa: PLC0415

    return Agent(settings, KubeSource(settings, load_access())).run


def _launcher(settings: Settings) -> Callable[[asyncio.Event], Awaitable[None]]:
    return Launcher(settings).run


def _tell_kubelet(why: str) -> None:
    """The container's termination message, which the operator repeats in its conditions."""
    # In a container the kubelet has made the file; elsewhere there is none, and none is made.
    with contextlib.suppress(OSError), TERMINATION_LOG.open("r+") as file:
        file.write(why)


PARTS = {"agent": _agent, "envoy": _launcher}


async def _until_told(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(stop)


def configure_logs(level: str) -> None:
    """JSON lines on stdout."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    main()
