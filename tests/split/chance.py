"""How far a count is from what chance explains."""

from __future__ import annotations

import math
from collections.abc import Iterable


def sigmas(observed: int, count: int, share: float) -> float:
    """Distance of a count from its mean, in standard deviations of the binomial distribution.

    >>> sigmas(60, 100, 0.5)
    2.0
    """
    return (observed - count * share) / math.sqrt(count * share * (1 - share))


def chi_square_tail(distances: Iterable[float]) -> float:
    """The probability that independent standard normal distances are as large together, or larger.

    The upper tail of the chi-square distribution with one degree of freedom for each distance, by
    the recurrence of the incomplete gamma function (Abramowitz and Stegun 26.4.4 and 26.4.5).

    >>> round(chi_square_tail([2.0]), 4), round(chi_square_tail([1.0, 1.0]), 4)
    (0.0455, 0.3679)
    """
    squares = [distance * distance for distance in distances]
    half = sum(squares) / 2
    if not half:
        return 1.0
    order = len(squares) % 2 / 2  # begins at 1/2 or 0, and rises by one to half the degrees
    tail = math.erfc(math.sqrt(half)) if order else 0.0
    while order < len(squares) / 2:
        tail += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(1.0, tail)
