"""The part of ``hack.bench.promote`` that runs in the network namespace."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hack import native
from hack.bench.promote import AGENT_PORT, HTTP_PORT, ROLLOUT
from hack.bench.router.isolated import ENGINE_ADDRESS, ENGINE_PORT
from hack.bench.router.weights import Client
from hack.controlplane.apiserver import ApiServer
from hack.controlplane.plane import FAST_PACE, running_control_plane
from hack.processes.fleet import DEPLOYMENTS
from hack.processes.operator import OperatorProcess
from hack.processes.router import SLICES
from hack.processes.waiting import eventually

JSON = dict[str, Any]

NAMESPACE = "promote"
MERGE = "application/merge-patch+json"
BETWEEN_SECONDS = 0.5
"""Of plain asking before each act, so that nothing else is under way."""


def main() -> None:
    """Engines, control plane, operator, router; then promotions, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stub")
    parser.add_argument("out", type=Path)
    parser.add_argument("promotions", type=int)
    chosen = parser.parse_args()
    # The client's thread must not hold up the one that acts: half a millisecond instead of five.
    sys.setswitchinterval(0.0005)
    for command in ("link set lo up", f"addr add {ENGINE_ADDRESS}/32 dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    engines = [chosen.stub, "-address", ENGINE_ADDRESS, "-ports", str(ENGINE_PORT)]
    with tempfile.TemporaryDirectory(prefix="llmfleet-bench-") as name:
        folder = Path(name)
        stub = subprocess.Popen(engines, stdout=subprocess.DEVNULL)
        try:
            with running_control_plane(folder, nodes=1) as (server, pace):
                pace.set(FAST_PACE)
                chosen.out.write_text(json.dumps(_measure(server, folder, chosen.promotions)))
        finally:
            stub.terminate()
            stub.wait()


def _measure(server: ApiServer, folder: Path, promotions: int) -> JSON:
    server.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    operator = OperatorProcess(server, folder)
    fleet = _Fleet(server)
    client = Client(HTTP_PORT)
    asking = threading.Thread(target=client.run)
    taken = []
    try:
        operator.wait_leading()
        fleet.create()
        with _router(server, folder):
            fleet.wait_for("Healthy")
            asking.start()
            try:
                taken = [fleet.promote(number, client) for number in range(promotions)]
            finally:
                client.stop()
                asking.join()
    except BaseException:
        said = json.dumps(fleet.status())[:3000]
        logs = [operator.log.read_text()[-2000:], (folder / "router.log").read_text()[-2000:]]
        sys.stderr.write("\n".join([*logs, said]))
        raise
    finally:
        operator.stop()
    return {
        "promote_to_stored_ms": sorted(1000 * stored for stored, _ in taken),
        "promote_to_first_request_ms": sorted(1000 * answered for _, answered in taken),
        "requests": client.asked,
        "failed": client.failed,
    }


class _Fleet:
    """One LLMDeployment, its releases and its endpoints."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._path = DEPLOYMENTS.format(NAMESPACE)
        self._api = server.client()

    def create(self) -> None:
        spec = {
            "model": {"source": "hf://example/tiny", "revision": "0" * 40, "servedName": "tiny"},
            "replicas": 2,
            "rollout": ROLLOUT,
            "router": {"replicas": 1},
        }
        self._server.create(
            self._path,
            {
                "apiVersion": "llmfleet.dev/v1alpha1",
                "kind": "LLMDeployment",
                "metadata": {"name": "chat"},
                "spec": spec,
            },
        )
        self._endpoints(self._spec_revision())

    def promote(self, number: int, client: Client) -> tuple[float, float]:
        """Release, wait until its pods are ready, promote.

        Returns:
            Seconds until the API server answered the act, and until the revision's first answer.
        """
        env = [{"name": "RELEASE", "value": str(number)}]
        self._patch({"spec": {"podTemplate": {"env": env}}})
        revision = self._spec_revision()
        self._endpoints(revision)
        self.wait_for("Paused")
        time.sleep(BETWEEN_SECONDS)
        client.changed.pop(revision, None)
        sent = time.perf_counter()
        act = {"llmfleet.dev/promote": f"{revision}/full@{number}"}
        self._patch({"metadata": {"annotations": act}})
        stored = time.perf_counter()
        answered = eventually(lambda: client.changed.get(revision), "an answer of the new revision")
        self.wait_for("Healthy")
        return stored - sent, answered - sent

    def wait_for(self, phase: str) -> JSON:
        """Until the present generation has this phase."""
        return eventually(
            lambda: status if (status := self.status()).get("phase") == phase else None,
            f"phase {phase}",
            90,
        )

    def _spec_revision(self) -> str:
        return str(eventually(lambda: self.status().get("specRevision"), "spec is seen"))

    def status(self) -> JSON:
        """Empty until the operator has seen the present generation."""
        found = self._api.get(f"{self._path}/chat").json()
        status: JSON = found.get("status") or {}
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return status if seen else {}

    def _patch(self, body: JSON) -> None:
        answer = self._api.patch(
            f"{self._path}/chat", content=json.dumps(body), headers={"Content-Type": MERGE}
        )
        if answer.status_code != 200:
            raise RuntimeError(answer.text)

    def _endpoints(self, revision: str) -> None:
        labels = {"llmfleet.dev/deployment": "chat", "llmfleet.dev/revision": revision}
        endpoint = {"addresses": [ENGINE_ADDRESS], "conditions": {"ready": True}}
        self._server.create(
            SLICES.format(NAMESPACE),
            {
                "metadata": {"name": f"chat-rev-{revision}-x", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": ENGINE_PORT, "protocol": "TCP"}],
                "endpoints": [endpoint],
            },
        )


@contextmanager
def _router(server: ApiServer, folder: Path) -> Iterator[None]:
    """The router's two processes, as the Role that the operator made allows it."""
    account = "chat-router"
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}"
    eventually(lambda: server.request("GET", path).status_code == 200, "the router's account")
    token = server.service_account_token(NAMESPACE, account)
    environment = {
        **os.environ,
        "KUBECONFIG": str(server.write_kubeconfig(folder / "router.kubeconfig", token)),
        "LLMFLEET_NAMESPACE": NAMESPACE,
        "LLMFLEET_NAME": "chat",
        "LLMFLEET_XDS_DIR": str(folder / "xds"),
        "LLMFLEET_MODULE_FILE": str(native.module_file()),
        "LLMFLEET_TOKEN_FILE": str(folder / "no-token"),
        "LLMFLEET_HTTP_PORT": str(HTTP_PORT),
        "LLMFLEET_AGENT_PORT": str(AGENT_PORT),
        "LLMFLEET_DRAIN_TIMEOUT_SECONDS": "1",
        "LLMFLEET_ENDPOINT_REMOVAL_SECONDS": "0",
        "LLMFLEET_ENVOY_CONCURRENCY": "1",
    }
    with (folder / "router.log").open("wb") as log:
        command = [sys.executable, "-m", "llmfleet_router"]
        processes = [
            subprocess.Popen([*command, part], env=environment, stdout=log, stderr=log)
            for part in ("envoy", "agent")
        ]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


if __name__ == "__main__":
    main()
