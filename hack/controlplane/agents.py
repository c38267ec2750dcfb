"""One process that answers for the agent of every router pod (docs/contract.md, Router).

A pod is known by the address that a request came to; what it serves is the traffic command of its
LLMDeployment, taken over the moment the watch tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from aiohttp import web

from hack.controlplane.apiserver import ApiServer

JSON = dict[str, Any]
Owner = tuple[str, str]

AGENT_PORT = 9090
LONGEST_WAIT_SECONDS = 60.0
OWNER_LABEL = "llmfleet.dev/deployment"
ROUTER_PODS = "/api/v1/pods?labelSelector=llmfleet.dev/component%3Drouter"
RESOURCES = "/apis/llmfleet.dev/v1alpha1/llmdeployments"


class RouterAgents:
    """Answers ``GET /llmfleet/state`` and ``/ready`` on every address of loopback."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._pods: dict[str, tuple[str, Owner]] = {}
        self._status: dict[Owner, JSON] = {}
        self._changed: dict[Owner, asyncio.Event] = defaultdict(asyncio.Event)
        self._tasks: list[asyncio.Task[None]] = []
        self.answers = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RouterAgents]:
        """Serve for the time of an ``async with``.

        Raises:
            OSError: something else listens on the agents' port.
        """
        tls = ssl.create_default_context(cafile=str(self._server.ca_file))
        application = web.Application()
        application.router.add_get("/llmfleet/state", self._state)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        async with aiohttp.ClientSession(
            self._server.url,
            connector=aiohttp.TCPConnector(ssl=tls),
            headers={"Authorization": f"Bearer {self._server.token}"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=8 * 2**20,
        ) as session:
            try:
                await web.TCPSite(runner, "0.0.0.0", AGENT_PORT, backlog=4096).start()
                self._tasks = [
                    asyncio.create_task(self._follow(session, ROUTER_PODS, self._take_pod)),
                    asyncio.create_task(self._follow(session, RESOURCES, self._take_resource)),
                ]
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await runner.cleanup()

    async def _follow(
        self, session: aiohttp.ClientSession, path: str, take: Callable[[str, JSON], None]
    ) -> None:
        """Watch from the beginning whenever a stream ends; taking twice does no harm."""
        joint = "&" if "?" in path else "?"
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{path}{joint}watch=true") as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["type"] != "ERROR":
                            take(event["type"], event["object"])
            await asyncio.sleep(0.5)

    def _take_pod(self, kind: str, body: JSON) -> None:
        address = (body.get("status") or {}).get("podIP")
        meta = body["metadata"]
        if address and kind == "DELETED":
            self._pods.pop(address, None)
        elif address:
            owner = (meta["namespace"], meta["labels"][OWNER_LABEL])
            self._pods[address] = (meta["name"], owner)

    def _take_resource(self, kind: str, body: JSON) -> None:
        owner = (body["metadata"]["namespace"], body["metadata"]["name"])
        self._status[owner] = {} if kind == "DELETED" else body.get("status") or {}
        self._changed.pop(owner, asyncio.Event()).set()

    async def _state(self, request: web.Request) -> web.Response:
        assert request.transport is not None, "a request without its connection"
        address = request.transport.get_extra_info("sockname")[0]
        if address not in self._pods:
            return web.Response(status=404, text=f"no router pod has {address}")
        pod, owner = self._pods[address]
        if "generation" in request.query:
            seconds = min(float(request.query.get("timeout", "0")), LONGEST_WAIT_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._serves(owner, int(request.query["generation"]))
        self.answers += 1
        return web.json_response(self._answer(pod, owner))

    async def _serves(self, owner: Owner, generation: int) -> None:
        while self._status.get(owner, {}).get("trafficGeneration") != generation:
            await self._changed[owner].wait()

    def _answer(self, pod: str, owner: Owner) -> JSON:
        status = self._status.get(owner, {})
        revisions = [
            {
                "revision": one["revision"],
                "weight": one["weight"],
                "effective": one["weight"],
                "endpoints": 1,
                "requests": 0,
                "inFlight": 0,
                "errors": 0,
            }
            for one in status.get("traffic") or []
        ]
        return {
            "schema": 1,
            "pod": pod,
            "trafficGeneration": status.get("trafficGeneration"),
            "waiting": 0,
            "revisions": revisions,
        }
