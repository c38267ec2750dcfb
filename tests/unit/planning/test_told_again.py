"""What is told when one thing follows another without an end between them, and what is not true."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from llmfleet.planning.report.conditions import LONGEST_MESSAGE
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedObject
from tests.unit.planning.canaries import annotate, at_share, canary, fail, rejected, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.history import CRASH
from tests.unit.planning.test_blue_green import at_preview, blue_green
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_events import told, until
from tests.unit.planning.test_rollout import turn

TWO_PAUSES = [{"setWeight": 25}, {"pause": {}}, {"pause": {}}, {"setWeight": 50}]


def at_the_first_pause() -> tuple[Fleet, str, str]:
    world, old, new = started(canary(TWO_PAUSES))
    at_share(world, new, 25)
    until(world, "Paused")
    world.plans.clear()
    return world, old, new


def without(component: str, world: Fleet) -> None:
    """None of these pods is ready any more."""
    for name, pod in world.pods.items():
        if pod.component == component:
            world.pods[name] = replace(pod, ready=False)


def test_pause_when_another_follows_at_once_then_a_person_is_called_for_it_too() -> None:
    world, _, new = at_the_first_pause()
    annotate(world, "promote", f"{new}/1@1")
    turn(world, 3)
    assert world.status()["phase"] == "Paused"
    (called,) = told(world, "Paused")
    assert f"promote chat --revision {new} --step 2`" in called.message


def test_refusal_when_another_act_is_refused_after_it_then_both_are_told() -> None:
    world, _, new = at_the_first_pause()
    for value in (f"{new}/0@1", f"{new}/3@2", "promote it"):
        annotate(world, "promote", value)
        turn(world, 2)
    assert [
        each.message.split(" names ")[0].split(" is not ")[0] for each in told(world, "ActRefused")
    ] == [f"llmfleet.dev/promote: {value}" for value in (f"{new}/0@1", f"{new}/3@2", "promote it")]


def test_rejection_when_spec_goes_from_one_rejected_revision_to_another_then_it_is_told() -> None:
    world, old, _ = started()
    for name in ("two", "three"):
        world.edit(model=model(name))
        world.reconcile()
        annotate(world, "abort", f"{hash_of(world.raw)}@{name}")
        turn(world, 8)
    assert len(rejected(world)) == 2
    world.plans.clear()
    world.edit(model=model("two"))
    turn(world, 3)
    assert split(world) == {old: 100}
    (said,) = told(world, "RevisionRejected")
    assert said.message.startswith(f"revision {hash_of(world.raw)} that spec asks for")


def test_acceptance_when_another_field_is_not_known_then_that_one_is_told_too() -> None:
    world = Fleet(resource())
    world.settle()
    for field in ("first", "second"):
        world.edit(engine={field: 1})
        turn(world, 2)
    assert [each.message.partition(";")[0] for each in told(world, "UnknownField")] == [
        f"this operator does not know spec.engine.{field}" for field in ("first", "second")
    ]


def with_a_taken_name() -> tuple[Fleet, ObjectKey]:
    world = Fleet(resource())
    key = ObjectKey(api_version="v1", kind="Service", name="chat")
    body: JSON = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat"}}
    world.objects[key] = ObservedObject(
        key=key, uid="taken", resource_version="9", owner_uid=None, deleting=False, body=body
    )
    world.reconcile()  # makes the engines, and records nothing
    world.plans.clear()
    turn(world, 5)
    assert world.condition("Progressing")["reason"] == "Blocked"
    return world, key


def test_degraded_when_something_else_is_in_the_way_then_that_is_told_too() -> None:
    world, key = with_a_taken_name()
    world.plans.clear()
    fail(world, hash_of(world.raw), CRASH)
    del world.objects[key]
    turn(world, 3)
    (said,) = told(world, "Degraded")
    assert "the engine's own words" in said.message


def test_degraded_when_the_same_stays_in_the_way_then_it_is_told_once() -> None:
    world, _ = with_a_taken_name()
    assert len(told(world, "Degraded")) == len(told(world, "NameTaken")) == 1


def test_available_when_the_address_is_somebody_elses_then_clients_are_not_answered() -> None:
    world, key = with_a_taken_name()
    assert world.status()["ready"] == "2/2"
    said = world.condition("Available")
    assert (said["status"], said["reason"]) == ("False", "NoAddress")
    del world.objects[key]
    turn(world, 2)
    assert world.condition("Available")["status"] == "True"


@pytest.mark.parametrize("act", ["abort", "undo"])
def test_act_when_it_names_all_steps_and_is_no_promotion_then_it_is_refused(act: str) -> None:
    world, old, new = at_the_first_pause()
    annotate(world, act, f"{old if act == 'undo' else new}/full@1")
    turn(world, 2)
    assert split(world) == {old: 75, new: 25}
    assert world.condition("ActRefused")["status"] == "True"


def test_status_when_it_was_lost_then_clients_that_get_answers_are_not_told_to_get_none() -> None:
    world = Fleet(resource())
    world.settle()
    world.raw = {key: each for key, each in world.raw.items() if key != "status"}
    world.edit(model=model("two"))
    world.reconcile()
    assert world.condition("Available")["status"] == "True"
    assert "no answer" not in world.status()["message"]


@pytest.mark.parametrize("component", ["engine", "router"])
def test_message_when_clients_get_no_answer_then_nobody_is_said_to_be_served(
    component: str,
) -> None:
    world, old, new = started(broken=True)
    turn(world, 2)
    fail(world, new, CRASH)
    until(world, "Degraded")
    assert f"; {old} is served: change spec" in world.status()["message"]
    if component == "engine":
        fail(world, old, {"phase": "Running"})
    else:
        without(component, world)
    world.reconcile()
    assert f"; all requests go to {old}: change spec" in world.status()["message"]
    assert "is served" not in world.status()["message"]


def test_progress_when_no_router_is_ready_then_nobody_is_said_to_keep_serving() -> None:
    world, old, new = started({"strategy": "RollingUpdate", "maxSurge": 1}, broken=True)
    turn(world, 2)
    fail(world, new, {"phase": "Pending", "waiting_reason": "ImagePullBackOff"})
    turn(world)
    assert f"{old} keeps serving" in world.status()["message"]
    without("router", world)
    world.reconcile()
    assert "keeps serving" not in world.status()["message"]


def test_wait_when_a_preview_waits_for_a_person_then_it_is_the_new_revision_that_waits() -> None:
    world, old, new = started(blue_green(promotion="Manual"))
    at_preview(world, new)
    until(world, "Paused")
    said = world.status()["message"]
    assert f"{old} is served; {new} waits for a person: " in said


def test_wait_when_a_rolling_update_is_paused_then_no_canary_is_spoken_of() -> None:
    world, _, new = started({"strategy": "RollingUpdate", "maxSurge": 1})
    annotate(world, "pause", "true")
    turn(world, 2)
    assert world.status()["message"].startswith(f"revision {new} at ")


def test_abort_when_it_is_the_first_then_it_is_counted_in_the_singular() -> None:
    world, _, new = started(broken=True)
    for _ in range(40):
        fail(world, new, {"phase": "Pending", "waiting_reason": "ImagePullBackOff"})
        turn(world)
        world.wait(30)
        if world.condition("Progressing")["reason"] == "WaitingForRetry":
            break
    assert (
        f"revision {new} was aborted 1 time, last for ImagePullFailed" in world.status()["message"]
    )


def test_first_revision_when_it_is_scaled_to_zero_then_its_pods_end_before_it_is_healthy() -> None:
    world = Fleet(resource(replicas=2))
    world.reconcile()
    world.reconcile()
    world.kubelet()
    world.kubelet()
    world.edit(replicas=0)
    world.reconcile()
    assert (world.status()["phase"], world.status()["ready"]) == ("Progressing", "2/0")
    assert world.status()["message"].startswith("2 surplus engine pods being stopped")
    world.settle()
    assert (world.status()["phase"], world.status()["ready"]) == ("Healthy", "0/0")


def test_available_when_the_spec_cannot_be_read_then_what_was_true_once_is_not_said_any_more() -> (
    None
):
    world = Fleet(resource())
    world.settle()
    assert world.condition("Available")["status"] == "True"
    plan = decide_unreadable(world.raw, "spec.engine: not an object", world.now)
    assert plan.status is not None
    (said,) = [each for each in plan.status["conditions"] if each["type"] == "Available"]
    assert (said["status"], said["reason"]) == ("Unknown", "InvalidSpec")
    world.raw = {**world.raw, "status": plan.status}
    assert decide_unreadable(world.raw, "spec.engine: not an object", world.now).events == ()
    world.settle()
    assert world.condition("Available")["status"] == "True"


def test_message_when_what_others_say_is_endless_then_the_status_can_still_be_written() -> None:
    world, _, new = started()
    world.refuse(f"chat-rev-{new}", f"exceeded quota: {'é' * 40_000}")
    world.pods = {name: pod for name, pod in world.pods.items() if pod.revision != new}
    world.reconcile()
    status = world.status()
    assert world.condition("CapacityAvailable")["status"] == "False"
    said = [status["message"], *(each["message"] for each in status["conditions"])]
    assert max(map(len, said)) <= LONGEST_MESSAGE


def test_phase_when_another_spec_comes_with_a_promotion_then_it_is_not_said_to_be_served() -> None:
    """``kubectl wait`` would take the end of the rollout before it for its own."""
    world, _, new = started(canary([{"setWeight": 50}]))
    for _ in range(60):
        world.kubelet()
        world.routers()
        world.wait(1)
        other = copy.deepcopy(world)
        other.edit(model=model("three"))
        if "Promoted" in {event.reason for event in other.reconcile().events}:
            break
        world.reconcile()
    status = other.status()
    assert (status["servedRevision"], status["specRevision"]) == (new, hash_of(other.raw))
    assert status["observedGeneration"] == other.raw["metadata"]["generation"]
    assert (status["phase"], other.condition("Ready")["status"]) == ("Progressing", "Unknown")
    other.reconcile()
    assert len(told(other, "RolloutStarted")) == len(told(world, "RolloutStarted")) + 1


def test_events_when_a_rejection_moves_the_traffic_then_its_reason_comes_first() -> None:
    world, _, new = at_the_first_pause()
    annotate(world, "abort", f"{new}@1")
    reasons = [event.reason for event in world.reconcile().events]
    assert reasons[:2] == ["UserAbort", "TrafficShifted"]
