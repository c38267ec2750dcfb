"""The operator's log: one record a line, whatever words of others are in it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Iterator

import pytest
import structlog

from llmfleet.__main__ import configure_logging, tell_loop_error
from llmfleet.cluster.environment import read_environment

FORGED = "no\n2026-12-01T00:00:00Z [error] the lease is lost\r\x1b[2J\u202eword"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
RECORD = re.compile(r"\{|\d{4}-\d\d-\d\dT")
SETTINGS = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "a",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "b",
    "LLMFLEET_ROUTER_IMAGE": "c",
    "LLMFLEET_POD_NAME": "p",
    "LLMFLEET_POD_UID": "u",
    "LLMFLEET_POD_NAMESPACE": "n",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def log_with(log_format: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    configure_logging(
        read_environment({**os.environ, **SETTINGS, "LLMFLEET_LOG_FORMAT": log_format})
    )
    log = structlog.get_logger("llmfleet.tests")
    log.warning(FORGED, error=FORGED)
    logging.getLogger("kopf").warning("kopf says %s", FORGED)
    try:
        int(FORGED)
    except ValueError as error:
        log.exception("crashed", exc_info=ValueError(FORGED, error))
    # The renderer's own colours.
    return [COLOURS.sub("", line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_log_when_foreign_words_hold_line_ends_then_no_line_is_forged(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = log_with(log_format, capsys)
    records = [line for line in lines if RECORD.match(line)]
    assert len(records) == 3
    assert all(line.startswith("| ") for line in lines if line not in records)
    assert not any("\x1b" in line or "\u202e" in line for line in lines)


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"transport": "t", "exception": RuntimeError("the handler is closed")}, False),
        ({"transport": "t", "exception": ssl.SSLError("data after close notify")}, False),
        ({"transport": "t", "exception": KeyError("a fault of the program")}, True),
        ({"exception": RuntimeError("no connection's")}, True),
        ({"message": "a task was destroyed but it is pending"}, True),
    ],
    ids=str,
)
def test_loop_error_when_it_is_a_connections_end_then_it_is_no_error_of_the_operators(
    context: dict[str, object], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def meet() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(tell_loop_error)
        loop.call_exception_handler(context)

    asyncio.run(meet())
    assert [record.name == "asyncio" for record in caplog.records] == ([True] if told else [])
