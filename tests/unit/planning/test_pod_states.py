"""Any state of any pod, alone and together: what is decided keeps to what can be known."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmfleet.api import parse
from llmfleet.planning.decide import decide
from llmfleet.planning.plan import Plan, Result
from llmfleet.planning.snapshot import (
    JSON,
    Download,
    Hindrance,
    ObservedPod,
    PodWarning,
    Snapshot,
    Termination,
)
from tests.unit.planning.canaries import annotate, canary, started
from tests.unit.planning.fleet import Fleet, resource
from tests.unit.planning.oracles import check_plan
from tests.unit.planning.test_rollout import turn

NAMED = re.compile(r"(?:engine|router) pod (chat-[a-z0-9-]+)")
ROOM = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
AGES = st.sampled_from([-60, 0, 9, 60, 121, 700, 90_000]).map(lambda age: timedelta(seconds=age))
"""Clocks may be a minute apart."""
FACTS = {
    "well": {"ready": True, "phase": "Running"},
    "young": {},
    "no node": {"node": None},
    "no room": {"node": None, "unschedulable": ROOM},
    "claim": {"node": None, "unschedulable": 'persistentvolumeclaim "m" not found'},
    "gate": {"node": None, "gates": ("kueue.x-k8s.io/admission",)},
    "image": {"waiting_reason": "ErrImagePull"},
    "secret": {
        "waiting_reason": "CreateContainerConfigError",
        "waiting_message": 'secret "x" not found',
    },
    "driver": {"waiting_reason": "RunContainerError", "waiting_message": "no such device"},
    "lost": {"node_lost": True, "phase": "Running"},
    "unknown": {"phase": "Unknown"},
    "init": {"hindrance": Hindrance(text="its container i is not ready", failed=False)},
    "sidecar": {"hindrance": Hindrance(text="its container s ended", failed=True)},
    "volume": {"warning": PodWarning(reason="FailedMount", message="no disk")},
    "evicted": {"phase": "Failed", "reason": "Evicted"},
    "refused": {"phase": "Failed", "reason": "UnexpectedAdmissionError"},
    "done": {"phase": "Succeeded"},
    "ending": {"deleting": True},
    "ending, lost": {"deleting": True, "node_lost": True},
}
"""States of pods for which no revision is at fault."""
ENDS = {
    "restarted": ("Unknown", 255, ""),
    "never started": ("StartError", 128, "driver/library version mismatch"),
    "download": ("Error", 3, '{"reason": "DownloadFailed", "retriable": true, "message": "503"}'),
    "no end": None,
}


@st.composite
def states(draw: st.DrawFn, pod: ObservedPod, now: datetime) -> ObservedPod:
    """The pod in another state, since some time."""
    facts: dict[str, Any] = dict(FACTS[draw(st.sampled_from(sorted(FACTS)))])
    since = now - draw(AGES)
    placed = facts.get("node", "n1") is not None
    end = ENDS[draw(st.sampled_from(sorted(ENDS)))]
    if placed and end is not None:
        reason, code, said = end
        ended = Termination(exit_code=code, reason=reason, message=said, finished_at=since)
        facts |= {"last_termination": ended, "restarts": draw(st.integers(1, 5))}
    runs = facts.get("phase") == "Running" or draw(st.booleans())
    if runs and placed and "waiting_reason" not in facts:
        facts["running_since"] = since
        facts["silent_since"] = draw(st.sampled_from([None, now]))
        facts["download"] = draw(downloads(now))
    elif placed and ("warning" in facts or draw(st.booleans())):
        facts["sandbox_missing_since"] = since
    facts = {"node": "n1", "ready": False, "phase": "Pending", **facts}
    if facts.get("deleting"):
        facts["ends_at"] = since
    if "unschedulable" in facts:
        facts["unschedulable_since"] = since
    unready = None if facts["ready"] else draw(st.sampled_from([None, since]))
    return replace(pod, created_at=since, unready_since=unready, asked=draw(st.booleans()), **facts)


@st.composite
def downloads(draw: st.DrawFn, now: datetime) -> Download | None:
    """One that moves, stands, is past its total, has none, or is over."""
    if draw(st.booleans()):
        return None
    return Download(
        bytes_done=draw(st.sampled_from([0, 1, 10**9, 10**15])),
        bytes_total=draw(st.sampled_from([None, 0, 1, 10**12])),
        moved_at=now - draw(AGES),
        ended=draw(st.booleans()),
    )


@cache
def scene(name: str) -> Fleet:
    """A fleet in the middle of something; nobody changes it."""
    if name == "first":
        world = Fleet(resource(replicas=2))
        world.reconcile()
        world.kubelet()
        return world
    policy: JSON = canary([{"setWeight": 50}, {"pause": {}}], progressDeadline="45s")
    if name in {"surge", "in place"}:
        surge = int(name == "surge")
        policy = {"strategy": "RollingUpdate", "maxSurge": surge, "progressDeadline": "45s"}
    world, _, new = started(policy, replicas=3)
    for _ in range(3):
        turn(world)
    if name == "back":
        annotate(world, "abort", f"{new}@1")
        world.reconcile()
    if name == "zero":
        world.edit(replicas=0)
        world.reconcile()
    return world


SCENES = ("first", "canary", "surge", "in place", "back", "zero")


def after(seen: Snapshot, plan: Plan) -> Snapshot:
    """The next snapshot, when the status was written."""
    raw = {**copy.deepcopy(seen.raw), "status": plan.status}
    return replace(seen, raw=raw, deployment=parse(raw))


def decided(seen: Snapshot, now: datetime) -> Plan:
    plan = decide(seen, now)
    check_plan(seen, plan, now)
    assert plan.status is not None
    told = [plan.status["message"], *(each["message"] for each in plan.status["conditions"])]
    known = {pod.name for pod in seen.pods}
    for text in told:
        assert set(NAMED.findall(text)) <= known, text
        assert "None" not in text, text
    check_waits(seen, plan, now)
    return plan


def check_waits(seen: Snapshot, plan: Plan, now: datetime) -> None:
    """Whoever waits for room, or holds what it should not, is told of."""
    status: JSON = plan.status or {}
    conditions = {each["type"]: each for each in status["conditions"]}
    engines = [pod for pod in seen.pods if pod.component == "engine"]
    live = [pod for pod in engines if not pod.deleting and pod.phase == "Pending"]
    since = [pod.unschedulable_since for pod in live if pod.unschedulable == ROOM]
    if any(at is not None and now >= at + timedelta(seconds=10) for at in since):
        assert conditions["CapacityAvailable"]["status"] == "False"
        assert ROOM in conditions["CapacityAvailable"]["message"]
    late = [
        pod.name
        for pod in engines
        if pod.deleting and pod.phase == "Pending" and not pod.node_lost
        if pod.ends_at is not None and now >= pod.ends_at + timedelta(minutes=2)
    ]  # fmt: skip
    assert not late or min(late) in conditions["Progressing"]["message"]


@pytest.mark.long
@settings(deadline=None)  # a fleet is made on first use
@given(st.data(), st.sampled_from(SCENES))
def test_fleet_when_its_pods_are_in_any_state_then_it_is_told_and_no_revision_is_blamed(
    data: st.DataObject, name: str
) -> None:
    world = scene(name)
    seen, now = world.snapshot(), world.now
    for _ in range(3):
        pods = tuple(data.draw(states(pod, now)) for pod in world.snapshot().pods)
        seen = replace(seen, pods=pods)
        plan = decided(seen, now)
        seen, now = after(seen, plan), now + timedelta(seconds=125)
        outcome = plan.outcome
        if outcome is not None and outcome.result is Result.REJECTED and name != "back":
            # Nothing but an engine that ran all its time, and said nothing, is its own fault.
            assert outcome.reason == "NeverReady"
            arm = [pod for pod in pods if pod.revision == outcome.revision]
            assert any(pod.running_since and pod.asked and not blameless(pod) for pod in arm), (
                outcome,
                arm,
            )


def blameless(pod: ObservedPod) -> bool:
    return pod.node_lost or pod.hindrance is not None or pod.silent_since is not None
