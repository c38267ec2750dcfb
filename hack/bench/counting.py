"""`make bench-counting`: good releases whose counting is disturbed, around the operator's judge.

In simulated time two routers book every request of a release whose canary is as good as stable,
and an operator reads them every five seconds and judges. What dies meanwhile is told by the line:
operators, agents, Envoys, routers; failures that come minutes late while the weight rises or falls;
answers of one revision that take half as long again. Nothing of it may send the release back, and
where nothing died unread every request has to be counted.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hack.bench.booking import Books, Sent
from hack.bench.canary import CRITERION, JUDGED, share_at_most
from hack.bench.report import Target, at_most, finish
from llmfleet.cluster.cohorts import FAILED, Cohorts
from llmfleet.planning.analysis.judge import Verdict, judge_requests
from llmfleet.planning.signal import Signal
from llmfleet.planning.snapshot import RequestCounts

START = 1_700_000_000.0
STABLE, CANARY = "a000000001", "b000000002"
RATE = 5.5
"""Requests a second of the whole fleet."""
RISING, FALLING = (0.05, 0.1, 0.25, 0.5), (0.5, 0.25, 0.1, 0.05)
STEP_SECONDS = 300.0
READ_SECONDS, JUDGE_SECONDS = 5.0, 20.0
TIMEOUT_SECONDS = 60.0
AFTER_SECONDS = 700.0
"""Until the last cohort has had its second look."""
DISTURBED_SECONDS = 90.0
"""From one disturbance to the next, on average."""
AGENT_AWAY_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One kind of trouble."""

    name: str
    weights: tuple[float, ...] = RISING
    failing: float = 0.02
    """Share of requests that fail, of both revisions."""
    outcome: str = "error"
    seconds: tuple[float, float] = (1.0, 1.0)
    """Mean time of an answer, of stable and canary."""
    late_seconds: float | None = None
    """When failures come; None: like answers."""
    trouble: Callable[[Operator, random.Random], None] | None = None
    exact: bool = True
    """Nothing dies unread, so every request is counted."""


@dataclass(slots=True)
class Operator:
    """Whoever reads the books of all routers."""

    books: list[Books]
    now: float = START
    cohorts: Cohorts = field(default_factory=lambda: Cohorts(START, TIMEOUT_SECONDS))
    everything: set[str] = field(default_factory=set)
    """Routers of which all is to be read."""
    away_until: dict[str, float] = field(default_factory=dict)
    """Routers whose agent does not answer."""
    leaving: set[str] = field(default_factory=set)
    """Routers that get no more requests."""
    made: int = 2

    @property
    def serving(self) -> list[Books]:
        """Routers that get requests."""
        return [one for one in self.books if one.uid not in self.leaving]

    def read(self) -> None:
        """One turn."""
        self.books = [one for one in self.books if one.uid not in self.leaving or not one.is_done]
        self.cohorts.expect((one.uid for one in self.books), self.now)
        for one in self.books:
            if self.away_until.get(one.uid, 0.0) <= self.now:
                rows = one.read(self.now, everything=one.uid in self.everything)
                self.cohorts.take(one.uid, rows, self.now)
                self.everything.discard(one.uid)
        self.cohorts.look(self.now)

    def restart(self) -> None:
        """Another operator, which knows nothing."""
        self.cohorts = Cohorts(START, TIMEOUT_SECONDS)
        self.everything = {one.uid for one in self.books}

    def restart_agent(self, source: random.Random) -> None:
        """The table stays; nobody reads it for a while."""
        one = source.choice(self.books)
        self.away_until[one.uid] = self.now + AGENT_AWAY_SECONDS
        self.everything.add(one.uid)

    def restart_envoy(self, source: random.Random) -> None:
        """Its table is lost, and so is what it had under way."""
        source.choice(self.serving).forget()

    def lose_router(self, source: random.Random) -> None:
        """It is gone unread, and another one comes."""
        gone = source.choice(self.serving)
        self.made += 1
        self.books[self.books.index(gone)] = Books(f"r{self.made}")

    def scale_routers(self, source: random.Random) -> None:
        """One comes, or gets no more requests and goes when it was read to its end."""
        if len(self.serving) < 4:
            self.made += 1
            self.books.append(Books(f"r{self.made}"))
        else:
            self.leaving.add(source.choice(self.serving).uid)


def _all(operator: Operator, source: random.Random) -> None:
    for each in (operator.restart_agent, operator.restart_envoy, operator.lose_router):
        each(source)
    operator.restart()


LINES = (
    Line(name="nothing"),
    Line(name="operators restart", trouble=lambda operator, _: operator.restart()),
    Line(name="agents restart", trouble=Operator.restart_agent, exact=False),
    Line(name="Envoys restart", trouble=Operator.restart_envoy, exact=False),
    Line(name="routers die", trouble=Operator.lose_router, exact=False),
    Line(name="routers are scaled", trouble=Operator.scale_routers),
    Line(name="all of it at once", trouble=_all, exact=False),
    Line(name="failures 300 s late, weight rises", outcome="cut", late_seconds=300.0),
    Line(
        name="failures 300 s late, weight falls", outcome="cut", late_seconds=300.0, weights=FALLING
    ),
    Line(name="the canary's answers take 45 s, not 30", failing=0.05, seconds=(30.0, 45.0)),
    Line(
        name="they take 120 s, not 60, and failures come at once",
        failing=0.05,
        seconds=(60.0, 120.0),
        late_seconds=0.1,
    ),
)


def main() -> int:
    """Simulate and report; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m hack.bench.counting", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="releases a line (default 1,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the chance (default 1)")
    arguments = parser.parse_args()
    targets: list[Target] = []
    details: dict[str, Any] = {"runs": arguments.runs}
    with ProcessPoolExecutor() as pool:
        for line in range(len(LINES)):
            began = time.monotonic()
            seeds = range(arguments.seed, arguments.seed + arguments.runs)
            done = list(pool.map(partial(release, line), seeds, chunksize=20))
            aborted, wrong = (sum(each) for each in zip(*done, strict=True))
            name = LINES[line].name
            sys.stderr.write(f"  {name}: {time.monotonic() - began:.0f} s\n")
            bound = share_at_most(aborted, arguments.runs)
            targets.append(
                at_most(
                    f"{name}: good releases sent back, upper end of 95 %",
                    bound * 100, JUDGED.alpha * 100, " %",
                )
            )  # fmt: skip
            if LINES[line].exact:
                targets.append(at_most(f"{name}: releases counted wrong", wrong, 0, "", 0))
            details[name] = {"aborted": aborted, "counted_wrong": wrong}
    return finish("bench-counting", targets, details)


def release(number: int, seed: int) -> tuple[bool, bool]:
    """One release: whether it was sent back, and whether a request was counted wrong."""
    line, source = LINES[number], random.Random(seed * 1000 + number)
    operator = Operator([Books("r1"), Books("r2")])
    truth = {revision: [0, 0] for revision in (STABLE, CANARY)}
    traffic = len(line.weights) * STEP_SECONDS
    trouble = START + source.expovariate(1 / DISTURBED_SECONDS)
    aborted = False
    while operator.now < START + traffic + AFTER_SECONDS:
        since, operator.now = operator.now, operator.now + READ_SECONDS
        if since < START + traffic:
            for one in _requests(line, source, since, operator.now):
                truth[one.revision][0] += 1
                truth[one.revision][1] += one.outcome in FAILED
                source.choice(operator.serving).send([one])
            if line.trouble is not None and operator.now > trouble:
                line.trouble(operator, source)
                trouble = operator.now + source.expovariate(1 / DISTURBED_SECONDS)
        operator.read()
        if (operator.now - START) % JUDGE_SECONDS < READ_SECONDS:
            aborted = aborted or _sent_back(operator.cohorts.counts())
    found = operator.cohorts.counts()
    counted = {revision: [one.total, one.failed] for revision, one in found.items()}
    return aborted, counted != truth


def _requests(line: Line, source: random.Random, since: float, until: float) -> Iterator[Sent]:
    at = since
    step = int((since - START) // STEP_SECONDS)
    while (at := at + source.expovariate(RATE)) < until:
        is_canary = source.random() < line.weights[step]
        failed = source.random() < line.failing
        seconds = source.expovariate(1 / line.seconds[is_canary])
        first: float | None = seconds / 2
        if failed and line.late_seconds is not None:
            seconds = line.late_seconds
        elif failed and line.outcome == "error":
            first = None
        yield Sent(
            at=at,
            revision=CANARY if is_canary else STABLE,
            outcome=line.outcome if failed else "answered",
            ends_after=seconds,
            first_after=first,
            generation=step + 1,
        )


def _sent_back(counts: dict[str, RequestCounts]) -> bool:
    judged = judge_requests(Signal(value=counts), CRITERION, stable=STABLE, canary=CANARY)
    return judged.verdict is Verdict.FAILED


if __name__ == "__main__":
    raise SystemExit(main())
