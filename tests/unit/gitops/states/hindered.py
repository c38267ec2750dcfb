"""Other strategies, what cannot be done, and restored objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmfleet.planning.decide import decide
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.snapshot import ObjectKey
from tests.unit.gitops.states.registry import new, reach, rest, state, until
from tests.unit.planning.canaries import annotate, fail
from tests.unit.planning.fleet import SETTINGS, Fleet, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_decide import foreign_object
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn


@state("rolling update: half way")
def _() -> Fleet:
    world = Fleet(resource())
    rest(world)
    world.edit(model=model("two"))
    while len(world.status()["traffic"]) < 2:
        turn(world)
    return world


@state("rolling update: paused by annotation")
def _() -> Fleet:
    world = reach("rolling update: half way")
    annotate(world, "pause", "true")
    turn(world, 2)
    return world


@state("rolling update: the engine refuses its settings")
def _() -> Fleet:
    world = reach("rolling update: half way")
    fail(world, new(world), said("BadConfig", retriable=False))
    turn(world, 2)
    return world


@state("rolling update: no progress for too long")
def _() -> Fleet:
    world = Fleet(resource())
    rest(world)
    world.edit(model=model("two"))
    world.broken = frozenset({new(world)})
    turn(world, 3)
    world.wait(2000)
    turn(world, 2)
    return world


def _blue_green(**settings: Any) -> Fleet:
    world = reach("healthy")
    world.edit(rollout={"strategy": "BlueGreen", "blueGreen": settings}, model=model("two"))
    return world


@state("blue-green: the new set starts")
def _() -> Fleet:
    return until(_blue_green(), "WaitingForReady")


@state("blue-green: timed preview")
def _() -> Fleet:
    return until(_blue_green(), "StepPause")


@state("blue-green: preview until promoted")
def _() -> Fleet:
    return until(_blue_green(promotion="Manual"), "Paused")


@state("blue-green: promoted by hand")
def _() -> Fleet:
    world = reach("blue-green: preview until promoted")
    annotate(world, "promote", f"{new(world)}@1")
    rest(world)
    return world


@state("blue-green: rejected in its preview")
def _() -> Fleet:
    world = reach("blue-green: preview until promoted")
    fail(world, new(world), said("BadConfig", retriable=False))
    rest(world)
    return world


@state("a name is taken")
def _() -> Fleet:
    world = Fleet(resource())
    key = ObjectKey(api_version="v1", kind="Service", name="chat")
    world.objects[key] = foreign_object(key)
    world.raw["status"] = decide(world.snapshot(), world.now).status
    return world


@state("a child is refused")
def _() -> Fleet:
    world = reach("healthy")
    key = ObjectKey(api_version="apps/v1", kind="Deployment", name="chat-router")
    world.reconcile(replace(world.snapshot(), refusals={key: "denied by policy X"}))
    return world


@state("a template is lost")
def _() -> Fleet:
    world = reach("canary: first decision")
    served = world.status()["servedRevision"]
    lost = {f"chat-rev-{served}", "chat-llmfleet-memory"}
    for key in list(world.objects):
        if key.name in lost and key.kind in {"ControllerRevision", "ConfigMap"}:
            del world.objects[key]
    world.reconcile()
    return world


@state("the CRD is older than the operator")
def _() -> Fleet:
    world = reach("canary: spec changed, not seen yet")
    world.settings = replace(SETTINGS, crd_outdated=True)
    rest(world)
    return world


def _edited(**spec: Any) -> Fleet:
    world = reach("healthy")
    world.edit(**spec)
    rest(world)
    return world


@state("spec has an unknown field")
def _() -> Fleet:
    return _edited(engine={"newField": 1})


@state("spec has a source that is not allowed")
def _() -> Fleet:
    return _edited(model={"source": "file:///models/x", "servedName": "tiny"})


@state("spec has a source of an unknown kind")
def _() -> Fleet:
    return _edited(model={"source": "oci://r/x", "servedName": "tiny"})


@state("spec cannot be read")
def _() -> Fleet:
    world = reach("healthy")
    world.edit(router={"replicas": "many"})
    problem = "spec.router.replicas: Input should be a valid integer"
    world.raw["status"] = decide_unreadable(world.raw, problem, world.now).status
    return world


@state("restored from a backup, without status")
def _() -> Fleet:
    world = reach("healthy")
    world.raw = {key: each for key, each in world.raw.items() if key != "status"}
    world.raw["status"] = {"observedGeneration": -1}
    return world


@state("restored from a backup, first decision")
def _() -> Fleet:
    world = reach("restored from a backup, without status")
    world.reconcile()
    return world


@state("status is of a newer operator, spec changed")
def _() -> Fleet:
    world = reach("canary: spec changed, not seen yet")
    world.raw["status"]["schema"] = 2
    world.reconcile()
    return world
