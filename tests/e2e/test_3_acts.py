"""What people ask for with clients there: an undo in the middle of a rollout, and a restart.

`make test-acts` has the other acts, more pods and more load.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hack.kube import chart

from tests.acts.arena import Arena, Strategy, blue_green, canary
from tests.acts.history import following
from tests.acts.playing import play, prober
from tests.e2e.stub import StubFleet


@pytest.mark.parametrize(
    ("strategy", "scenario"),
    [
        (canary(replicas=1, share=50), "undo"),
        (blue_green(replicas=1), "undo"),
        (canary(replicas=2, share=50), "restart"),
    ],
    ids=["undo in mid-canary", "undo in mid-blue-green", "restart"],
)
def test_act_when_clients_are_there_then_what_is_rejected_never_gains_and_no_request_is_lost(
    releases: StubFleet,
    images: chart.Images,
    tmp_path: Path,
    figure: Callable[[str], None],
    strategy: Strategy,
    scenario: str,
) -> None:
    """Three good releases: one kept, one served, one half way up."""
    with following(releases, tmp_path / "statuses.jsonl") as history:
        arena = Arena(
            fleet=releases, strategy=strategy,
            probe=prober(releases, images.router), history=history,
        )  # fmt: skip
        arena.start()
        played = play(arena, scenario, rate=10)
    figure(f"{scenario}, {strategy.name}: {played.figure()}")
    assert played.problems == []
