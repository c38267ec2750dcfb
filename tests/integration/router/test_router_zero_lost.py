"""Changes of endpoints, weights and revisions, and the router's own end, lose no request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from hack.processes.agent import RunningRouter, running_router

from llmfleet_router.routing import Routing
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import Prober, poll


async def test_prober_when_endpoints_weights_and_revisions_change_then_nothing_is_lost(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a1, a2, a3 = [await start_engine(n) for n in ("a1", "a2", "a3")]
    b1, b2 = [await start_engine(n) for n in ("b1", "b2")]
    await router.serve(1, {"aaaa": 100}, aaaa=[a1])
    async with Prober(router.url) as prober:
        await prober.seen(50)
        router.endpoints(aaaa=[a1, a2, a3])  # scale 1 → 3
        await prober.seen(100)
        for generation, weight in enumerate((5, 25, 50), start=2):  # a canary
            await router.serve(
                generation, {"aaaa": 100 - weight, "bbbb": weight}, aaaa=[a1, a2, a3], bbbb=[b1, b2]
            )
            await prober.seen(60)
        router.endpoints(aaaa=[a1, a2, a3])  # all canary pods gone: its share goes to stable
        await prober.seen(60)
        router.endpoints(aaaa=[a1], bbbb=[b1])
        await prober.seen(60)
        await router.serve(5, {"bbbb": 100}, aaaa=[a1], bbbb=[b1, b2])
        await prober.seen(60)
        router.endpoints(bbbb=[b2])  # the old revision's pods go
        await router.until(lambda applied: "aaaa" not in applied.endpoints)
        await router.serve(6, {"aaaa": 100}, aaaa=[a2], bbbb=[b2])  # and comes back
        await prober.seen(60)
    print(  # noqa: T201 - the figure is the point
        f"requests {prober.tally.total} failed {len(prober.tally.failures)}"
    )
    assert prober.tally.failures == []
    assert prober.tally.total > 400
    assert set(prober.tally.revisions) == {"aaaa", "bbbb"}


async def test_prober_when_the_router_drains_then_nothing_is_lost(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    engine = await start_engine("a1")
    (tmp_path / "1").mkdir()
    async with running_router(tmp_path / "1", drain_timeout_seconds=30.0) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        async with aiohttp.ClientSession() as session:
            body = {"messages": [], "stub": {"stream": 20, "delay": 0.1}}
            request = session.post(f"{router.url}/v1/chat/completions", json=body)
            async with request as long_stream, Prober(router.url) as prober:
                await prober.seen(30)
                router.stop_event.set()
                await prober.seen(30)  # clients that have not heard of it yet
                await prober.stop()
                await asyncio.wait_for(poll(lambda: not router.agent.state.ready), 15)
                async with session.get(f"{router.agent_url}/ready") as answer:
                    assert answer.status == 503
                text = await long_stream.text()
                assert text.endswith("data: [DONE]\n\n")
                assert prober.tally.failures == []
        async with asyncio.timeout(20):
            await router.task


async def test_drain_when_all_routers_go_at_once_then_this_one_is_ready_while_requests_still_come(
    tmp_path: Path, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services lead to terminating endpoints that are ready still while there are no others."""
    # A busy machine lets the prober wait for seconds.
    monkeypatch.setattr("llmfleet_router.draining.FORGOTTEN_SECONDS", 6.0)
    engine = await start_engine("a1")
    async with running_router(tmp_path, drain_timeout_seconds=30.0) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        async with aiohttp.ClientSession() as session, Prober(router.url) as prober:
            await prober.seen(10)
            router.stop_event.set()
            started = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < started + 8:  # longer than the first wait
                async with session.get(f"{router.agent_url}/ready") as answer:
                    assert answer.status == 200
                await prober.seen(1)
                await asyncio.sleep(0.2)
            await prober.stop()
            assert prober.tally.failures == []
        async with asyncio.timeout(30):
            await router.task


async def test_drain_when_a_stream_is_open_at_the_preview_port_then_it_ends_whole(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    engine = await start_engine("b1")
    async with running_router(tmp_path) as router:
        await router.serve(1, {}, Routing(preview="bbbb"), bbbb=[engine])
        body = {"messages": [], "stub": {"stream": 15, "delay": 0.1}}
        async with aiohttp.ClientSession() as session:
            request = session.post(f"{router.preview_url}/v1/chat/completions", json=body)
            async with request as stream:
                router.stop_event.set()
                assert (await stream.text()).endswith("data: [DONE]\n\n")
        async with asyncio.timeout(20):
            await router.task


async def test_drain_when_a_stream_outlasts_the_timeout_then_the_router_ends_in_time(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    engine = await start_engine("a1")
    async with running_router(tmp_path, drain_timeout_seconds=4.0) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        body = {"messages": [], "stub": {"stream": 600, "delay": 0.1}}
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{router.url}/v1/chat/completions", json=body)
            router.stop_event.set()
            async with asyncio.timeout(20.0):
                await router.task
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_drain_when_the_agent_cannot_be_told_then_the_stream_ends_whole_all_the_same(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    """As on a full disk: the file that the agent reads cannot be written."""
    engine = await start_engine("a1")
    async with running_router(tmp_path) as router:
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        router.agent.settings.launch_file.with_name(".launch.json.new").mkdir()
        body = {"messages": [], "stub": {"stream": 15, "delay": 0.1}}
        async with aiohttp.ClientSession() as session:
            request = session.post(f"{router.url}/v1/chat/completions", json=body)
            async with request as stream:
                router.stop_event.set()
                assert (await stream.text()).endswith("data: [DONE]\n\n")
        async with asyncio.timeout(40):
            await router.task


async def test_long_stream_when_its_revision_is_removed_then_it_ends_whole(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 100}, aaaa=[a])
    body = {"messages": [], "stub": {"stream": 40, "delay": 0.1}}
    async with aiohttp.ClientSession() as session:
        request = session.post(f"{router.url}/v1/chat/completions", json=body)
        async with request as stream:
            await router.serve(2, {"bbbb": 100}, bbbb=[b])
            await asyncio.sleep(2.5)  # longer than a cluster without requests is kept
            assert "aaaa" in router.agent.applier.applied.endpoints
            assert (await stream.text()).endswith("data: [DONE]\n\n")
    await router.until(lambda applied: "aaaa" not in applied.endpoints)


async def test_weights_when_75_to_25_then_the_split_is_exact_within_chance(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    a, b = await start_engine("a"), await start_engine("b")
    await router.serve(1, {"aaaa": 75, "bbbb": 25}, aaaa=[a], bbbb=[b])
    url = f"{router.url}/v1/completions"
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            await asyncio.gather(*[session.post(url, json={"prompt": "x"}) for _ in range(40)])
    # 2,000 draws: the standard deviation of the share is 0.0097; 5 of them
    assert len(b.seen) / 2000 == pytest.approx(0.25, abs=0.049)
