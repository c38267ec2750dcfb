"""The arithmetic of a rollout, for every size: it ends, within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmfleet.planning.rollout.capacity import new_replicas, old_replicas, weight_for


@given(replicas=st.integers(1, 400), surge=st.integers(0, 100))
def test_rollout_when_every_pod_gets_ready_then_it_ends_within_surge_and_floor(
    replicas: int, surge: int
) -> None:
    old, new, share = replicas, 0, 0
    for _ in range(4 * replicas + 4):
        wanted = old_replicas(replicas, surge, share, new, new_pods=replicas)
        grown = new_replicas(
            replicas,
            surge,
            others_present=old,
            old_wanted=wanted,
            now_wanted=new,
            new_pods=replicas,
        )
        assert grown >= new
        old, new = wanted, grown
        assert old + new <= replicas + surge
        assert old + new >= replicas - (surge == 0)
        carries = old + new if new else old
        assert carries >= replicas - (surge == 0)
        share = weight_for(new, replicas)
        if share == 100:
            break
    assert (new, share) == (replicas, 100)
    assert old_replicas(replicas, surge, 100, new, new_pods=replicas) == min(replicas, surge)
