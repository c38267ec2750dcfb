"""Two operators and one Lease: what the old leader still sends is refused where the new one wrote.

The old leader's calls are distinguished from the new one's by the proxy they go through.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import ApiServer

from tests.faults import campaign
from tests.faults.faults import Call, Fault, Kind
from tests.faults.operators import Operator, World
from tests.faults.run import Run
from tests.faults.workloads import WORKLOADS, resource

JSON = dict[str, Any]

CREATE = next(each for each in WORKLOADS if each.name == "create")
FIRST_STATUS = Fault(kind=Kind.HOLD, at=0, plural="llmdeployments")
LOOKED_AGAIN_SECONDS = 1.5
"""A second after a pass that wrote something comes another; then the leader is idle."""
UPDATE = {"spec": {"model": {"source": "pvc://models/two", "servedName": "tiny"}}}

pytestmark = pytest.mark.timeout(240)


@dataclass
class Leaders:
    """A leader, its standby, and the resource they serve."""

    run: Run
    old: Operator
    new: Operator

    async def new_acts(self, plural: str = "") -> None:
        """Wait until the standby leads and has written to something of this kind, if given."""
        async with asyncio.timeout(120):
            while not any(
                _counts(call, status) and plural in {"", call.plural}
                for _, call, status in self.new.proxy.answers
            ):
                self.run.room.happened.clear()
                await self.run.room.happened.wait()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds in the namespace."""
        async with asyncio.timeout(60):
            while not holds():
                self.run.room.happened.clear()
                await self.run.room.happened.wait()

    def engine(self) -> JSON:
        """The engine Deployment; there is one revision."""
        (found,) = (
            body
            for name, body in self.run.room.objects["deployments"].items()
            if name.startswith("chat-rev-")
        )
        return found

    def written_by_old_after_new(self) -> list[str]:
        """Accepted writes of the old leader after the first one of the new leader."""
        first = min(when for when, call, status in self.new.proxy.answers if _counts(call, status))
        return [
            str(call)
            for when, call, status in self.old.proxy.answers
            if _counts(call, status) and when > first
        ]

    async def healthy_and_intact(self) -> None:
        """The resource ends as spec asks, and was served all the time."""
        await self.run.settle("Healthy")
        assert self.run.room.violations == []
        status = self.run.room.objects["llmdeployments"]["chat"]["status"]
        assert status["ready"] == "2/2"
        assert status["servedRevision"] == status["specRevision"]


def _generation(body: JSON) -> int:
    return int(body["metadata"]["generation"])


def _counts(call: Call, status: int) -> bool:
    return call.decides and status < 300


@asynccontextmanager
async def leaders(shared: World, fault: Fault | None = None) -> AsyncIterator[Leaders]:
    """A Healthy resource under a leader, and a standby beside it."""
    run = Run(shared, CREATE, None, None)
    old = Operator(shared, run.namespace, name="old", fault=fault, elects=True)
    new = Operator(shared, run.namespace, name="new", elects=True)
    try:
        await run.make_namespace()
        await old.start()
        await run.create(resource(replicas=1))
        await run.settle("Healthy")
        # The first write after the one that made an object only takes over its fields.
        await run.edit({"spec": {"replicas": 2}})
        await run.settle("Healthy")
        await new.start()
        async with asyncio.timeout(60):
            await old.proxy.quiet(LOOKED_AGAIN_SECONDS)
        old.proxy.arm()
        yield Leaders(run=run, old=old, new=new)
    finally:
        await new.stop()
        await old.stop()
        await run.end()


async def test_leader_when_it_is_killed_then_the_standby_goes_on_and_nothing_is_lost(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async with campaign.world(api_server, tmp_path) as shared, leaders(shared) as two:
        await two.run.edit(UPDATE)
        two.old.signal(signal.SIGKILL)
        await two.new_acts()
        await two.healthy_and_intact()


async def test_leader_when_its_api_path_stalls_then_what_it_had_sent_is_refused_later(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async with campaign.world(api_server, tmp_path) as shared, leaders(shared, FIRST_STATUS) as two:
        await two.run.edit(UPDATE)
        await asyncio.wait_for(two.old.proxy.holding.wait(), 30)
        await two.old.ended()  # it gives the Lease up before anybody else may take it
        await two.new_acts("llmdeployments")
        late = await two.old.proxy.release()
        await two.healthy_and_intact()
        # Reads and renewals of the Lease came behind it; one pass waits for one write at a time.
        assert [(str(call), outcome) for call, outcome in late if call.decides] == [
            ("patch llmdeployments/status chat", 409)
        ]
        assert two.written_by_old_after_new() == []


async def test_leader_when_a_late_write_hits_what_the_new_one_left_alone_then_it_is_put_right(
    api_server: ApiServer, tmp_path: Path
) -> None:
    late = Fault(kind=Kind.HOLD, at=0, plural="deployments")
    async with campaign.world(api_server, tmp_path) as shared, leaders(shared, late) as two:
        made = two.engine()
        await two.run.edit({"spec": {"replicas": 3}})
        await asyncio.wait_for(two.old.proxy.holding.wait(), 30)
        await two.run.edit({"spec": {"replicas": 2}})
        await two.old.ended()
        await two.healthy_and_intact()
        assert two.engine()["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        await two.old.proxy.release()
        await two.until(lambda: two.engine()["metadata"]["generation"] > _generation(made) + 1)
        await two.healthy_and_intact()
        assert two.engine()["spec"]["replicas"] == 2


async def test_leader_when_it_is_paused_then_it_ends_without_another_accepted_write(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async with campaign.world(api_server, tmp_path) as shared, leaders(shared) as two:
        await two.run.edit(UPDATE)
        two.old.signal(signal.SIGSTOP)
        await two.new_acts()
        two.old.signal(signal.SIGCONT)
        await two.old.ended()
        await two.healthy_and_intact()
        assert two.written_by_old_after_new() == []
