"""What of Prometheus' answers is believed: whose series, which copy of them, which samples."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmfleet.cluster.prometheus_access import Connection, PrometheusAccess
from llmfleet.cluster.prometheus_fetch import (
    KnownPod,
    Metric,
    Series,
    Signals,
    build_query,
    fetch,
)
from tests.unit.cluster.played_prometheus import Prometheus, play_prometheus

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CHAT, EMBED = ("team-a", "chat"), ("team-b", "embed")
RUNNING = Metric(name="vllm:num_requests_running", labels=("engine",))
TOKENS = Metric(name="llm_tokens_total", counter=True)


def pod(name: str = "chat-1", owner: tuple[str, str] = CHAT, age: float = 3600) -> KnownPod:
    since = NOW - timedelta(seconds=age)
    return KnownPod(owner=owner, namespace=owner[0], name=name, running_since=since)


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with play_prometheus(NOW) as found:
        yield found


def ask(prometheus: Prometheus, *pods: KnownPod, metric: Metric = RUNNING, **how: Any) -> Signals:
    connection = Connection(PrometheusAccess(url=prometheus.url))
    return fetch(connection, metric, pods or (pod(),), NOW, **how)


def series(prometheus: Prometheus, *pods: KnownPod, metric: Metric = RUNNING) -> tuple[Series, ...]:
    found = ask(prometheus, *pods, metric=metric)[CHAT]
    assert found.problem == ""
    return found.value or ()


def values(prometheus: Prometheus, *pods: KnownPod, metric: Metric = RUNNING) -> list[float]:
    (one,) = series(prometheus, *pods, metric=metric)
    return [value for _, value in one.samples]


def test_metric_when_asked_for_then_one_question_brings_all_objects_with_the_time_of_each(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(20, 3), (5, 4)])
    prometheus.add([(30, 1), (15, 2)], "chat-2")
    prometheus.add([(40, 9)], "embed-1", namespace="team-b")
    found = ask(prometheus, pod(), pod("chat-2"), pod("embed-1", EMBED))
    assert len(prometheus.queries) == 1
    assert set(found) == {CHAT, EMBED}
    assert [each.pod for each in found[CHAT].value or ()] == ["chat-1", "chat-2"]
    assert found[CHAT].as_of == NOW - timedelta(seconds=5)
    assert found[EMBED].as_of == NOW - timedelta(seconds=40)


def test_query_when_there_are_matchers_and_many_namespaces_then_it_stays_short() -> None:
    namespaces = [f"team-{number}" for number in range(21)]
    query = build_query(RUNNING, namespaces, (("cluster", 'e"u'),))
    assert query == '{__name__="vllm:num_requests_running",cluster="e\\"u"}[300s]'
    assert 'namespace=~"team-0|team-1"' in build_query(RUNNING, namespaces[:2])


def test_pods_when_there_are_none_then_nobody_is_asked(prometheus: Prometheus) -> None:
    connection = Connection(PrometheusAccess(url=prometheus.url))
    assert fetch(connection, RUNNING, (), NOW) == {}
    assert prometheus.queries == []


def test_i2_series_when_a_pod_that_nobody_knows_exposes_them_then_they_count_nothing(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(5, 4)])
    prometheus.add([(1, 200)], "stranger")
    prometheus.add([(1, 200)], namespace="elsewhere")
    prometheus.add([(1, 200)], exported_pod="chat-1", pod="stranger")
    prometheus.add([(1, 200)], metric="another", unasked="yes")
    prometheus.found.append({"metric": {"__name__": RUNNING.name}, "values": [[1, "2"]]})
    assert values(prometheus) == [4]


@pytest.mark.parametrize("ahead", [11, 3600, 10**9], ids=str)
def test_i2_sample_when_it_is_of_a_time_to_come_then_it_is_left_out_and_sets_no_age(
    prometheus: Prometheus, ahead: float
) -> None:
    prometheus.add([(20, 3), (-ahead, 100_000)])
    found = ask(prometheus)[CHAT]
    assert values(prometheus) == [3]
    assert found.as_of == NOW - timedelta(seconds=20)


@pytest.mark.parametrize("odd", ["NaN", "+Inf", "-Inf"])
def test_i3_sample_when_it_is_no_number_then_it_alone_is_left_out(
    prometheus: Prometheus, odd: str
) -> None:
    prometheus.add([(20, 3), (5, odd)])
    prometheus.add([(5, odd)], "chat-2")
    prometheus.add([(5, 9)], "embed-1", namespace="team-b")
    found = ask(prometheus, pod(), pod("chat-2"), pod("embed-1", EMBED))
    (one,) = found[CHAT].value or ()
    assert (one.pod, [value for _, value in one.samples]) == ("chat-1", [3])
    assert found[EMBED].value is not None


def test_copies_when_several_scrape_a_pod_then_the_freshest_counts_once(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(250, 7), (200, 7)], job="annotations", instance="old")
    prometheus.add([(20, 3), (5, 4)], job="podmonitor", prometheus_replica="a")
    prometheus.add([(21, 3), (6, 4)], job="podmonitor", prometheus_replica="b")
    (one,) = series(prometheus)
    assert [value for _, value in one.samples] == [3, 4]


def test_series_when_the_metric_tells_them_apart_then_each_of_a_pod_counts(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(5, 4)], engine="0", model_name="a")
    prometheus.add([(5, 2)], engine="1", model_name="a")
    found = {each.labels: each.samples[-1][1] for each in series(prometheus)}
    assert found == {(("engine", "0"),): 4, (("engine", "1"),): 2}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([(60, 5), (45, 9), (30, 2), (15, 6)], [2, 6], id="process began anew"),
        pytest.param([(280, 5), (200, 9), (190, 7), (15, 11)], [11], id="long before its start"),
    ],
)
def test_counter_when_its_process_began_in_between_then_what_came_before_is_another_s(
    prometheus: Prometheus, samples: list[tuple[float, float]], expected: list[float]
) -> None:
    prometheus.add(samples, metric=TOKENS.name)
    assert values(prometheus, pod(age=35), metric=TOKENS) == expected


def test_counter_when_it_falls_without_a_start_then_the_lower_sample_is_a_mistake(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(60, 5), (45, 9), (30, 2), (15, 11)], metric=TOKENS.name)
    assert values(prometheus, metric=TOKENS) == [5, 9, 11]
    unknown = KnownPod(owner=CHAT, namespace="team-a", name="chat-1", running_since=None)
    assert values(prometheus, unknown, metric=TOKENS) == [5, 9, 11]


def test_gauge_when_it_falls_then_that_is_what_it_says(prometheus: Prometheus) -> None:
    prometheus.add([(15, 2), (30, 9)])
    assert values(prometheus) == [9, 2]


@pytest.mark.parametrize(
    ("ages", "known"),
    [
        ([59], True),
        ([60], False),
        ([95, 80, 65], False),  # scraped every 15 s
        ([280, 220, 170], True),  # scraped every minute: two are missing
        ([299, 239, 181], False),
    ],
    ids=str,
)
def test_series_when_its_newest_sample_is_old_then_it_says_so_after_a_minute_or_three_scrapes(
    prometheus: Prometheus, ages: list[float], known: bool
) -> None:
    prometheus.add([(age, 1) for age in ages])
    found = ask(prometheus)[CHAT]
    assert (found.value is not None) is known
    if not known:
        assert "too old to decide by" in found.problem
        assert found.as_of == NOW - timedelta(seconds=ages[-1])


def test_pod_when_it_was_not_scraped_lately_then_it_has_no_series_and_the_others_have(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(200, 1), (185, 1)])
    prometheus.add([(20, 3)], "chat-2")
    assert [each.pod for each in series(prometheus, pod(), pod("chat-2"))] == ["chat-2"]


def test_object_when_prometheus_has_nothing_of_it_then_the_chart_value_is_named(
    prometheus: Prometheus,
) -> None:
    prometheus.add([(5, 9)], "embed-1", namespace="team-b")
    found = ask(prometheus, pod(), pod("embed-1", EMBED))
    assert found[CHAT].problem == (
        "Prometheus has no vllm:num_requests_running of its pods of the last 5 minutes: have them"
        " scraped, which the chart's monitoring.podMonitor.enabled does where the Prometheus"
        " operator runs"
    )
    assert found[EMBED].problem == ""


@pytest.mark.parametrize(
    ("found", "status", "problem"),
    [
        ([], 503, "HTTP status 503 (Service Unavailable)"),
        ([{"metric": None}], 200, "is no answer of Prometheus' API"),
        ([{"values": []}], 200, "is no answer of Prometheus' API"),
        (["x"], 200, "is no answer of Prometheus' API"),
    ],
)
def test_prometheus_when_it_gives_no_answer_then_every_object_has_the_reason(
    prometheus: Prometheus, found: list[Any], status: int, problem: str
) -> None:
    prometheus.found, prometheus.status = found, status
    told = ask(prometheus, pod(), pod("embed-1", EMBED))
    assert set(told) == {CHAT, EMBED}
    for each in told.values():
        assert each.problem.startswith("Prometheus does not answer: ")
        assert problem in each.problem
