"""A small cluster in virtual time around the real ``decide``: pods, routers, conditional writes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from llmfleet.api import parse
from llmfleet.planning.decide import decide
from llmfleet.planning.plan import Child, ChildMode, Deletion, Plan
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import (
    JSON,
    NOT_COUNTED,
    Controller,
    ObjectKey,
    ObservedObject,
    ObservedPod,
    ObservedReplicaSet,
    OperatorSettings,
    RequestCounts,
    RouterState,
    Snapshot,
)
from tests.unit.planning.builders import (
    SETTINGS,
    START,
    UID,
    counted,
    engine_pod,
    hash_of,
    resource,
    silence,
)
from tests.unit.planning.oracles import DRAIN, check_plan, weights

__all__ = ["SETTINGS", "START", "UID", "Fleet", "counted", "engine_pod", "hash_of", "resource"]


def _routed(status: JSON) -> set[str]:
    """Revisions that get requests, or copies of them, beside the weights."""
    routing = status.get("routing") or {}
    by_rule = [routing[key]["revision"] for key in ("headerRoute", "mirror") if key in routing]
    return {*by_rule, *([routing["preview"]] if "preview" in routing else [])}


@dataclass
class Fleet:
    """The modelled cluster."""

    raw: JSON
    now: datetime = START
    broken: frozenset[str] = frozenset()
    lingering: int = 0
    """Turns for which the pods of a deleted Deployment stay as they were, before they end."""
    settings: OperatorSettings = SETTINGS
    objects: dict[ObjectKey, ObservedObject] = field(default_factory=dict)
    replica_sets: dict[str, ObservedReplicaSet] = field(default_factory=dict)
    """One for each Deployment, by uid."""
    pods: dict[str, ObservedPod] = field(default_factory=dict)
    ending: dict[str, int] = field(default_factory=dict)
    """ReplicaSets whose Deployment is gone, and for how many turns."""
    silent: dict[str, datetime] = field(default_factory=dict)
    """Routers that do not answer the operator, and since when."""
    served: dict[str, tuple[int, dict[str, int]]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    requests: dict[str, RequestCounts] | None = None
    requests_as_of: datetime | None = None
    """When the newest request was counted; None = just now."""
    plans: list[Plan] = field(default_factory=list)
    writes: int = 0
    counter: int = 1

    def snapshot(self) -> Snapshot:
        raw = copy.deepcopy(self.raw)
        routers = {
            name: silence(self.silent[name])
            if name in self.silent
            else Signal(value=RouterState(traffic_generation=generation), as_of=self.now)
            for name, (generation, _) in self.served.items()
        }
        return Snapshot(
            settings=self.settings,
            deployment=parse(raw),
            raw=raw,
            objects=dict(self.objects),
            pods=tuple(sorted(self.pods.values(), key=lambda pod: pod.name)),
            routers=routers,
            replica_sets=dict(self.replica_sets),
            requests=self._counts(),
        )

    def _counts(self) -> Signal[Mapping[str, RequestCounts]]:
        if self.requests is None:
            return NOT_COUNTED
        return Signal(value=self.requests, as_of=self.requests_as_of or self.now)

    def decide(self, snapshot: Snapshot | None = None) -> Plan:
        seen = snapshot or self.snapshot()
        plan = decide(seen, self.now)
        if self.counter % 4 == 0:  # often enough, and a third of the time is saved
            assert decide(seen, self.now) == plan
        self._check(seen, plan)
        return plan

    def reconcile(self, snapshot: Snapshot | None = None, crash_after: int | None = None) -> Plan:
        """Decide and apply; ``crash_after`` n writes the operator dies."""
        seen = snapshot or self.snapshot()
        plan = self.decide(seen)
        self.plans.append(plan)
        for done, _ in enumerate(self._apply(seen, plan), start=1):
            if done == crash_after:
                break
        return plan

    def kubelet(self) -> None:
        """Ended pods go, missing ones come, and those that can become ready do.

        Nothing happens to a pod whose node is lost.
        """
        self.pods = {
            name: pod for name, pod in self.pods.items() if pod.node_lost or not pod.deleting
        }
        for name, pod in self.pods.items():
            startable = pod.component == "engine" and pod.revision not in self.broken
            startable &= pod.phase != "Failed" and not pod.node_lost
            if startable and not pod.ready:
                self.pods[name] = replace(pod, ready=True, phase="Running", running_since=self.now)
        for found in list(self.objects.values()):
            if found.key.kind == "Deployment":
                self._scale(found)
        self._collect_garbage()

    def routers(self, which: int | None = None) -> None:
        """Routers take over the command in status."""
        status = self.raw.get("status") or {}
        names = sorted(name for name, pod in self.pods.items() if pod.component == "router")
        for index, name in enumerate(names):
            if which in (None, index) and name not in self.silent and status.get("traffic"):
                split = {each["revision"]: each["weight"] for each in status["traffic"]}
                reached = dict.fromkeys(_routed(status), 1) | split
                self.served[name] = (status["trafficGeneration"], reached)
                self.pods[name] = replace(self.pods[name], ready=True)
        self.served = {name: what for name, what in self.served.items() if name in self.pods}

    def edit(self, **spec: Any) -> None:
        self.raw = copy.deepcopy(self.raw)
        self.raw["spec"].update(spec)
        self.raw["metadata"]["generation"] += 1
        self._touch_resource()

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, rounds: int = 80) -> Plan:
        """Everything runs in turn until nothing changes any more."""
        for _ in range(rounds):
            before, pods = self.writes, dict(self.pods)
            plan = self.reconcile()
            self.kubelet()
            self.routers()
            self.wait(5)
            quiet = self.writes == before and self.pods == pods and not self.ending
            if quiet and plan.requeue_after is None:
                return plan
        return plan

    def status(self) -> JSON:
        return self.raw.get("status") or {}

    def condition(self, kind: str) -> JSON:
        return next(
            (each for each in self.status().get("conditions", []) if each["type"] == kind), {}
        )

    def replicas(self) -> dict[str, int]:
        """Wanted replicas by revision."""
        return {
            key.name.removeprefix("chat-rev-"): found.body["spec"]["replicas"]
            for key, found in self.objects.items()
            if key.kind == "Deployment" and key.name != "chat-router"
        }

    def controller(self, deployment: str) -> Controller:
        """The ReplicaSet of a Deployment as an owner of pods; made if there is none yet."""
        key = ObjectKey(api_version="apps/v1", kind="Deployment", name=deployment)
        owner = Controller(kind="Deployment", name=deployment, uid=self.objects[key].uid)
        uid = f"rs-{owner.uid}"
        self.replica_sets.setdefault(
            uid, ObservedReplicaSet(uid=uid, controller=owner, refused=None)
        )
        return Controller(kind="ReplicaSet", name=f"{deployment}-0", uid=uid)

    def add_pod(self, revision: str, **facts: Any) -> str:
        """A pod of a revision's Deployment; returns its name."""
        deployment = f"chat-rev-{revision}"
        pod = engine_pod(
            f"{deployment}-{self._next()}",
            **{"revision": revision, "controller": self.controller(deployment), **facts},
        )
        self.pods[pod.name] = pod
        return pod.name

    def end(self, name: str) -> None:
        """Somebody deletes a pod; it has no grace period."""
        self.pods[name] = replace(self.pods[name], deleting=True, ends_at=self.now)

    def lose_node(self, name: str, node: str = "n1") -> None:
        """The node of a pod does not report any more, and Kubernetes has noticed it."""
        self.pods[name] = replace(
            self.pods[name], node=node, node_lost=True, ready=False, unready_since=self.now
        )

    def refuse(self, deployment: str, sentence: str | None) -> None:
        """The API server admits no more pods of a Deployment, or does again."""
        uid = self.controller(deployment).uid
        self.replica_sets[uid] = replace(self.replica_sets[uid], refused=sentence)

    def ready(self, revision: str) -> int:
        return sum(p.ready and not p.deleting for p in self.pods.values() if p.revision == revision)

    def _scale(self, found: ObservedObject) -> None:
        wanted = found.body["spec"]["replicas"]
        labels = found.body["spec"]["template"]["metadata"]["labels"]
        revision = labels.get("llmfleet.dev/revision")
        component = labels["llmfleet.dev/component"]
        made_by = self.controller(found.key.name)
        mine = [
            pod
            for pod in self.pods.values()
            if pod.controller == made_by and not pod.deleting and pod.phase != "Failed"
        ]
        mine.sort(key=lambda pod: (pod.ready, pod.name))
        for pod in mine[: max(0, len(mine) - wanted)]:
            self.end(pod.name)
        for _ in range(wanted - len(mine)):
            name = f"{found.key.name}-{self._next()}"
            self.pods[name] = engine_pod(
                name,
                component=component,
                revision=revision,
                created_at=self.now,
                controller=made_by,
            )

    def _collect_garbage(self) -> None:
        """What a Deployment left ends, each ReplicaSet with its pods."""
        living = {found.uid for key, found in self.objects.items() if key.kind == "Deployment"}
        for uid, each in list(self.replica_sets.items()):
            if each.controller is None or each.controller.uid in living:
                continue
            self.ending[uid] = self.ending.get(uid, 0) + 1
            if self.ending[uid] <= self.lingering:
                continue
            del self.replica_sets[uid], self.ending[uid]
            for name, pod in self.pods.items():
                if pod.controller is not None and pod.controller.uid == uid:
                    self.end(name)

    def _apply(self, seen: Snapshot, plan: Plan) -> Iterator[None]:
        urgent = [x for x in plan.children if x.urgent and x.key not in seen.objects]
        deployed = any(key.kind == "Deployment" for key in seen.objects)
        if urgent and not deployed and not (seen.raw.get("status") or {}).get("phase"):
            yield from self._begin(urgent)
            return
        if plan.status is not None and plan.status != self.raw.get("status"):
            if seen.raw["metadata"]["resourceVersion"] != self.raw["metadata"]["resourceVersion"]:
                return
            self.raw = {**self.raw, "status": plan.status}
            self._touch_resource()
            yield
        for child in plan.children:
            live = self.objects.get(child.key)
            known = seen.objects.get(child.key)
            if child.key.kind == "Secret":
                identity = {"name": child.key.name, "uid": "secret-uid"}
                self.raw = {**self.raw, "status": {**self.status(), "tokenSecret": identity}}
                self._touch_resource()
                yield
                continue
            if (live is None) != (known is None):
                return
            if live is not None and known is not None:
                if child.mode is ChildMode.CREATE_ONCE or live.body == child.body:
                    continue
                if live.resource_version != known.resource_version:
                    return
            self._store(child)
            yield
        for deletion in plan.deletions:
            if deletion.key.kind == "Pod":
                self._delete_pod(deletion)
                yield
                continue
            live = self.objects.get(deletion.key)
            if live is None or live.resource_version != deletion.resource_version:
                return
            self._check_deletion(deletion.key, seen)
            del self.objects[deletion.key]
            self.writes += 1
            yield
        self.events += [event.reason for event in plan.events]

    def _delete_pod(self, deletion: Deletion) -> None:
        pod = self.pods.get(deletion.key.name)
        if pod is not None and pod.uid == deletion.uid:
            self.pods[pod.name] = replace(pod, deleting=True)
            self.writes += 1

    def _begin(self, urgent: list[Child]) -> Iterator[None]:
        """A new resource's engine, and no more in this pass."""
        for child in urgent:
            if child.key in self.objects:
                return
            self._store(child)
            yield

    def _store(self, child: Child) -> None:
        owners = child.body["metadata"].get("ownerReferences")
        live = self.objects.get(child.key)
        self.objects[child.key] = ObservedObject(
            key=child.key,
            uid=live.uid if live else f"uid-{self._next()}",
            resource_version=str(self._next()),
            owner_uid=owners[0]["uid"] if owners else None,
            deleting=False,
            body=child.body,
        )
        self.writes += 1

    def _check(self, seen: Snapshot, plan: Plan) -> None:
        check_plan(seen, plan, self.now)
        if plan.status is None:
            return
        before = {share.revision: share.weight for share in seen.deployment.status.traffic}
        for each in plan.status.get("traffic", []):
            key = ObjectKey(
                api_version="apps/v1", kind="Deployment", name=f"chat-rev-{each['revision']}"
            )
            gains = each["weight"] > before.get(each["revision"], 0)
            if gains and each["revision"] != plan.status.get("servedRevision"):
                assert self._ready_of(key, seen), f"{each['revision']} gains without a ready pod"

    def _ready_of(self, key: ObjectKey, seen: Snapshot) -> int:
        """Ready pods of a Deployment, told by its uid."""
        found = seen.objects.get(key)
        uid = None if found is None else f"rs-{found.uid}"
        made = (pod for pod in seen.pods if pod.controller is not None)
        return sum(
            pod.ready and not pod.deleting
            for pod in made
            if pod.controller is not None and pod.controller.uid == uid
        )

    def _check_deletion(self, key: ObjectKey, seen: Snapshot) -> None:
        if key.kind != "Deployment":
            return
        revision, told = key.name.removeprefix("chat-rev-"), seen.raw.get("status") or {}
        for name, (generation, split) in self.served.items():
            if generation == told.get("trafficGeneration") and split != weights(told):
                continue  # somebody wrote another split under its number: nobody can know
            ready = name in self.pods and self.pods[name].ready
            lost = self.now - self.silent.get(name, self.now) >= DRAIN
            busy = ready and not lost and split.get(revision) and self.ready(revision)
            assert not busy, f"{revision} deleted while {name} sends it requests"

    def _touch_resource(self) -> None:
        metadata = {**self.raw["metadata"], "resourceVersion": str(self._next())}
        self.raw = {**self.raw, "metadata": metadata}
        self.writes += 1

    def _next(self) -> int:
        self.counter += 1
        return self.counter
