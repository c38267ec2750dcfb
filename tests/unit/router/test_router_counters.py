"""Counters that never fall, whatever Envoy forgets."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmfleet_router.admin import Admin
from llmfleet_router.counters import Counters, Counts, Rising


class FakeAdmin(Admin):
    """Shows what a test says; answers in the order of the questions only if asked one by one."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.asked = 0

    async def stats(self, *patterns: str) -> dict[str, str]:
        self.asked += 1
        found = {n: v for n, v in self.shown.items() if any(re.fullmatch(p, n) for p in patterns)}
        # The first of several questions at once is answered last.
        for _ in range(10 // self.asked):
            await asyncio.sleep(0)
        return found

    def show(
        self, *, requests: int, errors: int | None = None, mirrored: int | None = None
    ) -> None:
        self.shown = {
            "cluster.rev-a.upstream_rq_total": str(requests),
            "cluster.rev-a.upstream_rq_active": "2",
        }
        if errors is not None:
            self.shown["llmfleet.attempt_errors.cluster.rev-a"] = str(errors)
        if mirrored is not None:
            self.shown["cluster.mirror-a.upstream_rq_total"] = str(mirrored)


@given(lives=st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1))
def test_counter_when_it_begins_again_then_the_sum_goes_on(lives: list[list[int]]) -> None:
    counter, sum_of_all, last = Rising(), 0, 0
    for life in lives:
        shown = 0
        assert counter.at(None) == last
        assert counter.at(0) == last  # the cluster is there again
        for more in life:
            shown += more
            sum_of_all += more
            last = counter.at(shown)
            assert last == sum_of_all


async def test_counts_when_the_cluster_of_shadows_goes_and_comes_then_they_stay(
    tmp_path: Path,
) -> None:
    admin = FakeAdmin()
    counters = Counters(admin, tmp_path / "counters")
    admin.show(requests=0)
    assert await counters.read(["a"]) == {
        "a": Counts(requests=0, errors=0, mirrored=0, in_flight=2)
    }
    seen = []
    for mirrored in (0, 5, None, None, 0, 3):
        admin.show(requests=10, errors=1, mirrored=mirrored)
        seen.append((await counters.read(["a"]))["a"].mirrored)
    assert seen == [0, 5, 5, 5, 5, 8]


async def test_counts_when_an_answer_comes_late_then_it_is_no_new_beginning(
    tmp_path: Path,
) -> None:
    admin = FakeAdmin()
    counters = Counters(admin, tmp_path / "counters")
    admin.show(requests=10)
    slow = asyncio.create_task(counters.read(["a"]))
    await asyncio.sleep(0)
    admin.show(requests=11)
    assert (await counters.read(["a"]))["a"].requests == 11
    await slow
    assert (await counters.read(["a"]))["a"].requests == 11


async def test_counts_when_another_agent_goes_on_then_they_do_not_fall(tmp_path: Path) -> None:
    admin, memory = FakeAdmin(), tmp_path / "counters"
    counters = Counters(admin, memory)
    for shown, total in ((400, 400), (0, 400), (600, 1000)):  # Envoy forgot a cluster in between
        admin.show(requests=shown)
        assert (await counters.read(["a"]))["a"].requests == total
    admin.show(requests=601)
    assert (await Counters(admin, memory).read(["a"]))["a"].requests == 1001
    memory.write_text("{")
    assert (await Counters(admin, memory).read(["a"]))["a"].requests == 601


async def test_counts_when_they_cannot_be_kept_then_they_are_given_nevertheless(
    tmp_path: Path,
) -> None:
    admin = FakeAdmin()
    counters = Counters(admin, tmp_path / "full" / "counters")
    for shown, total in ((400, 400), (0, 400), (600, 1000)):
        admin.show(requests=shown)
        assert (await counters.read(["a"]))["a"].requests == total
