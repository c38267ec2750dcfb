"""What is in an engine's pod beside the engine: told by its name, and no revision's fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmfleet.planning.snapshot import Hindrance
from tests.unit.planning.canaries import STEPS, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_nodes import engine_of, last_warning, stay
from tests.unit.planning.test_rollout import turn

CRASHED = Hindrance(text="its container istio-init ended with exit code 1: no rights", failed=True)
SLOW = Hindrance(text="its container vault-agent is not ready", failed=False)
GATE = Hindrance(text='readiness gate "lb" is not "True"', failed=False)


def running(world: Fleet) -> dict[str, Any]:
    return {"phase": "Running", "running_since": world.now, "unready_since": world.now}


@pytest.mark.parametrize("runs", [False, True])
def test_canary_when_a_container_beside_its_engine_fails_then_it_is_aborted_and_tried_again(
    runs: bool,
) -> None:
    world, old, new = started(canary(STEPS), broken=True)
    world.kubelet()
    facts = running(world) if runs else {}
    stay(world, engine_of(world, new), hindrance=CRASHED, **facts)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "SidecarFailed")
    assert CRASHED.text in found["message"]
    world.wait(120)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["rollout"]["aborted"] == "SidecarFailed"
    assert CRASHED.text in last_warning(world)


@pytest.mark.parametrize("hindrance", [SLOW, GATE])
def test_canary_when_its_engine_runs_and_its_pod_is_not_ready_then_it_is_told_and_not_rejected(
    hindrance: Hindrance,
) -> None:
    world, old, new = started(canary(STEPS, progressDeadline="5m"), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    stay(world, name, hindrance=hindrance, **running(world))
    world.wait(300)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert f"engine pod {name} is not ready yet: {hindrance.text}" in found["message"]
    assert (split(world), rejected(world)) == ({old: 100}, {})

    world.pods[name] = replace(world.pods[name], hindrance=None, ready=True)
    turn(world, 3)
    assert split(world)[new] == 25


def test_canary_when_an_init_container_takes_long_then_it_is_told_after_two_minutes() -> None:
    world, _, new = started(canary(STEPS), broken=True)
    world.kubelet()
    stay(world, engine_of(world, new), hindrance=SLOW)
    world.wait(118)
    plan = world.reconcile()
    assert world.condition("Progressing")["reason"] == "WaitingForReady"
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 3
    world.wait(2)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "PodNotReady")
    world.wait(600)
    world.reconcile()
    assert "aborted" not in world.status()["rollout"]


def test_canary_when_its_sidecar_fails_later_then_its_engine_is_not_blamed() -> None:
    world, old, new = started(canary(STEPS))
    at_share(world, new, 25)
    stay(world, engine_of(world, new), hindrance=CRASHED, unready_since=world.now)
    world.reconcile()
    world.wait(120)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["rollout"]["aborted"] == "SidecarFailed"


def test_engine_when_no_scheduler_looks_at_it_then_it_is_told_after_two_minutes() -> None:
    world = Fleet(resource(replicas=1))
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 3)
    name = engine_of(world, hash_of(world.raw))
    world.wait(120)
    world.reconcile()
    found = world.condition("Progressing")
    assert (found["status"], found["reason"]) == ("True", "NotScheduled")
    assert name in found["message"]


def test_canary_when_its_pods_each_have_a_short_trouble_in_turn_then_it_is_not_aborted() -> None:
    world, old, new = started(canary(STEPS), replicas=4, broken=True)
    world.kubelet()
    first = engine_of(world, new)
    pull: dict[str, Any] = {"waiting_reason": "ErrImagePull", "waiting_message": "429"}
    for _ in range(10):
        name = world.add_pod(new, created_at=world.now, node="n1", **pull)
        world.reconcile()
        world.wait(60)
        world.reconcile()
        del world.pods[name]
    assert "aborted" not in world.status()["rollout"]
    stay(world, first, **pull)
    world.wait(120)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    assert world.status()["rollout"]["aborted"] == "ImagePullFailed"
