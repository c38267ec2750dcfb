"""Starts the controllers, the scheduler and KWOK beside an API server, and makes nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hack.cluster import golang
from hack.cluster.progress import Steps
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
PROGRAMS = ("kube-controller-manager", "kube-scheduler", "kwok")
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
CALLS_PER_SECOND = 2000
"""The programs' own brakes (20 to 50 by default) would be what is measured."""


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
def running_control_plane(directory: Path, nodes: int = 10) -> Iterator[ApiServer]:
    """A control plane with ready nodes and the CRD, its data and logs under ``directory``.

    Raises:
        FileNotFoundError: a binary is missing; the text names the command that builds it.
        RuntimeError: a process ended or was not ready in time; the text ends with its log.
    """
    binaries = {name: str(find_binary(name)) for name in PROGRAMS}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_api_server(directory))
        server.install_crd()
        for name, arguments in _arguments(server).items():
            log = directory / f"{name}.log"
            stack.enter_context(daemon([binaries[name], *arguments], log))
        for number in range(nodes):
            _make_node(server, f"node-{number}")
        wait_for(
            lambda: _ready_nodes(server) == nodes,
            "KWOK made the nodes ready",
            log=directory / "kwok.log",
        )
        yield server


def _arguments(server: ApiServer) -> dict[str, list[str]]:
    manager_port, scheduler_port = free_ports(2)
    calls = [f"--kube-api-qps={CALLS_PER_SECOND}", f"--kube-api-burst={CALLS_PER_SECOND}"]
    common = [f"--kubeconfig={server.kubeconfig}", "--leader-elect=false", *calls]
    return {
        "kube-controller-manager": [
            *common,
            f"--secure-port={manager_port}",
            f"--cert-dir={server.directory / 'manager-certs'}",
            f"--controllers={','.join(CONTROLLERS)}",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
        ],
        "kube-scheduler": [
            *common,
            f"--secure-port={scheduler_port}",
            f"--cert-dir={server.directory / 'scheduler-certs'}",
        ],
        "kwok": [
            f"--kubeconfig={server.kubeconfig}",
            f"--config={STAGES}",
            "--manage-all-nodes=true",
            f"--cidr={POD_CIDR}",
            "--node-ip=127.0.0.1",
            "--node-lease-duration-seconds=0",
        ],
    }


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
