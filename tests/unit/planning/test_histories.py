"""Random histories of rollouts: what holds whatever happens, in whatever order.

``make test-histories ARGS="--count 20000"`` runs more of them, and ``ARGS=--seeded`` shows that
they notice bugs.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.planning.actions import ACT_FREE, ACTIONS, POLICIES, perform
from tests.unit.planning.canaries import split
from tests.unit.planning.fleet import Fleet
from tests.unit.planning.history import GOOD, MODELS, History

HISTORIES = int(os.environ.get("LLMFLEET_HISTORIES", "10"))
Actions = list[tuple[str, Any]]
BEGINNINGS = st.fixed_dictionaries({
    "surge": st.sampled_from([0, 1, 2]),
    "replicas": st.integers(1, 4),
    "new": st.booleans(),
    "kept": st.booleans(),
})  # fmt: skip


def play(actions: Actions, last: str, *, surge: int, replicas: int, new: bool, kept: bool) -> None:
    """A history, and its end: the wanted revision is served, or one that is good.

    Raises:
        AssertionError: a decision was wrong, or the end is.
    """
    replicas = max(replicas, 1 + (surge == 0))  # one pod is not replaced in place, step by step
    history = History(surge, replicas, new=new, kept=kept)
    for action, value in actions:
        perform(history, action, value)
    forged = history.good_status is not None
    perform(history, "edit", last)
    perform(history, "scale", replicas)
    history.finish()

    world, wanted = history.world, history.hashes[last]
    bad = {history.hashes["broken"]} | history.rejected
    if wanted in bad and (new or forged) and not split(world):
        return  # nothing else was ever served
    (served,) = split(world)
    if wanted not in bad:
        assert (served, world.status()["phase"]) == (wanted, "Healthy"), world.status()["message"]
    elif not forged:
        assert served not in bad, world.status()["message"]
    assert world.replicas() == {served: replicas}
    assert world.ready(served) == replicas or served in world.broken


@pytest.mark.long
@settings(max_examples=HISTORIES, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25), last=st.sampled_from(MODELS), beginning=BEGINNINGS)
@example(  # the status is lost while a rollout goes back, and only the rejected revision is up
    actions=[
        ("edit", "two"), ("turns", 3), ("turns", 2), ("turns", 2), ("abort", "two"),
        ("recreate", None),
    ],
    last="two", beginning={"surge": 0, "replicas": 2, "new": False, "kept": False},
)  # fmt: skip
@example(  # the operator ends before anything but the record of a rollout is made
    actions=[("edit", "two"), ("crash", 1)],
    last="one", beginning={"surge": 0, "replicas": 2, "new": False, "kept": False},
)  # fmt: skip
@example(  # a restored fleet is at no replicas when spec changes: what was good is still served
    actions=[("recreate", None), ("router silent", True), ("zero", 1), ("release", ("two", 1))],
    last="broken", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # a restored fleet is not ready yet when spec changes
    actions=[("breaks", "target"), ("recreate", None)],
    last="broken", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # a number beyond int64 does not outlive the correction of the status
    actions=[("forge", {"generation": 2**63 - 1}), ("turn", None)],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # what is served is not said of a share that somebody forged
    actions=[("forge", {"traffic": "whole"}), ("zero", 2)],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # nor is half of a share all of it
    actions=[
        ("edit", "two"), ("scale", 0), ("acts", [("abort", "target"), ("undo", "served")]),
        ("forge", {"traffic": "short"}), ("turn", None),
    ],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # a number that only a lost status held may be given again
    actions=[("edit", "two"), ("crash", 1), ("lose status", None)],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # a promotion that comes with another spec is not said to be carried out
    actions=[("release", ("two", 1)), ("promote", "target"), ("release", ("one", 1))],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # what had all traffic is served, though no router had confirmed it before spec changed
    actions=[("turns", 2), ("routers lag", (0, 1)), ("turn", None), ("zero", 1)],
    last="broken", beginning={"surge": 0, "replicas": 1, "new": True, "kept": False},
)  # fmt: skip
@example(  # a router on its way out is not waited for
    actions=[("router replaced", 0), ("router lies", None)],
    last="two", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
@example(  # nothing is commanded, and what a superseded undo would go back to is rejected
    actions=[("undo", "three"), ("recreate", None)],
    last="two",
    beginning={"surge": 0, "replicas": 1, "new": False, "kept": True},
)
@example(  # the status is lost twice before memory knows what was commanded in between
    actions=[("release", ("two", 4)), ("lose status", None), ("crash", 1), ("lose status", None)],
    last="one",
    beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)
@example(  # a number that cannot rise, put there by hand, while something else changes
    actions=[("policy", POLICIES[6]), ("forge", {"generation": 2**63 - 1}), ("turn", None)],
    last="one",
    beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)
@example(  # a revision that somebody calls served, and that has no Deployment, gets no requests
    actions=[("forge", {"served": "kept"}), ("forge", {"served": "kept"}), ("turn", None)],
    last="one",
    beginning={"surge": 0, "replicas": 1, "new": False, "kept": True},
)
@example(  # requests that somebody gave to a third revision go to the served one, not to the canary
    actions=[("edit", "two"), ("forge", {"traffic": "whole"}), ("turns", 3)],
    last="one",
    beginning={"surge": 1, "replicas": 1, "new": False, "kept": True},
)
@example(  # in place: what an undo gives up on its way has taken the room that its target needs
    actions=[
        ("acts", [("abort", "target"), ("undo", "three")]), ("turns", 2), ("edit", "two"),
        ("turns", 3),
    ],
    last="one", beginning={"surge": 0, "replicas": 1, "new": False, "kept": True},
)  # fmt: skip
@example(  # an attempt that ends before memory knows of it leaves its number to nobody
    actions=[("lose status", None), ("crash", 1), ("turn", None)],
    last="two", beginning={"surge": 0, "replicas": 1, "new": False, "kept": False},
)  # fmt: skip
def test_rollout_when_anything_happens_then_a_rejected_hash_is_never_served_again_without_retry(
    actions: Actions, last: str, beginning: dict[str, Any]
) -> None:
    play(actions, last, **beginning)


@pytest.mark.long
@settings(max_examples=HISTORIES, deadline=None)
@given(
    actions=st.lists(ACT_FREE, max_size=20),
    surge=st.sampled_from([0, 1, 2]),
    replicas=st.integers(2, 4),
    last=st.sampled_from(GOOD),  # what serves beside a broken one is a matter of time
)
def test_rollout_when_the_operator_crashes_then_the_end_is_the_one_without_the_crashes(
    actions: Actions, surge: int, replicas: int, last: str
) -> None:
    ends = []
    for crashes in (True, False):
        history = History(surge, replicas)
        for action, value in actions:
            trouble = action in {"crash", "stale", "lose reply"}
            perform(history, *(("turn", None) if trouble and not crashes else (action, value)))
        perform(history, "edit", last)
        perform(history, "scale", replicas)
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
