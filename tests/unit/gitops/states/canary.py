"""A canary on its way forward."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.gitops.states.registry import JSON, ROOM, STEPS, new, reach, rest, state, until
from tests.unit.planning.builders import silence
from tests.unit.planning.canaries import annotate, canary, fail
from tests.unit.planning.fleet import Fleet, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn


@state("canary: spec changed, not seen yet")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(model=model("two"))
    return world


@state("canary: first decision")
def _() -> Fleet:
    return until(reach("canary: spec changed, not seen yet"), "CreatingRevision")


@state("canary: pods start")
def _() -> Fleet:
    return until(reach("canary: spec changed, not seen yet"), "WaitingForReady")


@state("canary: without room")
def _() -> Fleet:
    world = reach("canary: first decision")
    world.kubelet()
    fail(world, new(world), {"unschedulable": ROOM, "unschedulable_since": world.now})
    world.wait(86400)
    turn(world, 2)
    return world


@state("canary: routers take over")
def _() -> Fleet:
    return until(reach("canary: spec changed, not seen yet"), "ShiftingTraffic")


@state("canary: a router is silent")
def _() -> Fleet:
    world = reach("canary: routers take over")
    world.kubelet()
    for _ in range(3):
        seen = world.snapshot()
        world.reconcile(replace(seen, routers=dict.fromkeys(seen.routers, silence())))
        world.wait(60)
    return world


@state("canary: timed pause")
def _() -> Fleet:
    return until(reach("canary: spec changed, not seen yet"), "StepPause")


@state("canary: mirrored requests until promoted")
def _() -> Fleet:
    world = reach("healthy")
    steps: list[JSON] = [{"setMirror": {"percent": 10}}, {"pause": {}}, {"setWeight": 50}]
    world.edit(rollout=canary(steps), model=model("two"))
    return until(world, "Paused")


@state("canary: analysis")
def _() -> Fleet:
    world = reach("healthy")
    analysis = {"onInconclusive": "Hold", "maxDuration": "10m"}
    steps: list[JSON] = [{"setWeight": 25}, {"analysis": {}}]
    world.edit(rollout=canary(steps, analysis=analysis), model=model("two"))
    return until(world, "Analyzing")


@state("canary: analysis without verdict, held")
def _() -> Fleet:
    world = reach("canary: analysis")
    world.wait(700)
    return until(world, "Paused")


@state("canary: paused by annotation")
def _() -> Fleet:
    world = reach("canary: timed pause")
    annotate(world, "pause", "true")
    turn(world)
    return world


@state("canary: paused before its first step")
def _() -> Fleet:
    world = reach("paused by annotation outside a rollout")
    world.edit(model=model("two"))
    turn(world, 3)
    return world


@state("canary: on its way to the second weight")
def _() -> Fleet:
    world = reach("canary: timed pause")
    world.wait(400)
    return until(world, "WaitingForReady")


@state("canary: pause until promoted")
def _() -> Fleet:
    world = reach("canary: timed pause")
    world.wait(400)
    return until(world, "Paused")


@state("canary: an act is refused")
def _() -> Fleet:
    world = reach("canary: pause until promoted")
    annotate(world, "promote", "0123456789@1")
    turn(world)
    return world


@state("canary: promoted by hand, on its way to 100 %")
def _() -> Fleet:
    world = reach("canary: pause until promoted")
    annotate(world, "promote", f"{new(world)}@1")
    turn(world)
    return world


@state("canary: promoted, the old revision still warm")
def _() -> Fleet:
    world = reach("canary: promoted by hand, on its way to 100 %")
    while world.status()["servedRevision"] != new(world):
        turn(world)
    return world


@state("canary: promoted")
def _() -> Fleet:
    world = reach("canary: promoted, the old revision still warm")
    rest(world)
    return world


@state("canary: spec is stable's again")
def _() -> Fleet:
    world = reach("canary: timed pause")
    world.edit(model=model("one"))
    rest(world)
    return world


@state("canary: spec changed again, traffic goes back first")
def _() -> Fleet:
    world = reach("canary: timed pause")
    world.edit(model=model("three"))
    turn(world)
    return world


@state("canary: blocked, one replica and no surge")
def _() -> Fleet:
    world = Fleet(resource(rollout=canary(STEPS, maxSurge=0), replicas=1))
    rest(world)
    world.edit(model=model("two"))
    rest(world)
    return world
