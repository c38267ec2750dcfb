"""Random histories of canaries: what holds whatever happens, in whatever order.

``LLMFLEET_HISTORIES=10000 pytest tests/unit/planning/test_histories.py`` runs more of them.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from functools import cache
from typing import Any

from hypothesis import given, settings
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
    st.tuples(st.just("wait"), st.integers(1, 400)),
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
        self.world.reconcile(crash_after=crash_after)
        self.check()
        self.cluster()

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
                world.reconcile()
                self.check()
                world.reconcile()
                self.check()
            case "edit":
                spec["model"] = model(value)
                world.edit(model=model(value))
            case "policy":
                spec["rollout"] = {**value, "maxSurge": self.surge}
                world.edit(rollout=spec["rollout"])
            case "scale":
                spec["replicas"] = value
                world.edit(replicas=value)
            case "recreate":
                world.reconcile()  # what was decided has been copied to memory
                self.check()
                world.raw = {key: each for key, each in world.raw.items() if key != "status"}
                self.shares = {name: 100 for name in self.rejected if name in self.shares}
                self.turn()
            case "look":
                self.seen = world.snapshot()
            case "stale":
                world.reconcile(snapshot=self.seen)
                self.check()
            case "wait":
                world.wait(value)
            case _:
                self.act(action, self.hashes[value])
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
