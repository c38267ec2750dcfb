"""Status edited by hand: every leaf set to wrong values through the status subresource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.operators import World
from tests.walker.lane import Lane
from tests.walker.leaves import ENTRY, ITEM, Leaf
from tests.walker.surroundings import BASE
from tests.walker.walk import Visit

JSON = dict[str, Any]

MOST_WRITES = 25
"""Of putting a forged status right; a loop makes more."""
TIME = "2020-01-02T03:04:05Z"
LIST_KEYS = {
    "traffic": "revision",
    "revisions": "hash",
    "rejectedRevisions": "hash",
    "conditions": "type",
    "metricResults": "name",
}
RECORDS: dict[str, str] = {
    "schema": "a newer schema means that a newer operator wrote it: nothing is touched",
    "handledActs": "the only record of which acts were carried out; unknown ones are kept",
    "rejectedRevisions": "the record of what must not be rolled out again",
    "tokenSecret.uid": "a Secret is never read, so its uid is taken from the record",
    "trafficGeneration": "any number that routers have not confirmed is as good as another",
    "rollout.id": "only has to rise",
    "revisions[].hash": "two records go by that name, when it was made and promoted",
    "revisions[].createdAt": "the record of when; nothing else knows",
    "revisions[].promotedAt": "the record of when; nothing else knows",
    "conditions[].lastTransitionTime": "the record of when; nothing else knows",
}
"""Leaves that are records which nothing else could put right, and why; what is checked for them is
that children and traffic stay as they were."""

COMMANDS = ("traffic[]",)
"""Leaves that routers obey at once: until the operator has put them right (a reconcile later), a
router may be told to send to a revision without ready pods, which it then keeps at weight 0."""


def wrong_values(leaf: Leaf) -> list[Any]:
    """Values that the schema allows and that are not true."""
    schema = leaf.schema
    if "enum" in schema:
        return list(schema["enum"])
    if schema.get("format") == "date-time":
        return [TIME]
    match schema.get("type"):
        case "integer":
            return [max(schema.get("minimum", 0), 7), schema.get("maximum", 99)]
        case "number":
            return [0.5]
        case "object":
            return [{"forged": True}]
        case _:
            return ["forged"]


def lie(leaf: Leaf, value: Any, truth: JSON) -> JSON:
    """A merge patch of status with one wrong leaf; what its neighbours require is filled in."""
    patch: JSON = {}
    here: Any = patch
    for step, following in zip(leaf.path, (*leaf.path[1:], None), strict=True):
        if step == ITEM:
            continue
        name = "forged" if step == ENTRY else step
        if following is None:
            here[name] = value
            if name == "prefix":
                del here["exact"]  # a header has one of the two
        elif following == ITEM:
            true_items = truth.get(name) or []
            item = dict(true_items[0]) if true_items else {}
            if not true_items and name in LIST_KEYS:
                item[LIST_KEYS[name]] = "forged"
            item.update(_neighbours(name, item))
            here[name] = [item]
            here = item
        else:
            here[name] = {}
            here = here[name]
            here.update(_neighbours(name, here))
    return patch


def _neighbours(name: str, item: JSON) -> JSON:
    needed: dict[str, JSON] = {
        "traffic": {"weight": 100},
        "revisions": {"createdAt": TIME},
        "rejectedRevisions": {"reason": "Forged", "at": TIME},
        "metricResults": {"verdict": "Forged"},
        "decisions": {"at": TIME, "desired": 3, "reason": "Forged", "message": "forged"},
        "autoscaling": {"desired": 3},
        "rollout": {"id": 5, "revision": "forged", "step": 0, "startedAt": TIME},
        "tokenSecret": {"name": "forged", "uid": "forged"},
        "headerRoute": {"revision": "forged", "headers": [{"name": "x-forged", "exact": "1"}]},
        "headers": {"name": "x-forged", "exact": "1"},
        "mirror": {"revision": "forged", "percent": 5},
        "conditions": {
            "status": "True", "observedGeneration": 1, "lastTransitionTime": TIME,
            "reason": "Forged", "message": "forged",
        },
    }  # fmt: skip
    return {key: value for key, value in needed.get(name, {}).items() if key not in item}


async def forge_leaf(world: World, root: JSON, leaf: Leaf) -> Visit:
    """Forge one leaf in a lane of its own, and see it put right without harm."""
    visit = Visit(name=f"status.{leaf}")
    lane = Lane(world, root, "forge")
    try:
        await lane.start(BASE)
        home, record = lane.state(), _record(leaf)
        engines = {name: pod["metadata"]["uid"] for name, pod in lane.room.objects["pods"].items()}
        for value in wrong_values(leaf):
            visit.values += 1
            before = lane.writes()
            code, text = await lane.forge(lie(leaf, value, lane.resource()["status"]))
            if code != 200:
                visit.alarm(value, f"could not be forged: {code} {text[:200]}")
                continue
            visit.accepted = True
            difference = await _put_right(lane, home, children_only=record)
            if difference:
                visit.alarm(value, difference)
            if lane.writes() - before > MOST_WRITES:
                visit.alarm(value, f"{lane.writes() - before} writes to put it right")
            if not str(leaf).startswith(COMMANDS):
                for text in dict.fromkeys(lane.room.violations):
                    visit.alarm(value, text)
            lane.room.violations.clear()
        pods = {name: pod["metadata"]["uid"] for name, pod in lane.room.objects["pods"].items()}
        if pods != engines:
            visit.alarm("any", f"pods were replaced: {sorted(engines)} became {sorted(pods)}")
        visit.alarms += [f"{visit.name}: {text}" for text in lane.log_trouble()]
    except AssertionError as error:
        visit.alarms.append(f"{visit.name}: {error}")
    finally:
        await lane.stop()
    return visit


def _record(leaf: Leaf) -> bool:
    return any(str(leaf).startswith(key) for key in RECORDS)


async def _put_right(lane: Lane, home: JSON, *, children_only: bool) -> str:
    if not children_only:
        return await lane.becomes(home)
    await asyncio.sleep(1)
    await lane.rest()
    return await lane.becomes(home, only_children=True)


async def walk_status(
    world: World,
    root: JSON,
    found: Sequence[Leaf],
    *,
    lanes: int,
    report: Callable[[Visit], None] = lambda visit: None,
) -> list[Visit]:
    """Forge all leaves, several at once."""
    queue = list(reversed(found))
    visits: list[Visit] = []

    async def work() -> None:
        while queue:
            visit = await forge_leaf(world, root, queue.pop())
            visits.append(visit)
            report(visit)

    await asyncio.gather(*(work() for _ in range(lanes)))
    return visits
