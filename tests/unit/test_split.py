"""The arithmetic by which ``make test-split`` tells chance from a mistake."""

from __future__ import annotations

import random

import pytest

from tests.split.chance import chi_square_tail, sigmas


@pytest.mark.parametrize(
    ("distances", "probability"),
    [
        ([1.959964], 0.05),
        ([3.0, 1.0, 1.0], 0.0117259),  # 11 with 3 degrees of freedom, by a printed table 0.01173
        ([2.0, 2.0], 0.0183156),  # exp(-4)
        ([1.3] * 100, 1.97604e-5),
        ([0.0, 0.0], 1.0),
    ],
    ids=str,
)
def test_chi_square_when_known_then_this(distances: list[float], probability: float) -> None:
    assert chi_square_tail(distances) == pytest.approx(probability, rel=1e-4)


def drawn(percents: range, count: int, shift: float) -> list[float]:
    chance = random.Random(5)
    return [
        sigmas(
            sum(chance.random() < percent / 100 + shift for _ in range(count)), count, percent / 100
        )
        for percent in percents
    ]


def test_split_when_shares_are_right_then_chance_explains_it_and_when_2_points_off_not() -> None:
    right, wrong = (drawn(range(1, 100, 3), 2000, shift) for shift in (0.0, 0.02))
    assert chi_square_tail(right) > 1e-3
    assert chi_square_tail(wrong) < 1e-6
