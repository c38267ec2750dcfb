"""What ``/signals`` on the operator's own port answers: whether Prometheus has what it should have.

For people and ``kubectl llmfleet doctor``: nothing is decided by it. It is asked as the operator
asks it, from its place in the network and with its Secrets, when somebody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from llmfleet.cluster.caches import Caches
from llmfleet.cluster.environment import Environment
from llmfleet.cluster.observing import deployment_of
from llmfleet.cluster.prometheus_access import Connection, PrometheusAccess
from llmfleet.cluster.prometheus_fetch import KnownPod, Metric, Signals, fetch
from llmfleet.cluster.prometheus_problems import describe_problem, name_setting
from llmfleet.planning.clock import format_time
from llmfleet.planning.facts.pods import is_made_for
from llmfleet.planning.snapshot import JSON

KEPT_SECONDS: Final = 15.0
"""So long an answer is given again: whoever may look cannot make the operator ask all the time."""
MOST_NAMED: Final = 100
ENGINE: Final = Metric(name="vllm:num_requests_running", labels=("engine",))
ROUTER: Final = Metric(name="llmfleet_router_traffic_generation")
OPERATOR: Final = Metric(name="llmfleet_leader", scraped_by="monitoring.serviceMonitor.enabled")


class SignalsPage:
    """Answers at most once in ``KEPT_SECONDS`` anew.

    Args:
        environment: where Prometheus is, and who this pod is.
        caches: which engine and router pods there are.
    """

    def __init__(self, environment: Environment, caches: Caches) -> None:
        self._environment = environment
        self._caches = caches
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signals")
        self._asking = asyncio.Lock()
        self._kept: tuple[float, JSON] | None = None
        self._connection: Connection | None = None

    def close(self) -> None:
        """Ask no more; a question under way ends by its own timeout."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self) -> JSON:
        """The page (docs/contract.md, Operator)."""
        async with self._asking:
            if self._kept is None or time.monotonic() > self._kept[0] + KEPT_SECONDS:
                page = await self._ask()
                self._kept = (time.monotonic(), page)
            return self._kept[1]

    async def _ask(self) -> JSON:
        access = self._environment.prometheus
        if access is None:
            return {"schema": 1, "configured": False}
        wanted = (
            (OPERATOR, [self._self()]),
            (ENGINE, list(self._known("engine"))),
            (ROUTER, list(self._known("router"))),
        )
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._read, access, wanted
        )

    def _read(
        self, access: PrometheusAccess, wanted: Iterable[tuple[Metric, list[KnownPod]]]
    ) -> JSON:
        """In the thread, which alone uses the connection."""
        page: JSON = {"schema": 1, "configured": True, "problem": "", "metrics": []}
        if self._connection is None:
            self._connection = Connection(access)
        try:
            self._connection.custom_query("vector(1)")
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no answer
            problem = describe_problem(error)
            return {**page, "problem": problem, "chartValue": name_setting(problem)}
        now = datetime.now(UTC)
        for metric, pods in wanted:
            found = fetch(self._connection, metric, pods, now, matchers=access.matchers)
            page["metrics"].append(_describe(metric, found))
        return page

    def _known(self, component: str) -> Iterator[KnownPod]:
        """Ready pods of our own Deployments' ReplicaSets, whatever labels others carry."""
        for owner in self._caches.owners():
            replica_sets = self._caches.replica_sets(owner)
            for pod in self._caches.pods(owner):
                name = deployment_of(owner, pod)
                if pod.component != component or not pod.ready or not is_made_for(pod, name):
                    continue
                made_by = replica_sets.get(pod.controller.uid) if pod.controller else None
                if made_by is None or made_by.controller is None:
                    continue
                if (made_by.controller.kind, made_by.controller.name) == ("Deployment", name):
                    yield KnownPod(
                        owner=owner,
                        namespace=owner[0],
                        name=pod.name,
                        running_since=pod.running_since,
                    )

    def _self(self) -> KnownPod:
        namespace, name = self._environment.namespace, self._environment.pod_name
        return KnownPod(owner=(namespace, name), namespace=namespace, name=name, running_since=None)


def _describe(metric: Metric, found: Signals) -> JSON:
    without = [
        {"namespace": namespace, "name": name, "problem": signal.problem}
        for (namespace, name), signal in sorted(found.items())
        if signal.problem
    ]
    times = [signal.as_of for signal in found.values() if signal.as_of is not None]
    return {
        "metric": metric.name,
        "chartValue": metric.scraped_by,
        "asOf": format_time(max(times)) if times else None,
        "objects": len(found),
        "missing": len(without),
        "without": without[:MOST_NAMED],
    }
