"""The router's watches of the API server behind the fault proxy.

Whatever strikes, the agent ends with the newest command and the endpoints that are ready, and on
the way there never goes back to an older command nor loses pods that stay ready. Envoy is left out:
what it is sent of all this is tested in tests/integration/router.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hack.controlplane.apiserver import ApiServer
from hack.processes.agent import router_settings
from hack.processes.router import Commander, create_chat

from llmfleet_router import kube
from llmfleet_router.kubeconfig import KubeAccess
from llmfleet_router.model import Command, Desired, Endpoint, Endpoints
from llmfleet_router.store import Store
from tests.faults.faults import Fault, Kind
from tests.faults.proxy import FaultProxy

OLD, NEW = "aaaa", "bbbb"
ADDRESS = "192.0.2.1"
ON_LISTS = (
    Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.LOSE_REPLY, Kind.THROTTLE, Kind.OUTAGE, Kind.SLOW
)  # fmt: skip
ON_EVENTS = (Kind.CUT, Kind.GONE, Kind.DUPLICATE, Kind.REORDER, Kind.HIDE, Kind.STALL)
LISTS = 2
EVENTS = {"llmdeployments": 2, "endpointslices": 3}
"""What `Scene.roll_out` lets happen, by plural."""
SILENCE_SECONDS = 3.0
"""Instead of a minute and a half."""

pytestmark = pytest.mark.timeout(120)


@dataclass
class History(Store):
    """A store that keeps all it was given."""

    generations: list[int] = field(default_factory=list)
    endpoints: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def set_command(self, command: Command) -> None:
        self.generations.append(command.generation)
        super().set_command(command)

    def set_endpoints(self, endpoints: Mapping[str, Endpoints]) -> None:
        self.endpoints.append({revision for revision, ready in endpoints.items() if ready})
        super().set_endpoints(endpoints)

    async def reaches(self, wanted: Desired) -> None:
        """Wait until this is desired."""
        async with asyncio.timeout(40):
            while self.desired != wanted:
                await self.wait(None)


@dataclass
class Scene(Commander):
    """One LLMDeployment's traffic and endpoints, and an agent that watches them."""

    source: kube.KubeSource
    store: History
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The agent's watches begin."""
        self.task = asyncio.create_task(self.source.run(self.store))

    async def end(self) -> None:
        """They end, as with its process."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    def object_uid(self) -> str:
        """Of the LLMDeployment, which commands name."""
        base = f"/apis/llmfleet.dev/v1alpha1/namespaces/{self.namespace}/llmdeployments"
        uid: str = self.server.request("GET", f"{base}/chat").json()["metadata"]["uid"]
        return uid

    def serve(self) -> None:
        """The old revision has everything."""
        self.slice_of(OLD, ADDRESS)
        self.traffic(1, **{OLD: 100})

    async def roll_out(self) -> None:
        """The new revision gets ready and takes over; the old one's pods go away."""
        for act in (
            lambda: self.slice_of(NEW, ADDRESS, ready=False),
            lambda: self.slice_of(NEW, ADDRESS),
            lambda: self.traffic(2, **{OLD: 50, NEW: 50}),
            lambda: self.traffic(3, **{NEW: 100}),
            lambda: self.delete_slice(OLD),
        ):
            await asyncio.to_thread(act)


@contextlib.asynccontextmanager
async def behind(
    fault: Fault, server: ApiServer, folder: Path
) -> AsyncIterator[tuple[Scene, FaultProxy]]:
    """A scene whose agent meets the fault, and has the router's own rights."""
    namespace = server.create_namespace()
    token = create_chat(server, namespace)
    tls = ssl.create_default_context(cafile=str(server.ca_file))

    async def kill() -> None:
        await scene.end()
        scene.start()

    proxy = FaultProxy(server.url, tls, fault, kill, caller="agent")
    await proxy.start()
    access = KubeAccess(url=proxy.url, ssl_context=None, token=token)
    settings = router_settings(folder, namespace=namespace, name="chat")
    scene = Scene(server, namespace, kube.KubeSource(settings, access), History())
    try:
        yield scene, proxy
    finally:
        await scene.end()
        await proxy.stop()
        server.request("DELETE", f"/api/v1/namespaces/{namespace}")


async def run(fault: Fault, server: ApiServer, folder: Path) -> str | None:
    """What went wrong, None when nothing did."""
    async with behind(fault, server, folder) as (scene, proxy):
        uid = scene.object_uid()
        await asyncio.to_thread(scene.serve)
        proxy.arm()
        scene.start()
        try:
            await scene.store.reaches(state(1, OLD, uid))
            await scene.roll_out()
            await scene.store.reaches(state(3, NEW, uid))
        except TimeoutError:
            return f"{fault}: it never got there, but stayed with {scene.store.desired}"
        history = scene.store
        if history.generations != sorted(history.generations):
            return f"{fault}: it went back to an older command: {history.generations}"
        first = next(place for place, each in enumerate(history.endpoints) if NEW in each)
        if not all(NEW in each for each in history.endpoints[first:]):
            return f"{fault}: it lost endpoints that were ready: {history.endpoints}"
        return None if proxy.struck else f"{fault}: it never struck"


def state(generation: int, revision: str, uid: str) -> Desired:
    """One revision has everything, on one pod."""
    return Desired(
        command=Command(generation=generation, weights=((revision, 100),), object_uid=uid),
        endpoints={revision: (Endpoint(address=ADDRESS, port=8000),)},
    )


def places(kind: Kind) -> list[Fault]:
    if kind in ON_LISTS:
        return [Fault(kind=kind, at=at) for at in range(LISTS)]
    return [
        Fault(kind=kind, at=at, plural=plural)
        for plural, events in EVENTS.items()
        for at in range(events)
    ]


@pytest.mark.parametrize("kind", [*ON_LISTS, *ON_EVENTS])
async def test_agent_when_a_fault_strikes_then_it_ends_with_the_newest_and_never_goes_back(
    api_server: ApiServer, tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "SILENCE_SECONDS", SILENCE_SECONDS)
    runs = (run(fault, api_server, tmp_path) for fault in places(kind))
    assert [problem for problem in await asyncio.gather(*runs) if problem] == []
