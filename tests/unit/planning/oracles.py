"""What holds of every single decision, whatever led to it: told from snapshot and plan alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from llmfleet.api import parse
from llmfleet.planning.plan import Plan, Result
from llmfleet.planning.snapshot import JSON, ObjectKey, ObservedPod, Snapshot

DRAIN = timedelta(seconds=600)
"""spec.router.drainTimeout of the resources of these tests."""
LARGE = 2**62
"""No trafficGeneration comes near it by itself."""
STATES = {None, "Forward", "Undoing", "Returning", "BackingOff", "Restarting"}
SERVED = re.compile(r"\b([0-9a-f]{10}) is served\b")
ACT = re.compile(r"^llmfleet\.dev/(\w+) of ([0-9a-f]+) ")
STALE = timedelta(minutes=1)
"""Counts that are older tell nothing."""


def check_plan(seen: Snapshot, plan: Plan, now: datetime) -> None:
    """Everything that one decision must keep to.

    Raises:
        AssertionError: it does not.
    """
    if plan.status is None:
        return
    before, after = seen.raw.get("status") or {}, plan.status
    parse({**seen.raw, "status": after})
    kinds = {each["type"] for each in after["conditions"]}
    assert not {"Reconciling", "Stalled"} <= kinds
    _check_traffic(seen, plan, before, after)
    _check_generation(before, after)
    _check_sizes(seen, plan, before)
    _check_steps(before, after)
    _check_analysis(seen, plan, before, now)
    _check_promotion(seen, plan, before, now)
    _check_crash(seen, before, after)
    _check_words(plan, after)
    _check_health(seen, after)
    assert after != before or not plan.events, f"nothing changes, and {plan.events} are told"


def weights(status: JSON) -> dict[str, int]:
    """Percent by revision."""
    return {each["revision"]: each["weight"] for each in status.get("traffic") or []}


def command(status: JSON) -> str:
    """Everything that routers are commanded, in one spelling."""
    return json.dumps([weights(status), status.get("routing") or {}], sort_keys=True)


def rejections(plan: Plan) -> frozenset[str]:
    """Every hash that is rejected after a decision, as memory is to keep them."""
    found = [child.body for child in plan.children if child.key.kind == "ConfigMap"]
    return frozenset(name for body in found for name, _ in json.loads(body["data"]["rejected"]))


def promotion(plan: Plan) -> str | None:
    """The revision that a decision promotes."""
    outcome = plan.outcome
    return outcome.revision if outcome is not None and outcome.result is Result.PROMOTED else None


def engine_sizes(bodies: Mapping[ObjectKey, JSON]) -> dict[str, int]:
    """Replicas by revision."""
    return {
        key.name.removeprefix("chat-rev-"): body["spec"]["replicas"]
        for key, body in bodies.items()
        if key.kind == "Deployment" and key.name != "chat-router"
    }


def _check_traffic(seen: Snapshot, plan: Plan, before: JSON, after: JSON) -> None:
    had, gets, promoted = weights(before), weights(after), promotion(plan)
    rejected = rejections(plan)
    assert promoted not in rejected, f"{promoted} is promoted, and was rejected"
    if seen.deployment.spec.wanted_replicas == 0:
        assert gets == had, f"without replicas {had} became {gets}"
        assert promoted is None, f"{promoted} is promoted without replicas"
    if gets != had:  # what a person wrote into the status by hand may stay as it is
        assert not gets or sum(gets.values()) == 100, gets
        assert len(gets) <= max(2, len(had) - 1), f"three arms: {gets}"
    for name, weight in gets.items():
        if weight > had.get(name, 0):
            assert name not in rejected, f"{name} was rejected, and goes from {had} to {gets}"
            key = ObjectKey(api_version="apps/v1", kind="Deployment", name=f"chat-rev-{name}")
            assert key in seen.objects, f"{name}, which has no Deployment yet, gets {weight} %"
            going_back = name == after.get("servedRevision")
            assert going_back or _ready(seen, name), f"{name} gets {weight} % without a ready pod"
    state = (before.get("rollout") or {}).get("state")
    acted = before.get("handledActs") != after.get("handledActs")
    assert state in STATES or acted or gets == had, f"state {state} is not known, and {had} moves"


def _check_generation(before: JSON, after: JSON) -> None:
    had, now = before.get("trafficGeneration"), after.get("trafficGeneration")
    if had is None or now is None:
        return
    if command(before) == command(after):
        assert now == had, f"generation {had} became {now}, and nothing else did"
    else:
        assert now > had, f"another command under generation {now} after {had}"
        assert now < LARGE or had > LARGE - 9, f"generation {had} became {now}"


def _check_sizes(seen: Snapshot, plan: Plan, before: JSON) -> None:
    """Pods go only once no router sends them requests, or when a person wants fewer."""
    had = engine_sizes({key: found.body for key, found in seen.objects.items()})
    wants = engine_sizes({child.key: child.body for child in plan.children})
    fleet, served = seen.deployment.spec.wanted_replicas, weights(before)
    for deletion in plan.deletions:
        if deletion.key.kind == "Deployment":
            name = deletion.key.name.removeprefix("chat-rev-")
            assert not served.get(name), f"{name} is deleted, and has {served[name]} %"
            wants[name] = 0
    if not served or not _unconfirmed(seen, before):
        return
    for name, size in wants.items():
        least = min(fleet, had.get(name, 0), _ready(seen, name))
        assert size >= least, f"{name} goes to {size} pods before routers have confirmed"


def _ready(seen: Snapshot, revision: str) -> int:
    return sum(pod.ready and not pod.deleting and pod.revision == revision for pod in seen.pods)


def _unconfirmed(seen: Snapshot, before: JSON) -> bool:
    """Whether a Ready router that stays is known to serve another command than the one recorded."""
    routers = (pod for pod in seen.pods if pod.component == "router" and not pod.deleting)
    ready = [pod.name for pod in routers if pod.ready]
    answers = [seen.routers[name] for name in ready if name in seen.routers]
    return any(
        each.value is not None and each.value.traffic_generation != before.get("trafficGeneration")
        for each in answers
    )


def planned_steps(rollout: JSON) -> list[JSON]:
    """The frozen steps; what a person wrote in their place may be no list."""
    steps = (rollout.get("plan") or {}).get("steps")
    return steps if isinstance(steps, list) else []


def _check_steps(before: JSON, after: JSON) -> None:
    """A canary has no more than its step gives it, but for what it had already."""
    rollout = after.get("rollout") or {}
    steps, step = planned_steps(rollout), rollout.get("step")
    if not isinstance(step, int) or not 0 <= step < len(steps) or rollout.get("aborted"):
        return
    served = after.get("servedRevision")
    if served in {each["hash"] for each in after.get("rejectedRevisions") or []} and not weights(
        before
    ).get(served):
        return  # what the canary does not have a rejected one would gain: it has all or nothing
    name = rollout["revision"]
    allowed = [each["setWeight"] for each in steps[: step + 1] if "setWeight" in each]
    had, has = weights(before).get(name, 0), weights(after).get(name, 0)
    assert has <= max(had, *allowed[-1:], 0), f"{name} has {has} % at step {step + 1}"


def _check_promotion(seen: Snapshot, plan: Plan, before: JSON, now: datetime) -> None:
    """Only what all routers are known to send everything to, and what does not fail it all."""
    promoted = promotion(plan)
    if promoted is None:
        return
    assert weights(before) == {promoted: 100}, f"{promoted} is promoted at {weights(before)}"
    assert not _unconfirmed(seen, before), f"{promoted} is promoted before routers have confirmed"
    stands_by = _ready(seen, str(before.get("servedRevision")))
    assert _ready(seen, promoted) or not stands_by, f"{promoted} is promoted without a ready pod"
    counts, as_of = (seen.requests.value or {}).get(promoted), seen.requests.as_of
    was = before.get("rollout") or {}
    judged = (was.get("plan") or {}).get("strategy") in {"Canary", "BlueGreen"}
    if counts is None or as_of is None or not judged or before.get("servedRevision") is None:
        return
    lost = len(counts.looks) >= 8 and all(
        total and failed == total for total, failed in counts.looks
    )
    assert not lost or now - as_of >= STALE, f"{promoted} is promoted, and fails every request"


def _check_crash(seen: Snapshot, before: JSON, after: JSON) -> None:
    """A revision on its way up whose engine cannot run goes back in the same decision."""
    was, now = before.get("rollout") or {}, after.get("rollout") or {}
    served, rejected = before.get("servedRevision"), after.get("rejectedRevisions") or []
    going = was.get("state") in {"Forward", "Undoing"} and not was.get("aborted")
    if not going or served is None or served in {each["hash"] for each in rejected}:
        return
    held = any(
        each["reason"] == "Blocked" or "the rollout in status cannot be read" in each["message"]
        for each in after["conditions"]  # at no replicas the reason is that there are none
    )
    crashed = any(_cannot_run(pod) for pod in _own_pods(seen, str(was.get("revision"))))
    if crashed and not held:
        same = now.get("id") == was.get("id") and not now.get("aborted")
        assert not same, f"{was['revision']} crashes, and goes on"


def _own_pods(seen: Snapshot, revision: str) -> Iterator[ObservedPod]:
    """Pods of a revision's present Deployment, told by who controls them."""
    key = ObjectKey(api_version="apps/v1", kind="Deployment", name=f"chat-rev-{revision}")
    found = seen.objects.get(key)
    for pod in seen.pods:
        made_by = seen.replica_sets.get(pod.controller.uid) if pod.controller else None
        owner = made_by.controller if made_by is not None else None
        if found is not None and owner is not None and owner.uid == found.uid:
            yield pod


def _cannot_run(pod: ObservedPod) -> bool:
    end = pod.last_termination
    if pod.ready or pod.deleting or end is None or pod.unschedulable is not None:
        return False
    return '"retriable": false' in end.message


def _check_words(plan: Plan, after: JSON) -> None:
    """What people are told is what is."""
    split = weights(after)
    for name in SERVED.findall(after["message"]):
        assert split == {name: 100} or not split, f"{after['message']!r} at {split}"
    done = [event.message for event in plan.events if event.reason == "ActDone"]
    ended = plan.outcome is not None and plan.outcome.result is not Result.PROMOTED
    assert not ended or not any("/promote" in text for text in done), f"{done}, and it goes back"
    for text in done:
        ((act, value),) = ACT.findall(text)
        problem = _undone(plan, after, act, value)
        assert problem is None, f"{text!r}, and {problem}"
    if plan.outcome is not None and plan.outcome.result is Result.REJECTED:
        assert plan.outcome.revision in _rejected(plan, after), f"{plan.outcome} is not rejected"


def _check_health(seen: Snapshot, after: JSON) -> None:
    """Who waits for Ready waits for spec to be served, and for clients that get answers."""
    conditions = {each["type"]: each for each in after["conditions"]}
    routers = [pod for pod in seen.pods if pod.component == "router" and pod.ready]
    assert conditions["Ready"]["message"] == after["message"]
    assert conditions["Available"]["status"] != "True" or routers, "available without a router"
    if after["phase"] == "Healthy" and seen.deployment.spec.wanted_replicas:
        assert conditions["Available"]["status"] == "True", f"Healthy: {conditions['Available']}"
        served, asked = after.get("servedRevision"), after["specRevision"]
        assert weights(after) == {served: 100}, f"Healthy at {weights(after)}"
        assert served == asked, f"Healthy, and {served} is served instead of {asked}"


def _rejected(plan: Plan, after: JSON) -> frozenset[str]:
    """With status, where memory cannot be read and is not written."""
    return rejections(plan) | {each["hash"] for each in after.get("rejectedRevisions") or []}


def _undone(plan: Plan, after: JSON, act: str, revision: str) -> str | None:
    """What contradicts that an act was carried out."""
    rollout, rejected = after.get("rollout") or {}, _rejected(plan, after)
    state, going = rollout.get("state"), rollout.get("revision")
    match act:
        case "abort" if revision not in rejected or (state, going) == ("Forward", revision):
            return f"{revision} is {state}, and rejected are {sorted(rejected)}"
        case "retry" if revision in rejected:
            return f"{revision} is still rejected"
        case "undo":
            heads = {rollout.get("undoTarget"), going, after.get("servedRevision")}
            return None if revision in heads else f"{revision} is none of {heads}"
        case "restart" if state != "Restarting":
            return f"the state is {state}"
    return None


def _check_analysis(seen: Snapshot, plan: Plan, before: JSON, now: datetime) -> None:
    """An analysis step is left on requests of its own, by a person, or as spec says."""
    was, after = before.get("rollout") or {}, (plan.status or {}).get("rollout") or {}
    steps = planned_steps(was)
    step = was.get("step")
    promoted = promotion(plan) is not None
    same = after.get("id") == was.get("id") and not after.get("aborted")
    if not isinstance(step, int) or was.get("aborted") or not (promoted or same):
        return
    by_hand = before.get("handledActs", {}).get("promote")
    if (plan.status or {}).get("handledActs", {}).get("promote") != by_hand:
        return
    left = len(steps) if promoted else after.get("step") or 0
    for index in range(step, min(left, len(steps))):
        if "analysis" in steps[index]:
            known = index == step and (_judged(seen, was, now) or _proceeds(was, now))
            assert known, f"step {index + 1} is left without requests of its own"


def _judged(seen: Snapshot, was: JSON, now: datetime) -> bool:
    start, least = was.get("requestsAtStart"), was["plan"]["analysis"]["minSamples"]
    as_of = seen.requests.as_of
    if start is None or as_of is None or now - as_of >= STALE:
        return False
    arms = list(_own(seen, was, start))
    return len(arms) == 2 and all(count >= least for count in arms)


def _own(seen: Snapshot, was: JSON, start: JSON) -> Iterator[int]:
    stable = (seen.raw.get("status") or {}).get("servedRevision")
    for name, arm in ((stable, "stable"), (was["revision"], "canary")):
        counts = (seen.requests.value or {}).get(str(name))
        if counts is not None:
            yield counts.total - start[arm]["total"]


def _proceeds(was: JSON, now: datetime) -> bool:
    analysis: Any = was["plan"]["analysis"]
    started = was.get("stepStartedAt")
    if analysis["onInconclusive"] != "Proceed" or started is None:
        return False
    longest = timedelta(minutes=int(analysis["maxDuration"].removesuffix("m")))
    return now >= datetime.fromisoformat(started) + longest
