"""A node: its name, addresses and folders. Pure; what starts and ends it lies in `further_nodes`.

The first one is the machine of `cluster up`, which the control plane shares. Further ones have a
network namespace, a containerd and a kubelet of their own; what they write lies in two folders,
which `remove` deletes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.errors import ClusterError
from hack.cluster.settings import NODE_NAME, Settings

MOST = 9
"""Further nodes: each has a digit in addresses and in the names of its devices."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node.

    Attributes:
        settings: The cluster's.
        name: As Kubernetes knows it.
        index: 0 for the first one.
        state: Configuration, logs, and what the kubelet keeps.
        run: Sockets and mounts; short, because a socket's path may have 107 bytes at most.
        containerd_root: Where containerd keeps images.
    """

    settings: Settings
    name: str
    index: int
    state: Path
    run: Path
    containerd_root: Path

    @property
    def ip(self) -> str:
        """Its own address."""
        return f"{self.settings.node_ip.rpartition('.')[0]}.{10 + self.index}"

    @property
    def pod_cidr(self) -> str:
        """The addresses of its pods."""
        return f"10.244.{self.index}.0/24"

    @property
    def unit(self) -> str:
        """Name of its network namespace and its pod network, unlike any other on this machine."""
        return f"{self.settings.name}-{self.index}" if self.index else self.settings.name

    @property
    def namespace(self) -> Path:
        """The network namespace's file."""
        return self.settings.namespace.with_name(self.unit)

    @property
    def cgroup(self) -> str:
        """Its cgroup, within that of the cluster."""
        return f"{self.settings.name}/node-{self.index}" if self.index else self.settings.name

    @property
    def containerd_socket(self) -> Path:
        """Where ctr and the kubelet reach containerd."""
        return self.run / "containerd.sock"

    @property
    def device(self) -> str:
        """The first node's end of the link to it."""
        return f"node{self.index}"


def first_node(settings: Settings) -> Node:
    """The node that `cluster up` makes."""
    return Node(
        settings=settings,
        name=NODE_NAME,
        index=0,
        state=settings.state,
        run=settings.run,
        containerd_root=settings.containerd_root,
    )


def further_node(settings: Settings, name: str, index: int) -> Node:
    """A node beside the first one."""
    state = settings.state / "nodes" / name
    return Node(
        settings=settings,
        name=name,
        index=index,
        state=state,
        run=settings.run / f"node-{index}",
        containerd_root=state / "containerd",
    )


def added_nodes(settings: Settings) -> list[Node]:
    """Every further node that has a record, whatever state it is in."""
    found = []
    for path in sorted((settings.state / "nodes").glob("*/node.json")):
        try:
            index = json.loads(path.read_text())["index"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found.append(further_node(settings, path.parent.name, index))
    return found


def find_node(settings: Settings, name: str) -> Node | None:
    """A further node by its name."""
    return next((node for node in added_nodes(settings) if node.name == name), None)


def claim_node(settings: Settings, name: str) -> Node:
    """Records a further node under the first free number, before anything of it is made.

    Raises:
        ClusterError: The name cannot be one, or there are too many.
    """
    if not _NAME.fullmatch(name) or name == NODE_NAME:
        raise ClusterError(
            f"{name!r} cannot be a node's name: up to 20 lower-case letters, digits and dashes, "
            f"and not {NODE_NAME}"
        )
    taken = {node.index for node in added_nodes(settings)}
    free = [number for number in range(1, MOST + 1) if number not in taken]
    if not free:
        raise ClusterError(f"there are {MOST} further nodes already: remove one")
    node = further_node(settings, name, free[0])
    node.state.mkdir(parents=True, exist_ok=True)
    (node.state / "node.json").write_text(json.dumps({"index": node.index}) + "\n")
    return node
