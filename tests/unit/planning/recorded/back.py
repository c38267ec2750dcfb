"""States of rollouts that go back, were rejected, are undone, tried again, or restored.

Runs with November's code only, by ``record``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.canaries import STEPS, annotate, at_share, canary, fail, split, started
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.recorded.forward import SETTLE, TIMED
from tests.unit.planning.recorded.recipes import Recipes, decided
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_interplay import undoing as undo_at
from tests.unit.planning.test_rollout import turn

RECIPES = Recipes()
state = RECIPES.state
CRASH: Any = {**said("BadConfig", retriable=False), "restarts": 1}
NO_IMAGE = {"waiting_reason": "ImagePullBackOff", "waiting_message": "not found"}
THIRD: list[Any] = ["edit", {"model": model("three")}]
FIRST: list[Any] = ["edit", {"model": model("one")}]
NEXT_UID = "0f1e2d3c-0000-4000-8000-000000000002"


def at_75() -> tuple[Fleet, str, str]:
    """Replaced in place, so that traffic cannot go back at once."""
    world, old, new = started(canary([{"setWeight": 75}, {"pause": {}}], maxSurge=0))
    at_share(world, new, 75)
    return world, old, new


@state(
    "Spec asked for a third revision at 75 %, and stable carries a half so far.",
    [SETTLE, ["promote", "three@1"]],
)
def returning_superseded() -> Fleet:
    world, _, new = at_75()
    world.edit(model=model("three"))
    return decided(world, lambda: split(world).get(new, 0) <= 50)


def going_back_gently() -> Fleet:
    world, _, new = at_75()
    annotate(world, "abort", f"{new}@1")
    return decided(world, lambda: split(world).get(new, 0) <= 50)


@state("Aborted by a person at 75 %, and stable carries a half so far.")
def returning_gently() -> Fleet:
    return going_back_gently()


@state("The canary crashed: everything is commanded back at once, no router has it yet.")
def returning_at_once() -> Fleet:
    world, _, new = started(canary(STEPS))
    at_share(world, new, 25)
    fail(world, new, CRASH)
    world.reconcile()
    return world


@state(
    "The second pod's image cannot be pulled: aborted, on its way back; later it can.", [["mend"]]
)
def returning_to_be_tried_again() -> Fleet:
    world, _, new = started(canary([{"setWeight": 25}, {"setWeight": 50}]))
    at_share(world, new, 25)
    world.broken |= {new}
    turn(world, 2)
    late = next(name for name, pod in world.pods.items() if pod.revision == new and not pod.ready)
    world.pods[late] = replace(world.pods[late], **NO_IMAGE)
    world.wait(121)
    world.reconcile()
    assert split(world).get(new) is None
    return world


def aborted() -> tuple[Fleet, str]:
    world, _, new = started(canary(TIMED), broken=True)
    world.kubelet()
    fail(world, new, NO_IMAGE)
    world.wait(121)
    turn(world, 5)
    return world, new


@state("Between two tries; its image can be pulled by the next.", [["mend"]])
def backing_off() -> Fleet:
    return aborted()[0]


@state("Between two tries; spec asks for a third revision.", [THIRD])
def backing_off_superseded() -> Fleet:
    return aborted()[0]


@state("Between two tries; a person does not want to wait.", [["mend"], ["retry", "two@1"]])
def backing_off_retried() -> Fleet:
    return aborted()[0]


def exhausted() -> Fleet:
    world, new = aborted()
    for _ in range(3):
        world.wait(world.reconcile().requeue_after or 0)
        world.reconcile()
        world.kubelet()
        fail(world, new, NO_IMAGE)
        world.wait(121)
        turn(world, 4)
    return world


@state("Aborted four times: it is not tried any more.")
def retries_exhausted() -> Fleet:
    return exhausted()


@state("Aborted four times; a person mends it and retries.", [["mend"], ["retry", "two@1"]])
def retries_exhausted_retried() -> Fleet:
    return exhausted()


def rolled_back() -> tuple[Fleet, str]:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    annotate(world, "abort", f"{new}@1")
    world.settle()
    return world, new


@state("Rejected, and spec still asks for it; the fleet grows.", [["edit", {"replicas": 5}]])
def rejected_and_wanted() -> Fleet:
    return rolled_back()[0]


@state("Rejected; spec goes back to what is served.", [FIRST])
def rejected_and_reverted() -> Fleet:
    return rolled_back()[0]


@state("Rejected; spec asks for a third revision.", [THIRD])
def rejected_and_superseded() -> Fleet:
    return rolled_back()[0]


@state("A retry of a rejected revision is recorded; the memory does not know of it yet.")
def retry_just_run() -> Fleet:
    world, new = rolled_back()
    annotate(world, "retry", f"{new}@2")
    world.reconcile(crash_after=1)
    return world


@state("Spec asked for a third revision at 25 %: all traffic is commanded back.")
def superseded() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    world.edit(model=model("three"))
    return decided(world, lambda: new not in split(world))


@state("Spec went back to stable at 25 %: all traffic is commanded back.")
def reverted_in_mid_canary() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    world.edit(model=model("one"))
    return decided(world, lambda: new not in split(world))


@state("Spec went back to a revision within rollbackWindow: without steps, at one half.")
def rollback() -> Fleet:
    world, old, new = started(canary([{"setWeight": 50}], rollbackWindow=1))
    world.settle()
    assert world.status()["servedRevision"] == new
    world.edit(model=model("one"))
    at_share(world, old, 50)
    return world


@state("An undo outside a rollout, at one half.")
def undoing() -> Fleet:
    return undo_at(50)[0]


@state("An undo at one half; spec asks for a third revision.", [THIRD])
def undoing_superseded() -> Fleet:
    return undo_at(50)[0]


@state("An undo at one half; a person wants the rejected revision after all.", [["retry", "two@2"]])
def undoing_retried() -> Fleet:
    return undo_at(50)[0]


@state("An undo is over, and spec still asks for the rejected revision.")
def undone() -> Fleet:
    world, old, _ = undo_at(50)
    decided(world, lambda: world.status()["servedRevision"] == old)
    turn(world, 3)
    return world


@state("An undo named stable in mid-canary: the canary is rejected, and goes back.")
def undo_of_stable() -> Fleet:
    world, old, _ = at_75()
    annotate(world, "undo", f"{old}@1")
    turn(world)
    return world


def restored(world: Fleet) -> Fleet:
    """The status is lost."""
    world.raw = {key: each for key, each in world.raw.items() if key != "status"}
    return world


def created_again(world: Fleet) -> Fleet:
    """Everything is gone but the memory."""
    metadata = {**world.raw["metadata"], "uid": NEXT_UID, "generation": 1}
    again = Fleet({**world.raw, "metadata": metadata}, now=world.now, counter=world.counter)
    again.objects = {key: each for key, each in world.objects.items() if key.kind == "ConfigMap"}
    return restored(again)


def in_pause() -> tuple[Fleet, str, str]:
    world, old, new = started(canary(TIMED))
    at_share(world, new, 25)
    return world, old, new


@state("A backup is restored in mid-canary: there is no status, and all else is.")
def restored_in_mid_canary() -> Fleet:
    return restored(in_pause()[0])


@state("The same in mid-canary of a revision that was rejected.")
def restored_while_returning() -> Fleet:
    return restored(going_back_gently())


@state("The status is lost in the middle of an undo.")
def restored_while_undoing() -> Fleet:
    return restored(undo_at(50)[0])


@state("A backup is restored whose annotations were acts of another life.")
def restored_with_acts() -> Fleet:
    world, old, new = in_pause()
    annotate(world, "abort", f"{new}@1")
    annotate(world, "undo", f"{old}@1")
    return restored(world)


@state("Created again with the rejected spec: only the memory is there.")
def created_again_rejected() -> Fleet:
    return created_again(rolled_back()[0])


@state("Created again in mid-canary: only the memory is there.")
def created_again_in_judgement() -> Fleet:
    return created_again(in_pause()[0])
