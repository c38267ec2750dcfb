"""First start, being served, and scaling."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.gitops.states.registry import ROOM, STEPS, new, reach, rest, state, until
from tests.unit.planning.canaries import annotate, canary, fail
from tests.unit.planning.fleet import SETTINGS, Fleet, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import CASES, said


@state("just created")
def _() -> Fleet:
    world = Fleet(resource(rollout=canary(STEPS), replicas=4))
    world.raw["status"] = {"observedGeneration": -1}  # the CRD's default
    return world


@state("first decision")
def _() -> Fleet:
    world = reach("just created")
    world.reconcile()  # makes the engine, and records nothing yet
    world.reconcile()
    return world


@state("model loading")
def _() -> Fleet:
    return until(reach("just created"), "WaitingForReady")


@state("routers take over the first split")
def _() -> Fleet:
    return until(reach("just created"), "ShiftingTraffic")


@state("first start without room")
def _() -> Fleet:
    world = reach("first decision")
    world.kubelet()
    fail(world, new(world), {"unschedulable": ROOM, "unschedulable_since": world.now})
    world.wait(3600)
    world.reconcile()
    return world


@state("first start beyond the quota")
def _() -> Fleet:
    world = reach("first decision")
    world.refuse(f"chat-rev-{new(world)}", "exceeded quota: gpus")
    world.reconcile()
    return world


@state("first start, the model is not there")
def _() -> Fleet:
    world = reach("first decision")
    world.kubelet()
    fail(world, new(world), said("ModelNotFound", retriable=False))
    world.reconcile()
    return world


@state("first start, a secret is missing")
def _() -> Fleet:
    world = reach("first decision")
    world.kubelet()
    fail(world, new(world), CASES["secret"][0])
    world.reconcile()
    return world


@state("healthy")
def _() -> Fleet:
    world = reach("just created")
    rest(world)
    return world


@state("a replica is lost")
def _() -> Fleet:
    world = reach("healthy")
    name = next(name for name, pod in world.pods.items() if pod.component == "engine")
    world.pods[name] = replace(world.pods[name], ready=False)
    world.reconcile()
    return world


@state("all engines are lost")
def _() -> Fleet:
    world = reach("healthy")
    fail(world, new(world), {})
    world.reconcile()
    return world


@state("all routers are lost")
def _() -> Fleet:
    world = reach("healthy")
    for name, pod in world.pods.items():
        world.pods[name] = replace(pod, ready=pod.component == "engine")
    world.reconcile()
    return world


@state("scaled up, not seen yet")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(replicas=6)
    return world


@state("scaling up")
def _() -> Fleet:
    return until(reach("scaled up, not seen yet"), "WaitingForReady")


@state("scaling down")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(replicas=2)
    return until(world, "ScalingDown")


@state("scaled to zero")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(replicas=0)
    rest(world)
    return world


@state("at zero, another model wanted")
def _() -> Fleet:
    world = reach("scaled to zero")
    world.edit(model=model("two"))
    rest(world)
    return world


@state("a newer runtime is bundled")
def _() -> Fleet:
    world = reach("healthy")
    world.settings = replace(SETTINGS, runtime_image_gpu="runtime:newer")
    world.reconcile()
    return world


@state("a field that is not built yet")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(drift={"action": "Alert"})
    rest(world)
    return world


@state("paused by annotation outside a rollout")
def _() -> Fleet:
    world = reach("healthy")
    annotate(world, "pause", "true")
    world.reconcile()
    return world
