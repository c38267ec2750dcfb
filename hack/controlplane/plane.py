"""Starts the controllers, the scheduler and KWOK beside an API server, and makes nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hack.cluster import golang
from hack.cluster.console import Steps
from hack.cluster.settings import read_settings
from hack.controlplane.apiserver import (
    ApiServer,
    daemon,
    find_binary,
    free_ports,
    running_api_server,
    wait_for,
)

POD_CIDR = "127.64.0.0/10"
"""Loopback, so that a pod's address is reached without any network being made."""
STAGES = Path(__file__).with_name("stages.yaml")
# No EndpointSlices: the API refuses addresses of loopback in them.
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "garbage-collector-controller",
    "disruption-controller",
    "namespace-controller",
)
NODE_CAPACITY = {
    "cpu": "100k",
    "memory": "1Pi",
    "pods": "100k",
    "ephemeral-storage": "1Pi",
    "nvidia.com/gpu": "100k",
}
"""Of each node; what is tested here is not a lack of room."""
DEFAULT_PACE = 20
"""Calls a second that a controller manager allows itself where nobody says otherwise."""
FAST_PACE = 300
BACKGROUND = ("nice", "-n", "19")
"""Elsewhere these programs do not share two processors with the operator and the API server."""

Program = contextlib.AbstractContextManager[Any]


class Pace:
    """How fast controllers and scheduler work; to change it they are started anew."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._running = contextlib.ExitStack()

    def set(self, calls_per_second: int) -> None:
        """Let each of them make this many calls a second."""
        self.stop()
        for program in _controllers(self._server, calls_per_second):
            self._running.enter_context(program)

    def stop(self) -> None:
        """End them."""
        self._running.close()


def build_missing() -> None:
    """Build what is not built yet (minutes the first time; Go is needed only then).

    Raises:
        ClusterError: Go is missing, or a build failed.
    """
    settings = read_settings()
    plain = (each for each in golang.PRODUCTS if each.name in {"etcd", "kubernetes"})
    outdated = golang.outdated(settings, (*plain, golang.KWOK))
    golang.build(settings, outdated, Steps(total=len(outdated)))


@contextlib.contextmanager
def running_control_plane(directory: Path, nodes: int = 10) -> Iterator[tuple[ApiServer, Pace]]:
    """A control plane with ready nodes and the CRD, its data and logs under ``directory``.

    Raises:
        FileNotFoundError: a binary is missing; the text names the command that builds it.
        RuntimeError: a process ended or was not ready in time; the text ends with its log.
    """
    with running_api_server(directory) as server, _kwok(server):
        server.install_crd()
        pace = Pace(server)
        pace.set(DEFAULT_PACE)
        try:
            for number in range(nodes):
                _make_node(server, f"node-{number}")
            wait_for(
                lambda: _ready_nodes(server) == nodes,
                "KWOK made the nodes ready",
                log=directory / "kwok.log",
            )
            yield server, pace
        finally:
            pace.stop()


def _controllers(server: ApiServer, calls_per_second: int) -> Iterator[Program]:
    manager_port, scheduler_port = free_ports(2)
    calls = [f"--kube-api-qps={calls_per_second}", f"--kube-api-burst={calls_per_second}"]
    common = ["--leader-elect=false", *calls]
    yield _program(
        server,
        "kube-controller-manager",
        *common,
        f"--secure-port={manager_port}",
        f"--cert-dir={server.directory / 'manager-certs'}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
    )
    yield _program(
        server,
        "kube-scheduler",
        *common,
        f"--secure-port={scheduler_port}",
        f"--cert-dir={server.directory / 'scheduler-certs'}",
    )


def _kwok(server: ApiServer) -> Program:
    """Not started anew: it would give addresses away that pods have."""
    return _program(
        server,
        "kwok",
        f"--config={STAGES}",
        "--manage-all-nodes=true",
        f"--cidr={POD_CIDR}",
        "--node-ip=127.0.0.1",
        "--node-lease-duration-seconds=0",
    )


def _program(server: ApiServer, name: str, *arguments: str) -> Program:
    access = f"--kubeconfig={server.kubeconfig}"
    command = [*BACKGROUND, str(find_binary(name)), access, *arguments]
    return daemon(command, server.directory / f"{name}.log")


def _make_node(server: ApiServer, name: str) -> None:
    server.create("/api/v1/nodes", _node(name))
    # Every new node is tainted as not ready, which the node lifecycle controller would end.
    patch = {"spec": {"taints": None}}
    answer = server.request("PATCH", f"/api/v1/nodes/{name}", patch, "application/merge-patch+json")
    if answer.status_code != 200:
        raise RuntimeError(f"{name} stays tainted: {answer.text}")


def _node(name: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "status": {"capacity": NODE_CAPACITY, "allocatable": NODE_CAPACITY},
    }


def _ready_nodes(server: ApiServer) -> int:
    ready = 0
    for node in server.request("GET", "/api/v1/nodes").json()["items"]:
        conditions = node["status"].get("conditions") or []
        is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        ready += is_ready and not (node["spec"].get("taints") or [])
    return ready
