"""The whole router as its pod runs it: both its programs, with the router's own rights.

It needs a real API server; between the two lies a proxy that can cut the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hack import native
from hack.controlplane.apiserver import ApiServer, free_ports
from hack.processes.fleet import CHILD_PATHS, DEPLOYMENTS
from llmfleet.api.deployment import parse
from llmfleet.planning.children.router import build_router
from llmfleet.planning.snapshot import OperatorSettings

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
RIGHTS = {"ServiceAccount", "Role", "RoleBinding"}
"""Kinds of the children that give a router its rights."""
SETTINGS = OperatorSettings(runtime_image_gpu="g", runtime_image_cpu="c", router_image="r")


@dataclass
class Proxy:
    """TCP on loopback between router and API server; can be down."""

    target_port: int
    port: int = 0
    up: bool = True
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Breaks every connection and takes no new ones."""
        self.up = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        """Cut, and stop listening."""
        self.cut()
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers |= {writer, up_writer}
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(reader, up_writer)),
                    asyncio.create_task(self._pump(up_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        writer.transport.abort()
        up_writer.transport.abort()
        self._writers -= {writer, up_writer}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()


@dataclass
class Commander:
    """Plays the operator and the endpoint controller for the LLMDeployment ``chat``."""

    server: ApiServer
    namespace: str

    def traffic(self, generation: int, **weights: int) -> None:
        """Command a split by revision in the status."""
        traffic = [{"revision": r, "weight": w} for r, w in weights.items()]
        status = {"status": {"traffic": traffic, "trafficGeneration": generation}}
        path = DEPLOYMENTS.format(self.namespace) + "/chat/status"
        answer = self.server.request("PATCH", path, status, "application/merge-patch+json")
        assert answer.status_code == 200, answer.text

    def slice_of(self, revision: str, *addresses: str, ready: bool = True) -> None:
        """Write the EndpointSlice of a revision's engines."""
        body = {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": f"chat-rev-{revision}-x",
                "labels": {"llmfleet.dev/deployment": "chat", "llmfleet.dev/revision": revision},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
            "endpoints": [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses],
        }  # fmt: skip
        self.server.apply(f"{SLICES.format(self.namespace)}/chat-rev-{revision}-x", body)

    def delete_slice(self, revision: str) -> None:
        """Delete it again."""
        path = f"{SLICES.format(self.namespace)}/chat-rev-{revision}-x"
        assert self.server.request("DELETE", path).status_code == 200


@dataclass
class PodProcesses:
    """The first processes of a router pod's two containers, each of which can be killed.

    Nobody restarts them: a test does what the kubelet would.
    """

    directory: Path
    kubeconfig: Path
    namespace: str
    environment: dict[str, str] = field(default_factory=dict)
    """More of it, or other values."""
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def agent_url(self) -> str:
        """Where the operator asks."""
        return f"http://127.0.0.1:{self.ports[1]}"

    @property
    def log(self) -> Path:
        """What agent, launcher and Envoy say."""
        return self.directory / "router.log"

    async def start(self, *parts: str) -> None:
        """Start these containers' processes, both if none is named."""
        http, agent, admin, preview = self.ports
        env = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "LLMFLEET_NAMESPACE": self.namespace, "LLMFLEET_NAME": "chat",
            "LLMFLEET_POD_NAME": "chat-router-1", "LLMFLEET_POD_UID": "chat-router-1-uid",
            "LLMFLEET_XDS_DIR": str(self.directory / "xds"),
            "LLMFLEET_MODULE_FILE": str(native.module_file()),
            "LLMFLEET_TOKEN_FILE": str(self.directory / "token"),
            "LLMFLEET_BIND_ADDRESS": "127.0.0.1",
            "LLMFLEET_HTTP_PORT": str(http), "LLMFLEET_AGENT_PORT": str(agent),
            "LLMFLEET_ADMIN_PORT": str(admin), "LLMFLEET_PREVIEW_PORT": str(preview),
            "LLMFLEET_DRAIN_TIMEOUT_SECONDS": "5", "LLMFLEET_ENDPOINT_REMOVAL_SECONDS": "0.2",
            "LLMFLEET_ENVOY_CONCURRENCY": "1",
            **self.environment,
        }  # fmt: skip
        for part in parts or ("envoy", "agent"):
            with self.log.open("ab") as output:
                self.running[part] = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "llmfleet_router", part,
                    env=env, stdout=output, stderr=output,
                )  # fmt: skip

    async def end(self, *parts: str, number: int = signal.SIGTERM) -> list[int]:
        """Signal these at once, all if none is named; their exit statuses, within 20 s."""
        chosen = [self.running[part] for part in parts or tuple(self.running)]
        for process in chosen:
            if process.returncode is None:
                process.send_signal(number)
        async with asyncio.timeout(20):
            return [await process.wait() for process in chosen]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer of the agent's port."""
        url = f"{self.agent_url}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Polls the state until the condition holds."""
        state: dict[str, Any] = {}
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    url = f"{self.agent_url}/llmfleet/state"
                    async with session.get(url) as answer:
                        if answer.status == 200:
                            state = await answer.json()
                            if condition(state):
                                return state
                await asyncio.sleep(0.05)


class RouterProcess(PodProcesses, Commander):
    """The two beside a real API server, as a service account that has the router's Role only."""

    def __init__(
        self, server: ApiServer, namespace: str, proxy: Proxy, kubeconfig: Path, directory: Path
    ) -> None:
        PodProcesses.__init__(self, directory, kubeconfig, namespace)
        self.server = server
        self.proxy = proxy


def create_chat(server: ApiServer, namespace: str) -> str:
    """Creates the LLMDeployment ``chat``; the token of its router, with its rights."""
    spec = {
        "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LLMDeployment",
        "metadata": {"name": "chat"},
        "spec": {"model": {"source": "pvc://models/tiny", "servedName": "tiny"}, "replicas": 1},
    }  # fmt: skip
    grant(server, namespace, server.create(DEPLOYMENTS.format(namespace), spec))
    return server.service_account_token(namespace, "chat-router")


def grant(server: ApiServer, namespace: str, deployment: dict[str, Any]) -> None:
    """The account and the rights that the operator makes for this router, and no others."""
    for child in build_router(parse(deployment), SETTINGS):
        if child.key.kind in RIGHTS:
            server.create(CHILD_PATHS[child.key.kind].format(namespace), child.body)
