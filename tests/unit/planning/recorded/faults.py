"""States from which November's rules led astray, some for each fault of decisions.

Runs with November's code only, by ``record``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.canaries import annotate, at_share, canary, fail, split, started
from tests.unit.planning.fleet import Fleet, hash_of
from tests.unit.planning.recorded.back import CRASH, FIRST, going_back_gently
from tests.unit.planning.recorded.forward import JUDGED, SETTLE, judged
from tests.unit.planning.recorded.recipes import Recipes, count, decided, restarted
from tests.unit.planning.test_blue_green import blue_green
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

RECIPES = Recipes()
state = RECIPES.state
UNDONE: list[Any] = [["undo", "one@9"]]
BACK_FIRST = "F1: back to the served revision, then to the one undone to; the rejected never gains"
OWN_ENDS = "F2: only ends since the attempt began count"
FRESH = "F9: counts that are hours old are no evidence"
OWN_REQUESTS = "F10: an analysis needs requests of its own step"
ALL_FAIL = "F11: a revision that fails every request is not promoted"
NEW_ATTEMPT = "F13: a retry begins a new attempt, with clocks and evidence of its own"
OWN_PODS = "F19: pods count only with their Deployment"
NEXT_GOOD = "F24: an undo's target that crashes is given up for the next good one"


def three(policy: Any) -> tuple[Fleet, str, str, str]:
    """One is kept, two is served, three is wanted."""
    world, one, two = started(policy)
    turn(world, 30)
    annotate(world, "promote", f"{two}/full@0")
    world.settle()
    assert world.status()["servedRevision"] == two, world.status()["message"]
    world.edit(model=model("three"))
    return world, one, two, hash_of(world.raw)


def in_mid_canary() -> tuple[Fleet, str]:
    world, one, _, new = three(canary([{"setWeight": 50}, {"pause": {}}]))
    at_share(world, new, 50)
    return world, one


@state("One kept, two served, three a canary at 50 %: undo to one.", UNDONE, changed_by=BACK_FIRST)
def undo_in_mid_canary() -> Fleet:
    return in_mid_canary()[0]


@state("The same, recorded after November's first decision.", changed_by=BACK_FIRST)
def undo_in_mid_canary_begun() -> Fleet:
    world, one = in_mid_canary()
    annotate(world, "undo", f"{one}@9")
    turn(world)
    return world


@state("Three was aborted at 75 % and goes back: undo to one.", UNDONE, changed_by=BACK_FIRST)
def undo_while_returning() -> Fleet:
    world, _, _, new = three(canary([{"setWeight": 75}, {"pause": {}}], maxSurge=0))
    at_share(world, new, 75)
    annotate(world, "abort", f"{new}@1")
    return decided(world, lambda: split(world).get(new, 0) <= 50)


@state("Three waits at the preview address: undo to one.", UNDONE, changed_by=BACK_FIRST)
def undo_in_mid_blue_green() -> Fleet:
    world, _, _, _ = three(blue_green(promotion="Manual"))
    turn(world, 10)
    return world


@state(
    "Two is promoted; spec goes back to one, whose warm pods ended twice long ago.",
    [FIRST],
    changed_by=OWN_ENDS,
)
def reverted_to_pods_with_a_past() -> Fleet:
    world, old, new = started(canary([{"setWeight": 50}], scaleDownDelay="5m"))
    restarted(world, old, 2)
    decided(world, lambda: world.status()["servedRevision"] == new)
    turn(world, 2)
    return world


@state("An analysis whose counts are three hours old.", changed_by=FRESH)
def analysis_of_stale_counts() -> Fleet:
    world, old, new = judged()
    return count(world, {old: (900, 1), new: (300, 0)}, age_seconds=3 * 3600)


@state(
    "50 % are commanded for a second analysis; all requests are of the first.",
    changed_by=OWN_REQUESTS,
)
def analysis_of_the_step_before() -> Fleet:
    world, old, new = started(canary([*JUDGED, {"analysis": {}}]))
    at_share(world, new, 25)
    count(world, {old: (900, 1), new: (300, 0)})
    return decided(world, lambda: split(world).get(new) == 50)


@state("In a pause at 100 % every request fails, and stable has none.", changed_by=ALL_FAIL)
def all_traffic_failing() -> Fleet:
    world, old, new = started(canary([{"setWeight": 100}, {"pause": {"duration": "1h"}}]))
    at_share(world, new, 100)
    count(world, {old: (900, 1), new: (300, 300)})
    assert world.requests is not None
    for name, before, since in ((old, (90, 0), (0, 0)), (new, (0, 0), (30, 30))):
        looks = (*[before] * 10, *[since] * 10)
        world.requests[name] = replace(world.requests[name], looks=looks)
    return world


@state(
    "A rejected canary goes back, its pods ended twice before and are well: retry, and promote.",
    [["retry", "two@2"], SETTLE, ["promote", "two@3"]],
    changed_by=NEW_ATTEMPT,
)
def retry_while_returning() -> Fleet:
    world = going_back_gently()
    return restarted(world, world.status()["rollout"]["revision"], 2)


@state(
    "Two's Deployment is deleted, its pods are still ready; spec goes back to two.",
    [["edit", {"model": model("two")}], SETTLE, ["promote", "two@1"]],
    changed_by=OWN_PODS,
)
def reverted_to_pods_without_deployment() -> Fleet:
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, new, 25)
    world.edit(model=model("three"))
    return decided(world, lambda: new not in world.replicas())


@state(
    "Three served, undone to two at one half, whose pods crash; one is kept.", changed_by=NEXT_GOOD
)
def undo_to_a_crashing_one() -> Fleet:
    world, _, two, new = three(canary([{"setWeight": 50}]))
    world.settle()
    assert world.status()["servedRevision"] == new
    annotate(world, "undo", f"{two}@9")
    at_share(world, two, 50)
    fail(world, two, CRASH)
    return world
