"""States of canaries and rolling updates that go forward, wait, or are held.

Runs with November's code only, by ``record``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.planning.canaries import STEPS, annotate, at_share, canary, fail, split, started
from tests.unit.planning.fleet import SETTINGS, Fleet, resource
from tests.unit.planning.recorded.recipes import Recipes, count, decided
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import half_way, turn

RECIPES = Recipes()
state = RECIPES.state
SETTLE: list[Any] = ["settle"]
PROMOTED: list[Any] = [SETTLE, ["promote", "two@1"]]
UNPAUSED: list[Any] = [SETTLE, ["pause", None]]
MENDED: list[Any] = [SETTLE, ["mend"]]
NEW_CRD: list[Any] = [SETTLE, ["settings", {"crd_outdated": False}]]
TIMED = [{"setWeight": 25}, {"pause": {"duration": "5m"}}, {"setWeight": 50}]
JUDGED = [{"setWeight": 25}, {"analysis": {}}, {"setWeight": 50}]
TESTERS = [{"name": "x-tester", "exact": "1"}]
NO_ROOM = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


@state("A canary begins: its revision is recorded, no pod of it runs yet.", PROMOTED)
def set_weight_begun() -> Fleet:
    return started(canary(STEPS))[0]


@state("Five of ten pods are wanted, the surge lets in one at a time: 20 % so far.", PROMOTED)
def set_weight_in_sub_steps() -> Fleet:
    world, _, new = started(canary([{"setWeight": 50}, {"pause": {}}]), 10)
    at_share(world, new, 20)
    return world


@state("25 % are commanded; one of two routers still serves the split before.", PROMOTED)
def set_weight_unconfirmed() -> Fleet:
    world, _, new = started(canary(STEPS))
    decided(world, lambda: split(world).get(new) == 25)
    world.routers(0)
    return world


@state("In a pause of five minutes at 25 %.", PROMOTED)
def pause_timed() -> Fleet:
    world, _, new = started(canary(STEPS))
    at_share(world, new, 25)
    return world


def at_person() -> Fleet:
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    world, _, new = started(canary(steps))
    at_share(world, new, 25)
    turn(world, 2)
    return world


@state(
    "Paused at 25 % for a person, who promotes twice.",
    [["promote", "two@1"], SETTLE, ["promote", "two@2"]],
)
def pause_for_a_person() -> Fleet:
    return at_person()


@state("Paused at 25 % for a person, who skips all steps.", [["promote", "two/full@1"]])
def pause_for_a_person_promoted_in_full() -> Fleet:
    return at_person()


@state("Paused at 25 % for a person, who aborts.", [["abort", "two@1"]])
def pause_for_a_person_aborted() -> Fleet:
    return at_person()


@state("Paused at 50 %; the promotion of the pause before is handled, and still annotated.")
def pause_for_a_person_with_a_handled_act() -> Fleet:
    world = at_person()
    new = world.status()["rollout"]["revision"]
    annotate(world, "promote", f"{new}@1")
    at_share(world, new, 50)
    return world


@state(
    "Paused at 25 %; a promotion that names another revision is refused.", [["promote", "two@2"]]
)
def pause_for_a_person_with_a_refused_act() -> Fleet:
    world = at_person()
    annotate(world, "promote", "0123456789@1")
    turn(world)
    return world


def judged(**settings: object) -> tuple[Fleet, str, str]:
    world, old, new = started(canary(JUDGED, analysis=settings))
    at_share(world, new, 25)
    return world, old, new


def running() -> Fleet:
    world, old, new = judged()
    for _ in range(2):
        count(world, {old: (90, 0), new: (20, 0)})
        turn(world)
    return count(world, {old: (90, 0), new: (20, 0)})


@state(
    "An analysis has too few requests; then there are enough, and they are good.",
    [["turns", 2], ["requests", {"one": [900, 1], "two": [300, 0]}]],
)
def analysis_running() -> Fleet:
    return running()


@state(
    "An analysis has too few requests; then there are more, and many of them fail.",
    [["turns", 2], ["requests", {"one": [900, 1], "two": [300, 60]}]],
)
def analysis_failing() -> Fleet:
    return running()


@state("An analysis that nobody can count for is held at its end; a person promotes.", PROMOTED)
def analysis_without_numbers() -> Fleet:
    return judged(maxDuration="10m")[0]


@state("The same with onInconclusive Rollback.")
def analysis_without_numbers_rolled_back() -> Fleet:
    return judged(maxDuration="10m", onInconclusive="Rollback")[0]


@state("The same with onInconclusive Proceed.")
def analysis_without_numbers_going_on() -> Fleet:
    return judged(maxDuration="10m", onInconclusive="Proceed")[0]


@state("Two pods are asked for at no weight; one of them is ready.")
def set_canary_scale() -> Fleet:
    steps = [{"setCanaryScale": {"replicas": 2}}, {"pause": {"duration": "1m"}}, {"setWeight": 50}]
    world, _, new = started(canary(steps, maxSurge=2))
    world.reconcile()
    world.kubelet()
    world.kubelet()
    last = max(name for name, pod in world.pods.items() if pod.revision == new)
    world.pods[last] = replace(world.pods[last], ready=False)
    world.reconcile()
    return world


@state("A header route is commanded, and no router has it yet.")
def set_header_route() -> Fleet:
    steps = [{"setHeaderRoute": {"headers": TESTERS}}, {"pause": {"duration": "1m"}}, *TIMED[2:]]
    world, _, _ = started(canary(steps))
    return decided(world, lambda: "headerRoute" in world.status().get("routing", {}))


@state("Copies are commanded at 25 %, and one of two routers sends them.")
def set_mirror() -> Fleet:
    steps = [TIMED[0], {"setMirror": {"percent": 10}}, *TIMED[1:]]
    world, _, _ = started(canary(steps))
    decided(world, lambda: "mirror" in world.status().get("routing", {}))
    world.routers(0)
    return world


@state("In a timed pause with sessions, copies and a header route.")
def routes_in_a_pause() -> Fleet:
    steps = [{"setMirror": {"percent": 5}}, {"setHeaderRoute": {"headers": TESTERS}}, *TIMED]
    world, _, new = started(canary(steps, stickiness="Session"))
    at_share(world, new, 25)
    return world


@state("Paused by annotation at 25 %, for an hour; then it is removed.", UNPAUSED)
def paused_by_annotation() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    turn(world)
    world.wait(3600)
    return world


@state("Paused by annotation before the rollout began; then it is removed.", UNPAUSED)
def paused_by_annotation_from_the_start() -> Fleet:
    world = Fleet(resource(replicas=4, rollout=canary(TIMED)))
    world.settle()
    annotate(world, "pause", "true")
    world.edit(model=model("two"))
    turn(world, 3)
    return world


@state("A rolling update paused by annotation at one half; then it is removed.", UNPAUSED)
def paused_by_annotation_in_a_rolling_update() -> Fleet:
    world, _, new = half_way()
    annotate(world, "pause", new)
    turn(world, 3)
    return world


@state(
    "A canary of one replica without surge is held; then it gets a surge.",
    [SETTLE, ["edit", {"rollout": canary(TIMED)}]],
)
def held_one_replica_without_surge() -> Fleet:
    world, _, _ = started(canary(TIMED, maxSurge=0), 1)
    turn(world, 2)
    return world


@state("The CRD is older than the operator, a new revision waits; then it is applied.", NEW_CRD)
def held_by_an_old_crd() -> Fleet:
    world = Fleet(resource(replicas=4, rollout=canary(TIMED)))
    world.settle()
    world.settings = replace(SETTINGS, crd_outdated=True)
    world.edit(model=model("two"))
    turn(world, 2)
    return world


@state("The same in mid-canary.", NEW_CRD)
def held_by_an_old_crd_in_mid_canary() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    world.settings = replace(SETTINGS, crd_outdated=True)
    turn(world, 2)
    return world


@state(
    "Spec is not accepted in mid-canary, nothing moves; then it is put right.",
    [SETTLE, ["edit", {"model": model("two")}]],
)
def held_spec_in_mid_canary() -> Fleet:
    world, _, new = started(canary(TIMED))
    at_share(world, new, 25)
    world.edit(model={"source": "file:///models/three", "servedName": "tiny"})
    turn(world, 2)
    return world


@state("No room for the canary's pod for a day; then there is.", MENDED)
def waiting_for_room() -> Fleet:
    world, _, new = started(canary(TIMED), broken=True)
    world.kubelet()
    fail(world, new, {"unschedulable": NO_ROOM, "unschedulable_since": world.now})
    for seconds in (60, 86400):
        world.wait(seconds)
        world.reconcile()
    return world


@state("Everything is commanded to the new revision, which one router does not serve yet.")
def all_traffic_unconfirmed() -> Fleet:
    world, _, new = started(canary([{"setWeight": 50}]))
    decided(world, lambda: split(world) == {new: 100})
    world.routers(1)
    return world


@state("Promoted; the revision before is warm for scaleDownDelay.")
def warm_after_promotion() -> Fleet:
    world, _, new = started(canary([{"setWeight": 50}], scaleDownDelay="5m"))
    decided(world, lambda: world.status()["servedRevision"] == new)
    turn(world, 2)
    return world


@state("A canary that replaces in place, on its way from 25 to 75 %.", PROMOTED)
def canary_without_surge() -> Fleet:
    steps = [{"setWeight": 25}, {"setWeight": 75}, {"pause": {}}]
    world, _, new = started(canary(steps, maxSurge=0))
    at_share(world, new, 50)
    return world


@state("Settings and size were edited in mid-canary: the frozen steps go on.", PROMOTED)
def settings_edited_in_mid_canary() -> Fleet:
    world, _, new = started(canary(STEPS))
    at_share(world, new, 25)
    world.edit(rollout={"strategy": "BlueGreen"}, replicas=5)
    turn(world, 2)
    return world


@state("A rolling update at one half.")
def rolling_update_midway() -> Fleet:
    return half_way()[0]


@state("A rolling update in place, one of three pods replaced.")
def rolling_update_without_surge() -> Fleet:
    policy = {"strategy": "RollingUpdate", "maxSurge": 0, "scaleDownDelay": "10s"}
    world, _, new = started(policy, 3)
    at_share(world, new, 33)
    return world


@state("A rolling update whose pods are not ready in progressDeadline; then they are.", MENDED)
def rolling_update_overdue() -> Fleet:
    policy = {"strategy": "RollingUpdate", "maxSurge": 1, "progressDeadline": "5m"}
    world, _, _ = started(policy, 2, broken=True)
    turn(world, 3)
    world.wait(400)
    turn(world)
    return world
