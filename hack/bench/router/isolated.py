"""A real API server and the router's own process in a network namespace of their own.

The API refuses loopback addresses in EndpointSlices, so a namespace is made whose loopback
interface has one more address, for the engines. What is measured is a function of a module that is
started again inside: ``run`` outside, ``main`` inside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hack.bench.router import tools
from hack.controlplane.apiserver import ApiServer, running_api_server
from hack.processes.fleet import DEPLOYMENTS
from hack.processes.router import Proxy, RouterProcess, create_chat

JSON = dict[str, Any]
Measured = Callable[[ApiServer, RouterProcess, list[str]], JSON]

ENGINE_ADDRESS = "198.51.100.1"  # of TEST-NET-2
ENGINE_PORT = 8000
REVISIONS = ("aaaa", "bbbb")
NAMESPACE_COMMANDS = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])


def run(module: str, arguments: Sequence[str], *, timeout_seconds: float) -> JSON:
    """Runs a module's ``main`` in a network namespace and returns what it measured.

    Raises:
        tools.AbsentError: no network namespace can be made, or a binary is missing.
    """
    for program in ("ip", "unshare", "openssl"):
        if shutil.which(program) is None:
            raise tools.AbsentError(f"{program} is not installed")
    inside = [
        each for each in NAMESPACE_COMMANDS
        if subprocess.run([*each, "true"], capture_output=True, check=False).returncode == 0
    ]  # fmt: skip
    if not inside:
        raise tools.AbsentError("no network namespace may be made here")
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [*inside[0], sys.executable, "-m", module, tools.stub(), out.name, *arguments]
        done = subprocess.run(
            command, cwd=tools.ROOT, capture_output=True, text=True, timeout=timeout_seconds,
            check=False,
        )  # fmt: skip
        if "FileNotFoundError" in done.stderr:
            raise tools.AbsentError(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
        measured: JSON = json.loads(Path(out.name).read_text())
    return measured


def main(measured: Measured, *flags: str) -> None:
    """What runs in the namespace: engines, API server and router, and then ``measured``.

    Args:
        measured: called in a thread, with a router that splits 50:50 between ``REVISIONS``.
        flags: of the stub engines.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("stub")
    parser.add_argument("out", type=Path)
    parser.add_argument("arguments", nargs="*")
    chosen = parser.parse_args()
    for command in ("link set lo up", f"addr add {ENGINE_ADDRESS}/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    with tempfile.TemporaryDirectory(prefix="llmfleet-bench-") as name:
        folder = Path(name)
        engines = [chosen.stub, "-address", ENGINE_ADDRESS, "-ports", str(ENGINE_PORT), *flags]
        stub = subprocess.Popen(engines, stdout=subprocess.DEVNULL)
        try:
            with running_api_server(folder / "apiserver") as server:
                server.install_crd()
                result = asyncio.run(_with_router(server, folder, measured, chosen.arguments))
        finally:
            stub.terminate()
            stub.wait()
    chosen.out.write_text(json.dumps(result))


async def _with_router(
    server: ApiServer, folder: Path, measured: Measured, arguments: list[str]
) -> JSON:
    namespace = server.create_namespace()
    token = create_chat(server, namespace)
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig", token)
    router = RouterProcess(server, namespace, Proxy(0), kubeconfig, folder)
    await router.start()
    try:
        await router.until(lambda _: True)
        for revision in REVISIONS:
            router.slice_of(revision, ENGINE_ADDRESS)
        router.traffic(1, **dict.fromkeys(REVISIONS, 50))
        await router.until(lambda state: state["trafficGeneration"] == 1)
        return await asyncio.to_thread(measured, server, router, arguments)
    finally:
        await router.end()


class StatusWriter:
    """Writes traffic commands as the operator does, on one connection that is kept."""

    def __init__(self, server: ApiServer, router: RouterProcess) -> None:
        self._api = server.client()
        self._path = DEPLOYMENTS.format(router.namespace) + "/chat/status"

    def __enter__(self) -> StatusWriter:
        self._api.__enter__()
        self._api.get("/readyz")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._api.__exit__(kind, error, trace)

    def write(self, generation: int, weights: dict[str, int]) -> tuple[float, float]:
        """Commands the weights; when that was sent and when it was answered (perf_counter)."""
        traffic = [{"revision": r, "weight": w} for r, w in weights.items() if w]
        content = json.dumps({"status": {"traffic": traffic, "trafficGeneration": generation}})
        headers = {"Content-Type": "application/merge-patch+json"}
        sent = time.perf_counter()
        answer = self._api.patch(self._path, content=content, headers=headers)
        answered = time.perf_counter()
        if answer.status_code != 200:
            raise RuntimeError(answer.text)
        return sent, answered
