"""Counting from raw samples, and the poller's questions; Prometheus' answers are played."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from llmfleet.cluster.counting import Attempt, Series
from llmfleet.cluster.prometheus import RequestPoller, build_query, counted_since
from llmfleet.cluster.prometheus_problems import NO_API
from llmfleet.planning.analysis.metrics.error_rate import ERRORS, REQUESTS

SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
START = SINCE.timestamp()
OWNER = ("team-a", "chat")
JUDGED = {"rollout": {"servedSince": "2026-03-01T12:00:00Z"}}


def series(values: Sequence[tuple[float, float]], name: str = REQUESTS, **labels: str) -> Series:
    """Samples at so many seconds after the attempt began."""
    return Series(
        labels={"__name__": name, "revision": "new", "pod": "r1", **labels},
        samples=tuple((START + at, value) for at, value in values),
    )


def total(*found: Series) -> int:
    attempt = Attempt(SINCE)
    attempt.add(found)
    return attempt.counts()["new"].total


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(-10, 40), (5, 40), (15, 47)], 7),
        ([(5, 3), (15, 9)], 9),
        ([(-10, 40), (5, 50), (15, 4), (25, 6)], 16),
        ([(-20, 1), (-10, 40)], 0),
    ],
    ids=["since the start", "a new router", "a router began anew", "nothing yet"],
)
def test_total_when_counted_then_exact(values: list[tuple[float, float]], expected: int) -> None:
    assert total(series(values)) == expected


def test_total_when_there_are_two_routers_then_both_count() -> None:
    assert total(series([(5, 3)]), series([(-5, 10), (5, 12)], pod="r2")) == 5


def test_samples_when_asked_for_twice_then_counted_once() -> None:
    attempt = Attempt(SINCE)
    attempt.add([series([(-5, 10), (5, 12)])])
    attempt.add([series([(5, 12), (15, 20)])])
    assert attempt.counts()["new"].total == 10
    assert attempt.latest == START + 15


@pytest.mark.parametrize(
    "labels",
    [{"job": "b"}, {"replica": "b"}, {"prometheus": "b", "prometheus_replica": "b"},
     {"job": "b", "instance": "10.0.0.1:9090", "container": "router"}],
    ids=str,
)  # fmt: skip
def test_total_when_a_router_is_scraped_twice_then_it_counts_once(labels: dict[str, str]) -> None:
    once = [(-5, 10), (5, 12), (15, 20)]
    shifted = [(-3, 10), (7, 12), (12, 19)]
    for found in ([series(once), series(shifted, **labels)], [series(shifted, **labels)]):
        attempt = Attempt(SINCE)
        attempt.add(found)
        attempt.add([series(once)])
        assert attempt.counts()["new"].total == 10


def test_total_when_there_are_no_pods_then_each_instance_counts_once() -> None:
    def by_instance(name: str, **labels: str) -> Series:
        found = series([(5, 3)], **labels, instance=name)
        return Series(
            labels={name: text for name, text in found.labels.items() if name != "pod"},
            samples=found.samples,
        )

    assert total(by_instance("a"), by_instance("a", job="other"), by_instance("b")) == 6


def test_total_when_another_exporter_stands_between_then_each_router_counts() -> None:
    found = (series([(5, 3)], pod="exporter", exported_pod=name) for name in ("r1", "r2"))
    assert total(*found) == 6


def test_total_when_two_copies_differ_by_a_moment_then_no_router_seems_to_begin_anew() -> None:
    attempt = Attempt(SINCE)
    for at in range(10, 600, 10):
        one = series([(at, at * 100)], job="a")
        # Scraped a moment later by the clock, and yet before the other one was read.
        other = series([(at + 0.01, at * 100 - 1)], job="b")
        late = series([(at + 5, at * 100 + 400)], job="b" if at % 20 else "a")
        attempt.add([one, other, late])
    assert attempt.counts()["new"].total <= 60_000


def test_total_when_another_job_begins_to_scrape_then_what_it_saw_first_is_nothing_new() -> None:
    since_ever = series([(-5, 1000), (5, 1003), (15, 1006)], job="a")
    since_now = series([(12, 1005), (16, 1006)], job="b")
    assert total(since_ever, since_now) == total(since_now, since_ever) == 6


def test_total_when_a_copy_is_no_longer_scraped_then_the_other_goes_on() -> None:
    attempt = Attempt(SINCE)
    attempt.add([series([(5, 10)], job="a"), series([(4, 9)], job="b")])
    for at in (15, 45, 75, 105):
        attempt.add([series([(5, 10)], job="a"), series([(at, 10 + at)], job="b")])
    assert attempt.counts()["new"].total == 115
    attempt.add([series([(120, 125)], job="b")])
    assert attempt.counts()["new"].total == 125


def test_counts_then_each_revision_has_its_own_failures() -> None:
    attempt = Attempt(SINCE)
    attempt.add([
        series([(-5, 10), (5, 12)]), series([(5, 1)], ERRORS), series([(5, 90)], revision="old"),
        series([(5, 7)], "other_total"),
    ])  # fmt: skip
    found = {name: (each.total, each.failed) for name, each in attempt.counts().items()}
    assert found == {"new": (2, 1), "old": (90, 0)}


def looks(attempt: Attempt) -> dict[str, tuple[tuple[int, int], ...]]:
    return {revision: counts.looks for revision, counts in attempt.counts().items()}


def test_looks_then_both_revisions_have_the_same_closed_intervals() -> None:
    attempt = Attempt(SINCE)
    attempt.add([
        series([(2, 3), (12, 9), (130, 10)]), series([(12, 2)], ERRORS),
        series([(2, 40), (12, 90), (130, 100)], revision="old"),
        series([(200, 50)], revision="old", pod="r2"),
    ])  # fmt: skip
    assert looks(attempt) == {
        "new": ((3, 0), (6, 2), (1, 0)),
        "old": ((40, 0), (50, 0), (10, 0)),
    }
    assert attempt.counts()["old"].total == 150  # what is not closed is counted, and no look


def test_looks_when_the_operator_starts_anew_then_they_are_the_same() -> None:
    samples = [(at, at * 3.0) for at in range(1, 600, 7)]
    at_once = Attempt(SINCE)
    at_once.add([series(samples), series([(at, value // 10) for at, value in samples], ERRORS)])
    by_and_by = Attempt(SINCE)
    for number in range(2, len(samples) + 2, 2):
        seen = samples[:number]
        by_and_by.add([series(seen), series([(at, value // 10) for at, value in seen], ERRORS)])
        assert looks(by_and_by)["new"] == looks(at_once)["new"][: len(looks(by_and_by)["new"])]
    assert looks(by_and_by) == looks(at_once)


def test_looks_when_a_sample_comes_late_then_no_look_that_was_told_changes() -> None:
    attempt = Attempt(SINCE)
    attempt.add([series([(2, 3), (12, 9), (60, 9)])])
    before = looks(attempt)["new"]
    attempt.add([series([(2, 70)], pod="late"), series([(90, 10)])])
    after = looks(attempt)["new"]
    assert after[: len(before)] == before
    assert sum(requests for requests, _ in after) == 79


def test_query_when_samples_are_known_then_only_newer_ones_are_asked_for() -> None:
    attempt = Attempt(SINCE)
    assert build_query(OWNER, attempt, START + 600).endswith("[750s]")
    attempt.add([series([(590, 1)])])
    query = build_query(OWNER, attempt, START + 600)
    assert query.endswith("[160s]")
    assert 'llmdeployment_namespace="team-a",llmdeployment="chat"' in query


@pytest.mark.parametrize(
    "status",
    [None, {}, {"rollout": {}}, {"rollout": {**JUDGED["rollout"], "aborted": "UserAbort"}}],
)
def test_status_when_nothing_is_under_judgement_then_nothing_is_counted(status: Any) -> None:
    assert counted_since(status) is None


class Played:
    """Answers like Prometheus, or fails."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.fails = False
        self.values = [[START - 5, "10"], [START + 5, "12"]]

    def custom_query(self, query: str) -> list[dict[str, Any]]:
        self.queries.append(query)
        if self.fails:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"refused: {query}")
        labels = {"__name__": REQUESTS, "revision": "new"}
        return [{"metric": labels, "values": self.values}]


class Rig:
    def __init__(self) -> None:
        self.played = Played()
        self.woken: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.poller = RequestPoller(lambda: self.played, self.woken.put_nowait, poll_seconds=0.01)
        self.poller.start()

    async def next(self) -> None:
        await asyncio.wait_for(self.woken.get(), 5)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.poller.close()


async def test_counts_when_they_change_then_the_owner_is_woken(rig: Rig) -> None:
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, _ = rig.poller.report(OWNER)
    assert counts is not None
    assert counts["new"].total == 2
    rig.played.values = [[START + 5, "12"], [START + 15, "20"]]
    await rig.next()
    counts, _ = rig.poller.report(OWNER)
    assert counts is not None
    assert counts["new"].total == 10


async def test_prometheus_when_it_does_not_answer_then_the_counts_are_unknown_and_say_why(
    rig: Rig,
) -> None:
    rig.played.fails = True
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    assert rig.poller.report(OWNER) == (
        None, "Prometheus does not answer: connection refused",
    )  # fmt: skip
    rig.played.fails = False
    await rig.next()
    assert rig.poller.report(OWNER)[0] is not None


async def test_counts_when_a_sample_is_no_number_then_it_is_left_out_and_the_others_count(
    rig: Rig,
) -> None:
    rig.played.values = [[START + 5, "12"], [START + 8, "NaN"], [START + 9, "+Inf"]]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, _ = rig.poller.report(OWNER)
    assert counts is not None
    assert counts["new"].total == 12


async def test_counts_when_a_sample_is_of_the_future_then_it_is_left_out(rig: Rig) -> None:
    rig.played.values = [[START + 5, "12"], [time.time() + 3600, "99"]]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, _ = rig.poller.report(OWNER)
    assert counts is not None
    assert (counts["new"].total, counts["new"].as_of.timestamp()) == (12, START + 5)


ABSURD: list[tuple[str, Any]] = [
    ("infinite together", [["r1", START + 8, "1e308"], ["r2", START + 8, "1e308"]]),
    ("no 64-bit number", [["r1", START + 8, "1e300"]]),
    ("no exact float", [["r1", START + 8, "9007199254740994"]]),
    ("below zero", [["r1", START + 8, "-5"]]),
    ("before all time", [["r1", -1e18, "5"]]),
    ("of the year -1199", [["r1", -1e11, "5"]]),
    ("of two days before", [["r1", START - 2 * 86_400, "5"]]),
    ("of a label that is no text", [[["r1"], START + 8, "5"]]),
    ("of a label that is a number", [[5, START + 8, "5"]]),
]


@pytest.mark.parametrize("rows", [rows for _, rows in ABSURD], ids=[name for name, _ in ABSURD])
async def test_counts_when_a_series_is_absurd_then_it_is_left_out_and_the_others_count(
    rig: Rig, rows: list[Any]
) -> None:
    sound = {"__name__": REQUESTS, "revision": "new", "pod": "r0"}
    rig.played.custom_query = lambda query: [  # type: ignore[method-assign]
        {"metric": sound, "values": [[START - 5, "10"], [START + 5, "12"]]},
        *({"metric": {**sound, "pod": pod}, "values": [[at, value]]} for pod, at, value in rows),
    ]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, _ = rig.poller.report(OWNER)
    assert counts is not None
    assert (counts["new"].total, counts["new"].as_of.timestamp()) == (2, START + 5)


@pytest.mark.parametrize("at", [-1e18, -1e11, START - 2 * 86_400], ids=str)
async def test_counts_when_all_samples_are_of_no_time_that_was_asked_for_then_there_are_none(
    rig: Rig, at: float
) -> None:
    rig.played.values = [[at, "5"]]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, problem = rig.poller.report(OWNER)
    assert counts == {}
    assert "no llmfleet_router_requests_total" in problem


async def test_object_when_its_answer_cannot_be_counted_then_the_next_one_is_asked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ("team-b", "chat")
    counts = Attempt.counts

    def fail_once(attempt: Attempt) -> Any:
        monkeypatch.setattr(Attempt, "counts", counts)
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr(Attempt, "counts", fail_once)
    rig.poller.track(OWNER, JUDGED)
    rig.poller.track(other, JUDGED)
    await rig.next()
    await rig.next()
    assert rig.poller.report(OWNER)[0] is None
    assert rig.poller.report(other)[0] is not None


def test_total_when_a_router_begins_anew_without_end_then_a_status_still_holds_it() -> None:
    assert total(series([(at, 2.0**53 * (at % 2)) for at in range(1, 5000)])) == 2**53


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("2026-03-01T12:00:00z", SINCE), ("2026-03-01 12:00:00Z", SINCE),
        ("2026-03-01T23:59:60Z", None), ("2026-03-01T12:00:00", None), ("soon", None),
        (["2026"], None),
    ],
    ids=repr,
)  # fmt: skip
def test_status_when_its_time_is_odd_then_it_is_read_as_the_models_do_or_is_none(
    text: Any, since: datetime | None
) -> None:
    assert counted_since({"rollout": {"servedSince": text}}) == since


@pytest.mark.parametrize(
    "answer",
    [None, {"a": 1}, [None], [{"values": []}], [{"metric": None}], [{"metric": {}, "values": [1]}],
     [{"metric": {}, "values": [["a", "b"]]}], [{"metric": {}, "values": [[10**400, "1"]]}]],
    ids=repr,
)  # fmt: skip
async def test_answer_when_it_is_no_matrix_then_one_sentence_says_so(rig: Rig, answer: Any) -> None:
    rig.played.custom_query = lambda query: answer  # type: ignore[method-assign]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    assert rig.poller.report(OWNER) == (None, f"Prometheus does not answer: {NO_API}")


async def test_prometheus_when_its_answer_takes_time_then_that_is_told_and_nobody_waits(
    rig: Rig,
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def take_time(query: str) -> list[Any]:
        asked.set()
        assert answer.wait(5)
        return []

    rig.played.custom_query = take_time  # type: ignore[method-assign]
    rig.poller.track(OWNER, JUDGED)
    assert rig.poller.report(OWNER) == (None, "Prometheus was not asked yet")
    assert await asyncio.to_thread(asked.wait, 5)
    assert rig.poller.report(OWNER) == (None, "Prometheus was asked and has not answered yet")
    answer.set()
    await rig.next()
    assert rig.poller.report(OWNER)[0] == {}


async def test_samples_when_they_are_counted_then_it_is_done_beside_the_event_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    add, counts = Attempt.add, Attempt.counts

    def adding(attempt: Attempt, found: Any) -> None:
        threads.append(threading.current_thread())
        add(attempt, found)

    def counting(attempt: Attempt) -> Any:
        threads.append(threading.current_thread())
        return counts(attempt)

    monkeypatch.setattr(Attempt, "add", adding)
    monkeypatch.setattr(Attempt, "counts", counting)
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    rig.poller.report(OWNER)
    assert threads
    assert threading.main_thread() not in threads


def test_query_when_labels_are_asked_for_then_no_value_of_them_ends_the_string() -> None:
    query = build_query(OWNER, Attempt(SINCE), START, (("cluster", 'a"} or up{b="'),))
    assert ',cluster="a\\"} or up{b=\\""}[' in query


def test_query_when_a_label_is_not_ascii_then_it_is_asked_for_as_it_is() -> None:
    query = build_query(OWNER, Attempt(SINCE), START, (("cluster", "é😀"),))
    assert ',cluster="é😀"}[' in query


async def test_prometheus_when_it_has_no_such_series_then_the_problem_says_what_to_have_scraped(
    rig: Rig,
) -> None:
    rig.played.custom_query = lambda query: []  # type: ignore[method-assign]
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    counts, problem = rig.poller.report(OWNER)
    assert counts == {}
    assert "monitoring.podMonitor.enabled" in problem


async def test_attempt_when_another_one_begins_then_its_counts_begin_anew(rig: Rig) -> None:
    rig.poller.track(OWNER, JUDGED)
    await rig.next()
    rig.poller.track(OWNER, {"rollout": {"servedSince": "2026-03-01T13:00:00Z"}})
    counts, problem = rig.poller.report(OWNER)
    assert counts is None
    assert "not asked yet" in problem
    rig.poller.track(OWNER, {})
    assert rig.poller.report(OWNER)[0] is None


async def test_prometheus_when_none_is_configured_then_the_sentence_names_the_setting() -> None:
    poller = RequestPoller(None, lambda _: None)
    poller.start()
    poller.track(OWNER, JUDGED)
    counts, problem = poller.report(OWNER)
    await poller.close()
    assert counts is None
    assert "prometheus.url" in problem
