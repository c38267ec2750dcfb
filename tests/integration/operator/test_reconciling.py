"""Reconciling with the real decision: a rollout from nothing to the next revision, and crashes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer
from hack.processes.fleet import Fleet, llm_deployment
from hack.processes.waiting import eventually

from llmfleet.cluster.errors import Conflict, NotLeading
from llmfleet.cluster.kinds import LLM_DEPLOYMENT
from llmfleet.cluster.store import Listing, ObjectStore
from llmfleet.cluster.watching import Reflector
from llmfleet.planning.decide import decide
from llmfleet.reconcile import Reconciler
from llmfleet.tasks import Tasks
from tests.faults.pods import build_pod, build_replica_set
from tests.integration.operator.effects import Effects, running_effects
from tests.integration.operator.fake_router import FakeRouter

JSON = dict[str, Any]
CHILD_KINDS = ("Deployment", "ControllerRevision", "Service", "ServiceAccount", "ConfigMap",
               "Secret", "PodDisruptionBudget", "Role", "RoleBinding")  # fmt: skip


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    server = FakeRouter()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fleet(api_server: ApiServer, namespace: str) -> Fleet:
    return Fleet(api_server, namespace)


class Kubelet:
    """Plays Deployment controller, kubelet and router agents of one LLMDeployment."""

    def __init__(self, fleet: Fleet, router: FakeRouter) -> None:
        self.fleet = fleet
        self.router = router
        self.broken: set[str] = set()

    def turn(self) -> JSON:
        """Make pods as Deployments want, serve what is commanded; returns the status."""
        for deployment in self.fleet.children("Deployment"):
            self._run(deployment)
        status: JSON = (self.fleet.resource() or {}).get("status") or {}
        generation = status.get("trafficGeneration")
        if generation != self.router.generation and generation is not None:
            self.router.serve(generation)
        return status

    def _run(self, deployment: JSON) -> None:
        name, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        pods = f"/api/v1/namespaces/{self.fleet.namespace}/pods"
        for number in range(4):
            pod = f"{name}-{number}"
            found = self.fleet.get(f"{pods}/{pod}")
            if number < wanted and found is None:
                self._start(deployment, pods, pod)
            elif number >= wanted and found is not None:
                self.fleet.server.request("DELETE", f"{pods}/{pod}", {"gracePeriodSeconds": 0})
        ready = 0 if name in self.broken else wanted
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        if (deployment.get("status") or {}) != status:
            path = self.fleet.path("Deployment", name) + "/status"
            self.fleet.patch(path, {"status": status}, "kube-controller-manager")

    def _start(self, deployment: JSON, pods: str, pod: str) -> None:
        template = deployment["spec"]["template"]
        replica_sets = f"/apis/apps/v1/namespaces/{self.fleet.namespace}/replicasets"
        name = f"{deployment['metadata']['name']}-rs"
        replica_set = self.fleet.get(f"{replica_sets}/{name}") or self.fleet.server.create(
            replica_sets, build_replica_set(name, deployment, template="")
        )
        body = build_pod(pod, replica_set, template="")
        self.fleet.server.create(pods, body)
        if deployment["metadata"]["name"] in self.broken:
            return
        now = "2026-01-02T03:04:05Z"
        status = {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("PodScheduled", "ContainersReady", "Ready")
            ],
            "containerStatuses": [
                {"name": container["name"], "ready": True, "restartCount": 0, "image": "x",
                 "imageID": "x", "state": {"running": {"startedAt": now}}}
                for container in template["spec"]["containers"]
            ],
        }  # fmt: skip
        self.fleet.patch(f"{pods}/{pod}/status", {"status": status}, "kubelet")


async def test_rollout_when_pods_and_routers_follow_then_it_ends_healthy_on_the_new_revision(
    fleet: Fleet, router: FakeRouter
) -> None:
    tasks: Tasks | None = None

    def wake(owner: tuple[str, str]) -> None:
        if tasks is not None:
            tasks.wake(owner)

    async with running_effects(fleet, wake, router.server_address[1]) as effects:
        tasks = Tasks(Reconciler(effects.observer, effects.applier, decide))
        seen: ObjectStore[str] = ObjectStore(lambda body: "", lambda owner: None)
        watch = Reflector(
            effects.api,
            "LLMDeployment",
            LLM_DEPLOYMENT.path(fleet.namespace),
            _Waker(tasks, seen),
            selectors={},
        )
        watching = asyncio.create_task(watch.run())
        kubelet = Kubelet(fleet, router)
        rollout = {"strategy": "RollingUpdate", "maxSurge": 1, "scaleDownDelay": "1s"}
        await asyncio.to_thread(
            fleet.apply, llm_deployment(rollout=rollout, router={"replicas": 1})
        )

        def healthy() -> JSON | None:
            status = kubelet.turn()
            done = status.get("phase") == "Healthy" and status["ready"] == "1/1"
            return status if done else None

        first = await asyncio.to_thread(eventually, healthy, "the first revision is served")
        assert first["traffic"] == [{"revision": first["specRevision"], "weight": 100}]
        path = fleet.resource_path("chat")
        await asyncio.to_thread(
            fleet.patch, path, {"spec": {"engine": {"maxModelLen": 512}}}, "kubectl"
        )

        def moved() -> JSON | None:
            status = healthy()
            return status if status and status["servedRevision"] != first["specRevision"] else None

        second = await asyncio.to_thread(eventually, moved, "the second revision is served")
        assert second["traffic"] == [{"revision": second["specRevision"], "weight": 100}]
        assert second["trafficGeneration"] != first["trafficGeneration"]

        def old_is_gone() -> bool:
            kubelet.turn()
            return fleet.child("Deployment", f"chat-rev-{first['specRevision']}") is None

        await asyncio.to_thread(eventually, old_is_gone, "the old revision's pods go")
        assert fleet.child("ControllerRevision", f"chat-rev-{first['specRevision']}") is not None
        await asyncio.to_thread(fleet.server.request, "DELETE", path)
        await asyncio.to_thread(eventually, lambda: tasks.known() == 0, "its task ends")
        assert tasks.problem() is None
        await tasks.stop(5)
        watching.cancel()


class _Waker:
    """Wakes the task of every LLMDeployment, as kopf's events do in the operator."""

    def __init__(self, tasks: Tasks, store: ObjectStore[str]) -> None:
        self._tasks = tasks
        self._store = store

    def begin_list(self, list_version: str | None, /) -> Listing:
        del list_version
        return Listing(take=self.put, end=lambda: None)

    def put(self, body: JSON, /) -> None:
        self._tasks.wake((body["metadata"]["namespace"], body["metadata"]["name"]))

    def remove(self, body: JSON, /) -> None:
        self.put(body)


def end_state(fleet: Fleet) -> list[tuple[str, str]]:
    """Children by kind and name, without the part of names that differs between owners."""
    listed = (
        (kind, one["metadata"]["name"].rsplit("-token-")[0])
        for kind in CHILD_KINDS
        for one in fleet.children(kind)
    )
    return sorted(listed)


async def crash_at(effects: Effects, write: int) -> bool:
    """Let ``write`` writes pass and end at the next; whether it came so far."""
    passed = itertools.count()
    effects.api.may_write = lambda: next(passed) < write
    for _ in range(20):
        try:
            if not await effects.step():
                return False
        except Conflict:
            continue
        except NotLeading:
            return True
    pytest.fail("20 steps were not enough")


async def test_operator_when_it_crashes_before_any_write_then_the_next_one_ends_the_same(
    api_server: ApiServer,
) -> None:
    states = []
    for write in itertools.count():
        fleet = Fleet(api_server, await asyncio.to_thread(api_server.create_namespace))
        fleet.apply(llm_deployment())
        async with running_effects(fleet) as effects:
            crashed = await crash_at(effects, write)
        async with running_effects(fleet) as effects:
            await effects.settle()
            assert not await effects.step()
        status = (fleet.resource() or {})["status"]
        assert status["tokenSecret"]["name"].startswith("chat-token-")
        states.append(end_state(fleet))
        if not crashed:
            break
    assert len(states) > 10, "a first deployment takes more writes than that"
    assert all(state == states[-1] for state in states)


async def test_spec_when_it_cannot_be_read_then_a_condition_names_the_field_and_no_more(
    api_server: ApiServer, fleet: Fleet
) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/llmdeployments.llmfleet.dev"
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    loosen = [{"op": "replace", "path": schema, "value": anything}]
    body = llm_deployment(drain={"timeout": "for ever"})
    try:
        fleet.patch(path, loosen, kind="json")

        def taken() -> bool:
            return fleet.server.request("POST", fleet.resource_path(), body).status_code == 201

        await asyncio.to_thread(eventually, taken, "the loose CRD takes it")
    finally:
        await asyncio.to_thread(api_server.install_crd)
    async with running_effects(fleet) as effects:
        tasks = Tasks(Reconciler(effects.observer, effects.applier, decide))
        tasks.wake(effects.owner)
        found = await asyncio.to_thread(
            eventually, lambda: fleet.condition("Accepted"), "it is reported"
        )
        assert (found["status"], found["reason"]) == ("False", "InvalidSpec")
        assert "drain" in found["message"]
        assert fleet.children("ConfigMap") == []
        version = (fleet.resource() or {})["metadata"]["resourceVersion"]
        tasks.wake(effects.owner)
        await tasks.stop(5)
        assert (fleet.resource() or {})["metadata"]["resourceVersion"] == version
