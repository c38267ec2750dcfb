"""``restart``: new pods of the same revision, one by one, and no new revision."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import annotate, canary, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn


def served(replicas: int = 3, surge: int | str = 1) -> tuple[Fleet, str]:
    world = Fleet(resource(replicas=replicas, rollout=canary(maxSurge=surge)))
    world.settle()
    world.wait(60)
    return world, hash_of(world.raw)


def restart(world: Fleet, revision: str, token: str = "1") -> None:
    annotate(world, "restart", f"{revision}@{token}")
    world.wait(1)


def engines(world: Fleet) -> set[str]:
    return {name for name, pod in world.pods.items() if pod.component == "engine"}


def template(world: Fleet, revision: str) -> JSON:
    found = {key.name: each for key, each in world.objects.items() if key.kind == "Deployment"}
    body: JSON = found[f"chat-rev-{revision}"].body["spec"]["template"]
    return body


@pytest.mark.parametrize("surge", [0, 1, "25%"])
def test_restart_when_asked_for_then_each_pod_is_replaced_after_a_new_one_is_ready(
    surge: int | str,
) -> None:
    world, revision = served(3, surge)
    before, verbatim = engines(world), template(world, revision)
    restart(world, revision)
    fewest, most = 3, 0
    for _ in range(60):
        turn(world)
        fewest = min(fewest, world.ready(revision))
        most = max(most, world.replicas()[revision])
    assert not before & engines(world)
    assert len(engines(world)) == world.ready(revision) == 3
    assert (fewest, most) == ((2, 3) if surge == 0 else (3, 4))
    assert world.status()["phase"] == "Healthy"
    assert [each["hash"] for each in world.status()["revisions"]] == [revision]
    assert template(world, revision) == verbatim


def test_restart_when_the_only_replicas_node_is_to_be_drained_then_a_new_pod_is_there_first() -> (
    None
):
    world, revision = served(1)
    (before,) = engines(world)
    restart(world, revision)
    for _ in range(20):
        turn(world)
        assert world.ready(revision) >= 1, "clients are answered all the time"
    assert before not in engines(world)


def test_restart_when_it_goes_on_then_the_message_counts_the_old_pods_and_it_runs_once() -> None:
    world, revision = served(2)
    restart(world, revision)
    world.reconcile()
    progressing = world.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("True", "Restarting")
    assert "2 old ones left" in progressing["message"]
    assert world.status()["rollout"]["state"] == "Restarting"
    world.settle()
    pods = engines(world)
    world.settle()
    assert engines(world) == pods
    restart(world, revision, "2")
    world.settle()
    assert not pods & engines(world)


def test_restart_when_an_old_pod_is_not_ready_then_it_is_replaced_without_waiting() -> None:
    world, revision = served(2)
    name = min(engines(world))
    world.pods[name] = replace(world.pods[name], ready=False)
    restart(world, revision)
    plan = world.reconcile()
    assert [each.key.name for each in plan.deletions] == [name]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("another", "is not the served one"),
        ("rollout", "comes in a rollout"),
        ("zero", "no replicas are wanted"),
    ],
)
def test_restart_when_it_cannot_be_then_it_is_refused_with_the_reason(
    case: str, words: str
) -> None:
    world, revision = served(2)
    if case == "rollout":
        world, revision, _ = started()
    elif case == "zero":
        world.edit(replicas=0)
        world.settle()
    restart(world, "0123456789" if case == "another" else revision)
    pods = engines(world)
    turn(world)
    assert words in world.condition("ActRefused")["message"]
    assert pods <= engines(world)


def test_restart_when_spec_changes_meanwhile_then_the_rollout_begins_and_replaces_the_rest() -> (
    None
):
    world, revision = served(2)
    restart(world, revision)
    turn(world)
    world.edit(model=model("two"), rollout={"strategy": "RollingUpdate", "maxSurge": 1})
    turn(world)
    assert world.status()["rollout"]["state"] == "Forward"
    world.settle()
    assert split(world) == {hash_of(world.raw): 100}
