"""An operator process behind a fault proxy of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.faults.faults import Fault
from tests.faults.player import Player
from tests.faults.proxy import FaultProxy
from tests.faults.usage import Usage
from tests.faults.zygote import Zygote, alive, kill

IMAGES = {
    "LLMFLEET_RUNTIME_IMAGE_GPU": "gpu",
    "LLMFLEET_RUNTIME_IMAGE_CPU": "cpu",
    "LLMFLEET_ROUTER_IMAGE": "router",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all runs share."""

    url: str
    tls: ssl.SSLContext
    token: str
    """The operator's, with exactly the chart's rights."""
    player: Player
    zygote: Zygote
    folder: Path
    patience_seconds: float = 180.0
    """How long a run may take to settle; much longer than it needs, for a busy machine."""
    usage: Usage = field(default_factory=Usage)
    """What all operators together asked of the API server."""


class Operator:
    """Serves one namespace; its calls go through ``proxy``.

    Args:
        world: shared by all runs.
        namespace: that it serves, and that its Lease is in.
        name: tells it from others in the same namespace; its identity in the Lease.
        fault: what its proxy does.
        bug: a seeded bug, or None.
        elects: whether it waits for the Lease; alone it need not.
    """

    def __init__(
        self,
        world: World,
        namespace: str,
        *,
        name: str = "operator",
        fault: Fault | None = None,
        bug: str | None = None,
        elects: bool = False,
    ) -> None:
        self._world = world
        self._namespace = namespace
        self._bug = bug
        self._elects = elects
        self._next_build = False
        self._pid = 0
        self.name = name
        self.log = world.folder / f"{namespace}-{name}.log"
        self._restarting = asyncio.Lock()
        self.proxy = FaultProxy(world.url, world.tls, fault, self.restart, name)

    async def start(self) -> None:
        """Start the proxy and the process."""
        await self.proxy.start()
        config = _kubeconfig(self.proxy.url, self._world.token)
        self.log.with_suffix(".kubeconfig").write_text(config)
        await self.restart()

    async def stop(self) -> None:
        """Kill the process, and end the proxy."""
        if self._pid:
            kill(self._pid)
        await self.proxy.stop()
        self._world.usage.add(self.proxy.usage)

    async def restart(self, *, next_build: bool | None = None) -> None:
        """SIGKILL, then start it again, as another build of it if asked."""
        async with self._restarting:  # a fault and the workload may both ask for it
            if self._pid:
                kill(self._pid)
                await self.ended()
            if next_build is not None:
                self._next_build = next_build
            self._pid = await self._spawn()

    async def _spawn(self) -> int:
        suffix = "next" if self._next_build else "test"
        environment = {
            **{name: f"llmfleet/{image}:{suffix}" for name, image in IMAGES.items()},
            "KUBECONFIG": str(self.log.with_suffix(".kubeconfig")),
            "KUBERNETES_SERVICE_HOST": "",
            "LLMFLEET_WATCH_NAMESPACES": self._namespace,
            "LLMFLEET_LEADER_ELECTION": str(self._elects).lower(),
            "LLMFLEET_POD_NAMESPACE": self._namespace,
            "LLMFLEET_POD_UID": self.name,
            "LLMFLEET_METRICS_ADDRESS": "127.0.0.1:0",
            "LLMFLEET_TEST_NEXT_BUILD": "yes" if self._next_build else "",
        }
        return await self._world.zygote.start(environment, self.log, self._bug)

    async def ended(self) -> None:
        """Wait until the process is gone."""
        while alive(self._pid):  # noqa: ASYNC110 - no event tells of a grandchild's end
            await asyncio.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self._pid, number)


def _kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )
