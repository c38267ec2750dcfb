"""Which revisions exist, with how many replicas, and how the traffic is split.

The new arm is made, its ready pods get their share, routers confirm it, the old arm shrinks to
what is left for it. RollingUpdate goes on until the new arm has everything; a canary stops at the
weight of its step (``intent.goal``). BlueGreen makes a whole second arm and moves everything at
once.

There are never three arms: while a rollout is under way and spec asks for yet another revision,
the traffic first returns to the served one. A stage is read anew from the snapshot every time:
nothing here remembers the last call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llmfleet.api import HeaderRouting, Mirroring, Routing
from llmfleet.planning.facts.read import Facts, with_spec_policy
from llmfleet.planning.rollout.capacity import new_replicas, old_replicas, pods_for, weight_for
from llmfleet.planning.rollout.intent import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The split and sizes decided on."""

    stable: str | None
    """The promoted revision."""
    target: str | None
    """The revision that is on its way up; None outside a rollout."""
    returning: bool = False
    """The rollout was superseded: traffic goes back to stable before anything else."""
    replicas: Mapping[str, int]
    """Replicas of every revision that has a Deployment."""
    traffic: Mapping[str, int]
    """Percent by revision, summing to 100; empty while nothing can be served."""
    routing: Routing | None = None
    """What routers do besides."""
    warm: Mapping[str, datetime]
    """Revisions kept for going back quickly → since when they have no traffic."""
    removed: tuple[str, ...]
    """Revisions whose Deployment and Service go."""
    promoted: str | None = None
    """Set in the one decision that makes a revision the stable one."""
    started: str | None = None
    """Set in the one decision that starts a rollout."""
    held: str | None = None
    """Why nothing may be rolled out."""


def decide_rollout(facts: Facts, intent: Intent, *, held: str | None, now: datetime) -> RolloutPlan:
    """Decide replicas, traffic and routing.

    Args:
        facts: what is observed.
        intent: which revision is wanted, and how far it may go now.
        held: a reason why no new revision may be rolled out now, or None.
        now: the time of the decision.
    """
    plan = _decide_split(facts, intent, held, now)
    return replace(plan, routing=_decide_routing(facts, intent, plan))


def _decide_split(facts: Facts, intent: Intent, held: str | None, now: datetime) -> RolloutPlan:
    stable, current, wanted = intent.stable, intent.current, intent.wanted
    everything = current is not None and facts.traffic.get(current) == 100
    going_on = intent.final and intent.aborted is None
    if everything and facts.routers.confirmed and going_on:
        return replace(_steady(facts, current, now, intent.discarded), promoted=current)
    if held is not None and (intent.aborted is None or current is None):
        return _hold(facts, stable, current, held, now)
    superseded = current is not None and current != wanted and stable is not None
    if superseded and not _returned(facts, current):
        share = 100 if intent.at_once else 0
        return _move(facts, old=current, new=stable, stable=stable, target=current, at_least=share)
    discarded = intent.discarded
    if intent.backing_off and current is not None:
        discarded |= {current}
    if wanted is None or wanted == stable:
        return _steady(facts, stable, now, discarded)
    if facts.replicas == 0 and stable is not None and current is None:
        why = "no replicas are wanted; the new revision starts with the first one"
        return replace(_steady(facts, stable, now, discarded), held=why)
    starting = current != wanted
    plan = _move(
        with_spec_policy(facts) if starting else facts,
        old=stable, new=wanted, stable=stable, target=wanted,
        goal=intent.goal if stable is not None else 100,
        pods=intent.pods if stable is not None else None,
    )  # fmt: skip
    return replace(plan, started=wanted if starting else None)


def _returned(facts: Facts, current: str | None) -> bool:
    return not facts.reaches(current) and facts.may_shrink


def _decide_routing(facts: Facts, intent: Intent, plan: RolloutPlan) -> Routing | None:
    """What reaches a canary beside its weight, and what the preview address leads to."""
    if plan.held is not None and plan.target is not None:
        return facts.routing
    spec = facts.deployment.spec.rollout
    policy = spec if plan.started is not None else facts.policy
    going = plan.target if plan.stable is not None and not plan.returning else None
    reached = going if going is not None and facts.arm(going).ready else None
    served = plan.stable or plan.target
    preview = reached if policy.strategy == "BlueGreen" and reached else served
    route, mirror = intent.routes
    routing = Routing(
        header_route=HeaderRouting(revision=reached, headers=route.headers)
        if route is not None and reached is not None
        else None,
        mirror=Mirroring(revision=reached, percent=mirror.percent)
        if mirror is not None and reached is not None
        else None,
        preview=preview
        if spec.strategy == "BlueGreen" and (preview == reached or preview in plan.traffic)
        else None,
        stickiness="Session" if policy.stickiness == "Session" and going is not None else None,
    )
    return routing if routing != Routing() else None


def _hold(
    facts: Facts, stable: str | None, current: str | None, held: str, now: datetime
) -> RolloutPlan:
    """Leave traffic and pods as they are; outside a rollout the fleet's size still follows."""
    if current is None:
        return replace(_steady(facts, stable, now, frozenset()), held=held)
    return RolloutPlan(
        stable=stable,
        target=current,
        replicas={name: arm.wanted for name, arm in facts.arms.items() if arm.wanted is not None},
        traffic=facts.traffic,
        warm=_warm_since(facts, now, set(facts.traffic) | {current}),
        removed=(),
        held=held,
    )


def _steady(
    facts: Facts, stable: str | None, now: datetime, discarded: frozenset[str]
) -> RolloutPlan:
    """One revision serves; others stay warm for scaleDownDelay, then go; discarded ones at once."""
    delay = timedelta(seconds=facts.deployment.spec.rollout.scale_down_delay_seconds)
    traffic = dict(facts.traffic)
    if stable is not None and traffic != {stable: 100} and facts.arm(stable).ready:
        traffic = {stable: 100}
    keep = {stable} if stable else set()
    unserved = _warm_since(facts, now, keep)
    fresh = {name for name, since in unserved.items() if now < since + delay} - discarded
    removed = _removable(facts, keep | fresh)
    # What is due but cannot go yet keeps its time, or a slow router would start the delay anew.
    warm = {name: since for name, since in unserved.items() if name not in removed}
    replicas = {stable: facts.replicas} if stable else {}
    for name, arm in facts.arms.items():
        if name not in replicas and name not in removed and arm.wanted is not None:
            replicas[name] = arm.wanted
    return RolloutPlan(
        stable=stable, target=None, replicas=replicas, traffic=traffic, warm=warm, removed=removed
    )


def _move(
    facts: Facts,
    *,
    old: str | None,
    new: str | None,
    stable: str | None,
    target: str | None,
    goal: int = 100,
    pods: int | None = None,
    at_least: int = 0,
) -> RolloutPlan:
    """One stage of moving from ``old`` to ``new`` within the surge.

    Args:
        facts: what is observed.
        old: the revision that is left.
        new: the revision that takes over.
        stable: the promoted revision.
        target: the revision being rolled out: ``new``, or ``old`` when traffic returns.
        goal: percent that ``new`` may have at most.
        pods: pods that ``new`` shall have; None = all.
        at_least: percent that ``new`` gets whether or not its pods can carry it.
    """
    if new is None:
        raise ValueError("there must be a revision to move to")
    old_arm, new_arm = facts.arm(old), facts.arm(new)
    new_pods = facts.replicas if pods is None else pods
    share = max(at_least, min(goal, _share(facts, old, new, forward=new == target, goal=goal)))
    traffic = {
        name: weight
        for name, weight in ((new, share), (old, 100 - share))
        if name is not None and weight > 0
    }
    if share == 0 and (old is None or (not facts.traffic and not old_arm.ready)):
        # What the command names stays until it can be replaced, known or not: caches may be behind.
        traffic = dict(facts.traffic)
    before = facts.traffic.get(old or "", 0)
    old_wanted = 0
    if old is not None:
        carried = 100 - max(before, 100 - share)
        old_wanted = old_replicas(
            facts.replicas, facts.surge, carried, new_arm.ready, new_pods=new_pods
        )
        if new != target:
            if 100 - share > 0:  # both are short of pods when they were replaced in place
                fewest = facts.replicas - (facts.surge == 0)
                old_wanted = max(old_wanted, fewest - new_arm.ready)
            # On the way back nothing is added to the arm that is left.
            old_wanted = min(old_wanted, old_arm.wanted or 0)
        if not facts.may_shrink:
            old_wanted = max(old_wanted, min(facts.replicas, old_arm.wanted or 0))
    new_wanted = new_replicas(
        facts.replicas,
        facts.surge,
        others_present=facts.present_besides(new),
        old_wanted=old_wanted,
        now_wanted=new_arm.wanted or 0,
        new_pods=new_pods,
    )
    if facts.traffic.get(new, 0) and not facts.may_shrink:
        new_wanted = max(new_wanted, min(facts.replicas, new_arm.wanted or 0))
    # What a warm arm has above the surge is not taken away when its share comes back at once.
    new_wanted = max(new_wanted, min(pods_for(facts.replicas, share), new_arm.wanted or 0))
    removed = _removable(facts, {old or new, new, *traffic})
    replicas = {
        name: arm.wanted
        for name, arm in facts.arms.items()
        if arm.wanted is not None and name not in removed
    }
    replicas |= {new: new_wanted} if old is None else {old: old_wanted, new: new_wanted}
    return RolloutPlan(
        stable=stable,
        target=target,
        returning=new != target,
        replicas=replicas,
        traffic=traffic,
        warm={},
        removed=removed,
    )


def _share(facts: Facts, old: str | None, new: str, *, forward: bool, goal: int) -> int:
    """Percent for the new arm: it follows its ready pods, and falls back when none is left."""
    new_ready, old_ready = facts.arm(new).ready, facts.arm(old).ready
    now = facts.traffic.get(new, 0)
    if old is None:
        return 100 if new_ready else now
    if forward and new_ready == 0 and old_ready > 0:
        return 0
    if forward and facts.policy.strategy == "BlueGreen" and not now:
        return 100 if new_ready >= facts.replicas else 0  # all at once
    if forward and goal < 100 and not now and old_ready == 0:
        return 0  # a canary is not judged, or served, before there is a stable to compare it with
    if old_ready == 0 and new_ready > 0 and not forward:
        return 100
    return max(now, weight_for(new_ready, facts.replicas) if new_ready else 0)


def _warm_since(facts: Facts, now: datetime, keep: set[str]) -> dict[str, datetime]:
    known = {each.hash: each.unserved_since for each in facts.deployment.status.revisions}
    return {
        name: known.get(name) or now
        for name, arm in facts.arms.items()
        if name not in keep and arm.wanted is not None
    }


def _removable(facts: Facts, keep: set[str]) -> tuple[str, ...]:
    """Revisions that nobody needs, and of which no router sends a request any more."""
    sure = facts.routers.let_go
    return tuple(
        name
        for name, arm in sorted(facts.arms.items())
        if name not in keep and not facts.reaches(name) and (sure or not arm.ready)
    )
