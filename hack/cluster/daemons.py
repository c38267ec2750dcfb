"""Daemons of one network namespace: started, found, waited for."""

import time
from collections.abc import Callable, Mapping

from hack.cluster import cgroups, node_network, processes
from hack.cluster.components import Component
from hack.cluster.errors import ClusterError
from hack.cluster.node import Node

READY_SECONDS = 120.0
MOST_STARTS = 10


class Daemons:
    """Starts what `components` lists in a node's network namespace and cgroup."""

    def __init__(
        self, node: Node, parts: Mapping[str, Component], recorder: processes.Recorder
    ) -> None:
        self._node, self._parts, self._recorder = node, parts, recorder

    def start(self, *names: str) -> None:
        """Starts those that do not run."""
        groups = cgroups.create(self._node.cgroup)
        for name in names:
            if not self._recorder.find(name):
                line = [*node_network.inside(self._node), *self._parts[name].command]
                self._recorder.start(name, line, cgroups=groups)

    def wait(self, name: str, ready: Callable[[], bool], *, starts: int = 1) -> None:
        """Returns when a daemon is ready.

        Args:
            name: Of the daemon, which has been started.
            ready: Whether it is.
            starts: How often it may end; it is then started again, as an init system would. A
                kubelet ends when its containerd answers but has not taken up its pods yet.

        Raises:
            ClusterError: It ended, or is not ready in time; with the last line of its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if not self._recorder.find(name) and (starts := starts - 1):
                self.start(name)
            elif not self._recorder.find(name):
                raise ClusterError(f"{name} ended: {self._recorder.last_line(name)}")
            if time.monotonic() > deadline:
                said = self._recorder.last_line(name)
                raise ClusterError(f"{name} is not ready after {READY_SECONDS:.0f} s: {said}")
            time.sleep(0.2)

    def all_run(self) -> bool:
        """Whether every one of them runs."""
        return all(self._recorder.find(name) for name in self._parts)
