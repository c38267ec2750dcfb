"""How long a change of weights takes: from the status write to the first request that follows it.

A real API server, the router's own process with its own Role, Envoy, and a client that asks all
the time. The API refuses loopback addresses in EndpointSlices, so all of it runs in a network
namespace of its own, whose loopback interface has one more address, for the engines.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.router.test_router_kube import (
    CORE,
    Proxy,
    RouterProcess,
    _create_role,
)

from hack.bench.router import tools
from hack.controlplane.apiserver import ApiServer, running_api_server

JSON = dict[str, Any]

CHANGES = 60
ENGINE_ADDRESS = "198.51.100.1"  # of TEST-NET-2
ENGINE_PORT = 8000
ASK_SECONDS = 0.001
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]})
NAMESPACE_COMMANDS = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])


def measure(changes: int) -> JSON:
    """Runs this module in a network namespace and returns what it measured.

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
        command = [*inside[0], sys.executable, "-m", __name__, str(changes), tools.stub(), out.name]
        done = subprocess.run(
            command, cwd=tools.ROOT, capture_output=True, text=True, timeout=180, check=False
        )
        if "FileNotFoundError" in done.stderr:
            raise tools.AbsentError(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            raise RuntimeError(f"weights: {done.stderr[-2000:]}")
        measured: JSON = json.loads(Path(out.name).read_text())
    return measured


@dataclass
class Client:
    """Asks all the time on one connection, and notes when the revision that answers changes."""

    port: int
    changed: dict[str, float] = field(default_factory=dict)
    """Revision → when it first answered after another one had."""
    failed: int = 0
    asked: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Asks until stopped."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        last = ""
        while not self._stop.is_set():
            connection.request(
                "POST", "/v1/chat/completions", BODY, {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
            self.asked += 1
            self.failed += answer.status != 200
            revision = answer.getheader("x-llmfleet-revision", "")
            if revision != last:
                self.changed[revision] = time.perf_counter()
                last = revision
            time.sleep(ASK_SECONDS)
        connection.close()

    def stop(self) -> None:
        """Ends the asking."""
        self._stop.set()


async def _run(server: ApiServer, folder: Path, changes: int) -> JSON:
    namespace = server.create_namespace()
    _create_role(server, namespace)
    token = server.service_account_token(namespace, "chat-router")
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig", token)
    model = {"source": "pvc://models/tiny", "servedName": "tiny"}
    server.create(
        CORE.format(namespace),
        {
            "apiVersion": "llmfleet.dev/v1alpha1", "kind": "LLMDeployment",
            "metadata": {"name": "chat"}, "spec": {"model": model, "replicas": 1},
        },
    )  # fmt: skip
    router = RouterProcess(server, namespace, Proxy(0), kubeconfig, folder)
    await router.start()
    try:
        await router.until(lambda _: True)
        for revision in ("aaaa", "bbbb"):
            router.slice_of(revision, ENGINE_ADDRESS)
        router.traffic(1, aaaa=50, bbbb=50)
        await router.until(lambda state: state["trafficGeneration"] == 1)
        return await asyncio.to_thread(_change, server, router, changes)
    finally:
        await router.end()


def _change(server: ApiServer, router: RouterProcess, changes: int) -> JSON:
    client = Client(router.ports[0])
    asking = threading.Thread(target=client.run)
    path = CORE.format(router.namespace) + "/chat/status"
    from_sent, from_answered = [], []
    with server.client() as api:
        api.get("/readyz")
        asking.start()
        try:
            for generation in range(2, changes + 2):
                revision = ("aaaa", "bbbb")[generation % 2]
                traffic = [{"revision": revision, "weight": 100}]
                status = {"status": {"traffic": traffic, "trafficGeneration": generation}}
                content, kind = json.dumps(status), "application/merge-patch+json"
                client.changed.pop(revision, None)
                sent = time.perf_counter()
                answer = api.patch(path, content=content, headers={"Content-Type": kind})
                answered = time.perf_counter()
                if answer.status_code != 200:
                    raise RuntimeError(answer.text)
                first = _wait(client, revision, sent)
                if generation > 2:  # the first change begins at 50:50
                    from_sent.append(1000 * (first - sent))
                    from_answered.append(1000 * (first - answered))
                # Less than the 2 s after which an idle cluster is removed; and at no fixed beat.
                time.sleep(random.uniform(0.1, 0.25))
        finally:
            client.stop()
            asking.join()
    return {
        "write_sent_to_first_request_ms": sorted(from_sent),
        "write_answered_to_first_request_ms": sorted(from_answered),
        "requests": client.asked,
        "failed": client.failed,
    }


def _wait(client: Client, revision: str, since: float) -> float:
    while (first := client.changed.get(revision, 0.0)) < since:
        if time.perf_counter() - since > 20:
            raise RuntimeError(f"no request reached {revision} within 20 s")
        time.sleep(0.0005)
    return first


def main(arguments: Sequence[str] | None = None) -> None:
    """What runs in the namespace."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.router.weights")
    parser.add_argument("changes", type=int)
    parser.add_argument("stub")
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args(arguments)
    for command in ("link set lo up", f"addr add {ENGINE_ADDRESS}/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    with tempfile.TemporaryDirectory(prefix="llmfleet-bench-") as name:
        folder = Path(name)
        engines = [chosen.stub, "-address", ENGINE_ADDRESS, "-ports", str(ENGINE_PORT)]
        stub = subprocess.Popen(engines, stdout=subprocess.DEVNULL)
        try:
            with running_api_server(folder / "apiserver") as server:
                server.install_crd()
                measured = asyncio.run(_run(server, folder, chosen.changes))
        finally:
            stub.terminate()
            stub.wait()
    chosen.out.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
