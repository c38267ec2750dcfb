"""The supervisor's own HTTP port: there from process start, independent of vLLM's event loop."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web
from prometheus_client import generate_latest

from llmfleet_runtime import machine
from llmfleet_runtime.downloads import DownloadMeter
from llmfleet_runtime.engine_api import EngineApi, EngineHealth
from llmfleet_runtime.engine_args import Device
from llmfleet_runtime.metrics import PodMetrics

DEEP_TIMEOUT_SECONDS = 30.0
_QUEUE = re.compile(r"^vllm:num_requests_(running|waiting)\{[^}]*\} ([0-9.e+]+)", re.MULTILINE)


class Phase(StrEnum):
    """Where the pod is in its life."""

    FETCHING = "Fetching"
    LOADING = "Loading"
    SERVING = "Serving"
    DRAINING = "Draining"
    ENDED = "Ended"


@dataclass(slots=True)
class PodState:
    """What the health port tells; the supervisor changes it."""

    phase: Phase = Phase.FETCHING
    engine: EngineHealth = EngineHealth.UNREACHABLE
    phase_changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Readiness: serving, and the engine has not said that it is dead.

        No answer from the engine is not a reason: a saturated pod must keep its place, or
        saturation would remove pod after pod.
        """
        return self.phase is Phase.SERVING and self.engine is not EngineHealth.DEAD

    @property
    def alive(self) -> bool:
        """Liveness: the engine has not said that it is dead."""
        return self.phase is not Phase.ENDED and self.engine is not EngineHealth.DEAD


class HealthServer:
    """``/health``, ``/ready``, ``/health/deep`` and ``/metrics``."""

    def __init__(
        self,
        state: PodState,
        api: EngineApi,
        metrics: PodMetrics,
        device: Device,
        downloads: DownloadMeter,
    ) -> None:
        self._state = state
        self._downloads = downloads
        self._api = api
        self._metrics = metrics
        self._device = device
        self._deep_lock = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Binds the port.

        Raises:
            OSError: it is taken.
        """
        app = web.Application()
        routes: tuple[tuple[str, Callable[[web.Request], Awaitable[web.Response]]], ...] = (
            ("/health", self._health),
            ("/ready", self._ready),
            ("/health/deep", self._deep),
            ("/metrics", self._page),
        )
        for path, handler in routes:
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Closes the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _say(self, good: bool) -> web.Response:
        body: dict[str, Any] = {
            "phase": self._state.phase.value,
            "engine": self._state.engine.value,
        }
        download = self._downloads.report()
        if download is not None:
            body["download"] = download
        return web.json_response(body, status=200 if good else 503)

    async def _health(self, _: web.Request) -> web.Response:
        return self._say(self._state.alive)

    async def _ready(self, _: web.Request) -> web.Response:
        return self._say(self._state.ready)

    async def _page(self, _: web.Request) -> web.Response:
        await self._sample()
        ours = generate_latest(self._metrics.registry).decode()
        engine = await self._api.metrics() if self._state.phase is not Phase.FETCHING else None
        return web.Response(
            text=ours + (engine or ""),
            content_type="text/plain",
            charset="utf-8",
            headers={"Cache-Control": "no-store"},
        )

    async def _sample(self) -> tuple[machine.Gpu, ...] | None:
        self._metrics.set_ready(self._state.ready)
        self._metrics.set_memory("container", machine.memory_used_bytes())
        self._metrics.set_memory("container_limit", machine.memory_limit_bytes())
        if self._device is not Device.CUDA:
            return None
        gpus = await machine.read_gpus()
        for gpu in gpus or ():
            if gpu.utilization_percent is not None:
                self._metrics.set_utilization(gpu.device_id, gpu.utilization_percent)
        used = [gpu.memory_used_bytes for gpu in gpus or () if gpu.memory_used_bytes is not None]
        self._metrics.set_memory("gpu", sum(used) if used else None)
        return gpus

    async def _deep(self, _: web.Request) -> web.Response:
        # One at a time: this port is open to the node, and each call costs the engine a request.
        async with self._deep_lock:
            report = await self._examine()
        return web.json_response(report, status=200 if report["healthy"] else 503)

    async def _examine(self) -> dict[str, Any]:
        begun = time.monotonic()
        gpus = await self._sample()
        present = self._device is Device.CPU or bool(gpus)
        serving = self._state.phase in {Phase.SERVING, Phase.DRAINING}
        report: dict[str, Any] = {
            "phase": self._state.phase.value,
            "device": {
                "type": self._device.value,
                "present": present,
                "count": machine.cpu_count() if self._device is Device.CPU else len(gpus or ()),
            },
            "memory": {
                "used_bytes": machine.memory_used_bytes(),
                "limit_bytes": machine.memory_limit_bytes(),
            },
        }
        engine = await self._api.health() if serving else EngineHealth.UNREACHABLE
        report["engine"] = engine.value
        healthy = present and engine is EngineHealth.UP
        if healthy:
            generation = await self._api.generate(timeout_seconds=DEEP_TIMEOUT_SECONDS)
            report["generation"] = {
                "ok": generation.ok,
                "seconds": round(generation.seconds, 4),
                "detail": generation.detail,
            }
            report["queue"] = read_queue(await self._api.metrics() or "")
            healthy = generation.ok
        report["healthy"] = healthy
        report["seconds"] = round(time.monotonic() - begun, 4)
        return report


def read_queue(page: str) -> dict[str, int]:
    """Running and waiting requests on vLLM's metrics page, engines added up.

    >>> read_queue('vllm:num_requests_running{engine="0"} 3.0')
    {'running': 3}
    """
    counts: dict[str, int] = {}
    for name, value in _QUEUE.findall(page):
        counts[name] = counts.get(name, 0) + int(float(value))
    return counts
