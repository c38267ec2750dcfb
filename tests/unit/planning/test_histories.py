"""Random histories of canaries: what holds whatever happens, in whatever order.

``LLMFLEET_HISTORIES=10000 pytest tests/unit/planning/test_histories.py`` runs more of them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.planning.canaries import annotate, canary, split
from tests.unit.planning.fleet import Fleet, hash_of, resource
from tests.unit.planning.test_convergence import model
from tests.unit.planning.test_diagnosis import said

HISTORIES = int(os.environ.get("LLMFLEET_HISTORIES", "10"))
CRASH = said("BadConfig", retriable=False)
MODELS = ("one", "two", "broken")
TESTERS = [{"name": "x-tester", "exact": "1"}]
POLICIES: tuple[dict[str, Any], ...] = (
    canary([{"setWeight": 10}]),
    canary([{"setWeight": 25}, {"pause": {"duration": "1m"}}, {"setWeight": 50}]),
    canary([{"pause": {"duration": "10s"}}, {"setWeight": 100}, {"pause": {}}]),
    canary([
        {"setCanaryScale": {"percent": 50}}, {"setMirror": {"percent": 10}},
        {"setHeaderRoute": {"headers": TESTERS}}, {"pause": {"duration": "30s"}},
        {"setMirror": {"percent": 0}}, {"setWeight": 50},
    ], stickiness="Session", rollbackWindow=1),
    {"strategy": "BlueGreen", "scaleDownDelay": "10s", "blueGreen": {"previewDuration": "30s"}},
    {"strategy": "BlueGreen", "scaleDownDelay": "60s", "blueGreen": {"promotion": "Manual"}},
)  # fmt: skip
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["turn", "look", "stale", "recreate", "lose reply"]), st.none()),
    st.tuples(st.just("turns"), st.integers(2, 6)),
    st.tuples(st.just("crash"), st.integers(1, 5)),
    st.tuples(st.just("edit"), st.sampled_from(MODELS)),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(st.just("scale"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["abort", "retry", "promote", "undo"]), st.sampled_from(MODELS)),
    st.tuples(st.just("acts"), st.lists(
        st.tuples(st.sampled_from(["abort", "retry", "promote", "undo"]), st.sampled_from(MODELS)),
        min_size=2, max_size=3, unique_by=lambda act: act[0],
    )),
    st.tuples(st.just("wait"), st.integers(1, 400)),
)  # fmt: skip
ACT_FREE = st.one_of(
    st.tuples(st.sampled_from(["turn", "look", "stale", "lose reply"]), st.none()),
    st.tuples(st.just("crash"), st.integers(1, 5)),
    st.tuples(st.just("edit"), st.sampled_from(MODELS)),
    st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
    st.tuples(st.just("scale"), st.integers(1, 5)),
)


@cache
def served_fleet(surge: int, replicas: int) -> Fleet:
    """Every history begins with a copy of it."""
    world = Fleet(resource(replicas=replicas, rollout={**POLICIES[0], "maxSurge": surge}))
    world.settle()
    return world


class History:
    """A fleet, and what was ever rejected without a retry since."""

    def __init__(self, surge: int, replicas: int, *, new: bool = False) -> None:
        self.surge, self.tokens = surge, 0
        self.world = copy.deepcopy(served_fleet(surge, replicas))
        if new:
            self.world = Fleet(copy.deepcopy(self.world.raw))
            del self.world.raw["status"]
        self.hashes = {name: hash_of(resource(model=model(name))) for name in MODELS}
        self.world.broken = frozenset({self.hashes["broken"]})
        self.rejected: set[str] = set()
        self.shares: dict[str, int] = {}
        self.seen = self.world.snapshot()

    def turn(self, crash_after: int | None = None) -> None:
        self.reconcile(crash_after=crash_after)
        self.cluster()

    def reconcile(self, **how: Any) -> None:
        """One pass, which may be cut short, and what must hold after it."""
        before = self.world.replicas()
        self.world.reconcile(**how)
        self.check()
        self.check_capacity(before)

    def check_capacity(self, before: Mapping[str, int]) -> None:
        """Nobody takes away pods that the share of the requests needs: the one that is commanded,
        or that a router still serves. With maxSurge 0 one pod of each arm may be replaced."""
        world, now = self.world, self.world.replicas()
        served = [
            shares
            for name, (_, shares) in world.served.items()
            if name in world.pods and world.pods[name].ready
        ]
        fleet = world.raw["spec"]["replicas"]
        for name, had in before.items():
            weight = max(each.get(name, 0) for each in (dict(split(world)), *served))
            needed = fleet * weight // 100 - (self.surge == 0)
            left = now.get(name, 0)
            assert left >= min(had, needed), f"{name}: {had} to {left} pods for {weight} %"

    def cluster(self) -> None:
        world = self.world
        world.kubelet()
        for name, pod in world.pods.items():
            if pod.revision in world.broken and pod.component == "engine":
                end = CRASH["last_termination"]
                world.pods[name] = replace(pod, last_termination=end, restarts=1)
        world.routers()
        world.wait(1)

    def check(self) -> None:
        shares = dict(split(self.world))
        assert not shares or sum(shares.values()) == 100
        for name in self.rejected:
            assert shares.get(name, 0) <= self.shares.get(name, 0), f"{name} was rejected"
        self.shares = shares
        status = self.world.status()
        self.rejected |= {each["hash"] for each in status.get("rejectedRevisions", [])}

    def act(self, act: str, revision: str) -> None:
        self.tokens += 1
        if act == "retry":
            self.rejected.discard(revision)
        annotate(self.world, act, f"{revision}@{self.tokens}")

    def edited(self, action: str, value: Any) -> dict[str, Any]:
        """The part of spec that an edit replaces."""
        if action == "edit":
            return {"model": model(value)}
        if action == "scale":
            return {"replicas": value}
        return {"rollout": {**value, "maxSurge": self.surge}}

    def do(self, action: str, value: Any) -> None:
        world = self.world
        spec = copy.deepcopy(world.raw["spec"])
        match action:
            case "turn" | "turns":
                for _ in range(value or 1):
                    self.turn()
            case "crash":
                self.turn(crash_after=value)
            case "lose reply":
                self.reconcile()
                self.reconcile()
            case "edit" | "policy" | "scale":
                changed = self.edited(action, value)
                spec |= changed
                world.edit(**changed)
            case "recreate":
                self.reconcile()  # what was decided has been copied to memory
                world.raw = {key: each for key, each in world.raw.items() if key != "status"}
                self.shares = {name: 100 for name in self.rejected if name in self.shares}
                self.turn()
            case "look":
                self.seen = world.snapshot()
            case "stale":
                self.reconcile(snapshot=self.seen)
            case "wait":
                world.wait(value)
            case _:
                for act, name in value if action == "acts" else [(action, value)]:
                    self.act(act, self.hashes[name])
        assert world.raw["spec"] == spec, "the operator wrote spec"

    def finish(self) -> None:
        """Nothing is asked for any more; pauses without end are promoted."""
        for act in ("abort", "undo", "retry", "promote"):
            annotate(self.world, act, None)
        for _ in range(120):
            writes, pods = self.world.writes, dict(self.world.pods)
            self.turn()
            self.world.wait(70)
            status = self.world.status()
            if status.get("phase") == "Paused":
                self.act("promote", status["rollout"]["revision"])
            quiet = self.world.writes == writes and self.world.pods == pods
            if quiet and self.world.plans[-1].requeue_after is None:
                break


@settings(max_examples=HISTORIES, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=30),
    surge=st.sampled_from([0, 1, 2]),
    replicas=st.integers(2, 4),
    last=st.sampled_from(MODELS),
    new=st.booleans(),
)
@example(  # the status is lost while a rollout goes back, and only the rejected revision is up
    actions=[
        ("edit", "two"), ("turns", 3), ("turns", 2), ("turns", 2), ("abort", "two"),
        ("recreate", None),
    ],
    surge=0, replicas=2, last="two", new=False,
)  # fmt: skip
def test_rollout_when_anything_happens_then_a_rejected_hash_is_never_served_again_without_retry(
    actions: list[tuple[str, Any]], surge: int, replicas: int, last: str, new: bool
) -> None:
    history = History(surge, replicas, new=new)
    for action, value in actions:
        history.do(action, value)
    history.do("edit", last)
    history.do("scale", replicas)
    history.finish()

    world, wanted = history.world, history.hashes[last]
    bad = {history.hashes["broken"]} | history.rejected
    if new and wanted in bad and not split(world):
        return  # nothing else was ever served
    (served,) = split(world)
    if wanted not in bad:
        assert (served, world.status()["phase"]) == (wanted, "Healthy"), world.status()["message"]
    else:
        assert served not in bad, world.status()["message"]
    assert world.replicas() == {served: replicas}
    assert world.ready(served) == replicas


@settings(max_examples=HISTORIES, deadline=None)
@given(
    actions=st.lists(ACT_FREE, max_size=20),
    surge=st.sampled_from([0, 1, 2]),
    replicas=st.integers(2, 4),
    last=st.sampled_from(["one", "two"]),  # what serves beside a broken one is a matter of time
)
def test_rollout_when_the_operator_crashes_then_the_end_is_the_one_without_the_crashes(
    actions: list[tuple[str, Any]], surge: int, replicas: int, last: str
) -> None:
    ends = []
    for crashes in (True, False):
        history = History(surge, replicas)
        for action, value in actions:
            trouble = action in {"crash", "stale", "lose reply"}
            history.do(*(("turn", None) if trouble and not crashes else (action, value)))
        history.do("edit", last)
        history.do("scale", replicas)
        history.finish()
        ends.append(end(history.world))
    assert ends[0] == ends[1]


def end(world: Fleet) -> dict[str, Any]:
    """What is left in the end, but for times, numbers of attempts and who was tried meanwhile."""
    status = world.status()
    return {
        "children": {
            key: found.body["spec"] for key, found in world.objects.items()
            if key.kind not in {"ConfigMap", "ControllerRevision"} and "spec" in found.body
        },
        "served": (status["servedRevision"], split(world), status["phase"]),
        "conditions": {
            each["type"]: each["status"] for each in status["conditions"]
            if each["type"] != "ActRefused"  # a promotion came when nothing waited for it
        },
        "pods": sorted(str(pod.revision) for pod in world.pods.values() if pod.ready),
    }  # fmt: skip
