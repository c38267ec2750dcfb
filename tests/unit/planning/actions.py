"""What may happen in a history, as strategies, and how it is done."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from hypothesis import strategies as st

from tests.unit.planning.canaries import annotate, canary
from tests.unit.planning.history import GOOD, MODELS, PLACES, START, History
from tests.unit.planning.load import Load
from tests.unit.planning.test_convergence import model

TESTERS = [{"name": "x-tester", "exact": "1"}]
JUDGED: Final = {"minSamples": 50, "maxDuration": "5m"}
ANALYSES = [{"setWeight": 25}, {"analysis": {}}, {"setWeight": 50}, {"analysis": {}}]
POLICIES: tuple[dict[str, Any], ...] = (
    START,
    canary([{"setWeight": 25}, {"pause": {"duration": "1m"}}, {"setWeight": 50}]),
    canary([{"setWeight": 50}, {"pause": {}}]),
    canary([{"pause": {"duration": "10s"}}, {"setWeight": 100}, {"pause": {}}]),
    canary([{"setWeight": 100}, {"pause": {"duration": "1m"}}]),
    canary([
        {"setCanaryScale": {"percent": 50}}, {"setMirror": {"percent": 10}},
        {"setHeaderRoute": {"headers": TESTERS}}, {"pause": {"duration": "30s"}},
        {"setMirror": {"percent": 0}}, {"setWeight": 50},
    ], stickiness="Session", rollbackWindow=1),
    {"strategy": "BlueGreen", "scaleDownDelay": "10s", "blueGreen": {"previewDuration": "30s"}},
    {"strategy": "BlueGreen", "scaleDownDelay": "60s", "blueGreen": {"promotion": "Manual"}},
    {"strategy": "RollingUpdate", "scaleDownDelay": "10s"},
    {"strategy": "RollingUpdate", "scaleDownDelay": "10m", "rollbackWindow": 2},
    *(canary(ANALYSES, analysis={**JUDGED, "onInconclusive": then})
      for then in ("Hold", "Rollback", "Proceed")),
)  # fmt: skip
FORGERIES: tuple[dict[str, Any], ...] = (
    {"traffic": "swapped"}, {"traffic": "whole"}, {"traffic": "short"}, {"traffic": "stranger"},
    {"step": 40}, {"state": "Later"}, {"cause": "Whim"}, {"aborted": "Superseded"},
    {"revision": "stranger"}, {"revision": "rejected"}, {"undoTarget": "rejected"},
    {"served": "kept"}, {"generation": 2**63 - 1}, {"generation": 1},
)  # fmt: skip
"""What somebody may write into a status by hand; ``forge`` says what each means."""

_ACTS = st.sampled_from(["abort", "retry", "promote", "undo", "restart"])
_PLACES = st.sampled_from(PLACES)
_STEPS = st.one_of(
    st.tuples(st.sampled_from(["turn", "look", "stale", "lose reply"]), st.none()),
    st.tuples(st.just("turns"), st.integers(2, 8)),
    st.tuples(st.just("crash"), st.integers(1, 5)),
)
_WANTED = st.one_of(
    st.tuples(st.just("edit"), st.sampled_from(MODELS)),
    st.tuples(st.just("release"), st.tuples(st.sampled_from(GOOD), st.integers(1, 8))),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(st.just("scale"), st.integers(0, 4)),
    st.tuples(st.just("zero"), st.integers(1, 6)),
)
_ASKED = st.one_of(
    st.tuples(_ACTS, _PLACES),
    st.tuples(st.just("acts"), st.lists(
        st.tuples(_ACTS, _PLACES), min_size=2, max_size=3, unique_by=lambda act: act[0],
    )),
    st.tuples(st.just("act and edit"), st.tuples(_ACTS, _PLACES, st.sampled_from(MODELS))),
    st.tuples(st.just("again"), st.integers(0, 5)),
    st.tuples(st.just("pause"), st.booleans()),
)  # fmt: skip
_WORLD = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([5, 40, 200, 400, 700])),
    st.tuples(
        st.just("load"), st.sampled_from(["healthy", "failing", "broken", "idle", "unknown"])
    ),
    st.tuples(st.sampled_from(["counter resets", "counting stops", "counting goes on"]), st.none()),
    st.tuples(st.just("engine ends"), st.tuples(_PLACES, st.integers(1, 3))),
    st.tuples(st.just("linger"), st.sampled_from([0, 2, 6])),
    st.tuples(st.just("routers lag"), st.sampled_from([(), (0,), (1,), (0, 1)])),
    st.tuples(st.just("router silent"), st.booleans()),
    st.tuples(st.just("router replaced"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["recreate", "lose status", "router lies"]), st.none()),
    st.tuples(st.sampled_from(["breaks", "unready", "deployment deleted"]), _PLACES),
    st.tuples(st.just("old CRD"), st.booleans()),
    st.tuples(st.just("forge"), st.sampled_from(FORGERIES)),
)
ACTIONS = st.one_of(_STEPS, _WANTED, _ASKED, _WORLD)
"""Everything."""
ACT_FREE = st.one_of(_STEPS, _WANTED)
"""What the operator may be interrupted in without another end."""


def perform(history: History, action: str, value: Any) -> None:
    """Do one action; whatever it is, the operator never writes spec."""
    if action in {"edit", "release", "policy", "scale", "zero", "act and edit"}:
        _want(history, action, value)
        return
    spec = copy.deepcopy(history.world.raw["spec"])
    if action in {"abort", "retry", "promote", "undo", "restart", "acts", "again", "pause"}:
        _ask(history, action, value)
    elif action in {"turn", "turns", "look", "stale", "lose reply", "crash"}:
        _step(history, action, value)
    else:
        _happen(history, action, value)
    assert history.world.raw["spec"] == spec, "the operator wrote spec"


def _step(history: History, action: str, value: Any) -> None:
    match action:
        case "turn" | "turns":
            for _ in range(value or 1):
                history.turn()
        case "crash":
            history.turn(crash_after=value)
        case "lose reply":
            history.reconcile()
            history.reconcile()
        case "look":
            history.seen = history.world.snapshot()
        case "stale":
            history.reconcile(snapshot=history.seen)


def _want(history: History, action: str, value: Any) -> None:
    world = history.world
    match action:
        case "edit":
            world.edit(model=model(value))
        case "release":
            name, turns = value
            world.edit(model=model(name))
            _step(history, "turns", turns)
        case "act and edit":
            act, place, name = value
            history.act(act, place)
            world.edit(model=model(name))
        case "policy":
            world.edit(rollout={**value, "maxSurge": history.surge})
        case "scale":
            world.edit(replicas=value)
        case "zero":
            before = world.raw["spec"]["replicas"]
            world.edit(replicas=0)
            _step(history, "turns", value)
            world.edit(replicas=before)


def _ask(history: History, action: str, value: Any) -> None:
    match action:
        case "acts":
            for act, place in value:
                history.act(act, place)
        case "again":
            if value < len(history.asked):
                annotate(history.world, *history.asked[value])
        case "pause":
            annotate(history.world, "pause", "true" if value else None)
        case _:
            history.act(action, value)


def _happen(history: History, action: str, value: Any) -> None:
    if action == "load" or action.startswith("count"):
        _count(history.load, action, value, history.world.now)
    elif "router" in action:
        _route(history, action, value)
    else:
        _befall(history, action, value)


def _count(load: Load, action: str, value: Any, now: datetime) -> None:
    match action:
        case "load":
            load.kind = value
        case "counter resets":
            load.reset()
        case "counting stops":
            load.stopped_at = load.stopped_at or now
        case "counting goes on":
            load.stopped_at = None


def _route(history: History, action: str, value: Any) -> None:
    world = history.world
    routers = sorted(name for name in world.served if name in world.pods)
    match action:
        case "routers lag":
            history.lagging = frozenset(value)
        case "router silent":
            world.silent = {routers[0]: world.now} if value and routers else {}
        case "router replaced":
            if value < len(routers):
                world.pods[routers[value]] = replace(world.pods[routers[value]], deleting=True)
        case "router lies":
            world.served |= {name: (2**63 - 1, world.served[name][1]) for name in routers[:1]}


def _befall(history: History, action: str, value: Any) -> None:
    match action:
        case "wait":
            history.world.wait(value)
        case "linger":
            history.world.lingering = value
        case "engine ends":
            place, times = value
            engine_ends(history, history.named(place), times)
        case "unready":
            unready(history, history.named(value))
        case "deployment deleted":
            delete_deployment(history, history.named(value))
        case "old CRD":
            settings = history.world.settings
            history.world.settings = replace(settings, crd_outdated=value)
        case "breaks":
            breaks(history, history.named(value))
        case "recreate":
            history.reconcile()  # what was decided has been copied to memory
            history.lose_status()
            history.turn()
        case "lose status":
            history.rejected &= history.remembered()
            history.lose_status()
        case "forge":
            forge(history, value)


def engine_ends(history: History, revision: str, times: int) -> None:
    """The engine of one pod of a revision ends, and has started again by now."""
    world = history.world
    mine = (name for name, pod in world.pods.items() if pod.revision == revision)
    name = min(mine, default=None)
    if name is not None and not world.pods[name].deleting:
        world.pods[name] = replace(world.pods[name], restarts=world.pods[name].restarts + times)


def delete_deployment(history: History, revision: str) -> None:
    """Somebody deletes a revision's Deployment; the operator sees it while it has its status.

    Without both it takes what spec asks for as a first revision (docs/roadmap.md).
    """
    world = history.world
    if not world.raw.get("status"):
        return
    name = f"chat-rev-{revision}"
    for key in [key for key in world.objects if (key.kind, key.name) == ("Deployment", name)]:
        del world.objects[key]
    history.turn()


def unready(history: History, revision: str) -> None:
    """All engines of a revision are not ready for a moment."""
    world = history.world
    for name, pod in world.pods.items():
        if pod.revision == revision and pod.ready:
            world.pods[name] = replace(pod, ready=False, unready_since=world.now)


def breaks(history: History, revision: str) -> None:
    """A revision's engines cannot run any more."""
    world = history.world
    world.broken |= {revision}
    for name, pod in world.pods.items():
        if pod.revision == revision:
            world.pods[name] = replace(pod, ready=False)


def forge(history: History, what: dict[str, Any]) -> None:
    """Write into the status by hand what a forgery means."""
    status = history.world.status()
    ((kind, value),) = what.items()
    served, spec = str(status.get("servedRevision")), history.named("spec")
    kept = next((name for name in history.hashes.values() if name not in {served, spec}), served)
    strange = "0123456789"
    rejected = min(history.rejected, default=kept)
    names = {"stranger": strange, "rejected": rejected, "kept": kept}
    rollout = dict(status.get("rollout") or {})
    shares = [(each["revision"], each["weight"]) for each in status.get("traffic") or []]
    match kind:
        case "traffic":
            made = {
                "swapped": [(name, 100 - weight if len(shares) > 1 else weight)
                            for name, weight in shares],
                "whole": [(kept, 100)],
                "short": [(name, weight // 2) for name, weight in shares],
                "stranger": [(strange, 100)],
            }[value]  # fmt: skip
            change: Any = {"traffic": [{"revision": name, "weight": w} for name, w in made]}
        case "served":
            change = {"servedRevision": names[value]}
        case "generation":
            change = {"trafficGeneration": value}
        case _:
            if not rollout:
                return
            change = {"rollout": {**rollout, kind: names.get(value, value)}}
    history.forge(change)
