"""``python -m llmfleet_runtime``: everything has its default from docs/contract.md."""

from __future__ import annotations

if __name__ == "__main__":  # before what takes its time to be imported
    import llmfleet_runtime.stoppable  # noqa: F401

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from llmfleet_runtime.sources import DEFAULT_MODELS_ROOT
from llmfleet_runtime.supervisor import Paths, run


def parse(arguments: Sequence[str]) -> Paths:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="llmfleet_runtime",
        description="Serves one model with vLLM: fetch, start, watch, drain.",
        allow_abbrev=False,
    )
    path = Path
    parser.add_argument("--config", type=path, default=path("/etc/llmfleet/runtime.json"))
    parser.add_argument("--models-root", type=path, default=DEFAULT_MODELS_ROOT)
    parser.add_argument("--token-file", type=path, default=path("/var/run/llmfleet/token/token"))
    parser.add_argument("--termination-log", type=path, default=path("/dev/termination-log"))
    parser.add_argument(
        "--chat-template-dir", type=path, default=path("/var/run/llmfleet/chat-template")
    )
    parser.add_argument("--host", default="0.0.0.0", help="address of both ports")  # noqa: S104  # pods are reached by their address
    parser.add_argument("--http-port", type=int, default=8000, help="the engine's API")
    parser.add_argument("--health-port", type=int, default=8081, help="health and metrics")
    return Paths(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Runs, and exits with the contract's code."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ]
    )
    code = run(parse(sys.argv[1:]))
    sys.stdout.flush()
    # A download thread may still be running; nothing is left to clean up.
    os._exit(code)


if __name__ == "__main__":
    main()
