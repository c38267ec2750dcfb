"""Flagger #1801: while a rollout waited for approval, failed checks were counted and no more."""

from __future__ import annotations

import pytest

from llmfleet.planning.snapshot import JSON
from tests.unit.planning.canaries import annotate, at_share, canary, rejected, split, started
from tests.unit.planning.fleet import counted
from tests.unit.planning.test_rollout import turn

WAITS: dict[str, list[JSON]] = {
    "for-a-person": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}],
    "for-a-time": [{"setWeight": 25}, {"pause": {"duration": "1h"}}, {"setWeight": 50}],
    "by-annotation": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}],
}


@pytest.mark.parametrize("wait", WAITS)
def test_flagger_1801_when_requests_fail_while_it_waits_for_approval_then_it_goes_back(
    wait: str,
) -> None:
    world, old, new = started(canary(WAITS[wait]))
    at_share(world, new, 25)
    if wait == "by-annotation":
        annotate(world, "pause", "true")
    turn(world)
    assert split(world) == {old: 75, new: 25}
    world.requests = {old: counted(900, 1), new: counted(300, 60)}
    turn(world)
    assert rejected(world) == {new: "ErrorRateRegression"}
    assert split(world) == {old: 100}
