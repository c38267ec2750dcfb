"""A canary that goes back: aborted, rejected, tried again, undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmfleet.planning.signal import Signal
from tests.unit.gitops.states.registry import JSON, new, reach, rest, state, until
from tests.unit.planning.canaries import annotate, canary, fail
from tests.unit.planning.fleet import Fleet, counted
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import CASES, ended, said
from tests.unit.planning.test_rollout import turn


@state("aborted by hand, traffic goes back")
def _() -> Fleet:
    world = reach("canary: timed pause")
    annotate(world, "abort", f"{new(world)}@1")
    world.reconcile()
    return world


@state("aborted by hand")
def _() -> Fleet:
    world = reach("aborted by hand, traffic goes back")
    rest(world)
    return world


@state("aborted by hand, then replicas edited")
def _() -> Fleet:
    world = reach("aborted by hand")
    world.edit(replicas=5)
    rest(world)
    return world


@state("aborted by hand, then another spec")
def _() -> Fleet:
    world = reach("aborted by hand")
    world.edit(model=model("three"))
    return until(world, "StepPause")


@state("aborted by hand, then spec is stable's again")
def _() -> Fleet:
    world = reach("aborted by hand")
    world.edit(model=model("one"))
    rest(world)
    return world


@state("aborted by hand, then retried")
def _() -> Fleet:
    world = reach("aborted by hand")
    annotate(world, "retry", f"{new(world)}@1")
    return until(world, "StepPause")


@state("aborted by hand, then deleted and created again")
def _() -> Fleet:
    world = reach("aborted by hand")
    memory = {key: each for key, each in world.objects.items() if key.kind == "ConfigMap"}
    again = Fleet({key: each for key, each in world.raw.items() if key != "status"})
    again.objects |= memory
    rest(again)
    return again


def _rejected(facts: dict[str, Any]) -> Fleet:
    world = reach("canary: timed pause")
    fail(world, new(world), facts)
    rest(world)
    return world


@state("rejected: crashes")
def _() -> Fleet:
    return _rejected(ended("boom", code=139) | {"restarts": 2})


@state("rejected: out of memory")
def _() -> Fleet:
    return _rejected(ended("", code=137, reason="OOMKilled"))


@state("rejected: the engine refuses its settings")
def _() -> Fleet:
    return _rejected(said("BadConfig", retriable=False))


@state("rejected: never ready")
def _() -> Fleet:
    world = reach("canary: first decision")
    world.kubelet()
    fail(world, new(world), {"running_since": world.now, "phase": "Running"})
    world.reconcile()
    world.wait(1800)
    rest(world)
    return world


@state("rejected: more requests fail")
def _() -> Fleet:
    world = reach("canary: timed pause")
    requests = {world.status()["servedRevision"]: counted(900, 1), new(world): counted(300, 30)}
    seen = replace(world.snapshot(), requests=Signal(value=requests, as_of=world.now))
    world.reconcile(seen)
    rest(world)
    return world


@state("rejected: analysis without verdict")
def _() -> Fleet:
    world = reach("healthy")
    analysis = {"onInconclusive": "Rollback", "maxDuration": "10m"}
    steps: list[JSON] = [{"setWeight": 25}, {"analysis": {}}]
    world.edit(rollout=canary(steps, analysis=analysis), model=model("two"))
    until(world, "Analyzing")
    world.wait(700)
    rest(world)
    return world


@state("aborted by the cluster, tried again later")
def _() -> Fleet:
    world = reach("canary: first decision")
    world.kubelet()
    fail(world, new(world), CASES["image"][0])
    world.reconcile()
    world.wait(121)
    return until(world, "WaitingForRetry")


@state("aborted by the cluster, second try")
def _() -> Fleet:
    world = reach("aborted by the cluster, tried again later")
    world.broken = frozenset()
    world.wait(400)
    return until(world, "StepPause")


@state("retries exhausted")
def _() -> Fleet:
    world = reach("canary: first decision")
    for _ in range(200):
        world.kubelet()
        fail(world, new(world), CASES["image"][0])
        world.wait(121)
        world.reconcile()
        world.routers()
        if world.condition("Progressing")["reason"] == "RetriesExhausted":
            return world
    raise AssertionError(world.status()["message"])


@state("undone, on its way back")
def _() -> Fleet:
    world = reach("canary: promoted")
    kept = [each["hash"] for each in world.status()["revisions"]]
    annotate(world, "undo", f"{next(each for each in kept if each != new(world))}@1")
    turn(world, 2)
    return world


@state("undone")
def _() -> Fleet:
    world = reach("undone, on its way back")
    rest(world)
    return world
