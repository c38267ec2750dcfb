"""Acts of the CLI do what they say when the operator's own decisions read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from llmfleet.api import parse
from llmfleet.api.deployment import LLMDeployment
from llmfleet.cli import annotating
from llmfleet.cli.annotating import NothingToDoError
from llmfleet.cli.commands import Commands
from llmfleet.planning.children.naming import memory_key
from tests.unit.planning.canaries import at_share, canary, fail, rejected, split, started
from tests.unit.planning.fleet import Fleet, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def seen(world: Fleet) -> LLMDeployment:
    return parse(world.raw)


def carry_out(world: Fleet, annotations: dict[str, Any], turns: int = 30) -> None:
    found = {**(world.raw["metadata"].get("annotations") or {}), **annotations}
    kept = {key: value for key, value in found.items() if value is not None}
    world.raw = {**world.raw, "metadata": {**world.raw["metadata"], "annotations": kept}}
    world._touch_resource()
    for _ in range(turns):
        turn(world)


def test_promote_when_a_pause_waits_for_a_person_then_the_next_step_comes() -> None:
    world, _, new = started({"strategy": "Canary", "maxSurge": 1, "scaleDownDelay": "10s",
                             "steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50},
                                       {"pause": {}}]})  # fmt: skip
    at_share(world, new, 25)
    carry_out(world, annotating.promote(seen(world), NOW))
    assert split(world)[new] == 50
    carry_out(world, annotating.promote(seen(world), NOW.replace(minute=31), full=True))
    assert world.status()["servedRevision"] == new


def test_abort_and_retry_when_carried_out_then_rejected_and_tried_again() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    carry_out(world, annotating.abort(seen(world), NOW))
    assert split(world) == {old: 100}
    assert new in rejected(world)
    with pytest.raises(NothingToDoError, match=f"served is {old}"):
        annotating.promote(seen(world), NOW)
    carry_out(world, annotating.retry(seen(world), NOW))
    assert rejected(world) == {}
    assert split(world).get(new)


def test_undo_when_no_revision_is_named_then_the_one_served_before_comes_back() -> None:
    world, old, new = started({"strategy": "RollingUpdate", "maxSurge": 1, "scaleDownDelay": "10s"})
    carry_out(world, {}, 60)
    assert world.status()["servedRevision"] == new
    carry_out(world, annotating.undo(seen(world), NOW), 60)
    assert world.status()["servedRevision"] == old
    assert list(rejected(world)) == [new]
    with pytest.raises(NothingToDoError, match="cannot be gone back to"):
        annotating.undo(seen(world), NOW, revision="0123456789")


def test_acts_when_they_mean_nothing_then_a_sentence_says_what_there_is() -> None:
    world = Fleet(resource())
    world.settle()
    for nothing in (
        lambda: annotating.promote(seen(world), NOW),
        lambda: annotating.abort(seen(world), NOW),
        lambda: annotating.retry(seen(world), NOW),
        lambda: annotating.undo(seen(world), NOW),
        lambda: annotating.resume(seen(world)),
    ):
        with pytest.raises(NothingToDoError, match=r"\w+ \w+"):
            nothing()


def at_zero() -> Fleet:
    world, _, new = started()
    at_share(world, new, 25)
    world.edit(replicas=0)
    turn(world, 4)
    return world


def idle_at_zero() -> Fleet:
    world = Fleet(resource())
    world.settle()
    world.edit(replicas=0)
    world.settle()
    return world


def without_steps() -> Fleet:
    world, _, _ = started({"strategy": "RollingUpdate", "maxSurge": 1})
    turn(world, 2)
    return world


def undoing() -> Fleet:
    """On its way back to a kept revision, away from the served one, which was rejected by it."""
    world, old, new = started({"strategy": "RollingUpdate", "maxSurge": 1})
    turn(world, 60)
    carry_out(world, annotating.undo(seen(world), NOW), 2)
    status = world.status()
    assert (status["servedRevision"], status["rollout"]["revision"]) == (new, old)
    assert list(rejected(world)) == [new]
    return world


def first() -> Fleet:
    world = Fleet(resource(replicas=1))
    world.reconcile()
    world.reconcile()
    assert "servedRevision" not in world.status()
    return world


@pytest.mark.parametrize(
    ("make", "act", "sentence", "operators"),
    [
        pytest.param(idle_at_zero, annotating.restart, "no replicas are wanted",
                     "no replicas are wanted", id="restart-at-zero"),
        pytest.param(at_zero, annotating.promote, "no replicas are wanted",
                     "no replicas are wanted", id="promote-at-zero"),
        pytest.param(without_steps, annotating.promote, "it goes on by itself",
                     "goes on by itself", id="promote-without-steps"),
        pytest.param(undoing, annotating.promote, "it goes on by itself",
                     "goes on by itself", id="promote-an-undo"),
        pytest.param(undoing, annotating.abort, "would end an undo.*llmfleet retry chat --revision",
                     "would end an undo", id="abort-an-undo"),
        pytest.param(undoing, annotating.undo, "no good revision is served",
                     "no good revision is served", id="undo-an-undo"),
        pytest.param(first, annotating.abort, "is the first revision",
                     "names the first revision", id="abort-the-first"),
        pytest.param(first, annotating.promote, "is the first revision",
                     "names the first revision", id="promote-the-first"),
    ],
)  # fmt: skip
def test_act_when_the_operator_would_refuse_it_then_it_is_refused_at_once(
    make: Callable[[], Fleet], act: Any, sentence: str, operators: str
) -> None:
    world = make()
    with pytest.raises(NothingToDoError, match=sentence):
        act(seen(world), NOW)
    status, name = world.status(), act.__name__
    going = status["rollout"]["revision"] if "rollout" in status else status["servedRevision"]
    meant = status["revisions"][-1]["hash"] if name == "undo" else going
    carry_out(world, {f"llmfleet.dev/{name}": f"{meant}@1"}, 1)
    assert operators in world.condition("ActRefused")["message"]


@pytest.mark.parametrize("act", [annotating.promote, annotating.abort])
def test_act_when_another_revision_is_meant_then_it_is_refused(act: Any) -> None:
    """Somebody has changed spec since whoever acts has looked."""
    world, old, new = started()
    at_share(world, new, 25)
    with pytest.raises(NothingToDoError, match=f"it is {new}, and nothing was done"):
        act(seen(world), NOW, revision=old)
    assert act(seen(world), NOW, revision=new) == act(seen(world), NOW)


def test_promote_when_somebody_else_ended_the_step_meanwhile_then_no_other_one_ends() -> None:
    """Two people see the same pause, and both promote it."""
    world, _, new = started()
    at_share(world, new, 25)
    first, second = (annotating.promote(seen(world), NOW.replace(second=at)) for at in (1, 2))
    assert first["llmfleet.dev/promote"].startswith(f"{new}/1@")
    carry_out(world, first, 1)
    assert world.status()["rollout"]["step"] == 2
    carry_out(world, second, 1)
    assert world.status()["rollout"]["step"] == 2
    assert "names step 1" in world.condition("ActRefused")["message"]


@pytest.mark.parametrize("act", [annotating.promote, annotating.abort])
def test_act_when_another_step_is_meant_then_it_is_refused_with_the_one_under_way(act: Any) -> None:
    world, _, new = started()
    at_share(world, new, 25)
    with pytest.raises(NothingToDoError, match=r"step 0 of .* it is step 1, and nothing was done"):
        act(seen(world), NOW, step=0)
    name = act.__name__
    assert act(seen(world), NOW, step=1)[f"llmfleet.dev/{name}"].startswith(f"{new}/1@")


@pytest.mark.parametrize("act", [annotating.promote, annotating.undo, annotating.restart])
def test_act_when_the_newest_spec_is_not_seen_yet_then_it_is_refused(act: Any) -> None:
    """Whoever acts means what he has just applied, and status is about what was before."""
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}]))
    at_share(world, new, 25)
    if act is not annotating.promote:
        carry_out(world, {"llmfleet.dev/promote": f"{new}/full@1"}, 60)
    act(seen(world), NOW)
    world.edit(model=model("three"))
    with pytest.raises(NothingToDoError, match="the operator has not seen that yet"):
        act(seen(world), NOW)


def fails_once_more(world: Fleet, new: str) -> None:
    """The registry is away: an end that is not the revision's fault."""
    world.kubelet()
    fail(world, new, {"waiting_reason": "ImagePullBackOff"})
    world.reconcile()
    world.wait(121)
    turn(world, 3)


def test_restart_when_a_rollout_was_aborted_then_it_says_what_that_waits_for() -> None:
    world, _, new = started(broken=True)
    refusals = list[str]()
    for _ in range(4):
        fails_once_more(world, new)
        with pytest.raises(NothingToDoError) as refused:
            annotating.restart(seen(world), NOW, commands=Commands(namespace="team-a"))
        refusals.append(str(refused.value))
        world.wait(3600)
        turn(world)
    aborted = f"{new} was aborted (ImagePullFailed)"
    assert all(each.startswith(f"{aborted}, and is tried again at ") for each in refusals[:3])
    assert refusals[3] == (
        f"{aborted}, and no try is left:"
        f" `kubectl llmfleet -n team-a retry chat --revision {new}`, or change spec"
    )
    carry_out(world, annotating.retry(seen(world), NOW, revision=new), 1)
    with pytest.raises(NothingToDoError, match="is being rolled out"):
        annotating.restart(seen(world), NOW)


def test_restart_when_a_rollout_goes_back_then_its_end_is_waited_for() -> None:
    world, _, new = started()
    at_share(world, new, 25)
    world.edit(model=model("three"))
    world.reconcile()
    with pytest.raises(NothingToDoError, match=rf"{new} goes back \(Superseded\): wait"):
        annotating.restart(seen(world), NOW)


def test_undo_when_the_revision_never_served_then_it_is_refused_at_once() -> None:
    world, old, new = started()
    at_share(world, new, 25)
    carry_out(world, annotating.abort(seen(world), NOW))
    carry_out(world, annotating.retry(seen(world), NOW))
    world.edit(model=model("three"))
    turn(world, 40)
    assert new in {each["hash"] for each in world.status()["revisions"]}
    with pytest.raises(NothingToDoError, match=f"kept for that are: {old}"):
        annotating.undo(seen(world), NOW, revision=new)


def test_pause_when_resumed_then_it_moves_again() -> None:
    world, _, new = started()
    carry_out(world, annotating.pause())
    assert world.status()["phase"] == "Paused"
    with pytest.raises(NothingToDoError, match="kubectl llmfleet resume chat"):
        annotating.promote(seen(world), NOW)
    carry_out(world, annotating.resume(seen(world)))
    at_share(world, new, 25)


def test_forget_when_the_operator_would_write_the_memory_anew_then_it_is_refused() -> None:
    world, _, new = started()
    at_share(world, new, 25)

    def written_anew() -> bool:
        del world.objects[memory_key("chat")]
        turn(world)
        return memory_key("chat") in world.objects

    assert written_anew()
    with pytest.raises(NothingToDoError, match="kubectl delete llmdep chat -n team-a"):
        annotating.check_forget(world.raw, "team-a", "chat", Commands(namespace="team-a"))
    deleted = {**world.raw["metadata"], "deletionTimestamp": "2026-03-01T12:30:00Z"}
    world.raw = {**world.raw, "metadata": deleted}
    assert not written_anew()
    annotating.check_forget(world.raw, "team-a", "chat")
    annotating.check_forget(None, "team-a", "chat")
