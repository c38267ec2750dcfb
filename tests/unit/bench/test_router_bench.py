"""The arithmetic of `make bench-router`: paired rounds, evenness of load, and what is skipped."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hack.bench.router import __main__ as command
from hack.bench.router import load, measure, prefix
from hack.bench.router.load import Round


def a_round(
    rate: float, *, p50_ms: float = 1.0, cpu_seconds: float = 1.0, events: int = 0
) -> Round:
    return Round(
        requests_per_second=rate, seconds=1.0, p50_ms=p50_ms, p99_ms=2 * p50_ms,
        requests=int(rate), failed=0, cpu_seconds=cpu_seconds, events=events,
    )  # fmt: skip


async def test_rival_when_it_fails_in_mid_part_then_it_is_absent_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = {"litellm": 3}

    def turn(part: measure.Part, subject: str, engine: int) -> Round:
        ends[subject] = ends.get(subject, 99) - 1
        if ends[subject] == 0:
            raise RuntimeError("unable to connect")
        return a_round(10)

    monkeypatch.setattr(measure, "_turn", turn)
    running, absent = {"llmfleet": "llmfleet", "litellm": "litellm"}, {}
    one, two = measure.PARTS[1], measure.PARTS[2]
    measured = await measure._rounds(one, running, 0, absent)  # type: ignore[arg-type]
    assert {name: len(rounds) for name, rounds in measured.items()} == {"llmfleet": one.rounds}
    assert absent == {"litellm": "it failed in 220kb, round 3: unable to connect"}
    assert set(await measure._rounds(two, running, 0, absent)) == {"llmfleet"}  # type: ignore[arg-type]


async def test_our_router_when_it_fails_then_the_benchmark_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turn(part: measure.Part, subject: str, engine: int) -> Round:
        raise RuntimeError(subject)

    monkeypatch.setattr(measure, "_turn", turn)
    with pytest.raises(RuntimeError, match="llmfleet"):
        await measure._rounds(measure.PARTS[0], {"llmfleet": "llmfleet"}, 0, {})  # type: ignore[dict-item]


def test_core_when_the_loads_are_over_then_threads_of_that_time_have_all_cores_again() -> None:
    cores = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as pool:
        with load.self_on_load_core():
            assert pool.submit(os.sched_getaffinity, 0).result() == {load.LOAD_CORE}
        assert pool.submit(os.sched_getaffinity, 0).result() == cores
    assert os.sched_getaffinity(0) == cores


def test_ratio_when_the_machine_slows_down_for_a_round_then_the_ratio_stays() -> None:
    ours = [a_round(80), a_round(40), a_round(80)]
    others = [a_round(100), a_round(50), a_round(100)]
    assert measure.speed_ratio(ours, others) == pytest.approx(0.8)


def test_summary_when_streamed_then_cpu_a_chunk_and_latency_over_direct() -> None:
    ours = [a_round(10, p50_ms=1.5, cpu_seconds=0.2, events=10_000)]
    row = measure.summary(ours, [a_round(10, p50_ms=1.0)])
    assert row["cpu_microseconds_per_event"] == pytest.approx(20)
    assert (row["added_p50_ms"], row["added_p99_ms"]) == (0.5, 1.0)


def test_simulation_when_one_pod_is_busier_then_the_worse_of_both_measures_counts() -> None:
    pods = [
        {"requests": 10, "blocks": 100, "hit_blocks": 80, "busy_seconds": 3.0},
        {"requests": 10, "blocks": 100, "hit_blocks": 40, "busy_seconds": 1.0},
    ]
    run = prefix.summarize({"pods": pods, "failed": 0})
    assert (run.hit_rate, run.requests_max_over_mean, run.busy_max_over_mean) == (0.6, 1.0, 1.5)
    best = {"hit_rate": 0.75, "requests_max_over_mean": 1.0, "busy_max_over_mean": 1.0}
    ours = {"hit_rate": 0.6, "requests_max_over_mean": 1.0, "busy_max_over_mean": 1.5}
    runs = {"oracle": [best], "llmfleet": [ours]}
    assert prefix.of_oracle(runs, "llmfleet") == pytest.approx(0.8)
    assert prefix.unevenness(runs, "llmfleet") == 1.5


def test_targets_when_nothing_was_measured_then_all_are_skipped_with_their_reason() -> None:
    absent = {"envoy": "no such program"}
    targets = command.targets({"absent": absent, "loads": {}})
    assert {target.verdict for target in targets} == {"SKIP"}
    assert targets[0].figure == "no such program"
    assert targets[-1].figure == command.NOT_ASKED


def test_targets_when_slower_than_wanted_then_missed() -> None:
    details = {
        "absent": {},
        "loads": {"1kb": {"llmfleet": {"failed": 1}}},
        "ratios": {"1kb": {"envoy": 0.9, "vllm-router": 3.0}},
        "alternating": {"1kb": [0.83, 0.86, 0.83, 0.86]},
    }
    targets = command.targets(details)
    verdicts = {target.name: target.verdict for target in targets}
    assert verdicts["requests/s at 1 KB, of plain Envoy's"] == "MISS"
    assert verdicts["requests/s at 1 KB, of vllm-router's cache-aware"] == "PASS"
    assert verdicts["requests/s at 220 KB, of plain Envoy's"] == "SKIP"
    assert verdicts["requests failed under load"] == "MISS"
