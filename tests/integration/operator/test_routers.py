"""Router polling against a router that answers as the contract says."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hack.processes.waiting import eventually

from llmfleet.cluster.routers import Report, RouterPoller
from llmfleet.planning.snapshot import JSON, ObservedPod
from tests.integration.operator.fake_router import FakeRouter


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    server = FakeRouter()
    yield server
    server.shutdown()
    server.server_close()


OWNER = ("a", "chat")


def router_pod(address: str | None = "127.0.0.1") -> ObservedPod:
    return ObservedPod(
        name="r0", uid="u0", component="router", revision=None, phase="Running", ready=True,
        deleting=False, created_at=datetime.now(UTC), pod_ip=address, unschedulable=None,
        unschedulable_since=None, waiting_reason=None, waiting_message=None, restarts=0,
        last_termination=None, running_since=None,
    )  # fmt: skip


class Poll:
    """A poller, and a queue of the reports it woke its object with."""

    def __init__(
        self, port: int, silent_after_seconds: float = 30, first_poll_seconds: float = 3600
    ) -> None:
        self.woken: asyncio.Queue[Report] = asyncio.Queue()
        self.poller = RouterPoller(
            self._wake,
            port=port,
            silent_after_seconds=silent_after_seconds,
            first_poll_seconds=first_poll_seconds,
        )

    def _wake(self, owner: tuple[str, str]) -> None:
        self.woken.put_nowait(self.poller.reports(owner)["r0"])

    async def next(self) -> Report:
        return await asyncio.wait_for(self.woken.get(), 20)


def generation_of(report: Report) -> int | None:
    """What it says that it serves; None for one that is silent."""
    return None if report.value is None else report.value.traffic_generation


async def test_router_when_it_confirms_a_generation_then_the_object_is_woken_at_once(
    router: FakeRouter,
) -> None:
    poll = Poll(router.server_address[1])
    router.serve(1)
    poll.poller.track(OWNER, [router_pod()], 1)
    assert generation_of(await poll.next()) == 1
    for generation in (2, 3):
        poll.poller.track(OWNER, [router_pod()], generation)
        router.serve(generation)
        assert generation_of(await asyncio.wait_for(poll.next(), 3)) == generation
    # The command moved on while the router was being waited for with an older one.
    poll.poller.track(OWNER, [router_pod()], 4)
    await asyncio.to_thread(
        eventually, lambda: router.asked[-1].get("generation") == "4", "it waits for 4"
    )
    poll.poller.track(OWNER, [router_pod()], 5)
    router.serve(5)
    assert generation_of(await asyncio.wait_for(poll.next(), 3)) == 5
    await poll.poller.close()


async def test_router_when_it_does_not_answer_then_silent_after_a_while_and_back_again(
    router: FakeRouter,
) -> None:
    port = router.server_address[1]
    router.serve(1)
    poll = Poll(port, silent_after_seconds=1.5)
    poll.poller.track(OWNER, [router_pod()], 1)
    assert not (await poll.next()).problem
    router.shutdown()
    router.server_close()
    poll.poller.track(OWNER, [router_pod()], 2)
    silent = await poll.next()
    assert silent.problem == "it does not answer"
    assert silent.as_of is not None
    assert silent.since is not None
    assert silent.as_of <= silent.since
    await poll.poller.close()


async def test_router_when_never_reached_then_no_entry_before_it_counts_as_silent() -> None:
    poll = Poll(1, silent_after_seconds=0.5)
    poll.poller.track(OWNER, [router_pod(), replace(router_pod(None), name="r1")], 1)
    assert poll.poller.reports(OWNER) == {}
    first = await poll.next()
    assert first.problem
    assert first.as_of is None
    poll.poller.track(OWNER, [], 1)
    assert poll.poller.reports(OWNER) == {}
    await poll.poller.close()


async def test_router_when_its_container_starts_anew_then_it_is_asked_at_once(
    router: FakeRouter,
) -> None:
    poll = Poll(router.server_address[1])
    router.serve(1)
    first = replace(router_pod(), running_since=datetime(2026, 1, 1, tzinfo=UTC))
    poll.poller.track(OWNER, [first], 1)
    await poll.poller.wait_asked(OWNER, ["r0"], 10)
    assert generation_of(poll.poller.reports(OWNER)["r0"]) == 1
    again = replace(first, running_since=datetime(2026, 1, 2, tzinfo=UTC))
    poll.poller.track(OWNER, [again], 1)
    assert poll.poller.reports(OWNER) == {}
    assert generation_of(await poll.next()) == 1
    assert generation_of(await poll.next()) == 1
    await poll.poller.close()


async def test_router_when_its_pod_has_another_address_then_it_is_asked_there_and_not_believed(
    router: FakeRouter,
) -> None:
    port = router.server_address[1]
    poll = Poll(port)
    router.serve(1)
    poll.poller.track(OWNER, [router_pod()], 1)
    assert generation_of(await poll.next()) == 1
    with FakeRouter("127.0.0.2", port) as elsewhere:  # the node was started anew
        poll.poller.track(OWNER, [router_pod("127.0.0.2")], 1, confirmed=True)
        assert poll.poller.reports(OWNER) == {}
        elsewhere.serve(1)
        assert generation_of(await poll.next()) == 1
        before = len(router.asked)
        poll.poller.track(OWNER, [router_pod("127.0.0.2")], 2)
        elsewhere.serve(2)
        assert generation_of(await poll.next()) == 2
        assert len(router.asked) == before
        await poll.poller.close()
        elsewhere.shutdown()


@pytest.mark.parametrize(
    ("names", "is_believed"),
    [
        ({}, True),
        ({"object": {"namespace": "a", "name": "chat", "uid": "c0"}, "podUid": "u0"}, True),
        ({"object": {"namespace": "a", "name": "chat", "uid": None}, "podUid": None}, True),
        ({"podUid": "u1"}, False),
        ({"object": {"namespace": "b", "name": "chat", "uid": "c0"}}, False),
        ({"object": {"namespace": "a", "name": "talk", "uid": "c0"}}, False),
        ({"object": {"namespace": "a", "name": "chat", "uid": "c1"}}, False),
        ({"object": "chat"}, False),
    ],
    ids=["earlier version", "itself", "not yet", "pod", "namespace", "name", "made anew", "shape"],
)
async def test_answer_when_it_names_another_object_or_pod_then_it_is_none(
    names: JSON, is_believed: bool
) -> None:
    with FakeRouter(names=names) as router:
        router.serve(7)
        poll = Poll(router.server_address[1], silent_after_seconds=0.5)
        poll.poller.track(OWNER, [router_pod()], 7, uid="c0")
        report = await poll.next()
        assert generation_of(report) == (7 if is_believed else None)
        await poll.poller.close()
        router.shutdown()


async def test_router_when_the_status_calls_it_confirmed_then_it_is_assumed_until_asked(
    router: FakeRouter,
) -> None:
    poll = Poll(router.server_address[1])
    router.serve(2)
    poll.poller.track(OWNER, [router_pod()], 3, confirmed=True)
    assert poll.poller.assumed(OWNER)
    assert generation_of(poll.poller.reports(OWNER)["r0"]) == 3
    poll.poller.track(OWNER, [router_pod()], 3)
    assert poll.poller.assumed(OWNER)
    assert router.asked == []
    asking = asyncio.create_task(poll.poller.wait_asked(OWNER, ["r0"], 10))
    router.serve(4)
    await asking
    assert not poll.poller.assumed(OWNER)
    assert generation_of(await poll.next()) in {2, 4}
    await poll.poller.close()


async def test_router_when_it_serves_what_was_assumed_then_nobody_is_woken(
    router: FakeRouter,
) -> None:
    poll = Poll(router.server_address[1], first_poll_seconds=0.01)
    router.serve(3)
    poll.poller.track(OWNER, [router_pod()], 3, confirmed=True)
    await asyncio.to_thread(eventually, lambda: len(router.asked) > 0, "it is asked")
    await poll.poller.wait_asked(OWNER, ["r0"], 10)
    assert not poll.poller.assumed(OWNER)
    assert poll.woken.empty()
    await poll.poller.close()


@asynccontextmanager
async def answering(head: str, body: bytes = b"", times: int = 0) -> AsyncIterator[tuple[int, Any]]:
    """A pod that answers whatever it is asked; with its port, how much of it was sent."""
    sent: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent["answers"] += 1
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                writer.write(body)
                await writer.drain()
                sent["bytes"] += len(body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], sent


async def test_router_when_its_answer_does_not_end_then_no_more_is_read_than_a_router_says() -> (
    None
):
    mib, many = b" " * (1 << 20), 512
    async with answering(f"200 OK\r\nContent-Length: {many << 20}", mib, many) as (port, sent):
        poll = Poll(port, silent_after_seconds=0.5)
        poll.poller.track(OWNER, [router_pod()], 1)
        assert (await poll.next()).problem
        await poll.poller.close()
    # What the sockets hold beyond what was read is the kernel's.
    assert sent["bytes"] < sent["answers"] * (32 << 20)


async def test_router_when_it_sends_us_elsewhere_then_nobody_is_asked_there(
    router: FakeRouter,
) -> None:
    router.serve(1)
    elsewhere = f"http://127.0.0.1:{router.server_address[1]}/llmfleet/state"
    head = f"302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0"
    async with answering(head) as (port, _):
        poll = Poll(port, silent_after_seconds=0.5)
        poll.poller.track(OWNER, [router_pod()], 1)
        assert (await poll.next()).problem
        await poll.poller.close()
    assert router.asked == []
