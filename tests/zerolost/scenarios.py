"""What is done to the cluster under load: begin, turns as long as load is wanted, end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from hack.cluster.local import LocalCluster
from hack.kube import chart
from hack.kube.kubectl import KubectlError, get, kubectl, list_objects, wait_for

from tests.e2e.fleet import Fleet
from tests.zerolost.journal import Journal

JSON = dict[str, Any]
OUTAGE_SECONDS = 120
KILL_SECONDS = 5
PROMETHEUS = ("deployment/prometheus", "-n", "monitoring")


class Scenario(ABC):
    """One kind of trouble; each method blocks for a bounded time."""

    name: str
    target: str
    turns = 1
    """Fewest turns that make the scenario worth its name."""
    repeats = True
    """Whether more turns follow until enough requests were sent."""
    extra = False
    """Whether it runs only when named."""
    loses = False
    """Whether it is the control, in which requests must be lost, or the count proves nothing."""

    def __init__(self, fleet: Fleet, cluster: LocalCluster, journal: Journal) -> None:
        self.fleet, self.cluster, self.journal = fleet, cluster, journal

    @abstractmethod
    def begin(self) -> None:
        """The trouble starts."""

    @abstractmethod
    def turn(self) -> None:
        """Some seconds of it."""

    @abstractmethod
    def end(self) -> None:
        """The trouble is over; also called after an error."""


class OperatorKilled(Scenario):
    """The leader's pod is deleted without grace every 5 s, while replicas go up and down."""

    name = "operator-killed"
    target = "operator killed every 5 s"
    turns = 24

    def begin(self) -> None:
        self._turn = 0
        self._replicas = int(self.fleet.object()["spec"]["replicas"])

    def turn(self) -> None:
        begun = time.monotonic()
        self._turn += 1
        if self._turn % 6 == 0:  # something to do for whoever leads
            wanted = self._replicas - 1 + self._turn // 6 % 2
            self.fleet.scale(wanted)
            self.journal.note(f"scaled to {wanted}")
        pods = _operator_pods()
        holder = str(((get("lease", "llmfleet-operator", chart.NAMESPACE) or {}).get("spec") or {})
                     .get("holderIdentity") or "")  # fmt: skip
        leading = [pod for pod in pods if pod["metadata"]["uid"] in holder]
        for pod in leading or pods[:1]:
            name = pod["metadata"]["name"]
            kubectl("delete", "pod", name, "-n", chart.NAMESPACE, "--grace-period=0", "--force")
            self.journal.note(f"killed {'the leader' if leading else 'a standby'} {name}")
        time.sleep(max(0.0, begun + KILL_SECONDS - time.monotonic()))

    def end(self) -> None:
        self.fleet.scale(self._replicas)
        kubectl("rollout", "status", "deployment/llmfleet", "-n", chart.NAMESPACE, "--timeout=90s",
                timeout_seconds=100)  # fmt: skip
        self.fleet.wait_until_healthy()


class ApiServerDown(Scenario):
    """The kube-apiserver's process is stopped for two minutes, and the controllers with it.

    A controller manager that cannot renew its lease ends and is started again; the local cluster's
    has no lease, so it is ended here.
    """

    name = "api-server-down"
    target = "API server down 2 minutes"
    repeats = False
    _parts: tuple[str, ...] = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")

    def begin(self) -> None:
        for name in self._parts:
            self.cluster.stop_component(name)
        self.journal.note(f"stopped {', '.join(self._parts)}")

    def turn(self) -> None:
        time.sleep(OUTAGE_SECONDS)

    def end(self) -> None:
        for name in self._parts:
            self.cluster.start_component(name)
            self.journal.note(f"{name} runs again")
        wait_for("the node to be Ready", self._node_is_ready, timeout_seconds=120)
        self.fleet.wait_until_healthy()

    @staticmethod
    def _node_is_ready() -> bool:
        conditions = list_objects("nodes")[0]["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class ApiServerOnlyDown(ApiServerDown):
    """The same with a controller manager that lives through it, as one without a lease does.

    When the API server is back, it holds the node for dead before the kubelet can say otherwise,
    and makes all pods unready for seconds: new connections are refused, routers answer 503.
    """

    name = "api-server-only-down"
    target = "API server down 2 minutes, controllers without leases"
    extra = True
    _parts = ("kube-apiserver",)


class PodsDeleted(Scenario):
    """Pods of one component are deleted one after the other, the next when all are ready."""

    component: str
    how: tuple[str, ...] = ("--wait=false",)

    def begin(self) -> None:
        pods = self._ready()
        self._count, self._next = len(pods), 0
        self.turns = 2 * len(pods)

    def turn(self) -> None:
        pods = sorted(self._ready(), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        name = pods[0]["metadata"]["name"]
        kubectl("delete", "pod", name, "-n", self.fleet.namespace, *self.how)
        self.journal.note(f"deleted {name}")
        wait_for(
            f"{self._count} ready {self.component} pods",
            lambda: len(self._ready(apart_from=name)) == self._count,
            timeout_seconds=240,
            describe=self.fleet.describe,
        )
        self.journal.note(f"{self._count} {self.component} pods are ready")

    def end(self) -> None:
        self.fleet.wait_until_healthy()

    def _ready(self, apart_from: str = "") -> list[JSON]:
        return [
            pod
            for pod in self.fleet.pods(self.component)
            if pod["metadata"]["name"] != apart_from and is_ready(pod)
        ]


class RoutersDeleted(PodsDeleted):
    """Router pods."""

    name = "routers-deleted"
    target = "router pods deleted in turn"
    component = "router"


class EnginesDeleted(PodsDeleted):
    """Runtime pods."""

    name = "runtimes-deleted"
    target = "runtime pods deleted in turn"
    component = "engine"


class EnginesKilled(EnginesDeleted):
    """The control: without grace there is no drain, and what was in flight is lost."""

    name = "control"
    target = "control, runtime pods killed without grace"
    how = ("--grace-period=0", "--force")
    loses = True


class PrometheusDown(Scenario):
    """Prometheus is scaled to nothing, and a pod of the fleet is added and removed meanwhile."""

    name = "prometheus-down"
    target = "Prometheus down"

    def begin(self) -> None:
        kubectl("scale", *PROMETHEUS, "--replicas=0")
        kubectl("wait", "pod", "-l", "app=prometheus", "-n", "monitoring", "--for=delete",
                "--timeout=60s", timeout_seconds=70)  # fmt: skip
        self.journal.note("Prometheus is gone")
        self._replicas = int(self.fleet.object()["spec"]["replicas"])

    def turn(self) -> None:
        for replicas in (self._replicas - 1, self._replicas):
            self.fleet.scale(replicas)
            self.journal.note(f"scaled to {replicas}")
            self.fleet.wait_for_engines(replicas)
        self.fleet.wait_until_healthy()

    def end(self) -> None:
        self.fleet.scale(self._replicas)
        kubectl("scale", *PROMETHEUS, "--replicas=1")
        kubectl("rollout", "status", *PROMETHEUS, "--timeout=60s", timeout_seconds=70)
        self.journal.note("Prometheus is back")


SCENARIOS: tuple[type[Scenario], ...] = (
    EnginesKilled, OperatorKilled, ApiServerDown, RoutersDeleted, EnginesDeleted, PrometheusDown,
    ApiServerOnlyDown,
)  # fmt: skip


def is_ready(pod: JSON) -> bool:
    """Whether the kubelet says so."""
    conditions = pod["status"].get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _operator_pods() -> list[JSON]:
    try:
        pods = list_objects("pods", chart.NAMESPACE, "app.kubernetes.io/name=llmfleet")
    except KubectlError:
        return []
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
