"""Bugs that are planted to see them caught are still bugs: each replaces what is there."""

from __future__ import annotations

import multiprocessing

import pytest

from llmfleet.planning.decide import decide
from tests.faults import seeded as faults
from tests.histories import seeded as histories

BUGS = {**faults.BUGS, **{f"history-{name}": name for name in histories.BUGS}}


def plant(name: str) -> None:
    if name in faults.BUGS:
        faults.plant(name)
    else:
        histories.plant(name.removeprefix("history-"))


@pytest.mark.long
@pytest.mark.parametrize("name", BUGS)
def test_seeded_bug_when_planted_then_it_replaces_what_is_there(name: str) -> None:
    assert callable(decide)
    child = multiprocessing.get_context("fork").Process(target=plant, args=(name,))
    child.start()
    child.join()
    assert child.exitcode == 0
