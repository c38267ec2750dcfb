"""Durations, sizes, percentages and surges: what they mean and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmfleet.api import Drain, RolloutSpec, RouterSpec
from llmfleet.api.values import parse_duration_seconds, parse_percent, parse_size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300s", 300), ("5m", 300), ("1h30m", 5400), ("1h2m3s", 3723), ("0s", 0), ("90m", 5400)],
)
def test_parse_duration_when_valid_then_seconds(text: str, seconds: int) -> None:
    assert parse_duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "5m1h", "-5s", "1.5h", "5min", "5s\n"])
def test_parse_duration_when_invalid_then_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration_seconds(text)


@given(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999))
def test_parse_duration_when_composed_then_parts_add_up(h: int, m: int, s: int) -> None:
    assert parse_duration_seconds(f"{h}h{m}m{s}s") == h * 3600 + m * 60 + s


@pytest.mark.parametrize(
    ("text", "size"), [("8Mi", 8 << 20), ("512Ki", 512 << 10), ("1Gi", 1 << 30), ("4096", 4096)]
)
def test_parse_size_when_valid_then_bytes(text: str, size: int) -> None:
    assert parse_size_bytes(text) == size


@pytest.mark.parametrize("text", ["8MB", "0", "Mi", "1.5Gi", "-1", "8Mi\n"])
def test_parse_size_when_invalid_then_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size_bytes(text)


def test_parse_percent_when_valid_then_share() -> None:
    assert parse_percent("20%") == pytest.approx(0.2)
    with pytest.raises(ValueError, match="is not a percentage"):
        parse_percent("0.2")


@pytest.mark.parametrize(
    ("surge", "replicas", "expected"),
    [
        ("25%", 4, 1),
        ("25%", 5, 2),
        ("25%", 1, 1),
        ("0%", 8, 0),
        (0, 8, 0),
        (3, 1, 3),
        ("100%", 7, 7),
    ],
)
def test_surge_replicas_when_percentage_then_rounded_up(
    surge: int | str, replicas: int, expected: int
) -> None:
    assert RolloutSpec(max_surge=surge).surge_replicas(replicas) == expected


@pytest.mark.parametrize("surge", [-1, "25", "x%", "1000%", "101%", 1001])
def test_surge_when_invalid_then_refused(surge: int | str) -> None:
    with pytest.raises(ValidationError, match="maxSurge"):
        RolloutSpec.model_validate({"maxSurge": surge})


def test_duration_when_out_of_bounds_then_refused() -> None:
    with pytest.raises(ValidationError, match="between 10s and 24h"):
        Drain(timeout="9s")


def test_parsed_properties_when_default_then_in_base_units() -> None:
    router, rollout = RouterSpec(), RolloutSpec()
    assert router.body_limit_bytes == 8 * 1024 * 1024
    assert router.drain_timeout_seconds == 600
    assert Drain().timeout_seconds == 300
    assert rollout.scale_down_delay_seconds == 300
    assert rollout.progress_deadline_seconds == 1800
