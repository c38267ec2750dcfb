"""Engines that cannot be reached for a while, that are killed, or that leave, under load."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import RunningRouter, running_router

from llmfleet_router.model import Endpoint
from llmfleet_router.settings import Policy
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import Prober, StubEngine, ask_many, shown

BACK_SECONDS = 5.0
"""An engine that can be reached again has its share of the requests by then (design)."""
LARGE_BYTES = 200_000
WINDOW = 60


async def until_it_has_its_share(prober: Prober, engine: StubEngine, other: StubEngine) -> None:
    """Until a quarter of a window of requests, half being its due, went to the engine."""
    while True:
        before = len(engine.seen), len(other.seen)
        await prober.seen(WINDOW)
        gained, others = len(engine.seen) - before[0], len(other.seen) - before[1]
        if 4 * gained >= gained + others:
            return


async def blip(prober: Prober, engine: StubEngine) -> None:
    """The engine refuses connections until many requests, its share as well, went elsewhere."""
    port = engine.port
    await engine.stop()
    await prober.seen(200)
    await engine.start(port)


async def test_balance_when_an_engine_was_unreachable_under_load_then_it_has_its_share_again(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    async with Prober(router.url) as prober:
        await until_it_has_its_share(prober, a, b)
        await blip(prober, a)
        cut = len(prober.tally.failures)
        async with asyncio.timeout(BACK_SECONDS):
            await until_it_has_its_share(prober, a, b)
    assert cut <= prober.workers, "only what it was answering when it went"
    assert len(prober.tally.failures) == cut


async def test_endpoint_when_it_leaves_after_its_neighbours_trouble_then_it_gets_nothing(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    async with Prober(router.url) as prober:
        await blip(prober, a)
        await until_it_has_its_share(prober, a, b)
        cut = len(prober.tally.failures)
        router.endpoints(aaaa=[a])
        await router.until(lambda applied: applied.endpoints["aaaa"] == (a.endpoint,))
        await prober.seen(2 * prober.workers)  # those on their way then have arrived
        left = len(b.seen)
        await prober.seen(200)
        assert len(b.seen) == left
    assert len(prober.tally.failures) == cut


async def test_ejected_engine_when_the_others_leave_then_it_serves(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    async with running_router(tmp_path, policy=Policy.LEAST_REQUEST) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
        async with Prober(router.url) as prober:
            port = a.port
            await a.stop()
            # An ejection lasts a second at first: once the engine is back it may have ended.
            await shown(router, "cluster.rev-aaaa.outlier_detection.ejections_active", 1)
            await a.start(port)
            cut = len(prober.tally.failures)
            router.endpoints(aaaa=[a])
            await prober.seen(50)
    assert len(prober.tally.failures) == cut


async def test_prober_when_a_pod_is_killed_then_nothing_is_lost(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a, b])
    async with Prober(router.url, large_bytes=LARGE_BYTES) as prober:
        await prober.seen(50)
        a.refuse_retriable = 1 << 30  # it stops, and nobody has heard of it yet
        await prober.seen(100)
        router.endpoints(aaaa=[b])
        await router.until(lambda applied: applied.endpoints["aaaa"] == (b.endpoint,))
        await prober.seen(2 * prober.workers)  # those on their way then have been answered
        await a.stop()
        router.endpoints(aaaa=[a, b])  # nobody has heard that it is gone
        await router.until(lambda applied: len(applied.endpoints["aaaa"]) == 2)
        await prober.seen(200)
    assert prober.tally.failures == []


@pytest.mark.parametrize("large_bytes", [0, LARGE_BYTES], ids=["small", "large"])
async def test_retry_when_many_meet_a_dead_pod_at_once_then_all_are_answered(
    router: RunningRouter, start_engine: StartEngine, large_bytes: int
) -> None:
    engine = await start_engine("a")
    dead = Endpoint(address="127.0.0.1", port=free_ports(1)[0])
    router.agent.store.set_endpoints({"aaaa": (engine.endpoint, dead)})
    router.command(1, aaaa=100)
    await router.confirmed(1)
    bodies = [{"messages": [f"q{i}" + "x" * large_bytes]} for i in range(60)]
    assert await ask_many(router.url, bodies) == [200] * len(bodies)


@pytest.mark.parametrize("policy", [Policy.PREFIX_HASH, Policy.LEAST_REQUEST])
async def test_request_when_most_pods_of_its_revision_are_gone_then_one_that_is_there_answers(
    tmp_path: Path, start_engine: StartEngine, policy: Policy
) -> None:
    engine = await start_engine("a")
    dead = [Endpoint(address="127.0.0.1", port=port) for port in free_ports(4)]
    async with running_router(tmp_path, policy=policy) as router:
        router.agent.store.set_endpoints({"aaaa": (engine.endpoint, *dead)})
        router.command(1, aaaa=100)
        await router.confirmed(1)
        assert await ask_many(router.url, questions(60)) == [200] * 60


@pytest.mark.parametrize("policy", [Policy.PREFIX_HASH, Policy.LEAST_REQUEST])
async def test_request_when_no_pod_of_its_revision_can_be_reached_then_the_other_one_answers(
    tmp_path: Path, start_engine: StartEngine, policy: Policy
) -> None:
    engine = await start_engine("a")
    dead = [Endpoint(address="127.0.0.1", port=port) for port in free_ports(4)]
    async with running_router(tmp_path, policy=policy) as router:
        endpoints = {"aaaa": (engine.endpoint, *dead[:2]), "bbbb": tuple(dead[2:])}
        router.agent.store.set_endpoints(endpoints)
        router.command(1, aaaa=50, bbbb=50)
        await router.confirmed(1)
        assert await ask_many(router.url, questions(60)) == [200] * 60


def questions(count: int) -> list[dict[str, Any]]:
    return [{"messages": [f"q{number}"]} for number in range(count)]
