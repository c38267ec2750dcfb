"""One namespace with an operator process of its own, through which values are walked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.faults.operators import World
from tests.faults.run import TROUBLE, Run, difference
from tests.faults.workloads import Workload
from tests.walker.oracles import BY_WALKER, PROMOTE, SETTLED, fresh, problems

JSON = dict[str, Any]

PATIENCE_SECONDS = 120.0
QUIET_SECONDS = 0.5
STUCK_SECONDS = 12.0
"""Quiet for this long without being Healthy or Degraded: it waits for something."""
MOST_PROMOTIONS = 10
"""By hand, of one rollout; one that needs more is stuck."""
MERGE = "application/merge-patch+json"


async def _nothing(_: Run) -> None:
    return


class Lane:
    """A user who edits one LLMDeployment, and looks closely after each edit.

    Args:
        world: shared by all lanes.
        root: the schema of spec.
        name: begins the namespace's name.
    """

    def __init__(self, world: World, root: JSON, name: str = "walk") -> None:
        self._world = world
        self._root = root
        self._run = Run(world, Workload(name=name, setup=_nothing, action=_nothing), None, None)
        self.namespace = self._run.namespace
        self.room = self._run.room

    async def start(self, spec: JSON) -> None:
        """Make the namespace and the resource, and wait until it is served."""
        await self._run.make_namespace()
        await self._run.operator.start()
        self._run.proxy.arm()
        await self.create(spec)

    async def stop(self) -> None:
        """End everything."""
        await self._run.end()

    async def create(self, spec: JSON) -> None:
        """Create the resource and wait until it is settled."""
        body = {
            "apiVersion": "llmfleet.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": "chat"},
            "spec": spec,
        }
        code, answer = await self._world.player.request("POST", self.path(), body)
        assert code == 201, f"refused: {answer['message']}"
        self.room.objects["llmdeployments"]["chat"] = answer
        await self.settle()

    async def delete(self) -> None:
        """Delete the resource and wait until its children are gone."""
        await self._run.delete()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.room.objects["deployments"] or self.room.objects["pods"]:
            assert time.monotonic() < deadline, "children outlive their owner"
            await asyncio.sleep(0.05)

    async def put(self, spec: JSON) -> tuple[int, str]:
        """Replace the spec; the API server's status and sentence."""
        for _ in range(20):
            _, live = await self._world.player.request("GET", self.path("chat"))
            body = {**live, "spec": spec}
            code, answer = await self._world.player.request("PUT", self.path("chat"), body)
            if code != 409:
                break
        if code == 200:
            self.room.objects["llmdeployments"]["chat"] = answer
        return code, str(answer.get("message") or "")

    async def finish(self) -> None:
        """Wait until it rests, and promote by hand what waits for that."""
        await self.settle()
        for _ in range(MOST_PROMOTIONS):
            status = self.resource()["status"]
            if status["phase"] != "Paused":
                break
            act = {PROMOTE: f"{status['rollout']['revision']}{BY_WALKER}{time.time_ns()}"}
            code, answer = await self._world.player.request(
                "PATCH", self.path("chat"), {"metadata": {"annotations": act}}, MERGE
            )
            assert code == 200, answer
            await self.settle()

    async def forge(self, patch: JSON) -> tuple[int, str]:
        """Edit the status subresource by hand; the API server's status and sentence."""
        path = f"{self.path('chat')}/status"
        code, answer = await self._world.player.request("PATCH", path, {"status": patch}, MERGE)
        if code == 200:
            self.room.objects["llmdeployments"]["chat"] = answer
        return code, str(answer.get("message") or "")

    def resource(self) -> JSON:
        """The resource as last seen."""
        return self.room.objects["llmdeployments"].get("chat") or {}

    def state(self) -> JSON:
        """Everything in the namespace, comparable between namespaces."""
        return fresh(self._run.state())

    def writes(self) -> int:
        """Write calls of the operator so far."""
        return sum(call.writes for call in self._run.proxy.calls)

    def path(self, name: str = "") -> str:
        """Of the resources, or of one."""
        base = f"/apis/llmfleet.dev/v1alpha1/namespaces/{self.namespace}/llmdeployments"
        return f"{base}/{name}" if name else base

    async def settle(self) -> None:
        """Wait until it rests.

        Raises:
            AssertionError: it never does.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            quiet = self._run.proxy.quiet_seconds()
            resource = self.resource()
            status = resource.get("status") or {}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            patience = QUIET_SECONDS if status.get("phase") in SETTLED else STUCK_SECONDS
            if current and quiet > patience:
                return
            assert time.monotonic() < deadline, f"never at rest: {status.get('message')}"
            await asyncio.sleep(0.05)

    def alarms(self) -> list[str]:
        """What is wrong now."""
        found = list(problems(self.resource(), self.room, self._root))
        found += dict.fromkeys(self.room.violations)
        self.room.violations.clear()
        return found + self.log_trouble()

    def log_trouble(self) -> list[str]:
        """What the operator's log must never say."""
        said = self._run.operator.log.read_text(encoding="utf-8")
        return [f"the operator's log says {word!r}" for word in TROUBLE if word in said]

    async def rest(self) -> None:
        """Wait until the operator is quiet, whatever the status says."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._run.proxy.quiet_seconds() < QUIET_SECONDS:
            assert time.monotonic() < deadline, "calls never end"
            await asyncio.sleep(0.05)

    async def becomes(
        self, wanted: JSON, seconds: float = 40.0, *, only_children: bool = False
    ) -> str:
        """Wait for a state; what differs when it does not come, else an empty text.

        Args:
            wanted: of ``state``.
            seconds: to wait at most.
            only_children: what the resource and its memory say may differ.
        """
        deadline = time.monotonic() + seconds
        if only_children:
            wanted = _children(wanted)
        while (found := _children(self.state()) if only_children else self.state()) != wanted:
            if time.monotonic() > deadline:
                return difference(wanted, found)
            await asyncio.sleep(0.1)
        return ""


def _children(state: JSON) -> JSON:
    return {key: one for key, one in state.items() if key not in {"llmdeployments", "configmaps"}}
