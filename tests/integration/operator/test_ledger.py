"""Reading ledgers from agents that answer as the contract says, or as it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from hack.bench.booking import Books, Sent
from hack.controlplane.apiserver import free_ports

from llmfleet.cluster import ledger
from llmfleet.cluster.cohorts import COUNTED
from llmfleet.cluster.ledger import LedgerPoller
from llmfleet.cluster.routers import Router
from llmfleet.planning.snapshot import JSON, RequestCounts

OWNER = ("team-a", "chat")
SINCE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
START = SINCE.timestamp()
STABLE, CANARY = "a000000001", "b000000002"
JUDGED = {
    "rollout": {"servedSince": "2026-03-01T12:00:00Z", "revision": CANARY},
    "traffic": [{"revision": STABLE, "weight": 90}, {"revision": CANARY, "weight": 10}],
}


@dataclass
class Agent:
    """A router's agent that answers for the ledger alone."""

    router: Router
    books: Books
    clock: Callable[[], float]
    ahead: float = 0.0
    epoch: str = "1"
    changes: JSON = field(default_factory=dict)
    """Keys of its answers that are not as they should be."""
    status: int = 200
    raw: bytes | None = None
    page: int = 1000
    lost_after: int | None = None
    """So many rows in, it answers no more."""
    takes: float = 0.0
    """Seconds that an answer takes."""
    tick: Callable[[float], None] = lambda _: None
    asked: list[int] = field(default_factory=list)
    _rows: list[list[Any]] = field(default_factory=list)
    runner: web.AppRunner | None = None

    async def start(self, port: int) -> None:
        app = web.Application()
        app.router.add_get("/llmfleet/ledger", self._answer)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.router.address, port).start()

    async def _answer(self, request: web.Request) -> web.Response:
        since = int(request.query["since"])
        self.asked.append(since)
        if self.raw is not None or self.status != 200:
            return web.Response(status=self.status, body=self.raw)
        if self.lost_after is not None and since >= self.lost_after:
            return web.Response(status=503)
        self.tick(self.takes)
        now = self.clock()
        # Rows of what changed, the oldest change first; a change's number is its place.
        for row in self.books.read(now):
            slot = round((row.start + self.ahead) / 5)
            cells = [slot, row.generation, row.revision, row.kind, row.size, *row.counts, 7]
            self._rows.append(cells)
        found = self._rows[since : since + self.page]
        answer = {
            "schema": 1,
            "object": {"namespace": "team-a", "name": "chat", "uid": "u-chat"},
            "pod": self.router.pod,
            "podUid": self.router.pod_uid,
            "epoch": self.epoch,
            "now": now + self.ahead,
            "slotSeconds": 5,
            "columns": ["slot", "generation", "revision", "class", "size", *COUNTED, "unknown"],
            "rows": found,
            "next": since + len(found),
            "more": since + len(found) < len(self._rows),
        }
        return web.json_response({**answer, **self.changes})


@dataclass
class Fleet:
    """Some routers, and an operator that reads them when it is told to."""

    port: int
    now: float = START
    agents: list[Agent] = field(default_factory=list)
    woken: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.poller = self.operator()

    def operator(self) -> LedgerPoller:
        return LedgerPoller(self.woken.append, port=self.port, clock=lambda: self.now)

    async def add(self, **more: Any) -> Agent:
        number = len(self.agents) + 1
        router = Router(
            owner=OWNER, owner_uid="u-chat", pod=f"r{number}", pod_uid=f"u-r{number}",
            address=f"127.0.0.{number}",
        )  # fmt: skip
        agent = Agent(router, Books(f"r{number}"), lambda: self.now, **more)
        agent.tick = self._tick
        await agent.start(self.port)
        self.agents.append(agent)
        return agent

    def _tick(self, seconds: float) -> None:
        self.now += seconds

    async def read(
        self, seconds: float, poller: LedgerPoller | None = None
    ) -> tuple[dict[str, RequestCounts] | None, str]:
        """Let time go on, and ask all routers once."""
        self.now += seconds
        reading = poller or self.poller
        reading.track(OWNER, JUDGED, [agent.router for agent in self.agents], 60.0)
        await reading._turn()
        found = reading.report(OWNER)
        return None if found.value is None else dict(found.value), found.problem


StartFleet = Callable[[], Awaitable[Fleet]]


@pytest_asyncio.fixture
async def fleet() -> AsyncIterator[Fleet]:
    (port,) = free_ports(1)
    made = Fleet(port)
    yield made
    await made.poller.close()
    for agent in made.agents:
        if agent.runner is not None:
            await agent.runner.cleanup()


def sent(at: float, revision: str = CANARY, **more: Any) -> Sent:
    return Sent(at=START + at, revision=revision, **more)


async def test_routers_when_read_then_their_counts_are_one_s_and_the_object_is_woken(
    fleet: Fleet,
) -> None:
    for _ in range(2):
        agent = await fleet.add()
        agent.books.send([sent(1), sent(2, STABLE), sent(2, outcome="error", first_after=None)])
    counts, problem = await fleet.read(30)
    assert problem == ""
    assert counts is not None
    assert (counts[CANARY].total, counts[CANARY].failed) == (4, 2)
    assert counts[CANARY].looks == ((4, 2),)
    assert counts[STABLE].looks == ((2, 0),)
    assert fleet.woken == [OWNER]
    await fleet.read(0)
    assert fleet.woken == [OWNER]  # nothing new
    assert fleet.agents[0].asked[-1] > 0  # and nothing was read twice


async def test_operator_when_it_starts_anew_then_it_reads_the_same(fleet: Fleet) -> None:
    agent = await fleet.add()
    agent.books.send([sent(at, outcome="cut", ends_after=200) for at in range(100)])
    agent.books.send([sent(at, STABLE) for at in range(100)])
    for _ in range(40):
        before, _ = await fleet.read(10)
    anew = fleet.operator()
    after, _ = await fleet.read(0, anew)
    await anew.close()
    assert before is not None
    assert after is not None
    assert {r: (c.total, c.failed) for r, c in before.items()} == {
        r: (c.total, c.failed) for r, c in after.items()
    }


async def test_envoy_when_it_starts_anew_then_its_new_table_is_read_from_its_beginning(
    fleet: Fleet,
) -> None:
    agent = await fleet.add()
    agent.books.send([sent(1), sent(2)])
    await fleet.read(30)
    agent.books.forget()
    agent.epoch, agent._rows = "2", []
    agent.books.send([sent(31)])
    counts, problem = await fleet.read(30)
    assert problem == ""
    assert counts is not None
    assert counts[CANARY].total == 3  # what was read before stays
    assert counts[CANARY].looks == ((2, 0), (1, 0))


async def test_answer_when_there_is_more_then_it_is_read_to_the_end(fleet: Fleet) -> None:
    agent = await fleet.add(page=7)
    agent.books.send([sent(5 * at) for at in range(40)])
    counts, _ = await fleet.read(300)
    assert counts is not None
    assert counts[CANARY].total == 40


async def test_clock_when_a_router_s_is_a_minute_ahead_then_its_cohorts_are_the_others(
    fleet: Fleet,
) -> None:
    for ahead in (0.0, 60.0, -60.0):
        agent = await fleet.add(ahead=ahead)
        agent.books.send([sent(at) for at in (1, 11)])
    counts, problem = await fleet.read(30)
    assert problem == ""
    assert counts is not None
    assert counts[CANARY].looks == ((3, 0), (3, 0))


async def test_router_when_it_is_older_than_the_ledger_then_that_is_said(fleet: Fleet) -> None:
    await fleet.add(status=404, raw=b"404: Not Found")
    counts, problem = await fleet.read(30)
    assert counts is None
    assert problem.startswith("router r1 keeps no ledger that this operator can read")


@pytest.mark.parametrize(
    "changes",
    [
        {"podUid": "u-other"},
        {"object": {"namespace": "team-a", "name": "other", "uid": "u-other"}},
        {"object": "chat"},
        {"epoch": 7},
        {"now": "yesterday"},
        {"now": float("1e300")},
        {"columns": 5},
        {"columns": ["slot", "sent"]},
        {"slotSeconds": 1},
        {"rows": [[1]]},
        {"rows": {"a": 1}},
        {"rows": [[359000000, 1, CANARY, "split", 0, *[-1] * len(COUNTED), 7]]},
        {"rows": [[359000000, 1, CANARY, "split", 0, *[2**40] * len(COUNTED), 7]]},
        {"rows": [[359000000, 1, CANARY, "split", 0, *[1.5] * len(COUNTED), 7]]},
        {"rows": [[359000000, 1, CANARY, "split", 0, *[True] * len(COUNTED), 7]]},
        {"rows": [[359000000, 1, None, "split", 0, *[1] * len(COUNTED), 7]]},
        {"rows": [[359000000, -1, CANARY, "split", 0, *[1] * len(COUNTED), 7]]},
        {"rows": [[2**62, 1, CANARY, "split", 0, *[1] * len(COUNTED), 7]]},
        {"next": -5},
        {"next": "x"},
    ],
    ids=str,
)
async def test_router_when_its_answer_makes_no_sense_then_it_is_told_and_others_count(
    fleet: Fleet, changes: JSON
) -> None:
    bad = await fleet.add(changes=changes)
    counts, problem = await fleet.read(30)
    assert counts is None
    assert problem.startswith("router r1 ")
    good = await fleet.add()
    for agent in (bad, good):
        agent.books.send([sent(31)])
    counts, problem = await fleet.read(60)
    assert problem == ""
    assert counts is not None
    assert counts[CANARY].total == 1


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (2 << 20)],
    ids=["", "[]", "ff", "[[[", "2M"],
)
async def test_router_when_it_answers_anything_then_nothing_is_counted(
    fleet: Fleet, raw: bytes
) -> None:
    await fleet.add(raw=raw)
    counts, problem = await fleet.read(30)
    assert counts is None
    assert problem.startswith("router r1 does not say what it counted")


async def test_router_when_it_answers_no_more_then_the_counts_are_unknown_after_a_while(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await fleet.add()
    agent.books.send([sent(1)])
    counts, _ = await fleet.read(30)
    assert counts is not None
    agent.status = 500
    counts, _ = await fleet.read(5)
    assert counts is not None
    monkeypatch.setattr(ledger, "STALE_SECONDS", 0.0)
    counts, problem = await fleet.read(5)
    assert counts is None
    assert "500" in problem


async def test_answer_when_the_rest_of_it_is_lost_then_no_cohort_is_looked_at(fleet: Fleet) -> None:
    agent = await fleet.add(page=1)
    agent.books.send([sent(1, STABLE), sent(2)])
    agent.lost_after = 1
    counts, _ = await fleet.read(30)
    assert counts is None or all(one.looks == () for one in counts.values())
    agent.lost_after = None
    counts, _ = await fleet.read(1)
    assert counts is not None
    assert counts[STABLE].looks == counts[CANARY].looks == ((1, 0),)


async def test_first_answer_when_it_takes_seconds_then_its_slots_stay_where_they_are(
    fleet: Fleet,
) -> None:
    agent = await fleet.add()
    agent.takes = 4.0
    agent.books.send([sent(at) for at in range(0, 60, 5)])
    await fleet.read(10)
    agent.takes = 0.0
    for _ in range(10):
        counts, _ = await fleet.read(10)
    assert counts is not None
    assert counts[CANARY].total == 12
    assert sum(n for n, _ in counts[CANARY].looks) == 12


async def test_router_when_it_names_thousands_of_revisions_then_they_cost_nothing(
    fleet: Fleet,
) -> None:
    slot = round(START / 5)
    rows = [[slot, at, f"{at:010x}", "split", 0, *[1] * len(COUNTED), 7] for at in range(9000)]
    await fleet.add(changes={"rows": rows})
    counts, _ = await fleet.read(30)
    assert not counts
    (held,) = fleet.poller._tracked.values()
    assert held.cohorts._groups == {}


async def test_router_when_it_always_has_more_then_the_others_are_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "TURN_SECONDS", 0.2)
    await fleet.add(changes={"more": True})
    good = await fleet.add()
    good.books.send([sent(1)])
    counts, problem = await fleet.read(30)
    assert problem == ""
    assert counts is not None
    assert counts[CANARY].total == 1


async def test_rollout_when_it_is_not_judged_then_nobody_is_asked(fleet: Fleet) -> None:
    agent = await fleet.add()
    routers = [agent.router]
    for status in (
        None, {}, {"rollout": {}}, {"rollout": {"servedSince": "soon"}},
        {"rollout": {"servedSince": "2026-03-01T12:00:00Z", "aborted": True}},
    ):  # fmt: skip
        fleet.poller.track(OWNER, status, routers, 60.0)
        await fleet.poller._turn()
        assert fleet.poller.report(OWNER).problem == ledger.NOT_COUNTED
    assert agent.asked == []


async def test_poller_when_started_then_it_asks_by_itself_and_ends(fleet: Fleet) -> None:
    agent = await fleet.add()
    agent.books.send([sent(1)])
    fleet.now += 30
    poller = LedgerPoller(
        fleet.woken.append, port=fleet.port, poll_seconds=0.05, clock=lambda: fleet.now
    )
    poller.start()
    poller.track(OWNER, JUDGED, [agent.router], 60.0)
    async with asyncio.timeout(20):
        while len(agent.asked) < 3:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    assert fleet.woken == [OWNER]
    poller.forget(OWNER)
    await poller.close()
