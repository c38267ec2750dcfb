"""States that November's operator left go on to the end that they had, and foreign ones are held.

What is recorded, and how, stands in ``recorded``. A file with ``changed_by`` names a fault by which
November's end was wrong, and has the right one, as far as it is decided, as ``end``; one with
``open`` is not mended yet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmfleet.api import LLMDeploymentStatus, parse
from llmfleet.cluster.observing import UnreadableError
from llmfleet.planning.report.unreadable import decide_unreadable
from llmfleet.planning.revisions.revision import revision_hash
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.recorded.plain import FOREIGN, STATES, dump, load, read_bodies
from tests.unit.planning.recorded.playing import Play

BODIES = read_bodies()
TURNS, TURN_SECONDS = 30, 120
"""Longer than the pause that a foreign state is in."""


def files(folder: Path) -> list[Any]:
    """One parameter a file; what is not mended yet is expected to fail, until it does not."""
    found = []
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_text())
        why = body.get("open")
        marks = [pytest.mark.xfail(strict=True, reason=why)] if why else []
        found.append(pytest.param(body, id=path.stem, marks=marks))
    return found


def states() -> list[Any]:
    """One parameter a recorded state, mended or not."""
    return [
        pytest.param(json.loads(path.read_text()), id=path.stem)
        for path in sorted(STATES.glob("*.json"))
    ]


@pytest.mark.long
@pytest.mark.parametrize("body", files(STATES))
def test_recorded_state_when_it_goes_on_then_the_end_is_the_one_of_its_file(body: Any) -> None:
    play = Play(load(body["fleet"], BODIES), body["names"])
    play.go_on(body["continue"])
    end = play.end()
    assert play.faults == []
    assert play.stops == body.get("stops", play.stops)
    assert {key: end[key] for key in body["end"]} == body["end"], play.world.status()["message"]


@pytest.mark.parametrize("body", states())
def test_recorded_status_when_read_with_the_models_then_nothing_of_it_is_lost(body: Any) -> None:
    raw = body["fleet"]["resource"]
    parse(raw)
    stored = raw.get("status", {})
    model = LLMDeploymentStatus.model_validate(stored)
    assert lost(stored, model.model_dump(mode="json", by_alias=True)) == []


def lost(stored: Any, read: Any, path: str = "status") -> list[str]:
    """Where a stored value is not what was read, by path."""
    if isinstance(stored, dict) and isinstance(read, dict):
        pairs = ((f"{path}.{key}", each, read.get(key)) for key, each in stored.items())
    elif isinstance(stored, list) and isinstance(read, list) and len(stored) == len(read):
        numbered = enumerate(zip(stored, read, strict=True))
        pairs = ((f"{path}[{number}]", *pair) for number, pair in numbered)
    else:
        return [] if stored == read else [f"{path}: {stored!r} is read as {read!r}"]
    return [found for where, one, other in pairs for found in lost(one, other, where)]


@pytest.mark.parametrize("body", states())
def test_recorded_state_when_loaded_then_it_is_what_the_file_says(body: Any) -> None:
    world = load(body["fleet"], BODIES)
    assert dump(world, {}) == body["fleet"]


def test_recorded_revisions_when_hashed_today_then_they_have_their_names() -> None:
    found = {key: body for key, body in BODIES.items() if key.startswith("ControllerRevision/")}
    assert found
    for key, body in found.items():
        assert body["metadata"]["name"] == f"chat-rev-{revision_hash(body['data']['payload'])}", key


def test_recorded_states_when_taken_together_then_every_stage_of_a_rollout_is_among_them() -> None:
    bodies = [json.loads(path.read_text()) for path in STATES.glob("*.json")]
    assert len(bodies) >= 25
    statuses = [body["fleet"]["resource"].get("status", {}) for body in bodies]
    rollouts = [status["rollout"] for status in statuses if "rollout" in status]
    at = [
        each["plan"]["steps"][each["step"]]
        for each in rollouts
        if "steps" in each["plan"] and each.get("step", 99) < len(each["plan"]["steps"])
    ]
    assert {kind for step in at for kind in step} == {
        "setWeight", "pause", "analysis", "setCanaryScale", "setHeaderRoute", "setMirror",
    }  # fmt: skip
    assert {each.get("cause") for each in rollouts} == {None, "Undo", "Rollback"}
    assert {"Superseded", "UserAbort", "UserUndo", "BadConfig", "ImagePullFailed"} <= {
        each.get("aborted") for each in rollouts
    }
    assert {status.get("phase") for status in statuses} == {
        None, "Healthy", "Progressing", "Paused", "Degraded",
    }  # fmt: skip


class Unchecked(Fleet):
    """A cluster in which what is commanded may be nonsense, since somebody else wrote it."""

    def _check(self, seen: Any, plan: Any) -> None:
        pass


def turned(world: Fleet) -> list[str]:
    """One pass, as the operator makes it; its events where it writes no status."""
    try:
        plan = world.reconcile()
    except ValidationError as error:
        plan = decide_unreadable(world.raw, UnreadableError(world.raw, error).problem, world.now)
        if plan.status is not None:
            world.raw = {**world.raw, "status": plan.status}
    world.kubelet()
    world.routers()
    world.wait(TURN_SECONDS)
    return [event.message for event in plan.events] if plan.status is None else []


def command(world: Fleet) -> dict[str, Any]:
    """What clients get, and by what it is carried."""
    status = world.status()
    kept = ("traffic", "routing", "trafficGeneration", "servedRevision")
    engines = sorted(name for name, pod in world.pods.items() if pod.component == "engine")
    traffic = sorted((each["revision"], each["weight"]) for each in status.get("traffic", []))
    return {
        **{key: status.get(key) for key in kept},
        "traffic": traffic, "pods": engines, "sizes": world.replicas(),
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("body", files(FOREIGN))
def test_foreign_status_when_time_passes_then_all_is_held_and_a_condition_says_so(
    body: Any,
) -> None:
    world = load(body["fleet"], BODIES, Unchecked)
    before, told = command(world), []
    served = before["servedRevision"]
    for _ in range(TURNS):
        told += turned(world)
        assert command(world) == before or body.get("goes_back")
        assert world.status()["servedRevision"] == served
    if body.get("goes_back"):  # which is safe whatever its reason was; it is not tried again
        assert command(world)["traffic"] == [(served, 100)]
    assert body["word"] in "; ".join([*told, world.condition("Ready")["message"]])
    assert world.condition("Ready")["status"] != "True"
