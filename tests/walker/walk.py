"""The walk: each leaf set to its values and back, random paths, and forged status."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.operators import World
from tests.walker.lane import Lane
from tests.walker.leaves import Leaf
from tests.walker.surroundings import BASE, build, example
from tests.walker.values import boundaries, refused

JSON = dict[str, Any]

REFUSALS = {400, 422}
MOST_REPLICAS = 8
"""Larger fleets are only checked to be accepted: the player makes pods one by one."""
FLEET_FIELDS = {"replicas", "autoscaling.minReplicas", "router.replicas"}
PATH_LENGTH = 5


@dataclass(slots=True, kw_only=True)
class Visit:
    """What came of one leaf or path.

    Attributes:
        name: the leaf, or the path.
        accepted: an accepted value other than the default was lived through and reverted.
        values: how many values were tried.
        alarms: what was wrong.
    """

    name: str
    accepted: bool = False
    values: int = 0
    alarms: list[str] = field(default_factory=list)

    def alarm(self, value: Any, text: str) -> None:
        """Note something wrong about a value."""
        self.alarms.append(f"{self.name} = {str(value)[:60]!r}: {text}")


async def prepare(world: World) -> None:
    """Make the cluster-wide objects that examples name."""
    for path, body in (
        ("/apis/scheduling.k8s.io/v1/priorityclasses", {"value": 1}),
        ("/apis/node.k8s.io/v1/runtimeclasses", {"handler": "walker"}),
    ):
        code, answer = await world.player.request(
            "POST", path, {"metadata": {"name": "walker"}, **body}
        )
        assert code in {201, 409}, answer


@contextlib.asynccontextmanager
async def open_lane(world: World, root: JSON, spec: JSON = BASE) -> AsyncIterator[Lane]:
    """A lane for the time of a ``with``, at rest on a spec."""
    lane = Lane(world, root)
    try:
        await lane.start(spec)
        yield lane
    finally:
        await lane.stop()


async def walk_leaf(lane: Lane, root: JSON, leaf: Leaf, home: JSON, *, edges: bool) -> Visit:
    """Set a leaf to wrong values, to valid ones, and revert.

    Args:
        lane: at rest on the base.
        root: schema of spec.
        leaf: which.
        home: the lane's state there.
        edges: also live through the boundary values, else only the example.
    """
    visit = Visit(name=str(leaf))
    for value in refused(leaf.schema):
        visit.values += 1
        code, text = await lane.put(build(root, leaf, value))
        if code not in REFUSALS:
            visit.alarm(value, f"not refused but answered {code}")
        elif leaf.field not in text:
            visit.alarm(value, f"the refusal does not name the field: {text[:200]}")
    if visit.alarms:
        await lane.put(BASE)
    again = leaf.field == "servedName" and len(leaf.path) == 2
    if again:
        await _immutable(lane, build(root, leaf, example(leaf)), visit)
    for number, value in enumerate([example(leaf), *boundaries(leaf.schema)]):
        if number and (again or not edges):
            break
        visit.values += 1
        await _live_through(lane, leaf, build(root, leaf, value), value, visit, first=not number)
    if again:
        await lane.delete()
        await lane.create(BASE)
    code, text = await lane.put(BASE)
    if code != 200:
        visit.alarm("the base", f"not accepted any more: {text}")
    elif difference := await lane.becomes(home):
        visit.alarm("reverted", difference)
    return visit


async def _immutable(lane: Lane, spec: JSON, visit: Visit) -> None:
    code, text = await lane.put(spec)
    if code not in REFUSALS or "immutable" not in text:
        visit.alarm("another value", f"answered {code}: {text[:200]}")
    await lane.delete()
    await lane.create(spec)


async def _live_through(
    lane: Lane, leaf: Leaf, spec: JSON, value: Any, visit: Visit, *, first: bool
) -> None:
    if str(leaf) in FLEET_FIELDS and isinstance(value, int) and value > MOST_REPLICAS:
        return
    code, text = await lane.put(spec)
    if code in REFUSALS:
        if first:
            visit.alarm(value, f"the example is refused: {text[:300]}")
        elif leaf.field not in text:
            visit.alarm(value, f"the refusal does not name the field: {text[:200]}")
        return
    if code != 200:
        visit.alarm(value, f"answered {code}: {text[:200]}")
        return
    await lane.settle()
    for text in lane.alarms():
        visit.alarm(value, text)
    if first:
        visit.accepted = True
        if lane.resource()["status"]["phase"] != "Healthy":
            visit.alarm(value, f"not Healthy: {lane.resource()['status']['message'][:300]}")


async def walk_path(world: World, root: JSON, lane: Lane, chosen: Sequence[Leaf]) -> Visit:
    """Go through several specs; the last one must look as if it had been the first."""
    visit = Visit(name=" → ".join(str(leaf) for leaf in chosen), accepted=True)
    spec = BASE
    for leaf in chosen:
        spec = build(root, leaf, example(leaf))
        visit.values += 1
        code, text = await lane.put(spec)
        if code != 200:
            visit.alarm(leaf, f"refused: {text[:200]}")
            return visit
        if len(visit.name) % 2:  # some are edited again before they are done
            await lane.settle()
    await lane.finish()
    for text in lane.alarms():
        visit.alarm("the end", text)
    async with open_lane(world, root, spec) as other:
        if difference := await lane.becomes(other.state(), 30):
            visit.alarm("the end", f"differs from a fresh start: {difference}")
    return visit


async def walk_all(
    world: World,
    root: JSON,
    found: Sequence[Leaf],
    *,
    lanes: int,
    paths: int,
    edges: bool,
    seed: int = 0,
    report: Callable[[Visit], None] = lambda visit: None,
) -> list[Visit]:
    """Walk all leaves, then random paths, in several lanes at once."""
    await prepare(world)
    rng = random.Random(seed)
    movable = [leaf for leaf in found if str(leaf) != "model.servedName"]
    queue: list[Leaf | list[Leaf]] = [
        *(rng.sample(movable, min(PATH_LENGTH, len(movable))) for _ in range(paths)),
        *reversed(found),
    ]
    visits: list[Visit] = []

    async def work() -> None:
        lane: Lane | None = None
        home: JSON = {}
        while queue:
            task = queue.pop()
            name = str(task) if isinstance(task, Leaf) else " → ".join(map(str, task))
            try:
                if lane is None:
                    lane = Lane(world, root)
                    await lane.start(BASE)
                    home = lane.state()
                if isinstance(task, Leaf):
                    visit = await walk_leaf(lane, root, task, home, edges=edges)
                else:
                    visit = await walk_path(world, root, lane, task)
                    await lane.put(BASE)
                    if difference := await lane.becomes(home):
                        visit.alarm("reverted", difference)
            except AssertionError as error:
                visit = Visit(name=name, alarms=[f"{name}: {error}"])
            visits.append(visit)
            report(visit)
            if visit.alarms and lane is not None:  # the next one begins anew
                await lane.stop()
                lane = None
        if lane is not None:
            await lane.stop()

    await asyncio.gather(*(work() for _ in range(lanes)))
    return visits
