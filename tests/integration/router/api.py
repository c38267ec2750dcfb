"""An API server as far as a router's agent asks it: two lists, two watches, and it can be down."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from tests.integration.router.harness import StubEngine

JSON = dict[str, Any]
UID = "c0ffee"


class PlayedApi:
    """Serves one LLMDeployment, ``chat``, and the EndpointSlices of its revisions."""

    def __init__(self) -> None:
        self.up = True
        self._version = 1
        self._items: dict[str, dict[str, JSON]] = {"llmdeployments": {}, "endpointslices": {}}
        self._events: list[tuple[int, str, JSON]] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._put("llmdeployments", "chat", {"metadata": {"uid": UID}, "status": {}})

    async def start(self, kubeconfig: Path) -> None:
        """Listen, and write how to be reached."""
        app = web.Application()
        app.router.add_get("/apis/{path:.*}/{plural}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        kubeconfig.write_text(yaml.safe_dump(config))  # noqa: ASYNC240 - a few bytes

    async def stop(self) -> None:
        """Close it."""
        assert self._runner is not None
        self.go_down()
        await self._runner.cleanup()

    def go_down(self) -> None:
        """End all watches, and refuse everything until ``up`` is set again."""
        self.up = False
        self._wake()

    def command(self, generation: int, **weights: int) -> None:
        """A split in the status, as the operator writes it."""
        traffic = [{"revision": revision, "weight": weight} for revision, weight in weights.items()]
        status = {"traffic": traffic, "trafficGeneration": generation}
        self._put("llmdeployments", "chat", {"metadata": {"uid": UID}, "status": status})

    def endpoints(self, revision: str, engines: Sequence[StubEngine]) -> None:
        """The revision's ready pods; a slice for each, since all have one address."""
        for old in [name for name in self._items["endpointslices"] if name.startswith(revision)]:
            if old not in {f"{revision}-{engine.port}" for engine in engines}:
                self._tell("endpointslices", "DELETED", self._items["endpointslices"].pop(old))
        for engine in engines:
            body = {
                "metadata": {"labels": {"llmfleet.dev/revision": revision}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": engine.port}],
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            }
            self._put("endpointslices", f"{revision}-{engine.port}", body)

    def _put(self, plural: str, name: str, body: JSON) -> None:
        body["metadata"] |= {"name": name}
        self._items[plural][name] = body
        self._tell(plural, "MODIFIED", body)

    def _tell(self, plural: str, kind: str, body: JSON) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        event = json.loads(json.dumps({"type": kind, "object": body}))
        self._events.append((self._version, plural, event))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        if not self.up:
            return web.Response(status=503)
        if "watch" not in request.query:
            version = {"resourceVersion": str(self._version)}
            items = list(self._items[plural].values())
            return web.json_response({"metadata": version, "items": items})
        response = web.StreamResponse()
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        with contextlib.suppress(ConnectionError):  # the agent was killed
            while self.up:
                changed = self._changed
                for version, of, event in self._events:
                    if version > seen and of == plural:
                        await response.write(json.dumps(event).encode() + b"\n")
                seen = self._version
                await changed.wait()
        return response
