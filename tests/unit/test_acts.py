"""The rules by which ``make test-acts`` judges statuses and clients see what they are there for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acts.history import Seen
from tests.acts.oracles import Pause, judge_clients, judge_statuses

JSON = dict[str, Any]
GOING = {"revision": "c", "state": "Forward"}
PAUSE = Pause(begun=100.0, ended=130.0)


def seen(  # a status in a line
    split: dict[str, int], generation: int, rejected: str = "", served: str = "b",
    replicas: int = 3, **status: Any,
) -> Seen:  # fmt: skip
    body: JSON = {
        "traffic": [{"revision": name, "weight": weight} for name, weight in split.items()],
        "trafficGeneration": generation,
        "rejectedRevisions": [{"hash": name, "reason": "UserUndo"} for name in rejected],
        "servedRevision": served,
        **status,
    }
    return Seen(at=0.0, spec_replicas=replicas, status=body)


HALF = {"b": 50, "c": 50}
UNDONE = [
    seen(HALF, 1, rollout=GOING),
    seen(HALF, 1, "c", rollout={**GOING, "state": "Returning", "aborted": "UserUndo"}),
    seen({"b": 100}, 2, "c", rollout={"revision": "a", "state": "Undoing"}),
    seen({"a": 100}, 3, "c", rollout={"revision": "a", "state": "Undoing"}),
    seen({"a": 100}, 3, "c", served="a"),
]
BROKEN = {
    "rises from 50 to 100": [UNDONE[0], seen({"c": 100}, 2, "c")],
    "rises from 0 to 10": [UNDONE[2], seen({"a": 90, "c": 10}, 3, "c")],
    "given preview": [UNDONE[2], seen({"b": 100}, 3, "c", routing={"preview": "c"})],
    "given mirror": [UNDONE[2], seen({"b": 100}, 3, "c", routing={"mirror": {"revision": "c"}})],
    "on its way up": [UNDONE[0], seen(HALF, 1, "c", rollout=GOING)],
    "rejected c becomes": [UNDONE[1], seen(HALF, 1, "c", served="c")],
    "from 1 to 1 with a change": [UNDONE[1], seen({"b": 100}, 1, "c")],
    "from 2 to 1 without a change": [UNDONE[2], seen({"b": 100}, 1, "c")],
    "not whole": [seen({"b": 99}, 1)],
    "at zero replicas the split": [seen(HALF, 1, replicas=0), seen({"b": 100}, 2, replicas=0)],
    "at zero replicas c is promoted": [
        seen(HALF, 1, replicas=0), seen(HALF, 1, replicas=0, served="c")
    ],
}  # fmt: skip


def test_statuses_when_a_rejected_revision_only_loses_then_nothing_is_said() -> None:
    assert judge_statuses(UNDONE) == []


@pytest.mark.parametrize("told", BROKEN)
def test_statuses_when_a_rule_is_broken_then_a_sentence_says_which(told: str) -> None:
    (sentence,) = judge_statuses(BROKEN[told])
    assert told in sentence


def test_retry_when_it_lifts_the_rejection_then_the_revision_may_rise_again() -> None:
    assert judge_statuses([*UNDONE[:3], seen({"b": 100}, 2), seen(HALF, 3, rollout=GOING)]) == []


def counted(waits: int = 0, first: float | None = None, last: float | None = None) -> JSON:
    return {
        "sent": 50, "succeeded": 50, "failed": 0, "truncated": 0, "waits": waits,
        "first_wait": first, "last_wait": last,
    }  # fmt: skip


def test_clients_when_all_were_answered_and_waited_only_without_engines_then_nothing_is_said() -> (
    None
):
    assert judge_clients(counted(), None) == []
    assert judge_clients(counted(9, 101.0, 129.0), PAUSE) == []


@pytest.mark.parametrize(
    ("told", "counts", "pause"),
    [
        ("2 requests failed", {**counted(), "succeeded": 48, "failed": 2}, None),
        ("1 were cut", {**counted(), "succeeded": 49, "truncated": 1}, None),
        ("not all of them ended", {**counted(), "succeeded": 49}, None),
        ("with engines there", counted(3, 1.0, 2.0), None),
        ("nothing was tried", counted(), PAUSE),
        ("before zero replicas", counted(3, 99.0, 110.0), PAUSE),
        ("engines were ready again", counted(3, 101.0, 131.0), PAUSE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_clients_when_they_met_what_they_should_not_then_a_sentence_says_so(
    told: str, counts: JSON, pause: Pause | None
) -> None:
    (sentence,) = judge_clients(counts, pause)
    assert told in sentence
