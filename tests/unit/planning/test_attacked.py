"""States from which nothing led out, and acts that had effects of which nobody was told.

Random walks found them: acts and edits of spec in one look, a served revision that was rejected
while another was on its way up, one that has no ready pod any more, what others delete meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from llmfleet.api import parse
from llmfleet.planning.decide import decide
from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet, counted, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long

PAUSED = canary([{"setWeight": 25}, {"pause": {}}])
ONE, TWO, THREE, FOUR = (
    hash_of(resource(model=model(name))) for name in ("one", "two", "three", "four")
)


def promoted(*names: str) -> Fleet:
    """A fleet that served these one after the other, the last one now."""
    first, *others = names
    world = Fleet(resource(replicas=4, rollout=PAUSED, model=model(first)))
    world.settle()
    for name in others:
        rising(world, name)
        annotate(world, "promote", f"{hash_of(world.raw)}/full@{name}")
        world.settle()
    return world


def rising(world: Fleet, name: str) -> None:
    """Spec asks for it, and a quarter of the requests go to it."""
    world.edit(model=model(name))
    at_share(world, hash_of(world.raw), 25)


def undone_and_rising(name: str) -> Fleet:
    """An undo that had not begun when spec asked for another one, which is on its way up."""
    world = promoted("one", "two")
    annotate(world, "undo", f"{ONE}@1")
    world.reconcile()
    assert (rejected(world), split(world)) == ({TWO: "UserUndo"}, {TWO: 100})
    rising(world, name)
    return world


def crash(world: Fleet, revision: str) -> None:
    """Its engines end, and those that come do as well."""
    world.broken |= {revision}
    end = said("BadConfig", retriable=False)["last_termination"]
    for name, pod in world.pods.items():
        if pod.revision == revision:
            world.pods[name] = replace(pod, ready=False, last_termination=end, restarts=1)


def lose(world: Fleet, revision: str) -> None:
    """It has no ready pod any more, and gets none."""
    world.broken |= {revision}
    for name, pod in world.pods.items():
        if pod.revision == revision:
            world.pods[name] = replace(pod, ready=False, phase="Pending")


def done(world: Fleet) -> list[str]:
    """Acts that the last decision says were carried out."""
    events = world.plans[-1].events
    return [each.message.split()[0] for each in events if each.reason == "ActDone"]


def test_promotion_when_the_new_set_has_no_ready_pod_then_the_old_one_takes_over() -> None:
    policy = {"strategy": "BlueGreen", "scaleDownDelay": "60s"}
    preview = {"blueGreen": {"previewDuration": "30s"}}
    world = Fleet(resource(replicas=4, rollout=policy | preview, model=model("one")))
    world.settle()
    world.edit(model=model("two"))
    while split(world).get(TWO) != 100:
        world.reconcile()
        world.kubelet()
        if split(world).get(TWO) != 100:
            world.routers()
            world.wait(5)
    lose(world, TWO)
    world.routers()
    plan = world.reconcile()
    turn(world, 40)
    assert plan.outcome is None
    assert (world.ready(ONE), split(world)) == (4, {ONE: 100})


def test_abort_when_there_is_nowhere_to_go_back_to_then_it_is_refused() -> None:
    world = promoted("one", "two")
    annotate(world, "undo", f"{ONE}@1")
    world.reconcile()
    rising_at_last(world)
    annotate(world, "abort", f"{THREE}@1")
    world.reconcile()
    assert done(world) == []
    assert "nowhere to go back to" in world.condition("ActRefused")["message"]


def rising_at_last(world: Fleet) -> None:
    """Every kept revision fails, and what is served now is rejected; three is on its way up."""
    world.edit(model=model("three"))
    turn(world, 2)
    world.edit(model=model("one"))
    world.broken = frozenset({ONE})
    turn(world, 10)
    for _ in range(7):
        crash(world, ONE)
        turn(world)
    world.edit(model=model("three"))
    while not split(world).get(THREE):
        turn(world)
    turn(world, 2)


def test_analysis_when_the_pause_before_it_is_promoted_then_it_needs_requests_of_its_own() -> None:
    steps: list[JSON] = [{"setWeight": 25}, {"pause": {}}, {"analysis": {}}, {"setWeight": 50}]
    analysis = {"minSamples": 50, "maxDuration": "5m"}
    world, old, new = started(canary([*steps, {"pause": {}}], analysis=analysis))
    at_share(world, new, 25)
    turn(world, 5)
    for many in range(3):
        world.requests = {old: counted(3000 * many), new: counted(1000 * many)}
        turn(world)
    annotate(world, "promote", f"{new}@1")
    world.reconcile()
    assert world.status()["rollout"]["step"] == 2


def test_act_when_its_value_ends_in_a_newline_then_it_still_runs_once() -> None:
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}] * 3))
    at_share(world, new, 25)
    turn(world, 2)
    annotate(world, "promote", f"{new}@1\n")
    turn(world, 4)
    annotate(world, "promote", f"{new}@2\n")
    turn(world, 4)
    annotate(world, "promote", f"{new}@1\n")
    world.reconcile()
    assert done(world) == []
    world.settle()
    written = world.writes
    turn(world, 2)
    assert world.writes == written, "memory is written on every pass"


def test_restart_when_scaled_to_zero_then_no_pod_stays() -> None:
    world = promoted("one")
    world.wait(100)
    annotate(world, "restart", f"{ONE}@1")
    world.reconcile()
    world.edit(replicas=0)
    for _ in range(10):
        turn(world)
        world.wait(30)
    assert world.replicas() == {ONE: 0}


def test_restart_when_it_comes_with_another_spec_then_it_is_not_told_as_done() -> None:
    world = promoted("one")
    world.wait(100)
    annotate(world, "restart", f"{ONE}@1")
    world.edit(model=model("two"))
    world.reconcile()
    assert done(world) == []


def test_undo_when_it_is_asked_for_twice_then_it_goes_on() -> None:
    world = promoted("one", "two")
    rising(world, "three")
    annotate(world, "undo", f"{ONE}@1")
    while not split(world).get(ONE):
        turn(world)
    annotate(world, "undo", f"{ONE}@2")
    world.reconcile()
    assert "on its way up already" in world.condition("ActRefused")["message"]
    world.settle()
    assert split(world) == {ONE: 100}


def test_retry_when_the_revision_is_only_superseded_then_it_is_refused() -> None:
    world = promoted("one")
    rising(world, "two")
    world.edit(model=model("three"))
    world.reconcile()
    annotate(world, "retry", f"{TWO}@1")
    world.reconcile()
    assert done(world) == []


def test_retry_when_an_undo_waits_behind_the_return_then_that_is_dropped() -> None:
    world = promoted("one", "two")
    rising(world, "three")
    annotate(world, "undo", f"{ONE}@1")
    world.reconcile()
    annotate(world, "retry", f"{THREE}@1")
    world.reconcile()
    assert "undoTarget" not in world.status()["rollout"]


def test_message_when_the_served_revision_has_no_ready_pod_then_its_advice_helps() -> None:
    world = promoted("one")
    lose(world, ONE)
    world.edit(model=model("two"))
    turn(world, 20)
    world.wait(3600)
    turn(world, 3)
    said = world.status()["message"]
    assert "keeps serving" not in said
    assert "is served" not in said
    assert f"promote chat --revision {TWO} --full`" in said
    annotate(world, "promote", f"{TWO}/full@1")
    world.settle()
    assert split(world) == {TWO: 100}


def test_refusal_when_the_revision_goes_back_already_then_it_does_not_contradict_itself() -> None:
    world = promoted("one")
    rising(world, "two")
    lose(world, ONE)
    for token in "12":
        annotate(world, "abort", f"{TWO}@{token}")
        turn(world)
    assert "on its way back already" in world.condition("ActRefused")["message"]


def test_pause_step_when_the_clock_went_back_then_it_is_not_longer() -> None:
    steps: list[JSON] = [{"setWeight": 25}, {"pause": {"duration": "5m"}}, {"setWeight": 50}]
    world, _, new = started(canary(steps))
    world.wait(3600)
    at_share(world, new, 25)
    turn(world)
    world.wait(-3600)
    plan = world.reconcile()
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 301


def test_pause_when_it_names_what_spec_asks_for_next_then_that_gets_no_share() -> None:
    steps: list[JSON] = [{"setWeight": 25}, {"pause": {}}]
    world = Fleet(resource(replicas=4, rollout=canary(steps, scaleDownDelay="10m")))
    world.settle()
    rising(world, "two")
    annotate(world, "promote", f"{TWO}/full@1")
    turn(world, 20)
    annotate(world, "pause", ONE)
    world.edit(model=model("one"))
    world.reconcile()
    assert not split(world).get(ONE)


@pytest.mark.parametrize("at_once", [True, False])
def test_undo_when_spec_asks_for_the_served_revision_again_then_it_arrives(at_once: bool) -> None:
    world = promoted("one", "two")
    rising(world, "three")
    world.edit(model=model("two"))
    if not at_once:
        lose(world, TWO)  # so that it cannot take anything back
        turn(world, 2)
        world.broken = frozenset()
    annotate(world, "undo", f"{ONE}@1")
    turn(world)
    shares = split(world)
    for _ in range(60):
        turn(world)
        assert all(split(world).get(name, 0) <= shares.get(name, 0) for name in (TWO, THREE))
        shares = split(world)
    assert split(world) == {ONE: 100}
    assert world.replicas() == {ONE: 4}
    assert rejected(world)[TWO] == "UserUndo"


def test_undo_when_it_names_the_revision_on_its_way_up_then_that_is_not_rejected() -> None:
    world = promoted("one", "two")
    rising(world, "one")
    world.edit(model=model("two"))
    annotate(world, "undo", f"{ONE}@1")
    world.settle()
    assert split(world) == {ONE: 100}
    assert rejected(world) == {TWO: "UserUndo"}


@pytest.mark.parametrize("by_hand", [True, False])
def test_rollout_when_it_fails_beside_a_rejected_served_one_then_the_last_good_one_takes_over(
    by_hand: bool,
) -> None:
    world = undone_and_rising("three")
    if by_hand:
        annotate(world, "abort", f"{THREE}@1")
    else:
        crash(world, THREE)
    for _ in range(60):
        turn(world)
        assert split(world).get(TWO, 0) <= 75
    assert split(world) == {ONE: 100}
    assert world.replicas() == {ONE: 4}
    assert set(rejected(world)) == {TWO, THREE}


def test_rollout_when_superseded_beside_a_rejected_served_one_then_the_next_one_gets_its_turn() -> (
    None
):
    world = undone_and_rising("three")
    world.edit(model=model("four"))
    for _ in range(60):
        turn(world)
        assert split(world).get(TWO, 0) <= 75
    assert split(world) == {ONE: 75, FOUR: 25}


def test_retry_when_nobody_is_left_to_go_back_to_then_the_rollout_goes_on_where_it_is() -> None:
    world, old, new = started(PAUSED)
    at_share(world, new, 25)
    lose(world, old)
    annotate(world, "abort", f"{new}@1")
    turn(world, 10)
    assert split(world) == {old: 75, new: 25}
    annotate(world, "retry", f"{new}@1")
    turn(world, 10)
    assert split(world) == {old: 75, new: 25}
    annotate(world, "promote", f"{new}/full@1")
    world.settle()
    assert split(world) == {new: 100}
    assert world.replicas() == {new: 4}


def test_undo_when_its_target_is_deleted_on_the_way_back_then_what_is_served_stays() -> None:
    world = promoted("one", "two", "three")
    rising(world, "four")
    annotate(world, "undo", f"{TWO}@1")
    world.reconcile()
    for key in [key for key in world.objects if key.name == f"chat-rev-{TWO}"]:
        del world.objects[key]
    world.settle()
    assert split(world) == {THREE: 100}
    assert "rollout" not in world.status()
    world.edit(model=model("one"))
    at_share(world, ONE, 25)


def test_undo_when_the_record_of_the_rollout_cannot_be_read_then_it_is_refused() -> None:
    world = promoted("one", "two")
    rising(world, "three")
    status = world.status()
    forged = {**status, "rollout": {**status["rollout"], "state": "Sideways"}}
    world.raw = {**world.raw, "status": forged}
    annotate(world, "undo", f"{ONE}@1")
    turn(world)
    assert rejected(world) == {}
    assert "cannot be read" in world.condition("ActRefused")["message"]


def test_status_when_lost_in_a_rollout_then_no_pod_goes_before_routers_confirm() -> None:
    world, _, new = started(PAUSED)
    at_share(world, new, 25)
    world.edit(rollout=canary([{"analysis": {}}, {"setWeight": 25}]))
    world.raw = {key: value for key, value in world.raw.items() if key != "status"}
    for _ in range(3):
        world.reconcile()
        assert world.replicas()[new] == 1


@pytest.mark.parametrize("by_undo", [True, False])
def test_rollout_when_nobody_is_left_to_go_back_to_then_the_next_one_takes_over_in_time(
    by_undo: bool,
) -> None:
    world = promoted("one", "two")
    rising(world, "three")
    lose(world, TWO)
    if by_undo:
        annotate(world, "undo", f"{ONE}@1")
    else:
        world.edit(model=model("four"))
    turn(world, 10)
    assert split(world) == {TWO: 75, THREE: 25}
    world.wait(1800)
    turn(world, 10)
    assert THREE not in split(world)
    if not by_undo:
        annotate(world, "promote", f"{FOUR}/full@1")
    world.settle()
    wanted = ONE if by_undo else FOUR
    assert (split(world), world.replicas()) == ({wanted: 100}, {wanted: 4})


def test_traffic_when_its_generation_is_lost_then_it_gets_a_new_one() -> None:
    world, _, new = started(PAUSED)
    at_share(world, new, 25)
    status, before = dict(world.status()), world.status()["trafficGeneration"]
    del status["trafficGeneration"]
    world.raw = {**world.raw, "status": status}
    world.reconcile()
    assert world.status()["trafficGeneration"] > before


@pytest.mark.parametrize("steps", [100, True, "none"])
def test_plan_when_its_steps_are_no_list_then_the_rollout_is_held(steps: object) -> None:
    world, old, new = started(PAUSED)
    at_share(world, new, 25)
    status = world.status()
    rollout = status["rollout"]
    forged = {**rollout, "plan": {**rollout["plan"], "steps": steps}}
    world.raw = {**world.raw, "status": {**status, "rollout": forged}}
    turn(world)
    assert split(world) == {old: 75, new: 25}
    assert "cannot be read (plan.steps" in world.status()["message"]


@pytest.mark.parametrize(
    "when",
    ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"],
)
@pytest.mark.parametrize("key", ["startedAt", "progressedAt", "waitingSince", "retryAt"])
def test_status_when_it_holds_a_time_that_nothing_can_be_added_to_then_it_cannot_be_read(
    key: str, when: str
) -> None:
    world, _, new = started(PAUSED)
    at_share(world, new, 25)
    status = world.status()
    forged = {**status, "rollout": {**status["rollout"], key: when}}
    with pytest.raises(ValidationError, match="must be a time of the years"):
        parse({**world.raw, "status": forged})


def test_undo_when_its_target_fails_and_no_other_is_kept_then_a_new_spec_takes_over() -> None:
    world = promoted("one", "two")
    annotate(world, "undo", f"{ONE}@1")
    while not 0 < split(world).get(ONE, 0) < 100:
        turn(world)
    crash(world, ONE)
    turn(world, 3)
    shares = split(world)
    assert set(shares) == {ONE, TWO}  # nobody else is there to take them
    world.edit(model=model("three"))
    for _ in range(60):
        turn(world)
        assert split(world).get(TWO, 0) <= shares[TWO]
    assert split(world) == {THREE: 100}
    assert world.replicas() == {THREE: 4}
    assert world.status()["phase"] == "Healthy"


def test_undo_when_the_deployment_of_what_it_gives_up_is_deleted_then_it_goes_on() -> None:
    world = promoted("one", "two")
    rising(world, "three")
    world.edit(model=model("two"))
    annotate(world, "undo", f"{ONE}@1")
    world.reconcile()
    key = next(
        key for key in world.objects if (key.kind, key.name) == ("Deployment", f"chat-rev-{THREE}")
    )
    del world.objects[key]
    plan = decide(world.snapshot(), world.now)
    assert plan.status is not None
    assert plan.status["rollout"]["revision"] == ONE
    assert plan.status["traffic"] == world.status()["traffic"]
