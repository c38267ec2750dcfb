"""Bytes that move are progress: no revision is rejected for a model that is large."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from llmfleet.planning.snapshot import Download
from tests.unit.planning.canaries import STEPS, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_nodes import engine_of, stay
from tests.unit.planning.test_rollout import turn

TOTAL = 140 * 10**9


def download(
    at: datetime, done: int, *, total: int | None = TOTAL, ended: bool = False
) -> Download:
    return Download(bytes_done=done, bytes_total=total, moved_at=at, ended=ended)


def downloading() -> tuple[Fleet, str, str, str]:
    """A canary whose one pod runs and downloads, with a deadline of five minutes."""
    world, old, new = started(canary(STEPS, progressDeadline="5m"), broken=True)
    world.kubelet()
    name = engine_of(world, new)
    stay(world, name, phase="Running", running_since=world.now, unready_since=world.now)
    return world, old, new, name


def test_canary_when_its_download_outlasts_the_deadline_then_it_goes_on() -> None:
    world, old, new, name = downloading()
    for percent in range(0, 100, 10):
        stay(world, name, download=download(world.now, percent * TOTAL // 100 + 1))
        world.reconcile()
        assert f"{percent} % of 140 GB are downloaded" in world.condition("Progressing")["message"]
        world.wait(100)
    assert (split(world), rejected(world)) == ({old: 100}, {})

    stay(world, name, download=download(world.now, TOTAL, ended=True))
    world.wait(299)
    world.reconcile()
    assert rejected(world) == {}
    world.broken = frozenset()
    turn(world, 3)
    assert split(world)[new] == 25
    assert world.condition("Progressing")["reason"] != "ProgressDeadlineExceeded"


def test_canary_when_it_hangs_after_its_download_then_it_is_rejected_after_the_deadline() -> None:
    world, _, new, name = downloading()
    world.wait(1000)
    stay(world, name, download=download(world.now, TOTAL, ended=True))
    world.wait(300)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}


def test_canary_when_no_byte_comes_any_more_then_the_deadline_runs() -> None:
    world, _, new, name = downloading()
    stay(world, name, download=download(world.now, 10**9))
    plan = world.reconcile()
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 121
    world.wait(121)
    world.reconcile()
    assert rejected(world) == {}
    world.wait(179)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}


def test_canary_when_one_answer_about_a_long_download_is_lost_then_it_is_not_rejected() -> None:
    """A supervisor that does not answer once, or a new operator that has not heard of it yet."""
    world, old, new, name = downloading()
    for _ in range(20):
        stay(world, name, download=download(world.now, 10**9))
        world.reconcile()
        world.wait(60)
    stay(world, name, download=None, silent_since=world.now)
    world.reconcile()
    assert (split(world), rejected(world)) == ({old: 100}, {})
    world.wait(119)
    world.reconcile()
    assert rejected(world) == {}
    world.wait(1)
    world.reconcile()
    assert rejected(world) == {new: "NeverReady"}, "and nobody has answered ever since"


def test_status_when_bytes_move_then_it_is_written_a_few_times_only() -> None:
    world, _, _, name = downloading()
    said = set()
    for percent in range(100):
        stay(world, name, download=download(world.now, percent * TOTAL // 100))
        world.reconcile()
        said.add(str(world.status()))
        world.wait(20)
    assert len(said) <= 12


WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "size unknown": ({"done": 57 * 10**9, "total": None}, "50 GB are downloaded"),
    "just begun": ({"done": 5, "total": None}, "its model is being downloaded"),
    "more than was said": ({"done": 10**12}, "100 % of 140 GB are downloaded"),
    "empty": ({"done": 0, "total": 0}, "0 % of 1 GB are downloaded"),
}


@pytest.mark.parametrize(("facts", "words"), WORDS.values(), ids=WORDS)
def test_first_revision_when_it_downloads_then_it_says_how_far(
    facts: dict[str, Any], words: str
) -> None:
    world = Fleet(resource(replicas=1))
    world.broken = frozenset({hash_of(world.raw)})
    turn(world, 3)
    name = engine_of(world, hash_of(world.raw))
    stay(world, name, phase="Running", running_since=world.now, unready_since=world.now)
    stay(world, name, download=download(world.now, **facts))
    world.reconcile()
    assert words in world.condition("Progressing")["message"]
