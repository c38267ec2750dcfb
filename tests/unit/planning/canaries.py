"""Canaries in the modelled cluster, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmfleet.planning.snapshot import JSON
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

STEPS = [
    {"setWeight": 25},
    {"pause": {"duration": "5m"}},
    {"setWeight": 50},
    {"pause": {}},
]


def canary(steps: list[JSON] | None = None, **policy: Any) -> JSON:
    base: JSON = {"strategy": "Canary", "maxSurge": 1, "scaleDownDelay": "10s", **policy}
    return base if steps is None else {**base, "steps": steps}


def started(
    policy: JSON | None = None, replicas: int = 4, *, broken: bool = False
) -> tuple[Fleet, str, str]:
    """A served revision, and another one wanted since the last decision."""
    world = Fleet(resource(replicas=replicas, rollout=policy or canary(STEPS)))
    world.settle()
    old = hash_of(world.raw)
    world.edit(model=model("two"))
    new = hash_of(world.raw)
    if broken:
        world.broken = frozenset({new})
    world.reconcile()
    return world, old, new


def split(world: Fleet) -> Mapping[str, int]:
    return {each["revision"]: each["weight"] for each in world.status().get("traffic", [])}


def at_share(world: Fleet, revision: str, share: int) -> None:
    """Turn until the revision's share is served."""
    for _ in range(40):
        turn(world)
        if split(world).get(revision, 0) == share:
            turn(world)
            return
    raise AssertionError(f"never at {share} %: {world.status()['message']}")


def annotate(world: Fleet, act: str, value: str | None) -> None:
    found = dict(world.raw["metadata"].get("annotations") or {})
    found[f"llmfleet.dev/{act}"] = value
    kept = {key: each for key, each in found.items() if each is not None}
    world.raw = {**world.raw, "metadata": {**world.raw["metadata"], "annotations": kept}}
    world._touch_resource()


def fail(world: Fleet, revision: str, facts: Mapping[str, Any]) -> None:
    """All pods of a revision are in this state, and stay there."""
    world.broken |= {revision}
    for name, pod in world.pods.items():
        if pod.revision == revision:
            world.pods[name] = replace(pod, ready=False, **facts)


def rejected(world: Fleet) -> dict[str, str]:
    return {each["hash"]: each["reason"] for each in world.status().get("rejectedRevisions", [])}


def memory(world: Fleet) -> JSON:
    found = next(each for key, each in world.objects.items() if key.kind == "ConfigMap")
    data: JSON = found.body["data"]
    return data
