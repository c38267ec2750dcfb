"""When a draining pod stops its engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfleet_runtime.drain import DrainAct, DrainPolicy, DrainState, decide_drain

POLICY = DrainPolicy(timeout=60)
SERVE, STOP = DrainAct.SERVE, DrainAct.STOP_ENGINE


@pytest.mark.parametrize(
    ("now", "last_arrival", "in_flight", "expected"),
    [
        pytest.param(0.0, 0.0, 0, SERVE, id="just-begun"),
        pytest.param(4.9, 0.0, 0, SERVE, id="quiet-but-below-minimum"),
        pytest.param(5.0, 0.0, 0, STOP, id="quiet-at-minimum"),
        pytest.param(6.9, 5.0, 0, SERVE, id="arrival-1.9-s-ago"),
        pytest.param(7.0, 5.0, 0, STOP, id="arrival-2-s-ago"),
        pytest.param(30.0, 5.0, 1, SERVE, id="stream-still-running"),
        pytest.param(53.9, 5.0, 1, SERVE, id="just-before-reserve"),
        pytest.param(54.0, 5.0, 1, STOP, id="reserve-reached"),
        pytest.param(54.0, 53.9, 9, STOP, id="reserve-reached-under-load"),
    ],
)
def test_drain_when_state_then_act(
    now: float, last_arrival: float, in_flight: int, expected: DrainAct
) -> None:
    state = DrainState(started=0.0, last_arrival=last_arrival, in_flight=in_flight)
    assert decide_drain(POLICY, state, now) is expected


@given(
    timeout=st.floats(1, 3600),
    elapsed=st.floats(0, 7200),
    since=st.floats(0, 100),
    in_flight=st.integers(0, 50),
)
def test_drain_when_any_state_then_never_beyond_timeout_nor_with_streams_before_reserve(
    timeout: float, elapsed: float, since: float, in_flight: int
) -> None:
    policy = DrainPolicy(timeout=timeout)
    state = DrainState(started=0.0, last_arrival=max(0.0, elapsed - since), in_flight=in_flight)
    act = decide_drain(policy, state, elapsed)
    if elapsed >= timeout:
        assert act is STOP
    if in_flight and elapsed < timeout - policy.reserve:
        assert act is SERVE
    assert 1 <= policy.engine_shutdown_timeout <= max(1.0, policy.reserve)
