"""One run of a workload: a namespace, a proxy, an operator process, and what came of it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.faults import OUTAGE_SECONDS, Fault, Kind
from tests.faults.operators import Operator, World
from tests.faults.player import Room
from tests.faults.workloads import Workload

JSON = dict[str, Any]

STALL_SECONDS = 240.0
"""A silent watch is given up after 150 s of silence (the operator's WATCH_SILENCE_SECONDS)."""
QUIET_SECONDS = 1.0
REFERENCE_QUIET_SECONDS = 3.0
TROUBLE = ("reconcile crashed", "stores a child otherwise", "Traceback")
FOR_MOMENTS = "and is left alone: rename or delete it"
"""Whether an object that is made again meets its predecessor's children is a matter of moments."""
_DIFFERS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "TIME"),
    (re.compile(r"trafficGeneration \d+"), "trafficGeneration N"),
    (re.compile(r"(chat-(?:router|rev-[0-9a-f]+))-\d+"), r"\1-N"),
)
"""What differs between two equal runs: times, and numbers that only have to be new."""
_VOLATILE = ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation")


class NotSettledError(AssertionError):
    """The resource did not get there in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an undisturbed run ends with, and what faults may strike on its way."""

    state: JSON
    created: Counter[str]
    """Object → how many of that name there ever were."""
    calls: tuple[str, ...]
    writes: tuple[int, ...]
    """Which of the calls write."""
    watched: dict[str, int]
    """Watch events by plural."""
    events: frozenset[str]
    """What Events say of the resource."""


class Run:
    """A workload under way."""

    def __init__(self, world: World, workload: Workload, fault: Fault | None, bug: str | None):
        self._world = world
        self._workload = workload
        self._fault = fault
        self._engines: set[str] = set()
        self.namespace = f"{workload.name}-{secrets.token_hex(4)}"
        self.operator = Operator(world, self.namespace, fault=fault, bug=bug)
        self.proxy = self.operator.proxy
        self.room: Room = world.player.enter(self.namespace)

    async def reference(self) -> Outcome:
        """Run undisturbed to the end.

        Raises:
            AssertionError: something is wrong even without faults.
        """
        try:
            await self._begin()
            await self._workload.action(self)
            await self._settle_at_the_end()
            await self._wait_quiet(REFERENCE_QUIET_SECONDS)
            self._check()
            return Outcome(
                state=self.state(),
                created=self._created(),
                calls=tuple(map(str, self.proxy.calls)),
                writes=tuple(n for n, call in enumerate(self.proxy.calls) if call.writes),
                watched=dict(self.proxy.watched),
                events=await self._events(),
            )
        finally:
            await self.end()

    async def disturbed(self, expected: Outcome) -> bool:
        """Run with the fault and compare with the undisturbed run.

        Returns:
            Whether the fault struck at all.

        Raises:
            AssertionError: an oracle was violated; the text says which.
        """
        try:
            await self._begin()
            await self._workload.action(self)
            await self._converge(expected.state)
            self._check()
            extra = self._created() - expected.created
            # A revision that fails at once may be rejected before its Service is made.
            missing = {
                name: count
                for name, count in (expected.created - self._created()).items()
                if not (name.startswith("services/chat-rev-") and not _stands(expected.state, name))
            }
            assert not extra, f"created more often than undisturbed: {dict(extra)}"
            assert not missing, f"never created: {missing}"
            if self._loses_answer_of_status():
                await self._wait_events(expected.events)
            return self.proxy.struck
        finally:
            await self.end()

    async def make_namespace(self) -> None:
        """Where the run takes place."""
        await self._must("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    async def end(self) -> None:
        """Stop whatever runs."""
        await self.operator.stop()
        await self._world.player.leave(self.namespace)
        await self._world.player.request("DELETE", self._resources("chat"))

    async def create(self, body: JSON) -> None:
        """A user applies the resource."""
        await self._must("POST", self._resources(), body)

    async def edit(self, patch: JSON) -> None:
        """A user edits it."""
        stored = await self._must("PATCH", self._resources("chat"), patch)
        # At once, or waiting might see the state before the edit and take it for the end.
        self.room.objects["llmdeployments"]["chat"] = stored

    async def delete(self) -> None:
        """A user deletes it and waits until it is gone."""
        await self._must("DELETE", self._resources("chat"))
        while "chat" in self.room.objects["llmdeployments"]:
            self.room.happened.clear()
            await self.room.happened.wait()

    async def merge(self, plural: str, name: str, patch: JSON) -> None:
        """Somebody edits a child."""
        self.room.objects[plural][name] = await self._must(
            "PATCH", self._child(plural, name), patch
        )

    async def remove(self, plural: str, name: str) -> None:
        """Somebody deletes a child."""
        uid = self.room.objects[plural][name]["metadata"]["uid"]
        await self._must("DELETE", self._child(plural, name))
        # The watch may already have brought its successor.
        if self.room.objects[plural].get(name, {}).get("metadata", {}).get("uid") == uid:
            self.room.objects[plural].pop(name)

    async def occupy(self, plural: str, body: JSON) -> None:
        """Somebody else makes an object that is none of ours."""
        await self._must("POST", self._child(plural), body)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds in the namespace."""
        try:
            async with asyncio.timeout(self._patience()):
                while not holds():
                    self.room.happened.clear()
                    await self.room.happened.wait()
        except TimeoutError:
            raise NotSettledError(f"it never got there: {self._said()}") from None

    async def upgrade(self) -> None:
        """Another build of the operator takes over; it begins with the routers' image."""
        await self.operator.restart(next_build=True)
        await self.until(lambda: ":next" in json.dumps(self.room.objects["deployments"]))

    async def settle(self, phase: str) -> None:
        """Wait until the resource has this phase for its present generation."""
        deadline = time.monotonic() + self._patience()
        while not self._is_settled(phase):
            if time.monotonic() > deadline:
                raise NotSettledError(f"not {phase} in time: {self._said()}")
            await asyncio.sleep(0.05)

    def state(self) -> JSON:
        """Everything in the namespace, without what differs between two equal runs."""
        found: JSON = {}
        for plural, bodies in self.room.objects.items():
            if plural == "replicasets":
                continue  # told by their pods, and named anew each time
            if plural == "pods":
                found[plural] = sorted(map(_pod_summary, bodies.values()))
            else:
                found[plural] = {name: _normal(plural, body) for name, body in bodies.items()}
        normal: JSON = json.loads(self._plain(json.dumps(found, sort_keys=True)))
        return normal

    def _plain(self, text: str) -> str:
        for uid in self.room.uids[("llmdeployments", "chat")]:
            text = text.replace(uid, "UID").replace(uid[:8], "UID")
        text = text.replace(self.namespace, "NAMESPACE")
        for pattern, instead in _DIFFERS:
            text = pattern.sub(instead, text)
        return text

    async def _begin(self) -> None:
        await self.make_namespace()
        await self.operator.start()
        await self._workload.setup(self)
        await self._wait_quiet(QUIET_SECONDS)
        self._engines = self._engine_uids()
        self.proxy.arm()

    async def _settle_at_the_end(self) -> None:
        if self._workload.phase is not None:
            await self.settle(self._workload.phase)

    async def _converge(self, wanted: JSON) -> None:
        deadline = time.monotonic() + self._patience()
        while True:
            self._check_pods()
            if self.state() == wanted and self.proxy.quiet_seconds() > QUIET_SECONDS:
                return
            if time.monotonic() > deadline:
                raise NotSettledError(difference(wanted, self.state()) or "it never got quiet")
            await asyncio.sleep(0.1)

    def _patience(self) -> float:
        if self._fault is None:
            return self._world.patience_seconds
        if self._fault.kind is Kind.STALL:
            return STALL_SECONDS
        return self._world.patience_seconds + OUTAGE_SECONDS.get(self._fault.kind, 0.0)

    async def _wait_quiet(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(self._patience()):
                await self.proxy.quiet(seconds)
        except TimeoutError:
            last = ", ".join(map(str, self.proxy.calls[-5:]))
            raise NotSettledError(f"calls never end: {last}") from None

    def _check_pods(self) -> None:
        assert not self.room.violations, "; ".join(dict.fromkeys(self.room.violations))
        if self._workload.keeps_engines:
            replaced = len(self._engines - self._engine_uids())
            assert self._engine_uids() == self._engines, f"{replaced} engine pods were replaced"

    def _check(self) -> None:
        self._check_pods()
        said = self.operator.log.read_text()
        for trouble in TROUBLE:
            assert trouble not in said, f"the operator's log says {trouble!r}: {self.operator.log}"

    def _loses_answer_of_status(self) -> bool:
        if self._fault is None or self._fault.kind is not Kind.LOSE_REPLY or not self.proxy.struck:
            return False
        return self.proxy.calls[self._fault.at].kind == "llmdeployments.llmfleet.dev/status"

    async def _events(self) -> frozenset[str]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        _, listed = await self._world.player.request("GET", path)
        notes = [self._plain(f"{one['reason']}: {one['note']}") for one in listed["items"]]
        return frozenset(note for note in notes if FOR_MOMENTS not in note)

    async def _wait_events(self, wanted: frozenset[str]) -> None:
        deadline = time.monotonic() + self._patience()
        while missing := wanted - await self._events():
            assert time.monotonic() < deadline, f"never said in an Event: {sorted(missing)}"
            await asyncio.sleep(0.1)

    def _engine_uids(self) -> set[str]:
        pods = self.room.objects["pods"].values()
        return {pod["metadata"]["uid"] for pod in pods if "-rev-" in pod["metadata"]["name"]}

    def _created(self) -> Counter[str]:
        """How many objects of each name there ever were, router pods aside."""
        count: Counter[str] = Counter()
        for (plural, name), uids in self.room.uids.items():
            if plural == "pods":
                if "-rev-" in name:
                    count["engine pods"] += len(uids)
            elif plural == "secrets":
                count["secrets"] += len(uids)
            elif plural != "replicasets":
                count[f"{plural}/{name}"] += len(uids)
        return count

    def _is_settled(self, phase: str) -> bool:
        found = self.room.objects["llmdeployments"].get("chat")
        status = (found or {}).get("status") or {}
        current = status.get("observedGeneration") == (found or {}).get("metadata", {}).get(
            "generation"
        )
        return bool(found) and current and status.get("phase") == phase

    def status(self) -> JSON:
        """Of the resource, as last seen."""
        found = self.room.objects["llmdeployments"].get("chat") or {}
        status: JSON = found.get("status") or {}
        return status

    def _said(self) -> str:
        return str(self.status().get("message") or "no status")

    def _resources(self, name: str = "") -> str:
        base = f"/apis/llmfleet.dev/v1alpha1/namespaces/{self.namespace}/llmdeployments"
        return f"{base}/{name}" if name else base

    def _child(self, plural: str, name: str = "") -> str:
        group = "/apis/apps/v1" if plural == "deployments" else "/api/v1"
        base = f"{group}/namespaces/{self.namespace}/{plural}"
        return f"{base}/{name}" if name else base

    async def _must(self, method: str, path: str, body: Any = None) -> JSON:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        status, answer = await self._world.player.request(method, path, body, kind)
        assert status in {200, 201, 202}, f"{method} {path}: {status} {answer.get('message')}"
        return answer


def _stands(state: JSON, name: str) -> bool:
    """Whether an object, as ``plural/name``, is part of a state."""
    plural, _, own = name.partition("/")
    return own in state.get(plural, {})


def _pod_summary(pod: JSON) -> str:
    labels = pod["metadata"]["labels"]
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    revision = labels.get("llmfleet.dev/revision", "")
    image = pod["spec"]["containers"][0]["image"]
    return f"{labels['llmfleet.dev/component']} {revision} {image} ready={ready}"


def _normal(plural: str, body: JSON) -> JSON:
    meta = {key: value for key, value in body["metadata"].items() if key not in _VOLATILE}
    kept = {key: value for key, value in body.items() if key != "status"}
    if plural == "llmdeployments":
        kept["status"] = {
            key: value
            for key, value in (body.get("status") or {}).items()
            if key not in {"trafficGeneration", "tokenSecret"}
        }
    if plural == "secrets":
        kept.pop("data", None)
    if plural == "configmaps":  # the number of the latest rollout only has to rise
        kept["data"] = {key: value for key, value in body["data"].items() if key != "rolloutId"}
    if plural == "services":
        kept["spec"] = {
            key: value
            for key, value in body["spec"].items()
            if key not in {"clusterIP", "clusterIPs"}
        }
    meta.pop("ownerReferences", None)
    owners = body["metadata"].get("ownerReferences") or []
    meta["owners"] = [f"{one['kind']}/{one['name']}/{one.get('controller')}" for one in owners]
    # The digest is of names and uids too, which differ from run to run.
    meta["annotations"] = {
        key: value
        for key, value in (meta.get("annotations") or {}).items()
        if key != "llmfleet.dev/digest"
    }
    return {**kept, "metadata": meta}


def difference(wanted: Any, found: Any, path: str = "") -> str:
    """Where two states differ, the first few places."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        parts = [
            difference(wanted.get(key), found.get(key), f"{path}/{key}")
            for key in sorted(set(wanted) | set(found))
            if wanted.get(key) != found.get(key)
        ]
        return "; ".join(parts[:4])
    return f"{path}: wanted {str(wanted)[:200]}, found {str(found)[:200]}"
