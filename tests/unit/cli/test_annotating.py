"""Acts of the CLI do what they say when the operator's own decisions read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmfleet.api import parse
from llmfleet.api.deployment import LLMDeployment
from llmfleet.cli import annotating
from llmfleet.cli.annotating import NothingToDoError
from llmfleet.cli.commands import Commands
from llmfleet.planning.children.naming import memory_key
from tests.unit.planning.canaries import at_share, rejected, split, started
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


@pytest.mark.parametrize("act", [annotating.promote, annotating.abort])
def test_act_when_another_revision_is_meant_then_it_is_refused(act: Any) -> None:
    """Somebody has changed spec since whoever acts has looked."""
    world, old, new = started()
    at_share(world, new, 25)
    with pytest.raises(NothingToDoError, match=f"it is {new}, and nothing was done"):
        act(seen(world), NOW, revision=old)
    assert act(seen(world), NOW, revision=new) == act(seen(world), NOW)


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
