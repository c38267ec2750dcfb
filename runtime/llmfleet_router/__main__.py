"""``python -m llmfleet_router``: PID 1 of the router pod."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes its time to be imported
    import llmfleet_router.stoppable  # noqa: F401

import argparse
import asyncio
import logging
import signal
import sys

import structlog

from llmfleet_router.agent import Agent, EnvoyEndedError
from llmfleet_router.kube import KubeSource
from llmfleet_router.kubeconfig import KubeConfigError, load_access
from llmfleet_router.settings import Settings, SettingsError, read_settings

log = structlog.get_logger("agent")

_DESCRIPTION = """Routes the requests of one LLMDeployment: runs Envoy and tells it what to serve.

All settings come from the environment: LLMFLEET_NAMESPACE and LLMFLEET_NAME (required),
LLMFLEET_POLICY, LLMFLEET_PREFIX_BYTES, LLMFLEET_BODY_LIMIT_BYTES, LLMFLEET_DRAIN_TIMEOUT_SECONDS,
LLMFLEET_POD_NAME, LLMFLEET_POD_UID, LLMFLEET_ACCESS_LOG (off|errors|all),
LLMFLEET_ENVOY_CONCURRENCY, LLMFLEET_PREVIEW_PORT, LLMFLEET_LOG_LEVEL.
docs/router.md explains each."""


def main() -> None:
    """Runs the router; exit 0 after a graceful end, 1 if Envoy ended on its own, 2 bad settings."""
    argparse.ArgumentParser(
        prog="llmfleet_router",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        agent_source = KubeSource(settings, load_access())
    except (SettingsError, KubeConfigError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    try:
        asyncio.run(_serve(settings, agent_source))
    except EnvoyEndedError as error:
        log.critical("envoy_ended", error=str(error))
        sys.exit(1)


async def _serve(settings: Settings, source: KubeSource) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Agent(settings, source).run(stop)


def configure_logs(level: str) -> None:
    """JSON lines on stdout."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", key="time"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    main()
