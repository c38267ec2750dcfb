"""Which revisions exist, with how many replicas, and how the traffic is split.

RollingUpdate by revision: the new arm is made, its ready pods get their share, routers confirm it,
the old arm shrinks to what is left for it, until the new arm has everything. Canary and BlueGreen
roll out the same way until progressive delivery exists.

There are never three arms: while a rollout is under way and spec asks for yet another revision,
the traffic first returns to the served one. A stage is read anew from the snapshot every time:
nothing here remembers the last call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llmfleet.planning.capacity import new_replicas, old_replicas, weight_for
from llmfleet.planning.facts import Facts


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


def decide_rollout(
    facts: Facts, wanted: str | None, *, held: str | None, now: datetime
) -> RolloutPlan:
    """Decide replicas and traffic.

    Args:
        facts: what is observed.
        wanted: hash to serve in the end; None = leave what is served.
        held: a reason why no new revision may be rolled out now, or None.
        now: the time of the decision.
    """
    stable = _stable(facts, wanted)
    rollout = facts.deployment.status.rollout
    current = rollout.revision if rollout else None
    if current == stable:
        current = None
    if current is not None and facts.traffic.get(current) == 100 and facts.routers.confirmed:
        return replace(_steady(facts, current, now), promoted=current)
    if held is not None:
        return _hold(facts, stable, current, held, now)
    superseded = current is not None and current != wanted and stable is not None
    if superseded and not _returned(facts, current):
        return _move(facts, old=current, new=stable, stable=stable, target=current)
    if wanted is None or wanted == stable:
        return _steady(facts, stable, now)
    if facts.replicas == 0 and stable is not None and current is None:
        why = "no replicas are wanted; the new revision starts with the first one"
        return replace(_steady(facts, stable, now), held=why)
    plan = _move(facts, old=stable, new=wanted, stable=stable, target=wanted)
    return replace(plan, started=None if current == wanted else wanted)


def _stable(facts: Facts, wanted: str | None) -> str | None:
    """The served revision; with none recorded, one that is up already (a restored object)."""
    if facts.served is not None:
        return facts.served
    up = {name for name, arm in facts.arms.items() if arm.ready and arm.wanted is not None}
    if wanted in up or not up:
        return None
    good = facts.memory.last_good
    if good is not None and good.hash in up:
        return good.hash
    known = [each for each in facts.revisions.values() if each.hash in up]
    return max(known, key=lambda each: each.number).hash if known else None


def _returned(facts: Facts, current: str | None) -> bool:
    return not facts.traffic.get(current or "", 0) and _may_shrink(facts)


def _may_shrink(facts: Facts) -> bool:
    """Replicas go down only when every Ready router serves the present split."""
    return facts.routers.confirmed or not facts.traffic


def _hold(
    facts: Facts, stable: str | None, current: str | None, held: str, now: datetime
) -> RolloutPlan:
    """Leave traffic and pods as they are; outside a rollout the fleet's size still follows."""
    if current is None:
        return replace(_steady(facts, stable, now), held=held)
    return RolloutPlan(
        stable=stable,
        target=current,
        replicas={name: arm.wanted for name, arm in facts.arms.items() if arm.wanted is not None},
        traffic=facts.traffic,
        warm=_warm_since(facts, now, set(facts.traffic) | {current}),
        removed=(),
        held=held,
    )


def _steady(facts: Facts, stable: str | None, now: datetime) -> RolloutPlan:
    """One revision serves; others stay warm for scaleDownDelay, then go."""
    delay = timedelta(seconds=facts.deployment.spec.rollout.scale_down_delay_seconds)
    traffic = dict(facts.traffic)
    if stable is not None and traffic != {stable: 100} and facts.arm(stable).ready:
        traffic = {stable: 100}
    keep = {stable} if stable else set()
    unserved = _warm_since(facts, now, keep)
    fresh = {name for name, since in unserved.items() if now < since + delay}
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
) -> RolloutPlan:
    """One stage of moving everything from ``old`` to ``new`` within the surge."""
    if new is None:
        raise ValueError("there must be a revision to move to")
    old_arm, new_arm = facts.arm(old), facts.arm(new)
    share = _share(facts, old, new, forward=new == target)
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
        old_wanted = old_replicas(facts.replicas, facts.surge, carried, new_arm.ready)
        if not _may_shrink(facts):
            old_wanted = max(old_wanted, min(facts.replicas, old_arm.wanted or 0))
    present = sum(len(arm.pods) for name, arm in facts.arms.items() if name != new)
    new_wanted = new_replicas(
        facts.replicas,
        facts.surge,
        others_present=present,
        old_wanted=old_wanted,
        now_wanted=new_arm.wanted or 0,
    )
    if facts.traffic.get(new, 0) and not _may_shrink(facts):
        new_wanted = max(new_wanted, min(facts.replicas, new_arm.wanted or 0))
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


def _share(facts: Facts, old: str | None, new: str, *, forward: bool) -> int:
    """Percent for the new arm: it follows its ready pods, and falls back when none is left."""
    new_ready, old_ready = facts.arm(new).ready, facts.arm(old).ready
    now = facts.traffic.get(new, 0)
    if old is None:
        return 100 if new_ready else now
    if forward and new_ready == 0 and old_ready > 0:
        return 0
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
    sure = facts.routers.confirmed
    return tuple(
        name
        for name, arm in sorted(facts.arms.items())
        if name not in keep and name not in facts.traffic and (sure or not arm.ready)
    )
