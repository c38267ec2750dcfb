"""How many replicas each arm of a rollout may have, and how much weight (design, section 6)."""

from __future__ import annotations


def floor_replicas(replicas: int, surge: int, new_percent: int, new_ready: int) -> int:
    """Fewest replicas of the old arm: F = ceil(N·(1−w)), one less when S = 0, at least 0.

    Weights are whole percents, so 1 of 3 pods has 33 % and not a third. A ready pod of the new arm
    whose share was only cut by that rounding counts in full, or three replicas would never roll.

    Args:
        replicas: N, the fleet's size.
        surge: S, replicas beyond N that a rollout may take.
        new_percent: 100·w, the new arm's confirmed share, 0 … 100.
        new_ready: its ready pods.

    >>> [floor_replicas(4, 1, share, ready) for share, ready in ((0, 0), (25, 1), (25, 0))]
    [4, 3, 3]
    >>> [floor_replicas(3, 1, share, ready) for share, ready in ((33, 1), (33, 0), (66, 2))]
    [2, 3, 1]
    >>> floor_replicas(4, 0, 25, 1), floor_replicas(1, 0, 0, 0)
    (2, 0)
    """
    rounded_away = min(new_ready, ((new_percent + 1) * replicas - 1) // 100)
    carried = max(replicas * new_percent // 100, rounded_away)
    floor = replicas - min(replicas, carried)
    return max(0, floor - 1 if surge == 0 else floor)


def pods_for(replicas: int, percent: int) -> int:
    """Pods that carry a share of the traffic: ceil(N·w).

    >>> pods_for(4, 5), pods_for(4, 50), pods_for(4, 0), pods_for(3, 100)
    (1, 2, 0, 3)
    """
    return -(-replicas * percent // 100)


def old_replicas(
    replicas: int, surge: int, new_percent: int, new_ready: int, *, new_pods: int
) -> int:
    """Replicas of the arm that is being left: max(F, min(N, N+S−c)).

    The surge stays on the old arm to the end, so that going back is quick.

    Args:
        replicas: N.
        surge: S.
        new_percent: the new arm's confirmed share, 0 … 100.
        new_ready: its ready pods.
        new_pods: c, the pods that the new arm shall have at the step under way.

    >>> [old_replicas(4, 1, 25 * ready, ready, new_pods=4) for ready in range(5)]
    [4, 3, 2, 1, 1]
    >>> [old_replicas(4, 0, 25 * ready, ready, new_pods=4) for ready in range(5)]
    [3, 2, 1, 0, 0]
    >>> old_replicas(4, 1, 0, 0, new_pods=1), old_replicas(4, 0, 0, 0, new_pods=1)
    (4, 3)
    """
    floor = floor_replicas(replicas, surge, new_percent, new_ready)
    return max(floor, min(replicas, replicas + surge - new_pods))


def new_replicas(
    replicas: int,
    surge: int,
    *,
    others_present: int,
    old_wanted: int,
    now_wanted: int,
    new_pods: int,
) -> int:
    """Replicas of the arm that takes over: min(c, N+S−pods of other revisions).

    Pods that are ending count as present, since they still hold their accelerators, and so do those
    that a former Deployment of the new arm left; but a pod replaced in the old arm takes nothing
    away from the new one.

    Args:
        replicas: N.
        surge: S.
        others_present: pods that are not of the new arm's Deployment, ending ones included.
        old_wanted: replicas that the old arm is about to have.
        now_wanted: replicas that the new arm has now.
        new_pods: c, the pods that the new arm shall have at the step under way.

    >>> new_replicas(4, 1, others_present=4, old_wanted=4, now_wanted=0, new_pods=4)
    1
    >>> new_replicas(4, 1, others_present=5, old_wanted=4, now_wanted=1, new_pods=4)
    1
    >>> new_replicas(1, 0, others_present=1, old_wanted=0, now_wanted=0, new_pods=1)
    0
    """
    room = replicas + surge - max(others_present, old_wanted)
    kept = min(now_wanted, replicas + surge - old_wanted)
    return max(0, min(new_pods, max(room, kept)))


def weight_for(ready: int, replicas: int) -> int:
    """Percent of the traffic that ready pods of the new arm can carry: min(1, ready/N).

    >>> weight_for(1, 4), weight_for(5, 4), weight_for(1, 3)
    (25, 100, 33)
    """
    return 100 if ready >= replicas else 100 * ready // replicas
