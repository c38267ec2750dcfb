"""The effects layer inside the test's own event loop, one step at a time or with its task."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hack.processes.fleet import Fleet
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

from llmfleet.cluster.applying import Applier
from llmfleet.cluster.caches import Caches
from llmfleet.cluster.client import ApiClient
from llmfleet.cluster.errors import Conflict, Forbidden
from llmfleet.cluster.event_recorder import EventRecorder
from llmfleet.cluster.inspecting import PodInspector
from llmfleet.cluster.ledger import LedgerPoller
from llmfleet.cluster.notifying import Notifier
from llmfleet.cluster.observing import Observer
from llmfleet.cluster.recording import Recorder
from llmfleet.cluster.routers import AGENT_PORT, RouterPoller
from llmfleet.cluster.transitions import Transitions
from llmfleet.planning.decide import decide
from llmfleet.planning.plan import Plan
from llmfleet.planning.snapshot import OperatorSettings

Owner = tuple[str, str]
SETTINGS = OperatorSettings(runtime_image_gpu="g", runtime_image_cpu="c", router_image="r")


class FixedSettings:
    """Settings that never change."""

    def current(self) -> OperatorSettings:
        return SETTINGS


@dataclass
class Effects:
    """The effects layer of one LLMDeployment named chat."""

    api: ApiClient
    caches: Caches
    observer: Observer
    applier: Applier
    owner: Owner

    async def step(self, plan: Plan | None = None) -> bool:
        """One observe and apply; whether anything was written."""
        snapshot = await self.observer.observe(self.owner)
        decided = plan or decide(snapshot, datetime.now(UTC))
        return (await self.applier.apply(snapshot, decided)).changed

    async def settle(self) -> None:
        for _ in range(20):
            try:
                if not await self.step():
                    return
            except (Conflict, Forbidden):
                continue
        pytest.fail("20 steps were not enough")


@contextlib.asynccontextmanager
async def running_effects(
    fleet: Fleet, wake: Callable[[Owner], None] = lambda owner: None, router_port: int = AGENT_PORT
) -> AsyncIterator[Effects]:
    """Caches and pollers as the operator starts them; ``wake`` as its tasks' would be called."""
    configuration = kube.Configuration()
    await kube_config.load_kube_config(
        config_file=str(fleet.server.kubeconfig), client_configuration=configuration
    )
    api = ApiClient(configuration)
    caches = Caches(api, [fleet.namespace], wake)
    routers = RouterPoller(wake, port=router_port)
    inspector = PodInspector(api, wake, after_seconds=0.2, every_seconds=0.2)
    observer = Observer(api, caches, routers, LedgerPoller(wake), inspector, FixedSettings())
    transitions = Transitions(EventRecorder(api, "test"), Notifier(None))
    applier = Applier(api, caches, observer, Recorder(api, transitions), transitions)
    caches.start()
    await caches.wait_synced()
    try:
        yield Effects(api, caches, observer, applier, (fleet.namespace, "chat"))
    finally:
        await caches.stop()
        await routers.close()
        await api.close()
