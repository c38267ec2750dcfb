"""The evidence against a canary: honest under every hypothesis it bets against, and quick."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmfleet.planning.analysis.evidence import SUPPOSED, _bet, log_evidence

REJECTED = math.log(100)
Looks = tuple[tuple[int, int], ...]

shares = st.floats(min_value=0.0, max_value=1.0)
few = st.integers(min_value=1, max_value=6)


def chance(requests: int, failed: int, share: float) -> float:
    """Binomial probability."""
    return math.comb(requests, failed) * share**failed * (1 - share) ** (requests - failed)


@example(m=1, n=6, s=0.7, c=1.0, min_effect=0.3, usual=0.001, excess=0.8)
@given(
    few, few, shares, shares, st.floats(0.0, 0.3), st.floats(0.001, 0.9), st.sampled_from(SUPPOSED)
)
def test_bet_when_the_canary_is_not_worse_than_accepted_then_it_is_expected_to_win_nothing(
    m: int, n: int, s: float, c: float, min_effect: float, usual: float, excess: float
) -> None:
    c = min(c, s + min_effect)
    supposed = min(1 - 1e-9, usual + min_effect + excess)
    expected = sum(
        chance(m, b, s)
        * chance(n, a, c)
        * math.exp(_bet((m, b), (n, a), usual, supposed, min_effect))
        for b, a in product(range(m + 1), range(n + 1))
    )
    assert expected <= 1 + 1e-9


@given(few, few, st.floats(0.001, 0.5), st.sampled_from(SUPPOSED))
def test_bet_when_what_is_supposed_is_true_then_it_is_expected_to_win(
    m: int, n: int, usual: float, excess: float
) -> None:
    supposed = min(1 - 1e-9, usual + 0.01 + excess)
    expected = sum(
        chance(m, b, usual)
        * chance(n, a, supposed)
        * math.exp(_bet((m, b), (n, a), usual, supposed, 0.01))
        for b, a in product(range(m + 1), range(n + 1))
    )
    assert expected > 1


def released(seed: int, canary: float, stable: float, burst: float = 1.0) -> tuple[Looks, Looks]:
    """Half an hour of 5 requests a second, the weight rising, every third five minutes worse."""
    source = random.Random(seed)
    sides: tuple[list[tuple[int, int]], ...] = ([], [])
    for minute in range(30):
        weight = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)[minute // 5]
        worse = burst if minute // 5 % 3 == 2 else 1.0
        for side, part, share in ((0, 1 - weight, stable), (1, weight, canary)):
            requests = round(300 * part)
            failed = sum(source.random() < share * worse for _ in range(requests))
            sides[side].append((requests, failed))
    return tuple(sides[0]), tuple(sides[1])


def rejected_after(stable: Looks, canary: Looks) -> int | None:
    """Looks until it is rejected; None: never."""
    for number in range(1, len(stable) + 1):
        if log_evidence(stable[:number], canary[:number], 0.01) >= REJECTED:
            return number
    return None


@pytest.mark.parametrize("burst", [1.0, 10.0])
def test_good_release_when_looked_at_all_the_time_then_it_is_not_rejected(burst: float) -> None:
    seen = [rejected_after(*released(seed, 0.02, 0.02, burst)) for seed in range(40)]
    assert sum(each is not None for each in seen) <= 1  # alpha is 1 in 100


@pytest.mark.parametrize(("share", "most_looks"), [(0.05, 15), (0.3, 3), (1.0, 2)])
def test_bad_release_then_it_is_rejected_soon(share: float, most_looks: int) -> None:
    seen = sorted(rejected_after(*released(seed, share, 0.005)) or 99 for seed in range(9))
    assert seen[4] <= most_looks


def test_bad_release_when_an_outage_hits_both_first_then_it_is_still_found() -> None:
    calm, outage = ((100, 1),) * 10, ((100, 60),) * 5
    stable = (*calm, *outage, *((100, 1),) * 60)
    canary = (*calm, *outage, *((100, 10),) * 60)
    assert (rejected_after(stable, canary) or 99) - 15 <= 20
    assert rejected_after(stable, stable) is None


def test_failures_when_they_are_told_later_than_their_requests_then_they_count() -> None:
    stable = ((100, 0),) * 6
    late = ((40, 0), (40, 0), (0, 30), (0, 0), (40, 0), (40, 0))
    assert log_evidence(stable, late, 0.01) > REJECTED


def test_interval_when_one_revision_has_no_requests_then_it_says_nothing() -> None:
    known = ((100, 1),) * 3
    assert log_evidence((*known, (0, 0)), (*known, (50, 50)), 0.01) == pytest.approx(
        log_evidence(known, known, 0.01)
    )


def test_evidence_when_everything_fails_everywhere_then_there_is_none() -> None:
    assert log_evidence(((100, 100),) * 5, ((100, 100),) * 5, 0.01) <= 0
