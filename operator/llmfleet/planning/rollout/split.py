"""Which revisions exist, with how many replicas, and how the traffic is split.

The new arm is made, its ready pods get their share, routers confirm it, the old arm shrinks to
what is left for it. RollingUpdate goes on until the new arm has everything; a canary stops at the
weight of its step. BlueGreen makes a whole second arm and moves everything at once. There are
never three arms.

Weights and sizes are clamped between named bounds, each with its reason. Two bounds stand above
all others: a rejected revision gains no weight, and at N = 0 the split stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from llmfleet.planning.facts.read import Facts
from llmfleet.planning.rollout.capacity import new_replicas, old_replicas, pods_for, weight_for
from llmfleet.planning.snapshot import ObservedPod


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The split and the sizes decided on."""

    replicas: Mapping[str, int]
    """Replicas of every revision that has a Deployment."""
    traffic: Mapping[str, int]
    """Percent by revision, summing to 100; empty while nothing can be served."""
    warm: Mapping[str, datetime] = field(default_factory=dict)
    """Revisions kept for going back quickly → since when they have no traffic."""
    removed: tuple[str, ...] = ()
    """Revisions whose Deployment and Service go."""
    replaced: tuple[ObservedPod, ...] = ()
    """Pods that are deleted, and made anew by their ReplicaSet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A stage of moving from one revision to another."""

    old: str | None
    """The revision that is left; None for the first one."""
    new: str
    """The revision that takes over."""
    back: bool
    """A rollout goes back: ``new`` is the served revision."""
    at_once: bool = False
    """Whether or not ready pods can carry it; routers shed the excess."""
    surge: int
    """S, replicas beyond N that the rollout may take."""
    whole: bool = False
    """All traffic moves in one step, when the new arm is whole (BlueGreen)."""
    goal: int = 100
    """Percent that ``new`` may have at most."""
    pods: int
    """Pods that ``new`` shall have, as far as the surge allows."""


def clamp(value: int, *, at_least: Collection[int] = (), at_most: Collection[int] = ()) -> int:
    """A value between bounds; where they contradict each other, the upper ones win.

    Example:
        >>> clamp(40, at_least=[0, 50]), clamp(40, at_least=[50], at_most=[30, 60])
        (50, 30)
    """
    return min([max([value, *at_least]), *at_most])


def move(facts: Facts, asked: Move, rejected: Collection[str]) -> Split:
    """One stage of a move within the surge.

    Args:
        facts: what is observed.
        asked: from where to where, and how far.
        rejected: hashes that gain no weight.
    """
    share = _share(facts, asked, rejected)
    traffic = {
        name: weight
        for name, weight in ((asked.new, share), (asked.old, 100 - share))
        if name is not None and weight > 0
    }
    given_up = _given_up(facts, asked, rejected)
    nothing_up = asked.old is None or (not facts.traffic and not facts.arm(asked.old).ready)
    enough = 1 if given_up else 0
    if asked.old in rejected and not facts.traffic:
        # It takes over all at once: with as many pods as there is room for.
        room = facts.replicas + asked.surge - facts.present_besides(asked.new)
        enough = max(1, min(facts.replicas, room))
    stays = facts.arm(asked.new).ready < enough
    if facts.replicas == 0 or stays or (share == 0 and nothing_up):
        # What the command names stays until it can be replaced, known or not: caches may be behind.
        traffic = dict(facts.traffic)
        share = traffic.get(asked.new, 0)
    removed = removable(facts, {asked.old or asked.new, asked.new, *traffic})
    replicas = {
        name: arm.wanted
        for name, arm in facts.arms.items()
        if arm.wanted is not None and name not in removed
    }
    # What is given up for another target makes room for it: only pods that are ready stay.
    spared = {
        name: min(replicas[name], facts.arm(name).ready) for name in given_up if name in replicas
    }
    replicas |= spared
    kept = sum(traffic.get(name, 0) for name in given_up)
    old_wanted = _old_size(facts, asked, share + kept, asked.pods, sum(spared.values()))
    replicas[asked.new] = _new_size(facts, asked, share, old_wanted)
    if asked.old is not None:
        replicas[asked.old] = old_wanted
    return Split(replicas=replicas, traffic=traffic, removed=removed)


def steady(
    facts: Facts,
    stable: str | None,
    now: datetime,
    *,
    discarded: Collection[str],
    rejected: Collection[str],
) -> Split:
    """One revision serves; others stay warm for scaleDownDelay, then go.

    Args:
        facts: what is observed.
        stable: the revision that serves; None = leave what is.
        now: the time of the decision.
        discarded: revisions that are not kept warm.
        rejected: hashes that gain no weight.
    """
    delay = timedelta(seconds=facts.deployment.spec.rollout.scale_down_delay_seconds)
    traffic = dict(facts.traffic)
    if stable is not None and facts.replicas > 0 and facts.arm(stable).ready:
        share = clamp(100, at_most=_gates(facts, stable, rejected))
        traffic = {stable: 100} if share == 100 else traffic
    keep = {stable} if stable else _may_serve(facts) - set(discarded)
    unserved = warm_since(facts, now, keep)
    fresh = {name for name, since in unserved.items() if now < since + delay} - set(discarded)
    removed = removable(facts, keep | fresh | set(traffic))
    # What is due but cannot go yet keeps its time, or a slow router would start the delay anew.
    warm = {name: since for name, since in unserved.items() if name not in removed}
    replicas = {stable: facts.replicas} if stable else {}
    for name, arm in facts.arms.items():
        if name not in replicas and name not in removed and arm.wanted is not None:
            replicas[name] = arm.wanted
    return Split(replicas=replicas, traffic=traffic, warm=warm, removed=removed)


def _may_serve(facts: Facts) -> set[str]:
    """What may be what serves, while nobody knows: what was good, and what is wanted."""
    good = facts.memory.last_good
    return {facts.spec_revision} | ({good.hash} if good is not None else set())


def stay(facts: Facts, target: str | None, now: datetime) -> Split:
    """Leave traffic and pods as they are."""
    keep = set(facts.traffic) | ({target} if target else set())
    return Split(
        replicas={name: arm.wanted for name, arm in facts.arms.items() if arm.wanted is not None},
        traffic=facts.traffic,
        warm=warm_since(facts, now, keep),
    )


def warm_since(facts: Facts, now: datetime, keep: Collection[str]) -> dict[str, datetime]:
    """Since when each revision beside ``keep`` that has a Deployment has had no traffic.

    One whose template is lost is none of them: nothing can go back to it.
    """
    known = {each.hash: each.unserved_since for each in facts.deployment.status.revisions}
    return {
        name: known.get(name) or now
        for name, arm in facts.arms.items()
        if name not in keep and arm.wanted is not None and name in facts.revisions
    }


def removable(facts: Facts, keep: Collection[str]) -> tuple[str, ...]:
    """Revisions that nobody needs, and of which no router sends a request any more."""
    sure = facts.routers.drained
    return tuple(
        name
        for name, arm in sorted(facts.arms.items())
        if name not in keep and not facts.reaches(name) and (sure or not arm.ready)
    )


def _gates(facts: Facts, revision: str, rejected: Collection[str]) -> list[int]:
    """Upper bounds of a revision's percentage that nothing overrides."""
    present = facts.traffic.get(revision, 0)
    gates = []
    if revision in rejected:
        gates.append(present)  # a rejected hash never gains weight
    if facts.arm(revision).wanted is None:
        gates.append(present)  # no plan both makes a Deployment and gives it weight
    return gates


def _given_up(facts: Facts, asked: Move, rejected: Collection[str]) -> frozenset[str]:
    """Revisions with a share that are neither left nor moved to, and cannot give it to the old one.

    That is an undo's earlier target: what is left was rejected.
    """
    if asked.old is None or (asked.old not in rejected and facts.arm(asked.old).ready):
        return frozenset()
    return (frozenset(facts.traffic) - {asked.old, asked.new}) & frozenset(facts.arms)


def _share(facts: Facts, asked: Move, rejected: Collection[str]) -> int:
    """Percent for the new arm: it follows its ready pods, and falls back when none is left."""
    present = facts.traffic.get(asked.new, 0)
    at_least = [100] if asked.at_once else []
    at_most = _gates(facts, asked.new, rejected)
    if asked.old is not None and (asked.old in rejected or facts.arm(asked.old).wanted is None):
        # What the new arm does not have a rejected one would gain, or one that is not there.
        at_least.append(100 - facts.traffic.get(asked.old, 0))
    # The share of a target that was given up goes to the new one whole, never to the old one.
    at_least += [facts.traffic[name] + present for name in _given_up(facts, asked, rejected)]
    carried = _carried(facts, asked, present)
    return clamp(min(asked.goal, carried), at_least=at_least, at_most=at_most)


def _carried(facts: Facts, asked: Move, present: int) -> int:
    """Percent that the new arm's ready pods can carry, as the kind of move allows."""
    new_ready, old_ready = facts.arm(asked.new).ready, facts.arm(asked.old).ready
    if asked.old is None:
        return 100 if new_ready else present
    if asked.back:
        if new_ready > 0 and old_ready == 0:
            return 100
    elif new_ready == 0 and old_ready > 0:
        return 0
    elif asked.whole and not present:
        return 100 if new_ready >= facts.replicas else 0
    elif asked.goal < 100 and not present and old_ready == 0:
        return 0  # a canary is not judged, or served, before there is a stable to compare it with
    return max(present, weight_for(new_ready, facts.replicas) if new_ready else 0)


def _old_size(facts: Facts, asked: Move, share: int, pods: int, spared: int) -> int:
    """Replicas of the arm that is left: what is confirmed to be carried by others is let go.

    Args:
        facts: what is observed.
        asked: from where to where, and how far.
        share: percent that others shall have.
        pods: that the new arm shall have.
        spared: pods of what is given up.
    """
    if asked.old is None:
        return 0
    arm, new_ready = facts.arm(asked.old), facts.arm(asked.new).ready
    confirmed = 100 - max(facts.traffic.get(asked.old, 0), 100 - share)
    size = old_replicas(facts.replicas, asked.surge, confirmed, new_ready, new_pods=pods + spared)
    present = arm.wanted or 0
    at_least: list[int] = []
    at_most: list[int] = []
    if asked.back:
        at_most.append(present)  # nothing is added to the arm that is left
        if share < 100:  # both are short of pods when they were replaced in place
            at_least.append(facts.replicas - (asked.surge == 0) - new_ready)
    if not facts.may_shrink:
        at_least.append(min(facts.replicas, present))
    elif spared and asked.surge == 0 and new_ready == 0:
        # In place, one pod makes room for the new arm, and what is given up has taken it.
        at_most.append(max(0, facts.replicas - 1 - spared))
    return clamp(size, at_least=at_least, at_most=at_most)


def _new_size(facts: Facts, asked: Move, share: int, old_wanted: int) -> int:
    """Replicas of the arm that takes over: what the step asks for, as far as there is room."""
    present = facts.arm(asked.new).wanted or 0
    size = new_replicas(
        facts.replicas,
        asked.surge,
        others_present=facts.present_besides(asked.new),
        old_wanted=old_wanted,
        now_wanted=present,
        new_pods=asked.pods,
    )
    # What a warm arm has above the surge is not taken away when its share comes back at once.
    at_least = [min(pods_for(facts.replicas, share), present)]
    if not facts.may_shrink:
        at_least.append(min(facts.replicas, present))
    return clamp(size, at_least=at_least)
