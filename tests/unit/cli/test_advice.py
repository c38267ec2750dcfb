"""Every command that a message prints does what it says, in every state that prints it.

The messages are those of the operator's own decisions, of ``kubectl llmfleet status`` and of acts
that it refuses. Each command is run by the real program, as printed, and the operator then decides.
"""

from __future__ import annotations

import copy
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest.mock import patch

import pytest

from llmfleet.api import parse
from llmfleet.api.deployment import LLMDeployment
from llmfleet.cli import __main__ as program
from llmfleet.cli import access, view
from llmfleet.cli.commands import Commands
from llmfleet.cli.leading import Leadership
from tests.unit.gitops.states import STATES, reach
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.test_attacked import ONE, TWO, lose, promoted
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long

COMMAND = re.compile(r"`(kubectl [^`]+)`")
ACTS = ("promote", "abort", "retry", "undo", "restart", "resume")
TURNS = 60


def seen(world: Fleet) -> LLMDeployment:
    return parse(world.raw)


class PlayedCluster:
    """The cluster of the program, which is a modelled one."""

    def __init__(self, world: Fleet) -> None:
        self.world, self.commands, self.namespace = world, Commands(), "team-a"

    def get(self, name: str) -> tuple[Any, LLMDeployment]:
        assert name == self.world.raw["metadata"]["name"]
        return self.world.raw, access.read(self.world.raw)

    def leadership(self) -> Leadership:
        return Leadership()

    def annotate(self, raw: Any, annotations: Mapping[str, str | None]) -> None:
        assert raw is self.world.raw
        for key, value in annotations.items():
            annotate(self.world, key.removeprefix("llmfleet.dev/"), value)


def run(world: Fleet, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code, and what it said."""
    with (
        patch.object(program, "Cluster", lambda *_: PlayedCluster(world)),
        patch.object(program, "_now", lambda: world.now),
        patch.object(sys, "argv", ["kubectl-llmfleet", *words]),
        pytest.raises(SystemExit) as ended,
    ):
        program.main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def wrong_step() -> Fleet:
    world, _, new = started(canary([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}]))
    at_share(world, new, 25)
    annotate(world, "promote", f"{new}/0@1")
    annotate(world, "abort", f"{new}/0@1")
    turn(world)
    return world


def promote_under_a_pause() -> Fleet:
    world, _, new = started()
    at_share(world, new, 25)
    annotate(world, "pause", "true")
    annotate(world, "promote", f"{new}@1")
    turn(world)
    return world


def abort_of_an_undo() -> Fleet:
    world = promoted("one", "two")
    annotate(world, "undo", f"{ONE}@1")
    turn(world, 2)
    annotate(world, "abort", f"{ONE}@1")
    turn(world)
    return world


def only_the_canary_is_ready() -> Fleet:
    world = promoted("one")
    lose(world, ONE)
    world.edit(model=model("two"))
    turn(world, 20)
    world.wait(3600)
    turn(world, 3)
    assert world.ready(TWO)
    return world


def a_record_of_tomorrow() -> Fleet:
    world, _, new = started()
    at_share(world, new, 25)
    world.raw = copy.deepcopy(world.raw)
    world.raw["status"]["rollout"]["state"] = "Later"
    world._touch_resource()
    turn(world)
    return world


OTHERS: dict[str, Callable[[], Fleet]] = {
    "acts for a step that is over": wrong_step,
    "promote under a pause": promote_under_a_pause,
    "abort of an undo": abort_of_an_undo,
    "only the canary is ready": only_the_canary_is_ready,
    "a record of tomorrow": a_record_of_tomorrow,
}


def at(state: str) -> Fleet:
    return reach(state) if state in STATES else OTHERS[state]()


def told(world: Fleet) -> Iterator[str]:
    status = world.status()
    yield status.get("message", "")
    yield from (each["message"] for each in status.get("conditions", []))
    if status.get("phase") and is_readable(world):
        yield view.whats_next(seen(world), world.now)


def is_readable(world: Fleet) -> bool:
    try:
        access.read(world.raw)
    except access.AccessError:
        return False
    return True


def printed(texts: Iterator[str]) -> list[str]:
    return sorted({command for text in texts for command in COMMAND.findall(text)})


def follow(world: Fleet, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command as printed, and see the operator do it."""
    words = shlex.split(command)
    assert words[:2] == ["kubectl", "llmfleet"]
    # Some know the namespace from where they have looked.
    words = words[4:] if words[2] == "-n" else words[2:]
    code, said = run(world, words, capsys)
    if words[0] in {"explain", "status"}:
        assert said
        return
    assert code == 0, said
    value = (world.raw["metadata"].get("annotations") or {}).get(f"llmfleet.dev/{words[0]}")
    named = (value or "").partition("@")[0]
    revision, _, step = named.partition("/")
    if "--revision" in words:
        assert revision == words[words.index("--revision") + 1]
    before = copy.deepcopy(world.status().get("rollout") or {})
    turn(world)
    assert f": {value} " not in world.condition("ActRefused").get("message", ""), value
    DONE[words[0]](world, revision, step, before)


def is_promoted(world: Fleet, revision: str, step: str, before: Mapping[str, Any]) -> None:
    del before
    if step == "full":
        turn(world, TURNS)
        assert world.status()["servedRevision"] == revision
    else:
        rollout = world.status().get("rollout") or {}
        assert rollout.get("step", 99) > int(step) or "step" not in rollout


def is_aborted(world: Fleet, revision: str, step: str, before: Mapping[str, Any]) -> None:
    del step, before
    assert revision in rejected(world)
    turn(world, TURNS)
    assert revision not in split(world)


def is_retried(world: Fleet, revision: str, step: str, before: Mapping[str, Any]) -> None:
    del step
    assert revision not in rejected(world)
    for _ in range(TURNS):
        rollout = world.status().get("rollout") or {}
        anew = rollout.get("revision") == revision and rollout.get("id") != before.get("id")
        if anew or world.status().get("servedRevision") == revision:
            return
        turn(world)
    raise AssertionError(world.status()["message"])


def is_resumed(world: Fleet, revision: str, step: str, before: Mapping[str, Any]) -> None:
    del revision, step, before
    assert "llmfleet.dev/pause" not in world.raw["metadata"]["annotations"]
    assert not [text for text in told(world) if "resume chat" in text]


DONE = {
    "promote": is_promoted,
    "abort": is_aborted,
    "retry": is_retried,
    "resume": is_resumed,
}


@pytest.mark.parametrize("state", [*STATES, *OTHERS])
def test_command_when_a_message_prints_it_then_it_does_what_it_says(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in printed(told(at(state))):
        follow(at(state), command, capsys)


@pytest.mark.parametrize("state", [*STATES, *OTHERS])
def test_act_when_the_program_takes_it_then_so_does_the_operator_and_else_its_advice_helps(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for act in ACTS:
        world = at(state)
        if not world.status().get("phase"):
            continue
        code, said = run(world, [act, "chat"], capsys)
        if code == 0:
            value = (world.raw["metadata"].get("annotations") or {}).get(f"llmfleet.dev/{act}")
            turn(world)
            refused = world.condition("ActRefused").get("message", "")
            assert value is None or f": {value} " not in refused, f"{act}: {refused}"
            continue
        for command in printed(iter([said])):
            follow(at(state), command, capsys)


def test_commands_when_all_states_are_taken_together_then_every_kind_of_them_was_followed() -> None:
    commands = {
        shlex.split(each)[4] for state in (*STATES, *OTHERS) for each in printed(told(at(state)))
        if " -n " in each
    }  # fmt: skip
    assert commands == set(DONE)
