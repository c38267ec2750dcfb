"""Argo CD's actions: offered only when the operator accepts them, and once each."""

from __future__ import annotations

from typing import Any

import pytest
from hack.argocd.customizations import FOLDER
from lupa import lua51

from tests.unit.gitops.machine import Machine, action_names
from tests.unit.gitops.states import STATES, new, reach
from tests.unit.gitops.test_health import dump, golden
from tests.unit.planning.canaries import rejected, split
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.test_rollout import turn

pytestmark = pytest.mark.long

JSON = dict[str, Any]
ACTS = {"promote", "promote-full", "abort", "retry"}
RUNS = {
    "promote": "canary: pause until promoted",
    "promote-full": "canary: timed pause",
    "abort": "canary: timed pause",
    "retry": "aborted by hand",
    "pause": "canary: timed pause",
    "resume": "canary: paused by annotation",
}
"""Each action in a state in which it makes sense."""
UNDECIDED = {
    "just created",
    "restored from a backup, without status",
    "spec cannot be read",
    "status is of a newer operator, spec changed",
}
"""Nothing is decided there, or, without status, acts are recorded and not run."""
OFFERED = {
    "just created": {"pause"},
    "first decision": {"pause"},
    "healthy": {"pause"},
    "canary: spec changed, not seen yet": {"pause"},
    "canary: first decision": {"promote", "promote-full", "abort", "pause"},
    "canary: timed pause": {"promote", "promote-full", "abort", "pause"},
    "canary: paused by annotation": {"abort", "resume"},
    "canary: promoted by hand, on its way to 100 %": {"abort", "pause"},
    "canary: spec changed again, traffic goes back first": {"pause"},
    "aborted by hand, traffic goes back": {"retry", "pause"},
    "aborted by hand": {"retry", "pause"},
    "aborted by hand, then retried": {"promote", "promote-full", "abort", "pause"},
    "aborted by the cluster, tried again later": {"retry", "pause"},
    "retries exhausted": {"retry", "pause"},
    "rolling update: half way": {"abort", "pause"},
    "blue-green: preview until promoted": {"promote", "promote-full", "abort", "pause"},
    "blue-green: promoted by hand": {"pause"},
}


def run(world: Fleet, action: str) -> None:
    """What Argo CD does with an action: the object as the script leaves it is what is stored."""
    after = Machine().act(action, world.raw)
    assert {**after, "metadata": {**after["metadata"], "annotations": None}} == {
        **world.raw,
        "metadata": {**world.raw["metadata"], "annotations": None},
    }, "an action changes annotations only"
    world.raw = after
    world._touch_resource()


@pytest.mark.parametrize(("state", "names"), OFFERED.items(), ids=OFFERED)
def test_discovery_when_asked_in_a_state_then_it_offers_what_makes_sense(
    state: str, names: set[str]
) -> None:
    assert Machine().enabled(reach(state).raw) == names


def test_actions_when_offered_in_any_state_then_the_operator_accepts_them() -> None:
    machine = Machine()
    tried = 0
    for state in STATES:
        for action in sorted(machine.enabled(reach(state).raw)):
            world = reach(state)
            run(world, action)
            before = {} if state in UNDECIDED else world.condition("ActRefused")
            plan = None if state in UNDECIDED else world.decide()
            if plan is None or plan.status is None:
                continue
            found = {each["type"]: each for each in plan.status["conditions"]}
            refused = found.get("ActRefused", {}).get("message")
            assert refused in (None, before.get("message")), f"{state}, {action}: {refused}"
            if action in ACTS:
                act = action.removesuffix("-full")
                annotated = world.raw["metadata"]["annotations"][f"llmfleet.dev/{act}"]
                handled = plan.status["handledActs"]
                assert handled[act] == annotated, f"{state}, {action}: {handled}"
                tried += 1
    assert tried > 40


def test_promote_when_pressed_twice_then_one_step_ends() -> None:
    world = reach("canary: timed pause")
    run(world, "promote")
    again = Machine().act("promote", world.raw)
    assert again == world.raw
    world.reconcile()
    assert world.status()["rollout"]["step"] == 2


def test_promote_full_when_pressed_then_the_canary_is_promoted() -> None:
    world = reach("canary: timed pause")
    run(world, "promote-full")
    turn(world, 60)
    assert world.status()["servedRevision"] == new(world)


def test_abort_and_retry_when_pressed_in_turn_then_each_runs_every_time() -> None:
    world = reach("canary: timed pause")
    for _ in range(3):
        run(world, "abort")
        world.settle()
        assert rejected(world) == {new(world): "UserAbort"}
        assert world.status()["phase"] == "Degraded"
        world.wait(60)
        run(world, "retry")
        for _ in range(30):
            turn(world)
        assert split(world).get(new(world)) == 25


def test_blue_green_when_its_preview_is_promoted_then_all_traffic_moves() -> None:
    world = reach("blue-green: preview until promoted")
    run(world, "promote")
    turn(world, 20)
    assert split(world) == {new(world): 100}


def test_pause_and_resume_when_pressed_in_turn_then_the_rollout_stops_and_goes_on() -> None:
    world = reach("canary: timed pause")
    run(world, "pause")
    turn(world)
    assert world.status()["phase"] == "Paused"
    run(world, "resume")
    turn(world)
    assert world.status()["phase"] == "Progressing"


@pytest.mark.parametrize("action", sorted(ACTS))
def test_act_when_there_is_nothing_to_act_on_then_the_script_says_so(action: str) -> None:
    for state in ("just created", "healthy"):
        with pytest.raises(lua51.LuaError, match=r"nothing to retry|no revision is being rolled"):
            Machine().act(action, reach(state).raw)


def test_action_test_data_when_made_then_it_is_what_the_scripts_do() -> None:
    machine = Machine()
    assert RUNS.keys() == action_names()
    folder = FOLDER / "actions"
    files: dict[str, str] = {}
    discovery: list[JSON] = []
    actions: list[JSON] = []
    for action, state in RUNS.items():
        body = reach(state).raw
        if state not in files:
            files[state] = f"testdata/{len(files) + 1}-{_slug(state)}.yaml"
            golden(folder / files[state], dump(body))
            enabled = machine.enabled(body)
            result = [{"name": each, "disabled": each not in enabled} for each in RUNS]
            discovery.append({"inputPath": files[state], "result": result})
        output = f"testdata/{action}-result.yaml"
        golden(folder / output, dump(machine.act(action, body)))
        actions.append({"action": action, "inputPath": files[state], "expectedOutputPath": output})
    content = {"discoveryTests": discovery, "actionTests": actions}
    golden(folder / "action_test.yaml", dump(content))


def _slug(state: str) -> str:
    return "-".join(word.strip(":") for word in state.split())
