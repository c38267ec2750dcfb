"""Fixtures of the router's integration tests: real Envoy, loopback only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio
from hack.processes.agent import RunningRouter, running_router

from tests.integration.router.harness import StubEngine

StartEngine = Callable[..., Awaitable[StubEngine]]


@pytest_asyncio.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Starts stub engines and stops them at the end."""
    engines: list[StubEngine] = []

    async def start(name: str, port: int = 0) -> StubEngine:
        engine = await StubEngine(name).start(port)
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        await engine.stop()


@pytest_asyncio.fixture
async def router(tmp_path: Path) -> AsyncIterator[RunningRouter]:
    """A router with nothing to serve yet."""
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(running_router(tmp_path))
