"""A router pod on loopback: agent and launcher in this process, the real Envoy beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from hack import native
from hack.controlplane.apiserver import free_ports
from llmfleet_router.agent import Agent
from llmfleet_router.launcher import Launcher
from llmfleet_router.model import Command, Endpoint
from llmfleet_router.routing import Routing
from llmfleet_router.settings import AccessLog, Settings
from llmfleet_router.store import Store

TOKEN = "tok%en-1"


class Engine(Protocol):
    """Whatever answers for an engine pod."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""


class QuietSource:
    """A source that says nothing: tests feed the store themselves."""

    async def run(self, store: Store) -> None:
        """Until cancelled."""
        await asyncio.Event().wait()


@dataclass
class RunningRouter:
    """An agent with its Envoy, told what to serve through its store."""

    agent: Agent
    launcher: Launcher
    stop_event: asyncio.Event
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.agent.settings.http_port}"

    @property
    def agent_url(self) -> str:
        """Where the operator asks."""
        return f"http://127.0.0.1:{self.agent.settings.agent_port}"

    @property
    def preview_url(self) -> str:
        """Where testers of a blue-green release ask."""
        return f"http://127.0.0.1:{self.agent.settings.preview_port}"

    def command(self, generation: int, routing: Routing | None = None, **weights: int) -> None:
        """Command a split by revision, as the operator does in the status."""
        pairs = tuple((revision, weight) for revision, weight in weights.items())
        self.agent.store.set_command(
            Command(generation=generation, weights=pairs, routing=routing or Routing())
        )

    def endpoints(self, **engines: Sequence[Engine]) -> None:
        """Say which engines are ready, by revision."""
        self.agent.store.set_endpoints(
            {revision: tuple(e.endpoint for e in es) for revision, es in engines.items()}
        )

    async def serve(
        self,
        generation: int,
        weights: dict[str, int],
        routing: Routing | None = None,
        **engines: Any,
    ) -> dict[str, Any]:
        """Commands, and waits until the router says it is served; its state then."""
        self.endpoints(**engines)
        self.command(generation, routing, **weights)
        return await self.confirmed(generation)

    async def confirmed(self, generation: int) -> dict[str, Any]:
        """The agent's state once it serves this generation; at most 20 s."""
        async with aiohttp.ClientSession() as session:
            url = f"{self.agent_url}/llmfleet/state?generation={generation}&timeout=20"
            async with session.get(url) as answer:
                state: dict[str, Any] = await answer.json()
        assert state["trafficGeneration"] == generation, state
        return state

    async def until(self, condition: Any) -> None:
        """Waits until ``condition(applied)`` holds after some confirmed update."""
        async with asyncio.timeout(10):
            while not condition(self.agent.applier.applied):
                event = self.agent.state._confirmed
                await event.wait()


def router_settings(directory: Path, **changes: Any) -> Settings:
    http, preview, agent, admin = free_ports(4)
    token = directory / "token"
    token.write_text(TOKEN + "\n")
    values: dict[str, Any] = {
        "namespace": "team-a", "name": "chat", "pod_name": "chat-router-1",
        "xds_dir": directory / "xds", "token_file": token, "module_file": native.module_file(),
        "bind_address": "127.0.0.1",
        "http_port": http, "preview_port": preview, "agent_port": agent, "admin_port": admin,
        "drain_timeout_seconds": 20.0, "endpoint_removal_seconds": 0.3,
        "access_log": AccessLog.OFF,
    }  # fmt: skip
    return Settings(**(values | changes))


@contextlib.asynccontextmanager
async def running_router(
    directory: Path, source: Any = None, **changes: Any
) -> AsyncIterator[RunningRouter]:
    settings = router_settings(directory, **changes)
    launcher, agent = Launcher(settings), Agent(settings, source or QuietSource())
    stop = asyncio.Event()
    task = asyncio.create_task(_both(launcher, agent, stop))
    router = RunningRouter(agent, launcher, stop, task)
    try:
        async with asyncio.timeout(30):
            while not await agent.admin.live():
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        yield router
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def _both(launcher: Launcher, agent: Agent, stop: asyncio.Event) -> None:
    """Both containers, told to stop at once, as the kubelet does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(launcher.run(stop))
        group.create_task(agent.run(stop))
