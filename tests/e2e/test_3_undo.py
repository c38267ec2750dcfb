"""An undo in the middle of a rollout: back to what is served, then to what was asked for.

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
    "strategy", [canary(replicas=1, share=50), blue_green(replicas=1)], ids=lambda each: each.name
)
def test_undo_when_in_mid_rollout_then_the_new_release_never_gains_and_no_request_is_lost(
    releases: StubFleet,
    images: chart.Images,
    tmp_path: Path,
    figure: Callable[[str], None],
    strategy: Strategy,
) -> None:
    """Three good releases: one kept, one served, one half way up."""
    with following(releases, tmp_path / "statuses.jsonl") as history:
        arena = Arena(
            fleet=releases, strategy=strategy,
            probe=prober(releases, images.router), history=history,
        )  # fmt: skip
        arena.start()
        played = play(arena, "undo", rate=10)
    figure(f"undo in mid-{strategy.name}: {played.figure()}")
    assert played.problems == []
