"""The second node, where engines alone are put, and what is lost with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hack.cluster import node_network
from hack.cluster.further_nodes import FurtherNodes
from hack.cluster.local import LocalCluster
from hack.cluster.node import find_node, first_node
from hack.cluster.settings import NODE_NAME
from hack.cluster.shell import run
from hack.kube.kubectl import kubectl

from tests.e2e.prober import Prober
from tests.e2e.stub import StubFleet

JSON = dict[str, Any]
NAME = "second"
TAINT = "llmfleet.dev/test"
DRAIN_SECONDS = 20
EVICTED_AFTER_SECONDS = 5
"""Kubernetes' own 300 would make each test five minutes longer, and nothing else of it."""


class NodeFleet(StubFleet):
    """A fleet whose engines may go to the second node, and are soon evicted from a lost one."""

    def apply(self, **spec: Any) -> None:
        gone = {
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": EVICTED_AFTER_SECONDS,
        }
        tolerations = [
            {"key": TAINT, "operator": "Exists"},
            *(
                {"key": f"node.kubernetes.io/{what}", **gone}
                for what in ("not-ready", "unreachable")
            ),
        ]
        template = {**spec["podTemplate"], "tolerations": tolerations}
        super().apply(**spec | {"podTemplate": template, "drain": {"timeout": f"{DRAIN_SECONDS}s"}})

    def replace_one(self, revision: str) -> None:
        """Deletes one of a revision's pods, and waits until it is gone."""
        selector = f"llmfleet.dev/deployment={self.name},llmfleet.dev/revision={revision}"
        names = kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "name").split()
        kubectl("delete", names[0], "-n", self.namespace, timeout_seconds=90)

    def there(self) -> list[JSON]:
        """Its engine pods on the second node, those that end included."""
        selector = f"llmfleet.dev/deployment={self.name},llmfleet.dev/component=engine"
        listed = kubectl(
            "get", "pods", "-n", self.namespace, "-l", selector, "-o", "json",
            f"--field-selector=spec.nodeName={NAME}",
        )  # fmt: skip
        return list(json.loads(listed)["items"])

    def revisions_there(self) -> set[str]:
        """The revisions of these pods."""
        return {pod["metadata"]["labels"]["llmfleet.dev/revision"] for pod in self.there()}


class SecondNode:
    """Adds and loses it; nothing but engines is scheduled there."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._nodes = FurtherNodes(cluster)

    def add(self) -> None:
        """Makes it, without what an earlier one may have left."""
        self.remove()
        self._nodes.add(NAME)
        kubectl("taint", "node", NAME, f"{TAINT}=engines:NoSchedule", "--overwrite")

    def stop(self) -> None:
        """Kills its kubelet; its pods serve on."""
        self._nodes.stop(NAME)

    def lose(self) -> None:
        """Cuts it off as well."""
        self._nodes.lose(NAME)

    def remove(self) -> None:
        """Ends it with all that is there, if it is."""
        if find_node(self._cluster.settings, NAME):
            self._nodes.remove(NAME)

    def connections(self, fleet: NodeFleet) -> int:
        """Connections that somebody on the first node has open to its engines."""
        inside = node_network.inside(first_node(self._cluster.settings))
        known = run(
            [*inside, "conntrack", "-L", "-p", "tcp", "--state", "ESTABLISHED"], check=False
        )
        lost = [f"dst={pod['status']['podIP']} " for pod in fleet.there()]
        flows = (line.partition("src=")[2].partition("src=")[0] for line in known.splitlines())
        return sum("dport=8000 " in flow and any(ip in flow for ip in lost) for flow in flows)


@contextlib.contextmanager
def only(name: str) -> Iterator[None]:
    """Pods that are made meanwhile come to this node."""
    other = NODE_NAME if name == NAME else NAME
    kubectl("cordon", other)
    try:
        yield
    finally:
        kubectl("uncordon", other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A request that got no whole answer."""

    begun: float
    """In seconds since 1970, as its end."""
    ended: float
    why: str


def losses(load: Prober) -> list[Lost]:
    """What the prober has lost so far."""
    lines = kubectl("logs", load.pod, "-n", load.namespace).splitlines()
    found = (json.loads(line)["loss"] for line in lines if line.startswith('{"loss"'))
    return [Lost(begun=one["begun"], ended=one["ended"], why=one["why"]) for one in found]
