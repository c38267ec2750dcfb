"""Nodes beside the first one: add, stop, lose, remove."""

import os
import shutil

from hack.cluster import (
    certificates,
    cgroups,
    components,
    configs,
    daemons,
    image_sharing,
    node_network,
    preflight,
    processes,
    teardown,
)
from hack.cluster.console import Steps
from hack.cluster.errors import ClusterError
from hack.cluster.local import LocalCluster, containerd_ready, write_private
from hack.cluster.node import Node, added_nodes, claim_node, find_node
from hack.cluster.settings import FAKE_GPUS

_MEMORY_GIB = 1


class FurtherNodes:
    """The further nodes of a local cluster.

    Each has a network namespace, a containerd and a kubelet of its own, and the images that the
    first node had when it was added.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._settings = cluster.settings

    def add(self, name: str) -> None:
        """Adds a node, or repairs it, or brings back one that was stopped or lost.

        Raises:
            ClusterError: The cluster is down, something is missing, or a part does not start.
        """
        _require_root()
        if not self._cluster.healthy():
            raise ClusterError("the cluster is not up: `make cluster-up` starts it")
        preflight.require_memory(_MEMORY_GIB, "a further node and a pod or two need")
        node = self._whole(name) or claim_node(self._settings, name)
        steps = Steps(total=3)
        with steps.step("network, certificates, images"):
            self._prepare(node)
        with steps.step(f"start node {name}"):
            self._start(node)
        with steps.step(f"offer {FAKE_GPUS} GPUs (to the scheduler only)"):
            self._cluster.offer_gpus(name)
        steps.note(f"{name} is Ready")

    def stop(self, name: str) -> None:
        """Kills a node's kubelet and proxy; its pods serve on.

        Raises:
            ClusterError: There is no such node.
        """
        self._stop(self._require(name))

    def lose(self, name: str) -> None:
        """Cuts a node off, too: its pods run on where nobody reaches them.

        Raises:
            ClusterError: There is no such node.
        """
        node = self._require(name)
        node_network.cut(node)
        self._stop(node)

    @staticmethod
    def _stop(node: Node) -> None:
        recorder = teardown.recorder_of(node)
        for part in ("kubelet", "kube-proxy"):
            processes.stop(filter(None, [recorder.find(part)]), grace_seconds=0)

    def remove(self, name: str) -> None:
        """Ends a node with all that runs there, and removes it and its pods from Kubernetes.

        Raises:
            ClusterError: There is no such node, or something of it could not be removed.
        """
        _require_root()
        node = self._require(name)
        steps = Steps(total=1)
        with steps.step(f"end node {name} and remove what it made"):
            teardown.remove_node(node)
            if self._cluster.api_ready():
                self._cluster.kubectl("delete", "node", name, "--ignore-not-found")
                self._forget_pods(name)
        if left := teardown.node_leftovers(node):
            raise ClusterError(f"could not remove {', '.join(left)}")

    def _forget_pods(self, name: str) -> None:
        """Nobody can confirm their end, and nothing of them is left that could still run."""
        self._cluster.kubectl(
            "delete", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={name}",
            "--force", "--grace-period=0", "--wait=false",
        )  # fmt: skip

    def _require(self, name: str) -> Node:
        node = find_node(self._settings, name)
        if node is None:
            there = ", ".join(each.name for each in added_nodes(self._settings)) or "none"
            raise ClusterError(f"there is no further node {name!r} (there are: {there})")
        return node

    def _whole(self, name: str) -> Node | None:
        """A node of that name that can be repaired; what is beyond repair goes."""
        node = find_node(self._settings, name)
        if node is None:
            return None
        if node_network.exists(node) and teardown.recorder_of(node).find("containerd"):
            return node
        self.remove(name)
        return None

    def _prepare(self, node: Node) -> None:
        node.run.mkdir(parents=True, exist_ok=True)
        node_network.join(node)
        cgroups.create(node.cgroup)
        pki = node.state / "pki"
        if not (pki / "kube-proxy.crt").exists():
            certificates.make_node_certificates(node)
        for name in ("kubelet", "kube-proxy"):
            text = certificates.kubeconfig(self._settings, name, pki)
            write_private(node.state / f"{name}.kubeconfig", text)
        for name, text in configs.node_files(node).items():
            write_private(node.state / name, text)
        if not teardown.recorder_of(node).find("containerd"):
            shutil.rmtree(node.containerd_root, ignore_errors=True)
            image_sharing.share_images(self._settings.containerd_root, node.containerd_root)
            _forget_first_pods(node)

    def _start(self, node: Node) -> None:
        recorder = teardown.recorder_of(node)
        parts = daemons.Daemons(node, components.node_components(node), recorder)
        parts.start("containerd")
        parts.wait("containerd", lambda: containerd_ready(node))
        parts.start("kubelet", "kube-proxy")
        parts.wait(
            "kubelet", lambda: self._cluster.node_ready(node.name), starts=daemons.MOST_STARTS
        )


def _forget_first_pods(node: Node) -> None:
    """Leaves of the first node's records the images only.

    A kubelet that found its pods there would end them, for they are none of its own, and take their
    network interfaces away, which are where the records say. So this is done by a containerd that
    does not offer pods to anybody.
    """
    name, config = "containerd-alone", node.state / "containerd-alone.toml"
    write_private(config, configs.containerd(node, for_kubelet=False))
    line = ("containerd", "--config", str(config))
    recorder = teardown.recorder_of(node)
    alone = daemons.Daemons(node, {name: components.Component(name=name, command=line)}, recorder)
    alone.start(name)
    try:
        alone.wait(name, lambda: containerd_ready(node))
        if not teardown.forget_containers(node):
            raise ClusterError(f"the containerd of {node.name} cannot forget the first node's pods")
    finally:
        processes.stop(filter(None, [recorder.find(name)]), grace_seconds=5)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the local cluster belongs to root: run as root (sudo -E …)")
