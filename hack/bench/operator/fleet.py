"""The LLMDeployments of the benchmark: applied at a steady rate, followed by watches."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from hack.controlplane.apiserver import ApiServer

JSON = dict[str, Any]
Owner = tuple[str, str]

PER_NAMESPACE = 100
"""The API server's work for a Role or RoleBinding grows with the RoleBindings of its namespace, so
a larger fleet has more namespaces, not fuller ones."""
REPORT_SECONDS = 30.0
OWNER_LABEL = "llmfleet.dev/deployment"
RESOURCES = "/apis/llmfleet.dev/v1alpha1"
ENGINES = "/apis/apps/v1/deployments?labelSelector=llmfleet.dev/component%3Dengine"


class Fleet:
    """N LLMDeployments, and when each was sent, got its engine Deployment, and became Healthy.

    All times are of this process's monotonic clock, in seconds: creationTimestamps only know whole
    seconds.
    """

    def __init__(self, server: ApiServer, count: int) -> None:
        self._server = server
        self._namespaces = [f"team-{n}" for n in range(-(-count // PER_NAMESPACE))]
        teams = itertools.cycle(self._namespaces)
        self.owners = [(next(teams), f"chat-{n}") for n in range(count)]
        self.sent: dict[Owner, float] = {}
        self.engine_created: dict[Owner, float] = {}
        self.healthy: dict[Owner, float] = {}
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[Fleet]:
        """Make the namespaces and watch for the time of an ``async with``."""
        for name in self._namespaces:
            self._server.create("/api/v1/namespaces", {"metadata": {"name": name}})
        tls = ssl.create_default_context(cafile=str(self._server.ca_file))
        async with aiohttp.ClientSession(
            self._server.url,
            connector=aiohttp.TCPConnector(ssl=tls, limit=0),
            headers={"Authorization": f"Bearer {self._server.token}"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=8 * 2**20,
        ) as session:
            self._session = session
            watches = [
                asyncio.create_task(self._follow(ENGINES, self._take_engine)),
                asyncio.create_task(self._follow(f"{RESOURCES}/llmdeployments", self._take)),
            ]
            try:
                yield self
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.gather(*watches, return_exceptions=True)

    async def apply_all(self, per_second: float) -> None:
        """Create them at a steady rate, whatever the answers take."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, owner in enumerate(self.owners):
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
                group.create_task(self._create(owner))
                if number and number % 200 == 0:
                    sys.stderr.write(
                        f"  {number} applied, {len(self.engine_created)} have their Deployment\n"
                    )

    async def wait_created(self, seconds: float) -> None:
        """Wait until every one has its engine Deployment.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        await self._wait(self.engine_created, "have their Deployment", seconds)

    async def wait_healthy(self, seconds: float) -> None:
        """Wait until every one is Healthy.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        await self._wait(self.healthy, "are Healthy", seconds)

    def delays(self) -> list[float]:
        """Seconds from sending each to its engine Deployment's creation, ascending."""
        return sorted(at - self.sent[owner] for owner, at in self.engine_created.items())

    async def _wait(self, reached: dict[Owner, float], what: str, seconds: float) -> None:
        reported = time.monotonic()
        async with asyncio.timeout(seconds):
            while len(reached) < len(self.owners):
                self._news.clear()
                await self._news.wait()
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    sys.stderr.write(f"  {len(reached)} of {len(self.owners)} {what}\n")

    async def _create(self, owner: Owner) -> None:
        namespace, name = owner
        body = {
            "apiVersion": "llmfleet.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "model": {
                    "source": "hf://example/tiny",
                    "revision": "0" * 40,
                    "servedName": "tiny",
                },
                "accelerator": {"resource": "nvidia.com/gpu", "count": 1},
                "replicas": 1,
            },
        }
        self.sent[owner] = time.monotonic()
        path = f"{RESOURCES}/namespaces/{namespace}/llmdeployments"
        async with self._session.post(path, json=body) as answer:
            if answer.status != 201:
                raise RuntimeError(f"{namespace}/{name} was refused: {await answer.text()}")

    async def _follow(self, path: str, take: Callable[[JSON], None]) -> None:
        joint = "&" if "?" in path else "?"
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get(f"{path}{joint}watch=true") as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["type"] in {"ADDED", "MODIFIED"}:
                            take(event["object"])
            await asyncio.sleep(0.2)

    def _take_engine(self, body: JSON) -> None:
        meta = body["metadata"]
        owner = (meta["namespace"], meta["labels"][OWNER_LABEL])
        self.engine_created.setdefault(owner, time.monotonic())
        self._news.set()

    def _take(self, body: JSON) -> None:
        meta = body["metadata"]
        owner = (meta["namespace"], meta["name"])
        if (body.get("status") or {}).get("phase") == "Healthy":
            self.healthy.setdefault(owner, time.monotonic())
            self._news.set()
