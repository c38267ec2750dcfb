"""Names the states of an LLMDeployment's life, and brings fleets there."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace

from llmfleet.planning.snapshot import JSON
from tests.unit.planning.fleet import Fleet, hash_of

Build = Callable[[], Fleet]
STATES: dict[str, Build] = {}
STEPS: list[JSON] = [
    {"setWeight": 25},
    {"pause": {"duration": "5m"}},
    {"setWeight": 50},
    {"pause": {}},
]
ROOM = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
"""What the scheduler says when all accelerators are taken."""


def state(name: str) -> Callable[[Build], Build]:
    """Names a state; the function brings a fleet there."""

    def keep(build: Build) -> Build:
        assert name not in STATES
        STATES[name] = build
        return build

    return keep


def reach(name: str) -> Fleet:
    """A fleet in a named state, of the caller's own."""
    found = _reached(name)
    # What hangs on it is never changed in place; copying all of it would take most of the time.
    return replace(
        found,
        raw=copy.deepcopy(found.raw),
        objects=dict(found.objects),
        replica_sets=dict(found.replica_sets),
        pods=dict(found.pods),
        ending=dict(found.ending),
        served=dict(found.served),
        events=[],
        plans=[],
    )


@functools.cache
def _reached(name: str) -> Fleet:
    return STATES[name]()


def until(world: Fleet, reason: str) -> Fleet:
    """Turn until Progressing has this reason, and stop where the decision was recorded."""
    for _ in range(60):
        world.reconcile()
        if world.condition("Progressing").get("reason") == reason:
            return world
        world.kubelet()
        world.routers()
        world.wait(1)
    raise AssertionError(f"never {reason}: {world.status()['message']}")


def rest(world: Fleet) -> None:
    """Everything runs until nothing has changed for longer than scaleDownDelay."""
    quiet = 0
    for _ in range(60):
        before, pods = world.writes, _lives(world)
        world.reconcile()
        world.kubelet()
        world.routers()
        world.wait(5)
        quiet = quiet + 1 if (world.writes, _lives(world)) == (before, pods) else 0
        if quiet == 3:
            return
    raise AssertionError(f"never at rest: {world.status()['message']}")


def _lives(world: Fleet) -> dict[str, tuple[bool, bool]]:
    return {name: (pod.ready, pod.deleting) for name, pod in world.pods.items()}


def new(world: Fleet) -> str:
    """The hash that spec asks for."""
    return hash_of(world.raw)
