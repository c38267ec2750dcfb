"""States of blue-green rollouts, of first revisions, and of fleets without replicas.

Runs with November's code only, by ``record``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.canaries import at_share, canary, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.recorded.forward import MENDED, PROMOTED, SETTLE, TIMED
from tests.unit.planning.recorded.recipes import Recipes, decided
from tests.unit.planning.test_blue_green import at_preview, blue_green
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import half_way, turn

RECIPES = Recipes()
state = RECIPES.state
DOWN: list[Any] = [["edit", {"replicas": 0}], SETTLE]
UP: list[Any] = [SETTLE, ["edit", {"replicas": 4}]]
AT_ZERO = "F3: at N = 0 the split and the clock stand still, and nothing is promoted"


@state("Blue-green: three of four pods of the new set are ready.")
def blue_green_starting() -> Fleet:
    world, _, new = started(blue_green())
    for _ in range(2):
        world.reconcile()
        world.kubelet()
    last = max(name for name, pod in world.pods.items() if pod.revision == new)
    for _ in range(2):
        world.pods[last] = replace(world.pods[last], ready=False)
        world.reconcile()
        world.routers()
    return world


@state("Blue-green: the new set is at the preview address, and its time is running.")
def blue_green_preview() -> Fleet:
    world, _, new = started(blue_green(previewDuration="10m"))
    at_preview(world, new)
    world.wait(300)
    turn(world)
    return world


def manual() -> Fleet:
    world, _, new = started(blue_green(promotion="Manual"))
    at_preview(world, new)
    world.wait(3600)
    turn(world)
    return world


@state("Blue-green waits for a person, who promotes.", PROMOTED)
def blue_green_manual() -> Fleet:
    return manual()


@state("Blue-green waits for a person, who aborts.", [["abort", "two@1"]])
def blue_green_manual_aborted() -> Fleet:
    return manual()


@state(
    "Blue-green waits for a person; spec asks for a third revision, which is promoted.",
    [["edit", {"model": model("three")}], SETTLE, ["promote", "three@1"]],
)
def blue_green_manual_superseded() -> Fleet:
    return manual()


@state("Blue-green needs requests that nobody can count; a person promotes.", PROMOTED)
def blue_green_uncounted() -> Fleet:
    world, _, _ = started(blue_green(minPreviewRequests=50, previewDuration="10s"))
    turn(world, 20)
    return world


@state("Blue-green: all traffic is commanded over, and one router lags.")
def blue_green_switched() -> Fleet:
    world, _, new = started(blue_green(previewDuration="0s"))
    decided(world, lambda: split(world) == {new: 100})
    world.routers(0)
    return world


def warm() -> Fleet:
    world, _, _ = started(blue_green(previewDuration="0s"))
    turn(world, 20)
    return world


@state("Blue-green is promoted, the old set warm for five minutes.")
def blue_green_warm() -> Fleet:
    return warm()


@state("Blue-green is promoted; a person goes back to the warm set.", [["undo", "one@1"]])
def blue_green_warm_undone() -> Fleet:
    return warm()


def zero() -> Fleet:
    world = Fleet(resource(replicas=4, rollout=canary(TIMED)))
    world.settle()
    world.edit(replicas=0)
    world.settle()
    return world


@state("Scaled to zero outside a rollout; then four are wanted.", UP)
def zero_steady() -> Fleet:
    return zero()


@state("A fleet made without replicas; then four are wanted.", UP)
def zero_from_the_start() -> Fleet:
    world = Fleet(resource(replicas=0, rollout=canary(TIMED)))
    turn(world, 3)
    return world


@state("A new revision waits since no replicas are wanted; then four are.", UP)
def zero_with_a_new_revision() -> Fleet:
    world = zero()
    world.edit(model=model("two"))
    turn(world, 3)
    return world


@state("Woken from zero: two replicas are wanted, no pod is ready.")
def zero_waking() -> Fleet:
    world = zero()
    world.edit(replicas=2)
    world.reconcile()
    world.kubelet()
    return world


def never_ready() -> Fleet:
    world, _, _ = started(blue_green(), broken=True)
    turn(world, 4)
    return world


@state("Blue-green whose new set is never ready; no replicas are wanted.", DOWN, changed_by=AT_ZERO)
def zero_in_mid_blue_green() -> Fleet:
    return never_ready()


@state(
    "The same, its pods asked for no more; then four replicas are wanted.", UP, changed_by=AT_ZERO
)
def zero_in_mid_blue_green_begun() -> Fleet:
    world = never_ready()
    world.edit(replicas=0)
    world.reconcile()
    return world


@state("A rolling update at one quarter; no replicas are wanted.", DOWN, changed_by=AT_ZERO)
def zero_in_mid_rolling_update() -> Fleet:
    return half_way(4)[0]


@state("The same, all traffic already moved to no pod.", [SETTLE], changed_by=AT_ZERO)
def zero_in_mid_rolling_update_moved() -> Fleet:
    world, _, new = half_way(4)
    world.edit(replicas=0)
    return decided(world, lambda: split(world) == {new: 100})


def at_quarter() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    return world


@state("A canary in a pause at 25 %; no replicas are wanted.", DOWN)
def zero_in_mid_canary() -> Fleet:
    return at_quarter()


@state("The same; then four are wanted again, and it goes on where it was.", [*DOWN, UP[1]])
def zero_in_mid_canary_and_back() -> Fleet:
    return at_quarter()


@state("A canary at 25 % with no pod wanted of either revision; then four are.", UP)
def zero_in_mid_canary_begun() -> Fleet:
    world = at_quarter()
    world.edit(replicas=0)
    turn(world, 2)
    return world


def first() -> Fleet:
    world = Fleet(resource(replicas=2, rollout=canary(TIMED)))
    world.reconcile()
    world.reconcile()
    world.kubelet()
    return world


@state("The first revision starts, and nothing is served yet.")
def first_not_ready() -> Fleet:
    return first()


@state(
    "The first revision is not ready, and spec asks for another.",
    [["edit", {"model": model("two")}]],
)
def first_edited() -> Fleet:
    return first()


@state("The first revision has all traffic, and no router has said what it serves.")
def first_of_unknown_traffic() -> Fleet:
    world = Fleet(resource(replicas=2, rollout=canary(TIMED)))
    return decided(world, lambda: bool(split(world)))


@state("The first revision is not ready in progressDeadline; then it is.", MENDED)
def first_overdue() -> Fleet:
    world = Fleet(resource(replicas=2, rollout=canary(TIMED)))
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 4)
    world.wait(1900)
    turn(world, 2)
    return world
