"""Evidence that a canary fails more often than stable, valid at every look.

Requests come in cohorts, by when they were sent, the same for both revisions (``cluster.cohorts``).
Each cohort is a bet, made once, against the hypothesis "the canary's share of failed requests is at
most stable's plus ``min_effect``". The capital that the bets have made of 1 is the evidence. While
the hypothesis is true it is expected never to grow, however often and whenever one looks, so the
chance that it ever reaches 1/alpha is at most alpha (Ville's inequality).

One bet. Of n requests of the canary a fail, of m of stable b. Take shares c and s = c - min_effect
on the border of the hypothesis and a stake x >= 0, which may depend on earlier intervals, n and m,
and multiply the capital for every request of the canary by 1 + (x/n)(y - c), and for every request
of stable by 1 - (x/m)(y - s), where y is 1 for a failure, else 0. Where the true shares are c' and
s', the expected product is at most exp(x((c' - s') - min_effect)), since 1 + z <= exp(z), and so at
most 1 under the hypothesis. It needs no constant share: only the mean difference within one
interval counts. With c, s and x from a supposed pair of shares this is a two-sample e-variable of
Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for
optional stopping" (2021).

Two things keep the bets apart from what they bet on. Stable's share is estimated from earlier
intervals only; and since nobody knows how much worse the canary may be, the capital is divided
over several suppositions. Never is a bet made on running totals: with a canary whose weight rises,
hours in which both revisions fail more would look like its fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from llmfleet.planning.snapshot import Look

SUPPOSED: Final = (0.02, 0.06, 0.2, 0.7)
"""How much more than ``min_effect`` the canary may fail, as shares. Each gets an equal part of the
capital, so that not knowing which is true costs at most a factor of four."""
KEPT: Final = 0.1
"""Of the capital, kept out of every bet: an hour in which both revisions fail much more than
before then costs at most a factor of ten in an interval, instead of everything."""
ONE: Final = 1.0 - 1e-9


@lru_cache(maxsize=64)
def log_evidence(stable: tuple[Look, ...], canary: tuple[Look, ...], min_effect: float) -> float:
    """Natural logarithm of the evidence after all intervals.

    Args:
        stable: its intervals, oldest first.
        canary: the same intervals of the canary.
        min_effect: worsening that is accepted, a share of all requests, 0 … 1.

    Returns:
        At least ``log(1/alpha)`` = the hypothesis is rejected at level alpha. 0 = nothing is known.

    Example:
        >>> calm, bad = ((100, 1),) * 5, ((20, 6),) * 5
        >>> log_evidence(calm, bad, 0.01) > math.log(100) > 0 > log_evidence(calm, calm, 0.01)
        True
    """
    capital = [0.0] * len(SUPPOSED)
    seen = failed = 0
    for (m, b), (n, a) in zip(_settled(stable), _settled(canary), strict=True):
        if n and m and seen:
            usual = (failed + 0.5) / (seen + 1)
            for which, excess in enumerate(SUPPOSED):
                supposed = min(ONE, usual + min_effect + excess)
                won = _bet((m, b), (n, a), usual, supposed, min_effect)
                capital[which] += log_mean((0.0, won), (KEPT, 1.0 - KEPT))
        seen, failed = seen + m, failed + b
    return log_mean(capital, [1.0 / len(SUPPOSED)] * len(SUPPOSED))


@lru_cache(maxsize=64)
def log_evidence_alone(stable: tuple[Look, ...], canary: tuple[Look, ...], margin: float) -> float:
    """The same from intervals in which stable had no request, held against its earlier ones.

    A likelihood ratio of Bernoulli trials per interval: not worse by ``margin`` than stable was
    before. Stable's past stands for its present, which an outage of everything breaks, so this is
    no ground for a rejection.

    Args:
        stable: its intervals, oldest first.
        canary: the same intervals of the canary.
        margin: worsening that is accepted, a share of all requests, 0 … 1.

    Example:
        >>> log_evidence_alone(((0, 0),) * 4, ((5, 5),) * 4, 0.05) > math.log(100)
        True
    """
    capital = [0.0] * len(SUPPOSED)
    seen = failed = 0
    for (m, b), (n, a) in zip(_settled(stable), _settled(canary), strict=True):
        if n and not m:
            border = min(ONE, (failed + 2) / (seen + 4) + margin)  # cautious while few were seen
            for which, excess in enumerate(SUPPOSED):
                supposed = min(ONE, border + excess)
                won = a * math.log(supposed / border)
                if border < ONE:
                    won += (n - a) * math.log((1.0 - supposed) / (1.0 - border))
                capital[which] += log_mean((0.0, won), (KEPT, 1.0 - KEPT))
        seen, failed = seen + m, failed + b
    return log_mean(capital, [1.0 / len(SUPPOSED)] * len(SUPPOSED))


def _settled(looks: Iterable[Look]) -> Iterator[Look]:
    """Intervals without more failures than requests; what is too many counts in later ones.

    Routers count a request when it is sent, and its failure when it ends.
    """
    owed = 0
    for requests, failed in looks:
        owed += failed
        counted = min(requests, owed)
        owed -= counted
        yield requests, counted


def _bet(stable: Look, canary: Look, usual: float, supposed: float, min_effect: float) -> float:
    """Logarithm of what an interval makes of the capital.

    Args:
        stable: its requests and failures.
        canary: the same of the canary.
        usual: share that stable is supposed to fail.
        supposed: share that the canary is supposed to fail.
        min_effect: of the hypothesis.
    """
    (m, b), (n, a) = stable, canary
    if supposed <= usual + min_effect:
        return 0.0  # stable fails nearly everything: nothing can be worse
    # The pair on the border nearest to what is supposed, were both variances equal.
    s = (n * (supposed - min_effect) + m * usual) / (n + m)
    c = s + min_effect
    stake = n * (supposed - c) / (c * (1.0 - c))
    stake = min(stake, ONE * m / (1.0 - s))  # a failure of stable costs not more than there is
    return (
        a * math.log1p(stake / n * (1.0 - c))
        + (n - a) * math.log1p(-stake / n * c)
        + b * math.log1p(-stake / m * (1.0 - s))
        + (m - b) * math.log1p(stake / m * s)
    )


def log_mean(logs: Sequence[float], weights: Sequence[float]) -> float:
    """Logarithm of a weighted mean of numbers given as logarithms."""
    most = max(logs)
    parts = (weight * math.exp(one - most) for one, weight in zip(logs, weights, strict=True))
    return most + math.log(math.fsum(parts))
