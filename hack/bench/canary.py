"""`make bench-canary`: how often good releases are sent back, and how soon bad ones.

Releases with the default steps (5, 10, 25 and 50 %, five minutes each) in simulated time, whose
requests fail by chance; each is judged at every look from its first one on. Beside the operator's
own judge stand rules that others use, on the same releases. In half of the good ones both revisions
fail ten times as often for some minutes, as a node or a network does it to them.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hack.bench.report import at_most, finish
from llmfleet.api import DEFAULT_STEPS, Analysis
from llmfleet.cluster.cohorts import GROUPS, LONG_GROUP_SECONDS
from llmfleet.planning.analysis.judge import Criterion, Verdict, judge_requests
from llmfleet.planning.analysis.metrics.error_rate import ERROR_RATE
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import Look, RequestCounts

Sides = tuple[tuple[Look, ...], tuple[Look, ...]]
"""Looks at stable and canary so far."""
Rule = Callable[[Sides], bool]
"""Whether it sends the canary back."""

WEIGHTS = tuple(step.set_weight / 100 for step in DEFAULT_STEPS if step.set_weight)
STEP_SECONDS = 300.0
RATES = (1.0, 5.5, 50.0)
"""Requests a second of the whole fleet."""
USUAL = (0.001, 0.005, 0.02)
BURST, BURST_SECONDS = 10.0, (400.0, 700.0)
BAD = (0.02, 0.03, 0.05, 0.1, 0.3, 1.0)
USUAL_OF_BAD = 0.005
JUDGED = Analysis()
"""As a spec that says nothing is judged."""
CRITERION = Criterion(
    metric=ERROR_RATE,
    min_effect=ERROR_RATE.default_effect,
    min_samples=JUDGED.min_samples,
    alpha=JUDGED.alpha,
)
SURE = 1.96
"""Standard deviations of a two-sided 95 % interval."""
FAILURE_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is released, and what it meets."""

    rate: float
    stable: float
    """Share of its requests that fails."""
    canary: float
    burst: float = 1.0


def main() -> int:
    """Simulate and report; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.canary", description=__doc__)
    parser.add_argument("--good", type=int, default=10_008, help="good releases (default 10,008)")
    parser.add_argument("--bad", type=int, default=200, help="bad ones of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the chance (default 1)")
    arguments = parser.parse_args()
    source = random.Random(arguments.seed)
    good = [
        Release(rate=rate, stable=usual, canary=usual, burst=burst)
        for rate in RATES
        for usual in USUAL
        for burst in (1.0, BURST)
    ]
    each = -(-arguments.good // len(good))
    wrong = _false_aborts(good, each, source)
    sys.stdout.write(f"\n{each * len(good):,} good releases sent back\n")
    for name, count in wrong.items():
        sys.stdout.write(f"  {name:42} {count / (each * len(good)):7.2%}\n")
    found = _detection(arguments.bad, source)
    sys.stdout.write(
        "\nbad releases (stable fails 0.5 %): sent back in 20 minutes, median minutes\n"
    )
    for row in found:
        minutes = "     -" if row["median_minutes"] is None else f"{row['median_minutes']:6.1f}"
        sys.stdout.write(
            f"  {row['share']:4.0%} fail, {row['rate']:4g} requests/s"
            f" {row['found']:6.0%} {minutes}\n"
        )
    sys.stdout.write("\n")
    count = wrong["llmfleet"]
    bound = share_at_most(count, each * len(good))
    target = at_most(
        "good releases ever sent back, upper end of 95 %", bound * 100, JUDGED.alpha * 100, " %"
    )
    details = {"good": each * len(good), "sent_back": wrong, "bad": found}
    return finish("bench-canary", [target], details)


def _false_aborts(good: list[Release], each: int, source: random.Random) -> dict[str, int]:
    """How many releases each rule ever sends back."""
    wrong = dict.fromkeys(RULES, 0)
    reported = time.monotonic()
    for number, release in enumerate(good * each):
        waiting = dict(RULES)
        for sides in _looks(release, source):
            for name in [name for name, rule in waiting.items() if rule(sides)]:
                wrong[name] += 1
                del waiting[name]
        if time.monotonic() - reported > 10:
            reported = time.monotonic()
            sys.stderr.write(f"  {number} of {len(good) * each} good releases\n")
    return wrong


def _detection(each: int, source: random.Random) -> list[dict[str, Any]]:
    """How soon the operator's judge sends bad releases back."""
    rows = []
    for rate in RATES:
        for share in BAD:
            release = Release(rate=rate, stable=USUAL_OF_BAD, canary=share)
            minutes = [_minutes(release, source) for _ in range(each)]
            found = [one for one in minutes if one is not None]
            late = math.inf
            median = statistics.median([late if one is None else one for one in minutes])
            rows.append({
                "rate": rate,
                "share": share,
                "found": len(found) / each,
                "median_minutes": None if median == late else median,
            })  # fmt: skip
    return rows


def _minutes(release: Release, source: random.Random) -> float | None:
    for number, sides in enumerate(_looks(release, source)):
        if _llmfleet(sides):
            return sum(seconds for _, seconds in list(_intervals())[: number + 1]) / 60
    return None


def _intervals() -> Iterator[tuple[float, float]]:
    """Begin and length of the cohorts of a release, in seconds; each step is a new split."""
    for step in range(len(WEIGHTS)):
        age = 0.0
        while age < STEP_SECONDS:
            seconds = next((long for until, long in GROUPS if age < until), LONG_GROUP_SECONDS)
            yield step * STEP_SECONDS + age, seconds
            age += seconds


def _looks(release: Release, source: random.Random) -> Iterator[Sides]:
    """Everything seen so far, after each interval."""
    stable: list[Look] = []
    canary: list[Look] = []
    for at, seconds in _intervals():
        worse = release.burst if BURST_SECONDS[0] <= at < BURST_SECONDS[1] else 1.0
        weight = WEIGHTS[int(at // STEP_SECONDS)]
        requests = round(release.rate * seconds)
        mine = _binomial(source, requests, weight)
        stable.append((requests - mine, _binomial(source, requests - mine, release.stable * worse)))
        canary.append((mine, _binomial(source, mine, release.canary * worse)))
        yield tuple(stable), tuple(canary)


def _binomial(source: random.Random, tries: int, share: float) -> int:
    """Successes among so many tries, by the gaps between them."""
    if share >= 1.0:
        return tries
    if share > 0.5:
        return tries - _binomial(source, tries, 1.0 - share)
    hits, at = 0, 0
    while True:
        at += int(math.log(1.0 - source.random()) / math.log1p(-share)) + 1
        if at > tries:
            return hits
        hits += 1


def _total(looks: tuple[Look, ...]) -> Look:
    return sum(requests for requests, _ in looks), sum(failed for _, failed in looks)


def _llmfleet(sides: Sides) -> bool:
    """The operator's own judge."""
    counts = {}
    for name, looks in zip(("stable", "canary"), sides, strict=True):
        total, failed = _total(looks)
        counts[name] = RequestCounts(total=total, failed=failed, looks=looks)
    judged = judge_requests(Signal(value=counts), CRITERION, stable="stable", canary="canary")
    return judged.verdict is Verdict.FAILED


def _share(sides: Sides) -> bool:
    """1 point more of all requests so far, from 200 requests on."""
    (m, b), (n, a) = map(_total, sides)
    return min(m, n) >= JUDGED.min_samples and a / n - b / m > CRITERION.min_effect


def _chi_square(sides: Sides) -> bool:
    """Pearson's chi-square of the 2x2 table, p < 0.01 (Abramowitz and Stegun, 26.4)."""
    (m, b), (n, a) = map(_total, sides)
    failed = a + b
    if min(m, n) < JUDGED.min_samples or not 0 < failed < m + n:
        return False
    difference = a * (m - b) - b * (n - a)
    square = difference**2 * (m + n) / (m * n * failed * (m + n - failed))
    return difference > 0 and math.erfc(math.sqrt(square / 2)) < JUDGED.alpha


def _limit(sides: Sides) -> bool:
    """More than 1 % of an interval's requests failed, in three intervals."""
    bad = sum(failed > CRITERION.min_effect * requests for requests, failed in sides[1])
    return bad >= FAILURE_LIMIT


def share_at_most(count: int, of: int) -> float:
    """Upper end of the 95 % interval of a share (Wilson 1927)."""
    share = count / of
    middle = share + SURE**2 / (2 * of)
    spread = SURE * math.sqrt(share * (1 - share) / of + SURE**2 / (4 * of**2))
    return (middle + spread) / (1 + SURE**2 / of)


RULES: dict[str, Rule] = {
    "llmfleet": _llmfleet,
    "1 point more so far, from 200 requests on": _share,
    "chi-square, p < 0.01 at every look": _chi_square,
    "over 1 % in three intervals": _limit,
}


if __name__ == "__main__":
    raise SystemExit(main())
