"""The router pod's two containers: either is killed, restarted or told to stop; no request is lost.

Both run as their containers run them, against the real Envoy; the test does what a kubelet does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from hack.processes.agent import running_router
from hack.processes.router import PodProcesses

from llmfleet_router.ledger import OUTCOMES
from llmfleet_router.store import Store
from tests.integration.router.api import PlayedApi
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import Prober, StubEngine, poll

CHAT = "/v1/chat/completions"
SERVED = ("cds.json", "eds-aaaa.json", "eds-bbbb.json", "rds.json", "rds-preview.json")


@dataclass
class Pod(PodProcesses):
    """A router pod and the API server that commands it."""

    api: PlayedApi = field(default_factory=PlayedApi)
    engines: dict[str, list[StubEngine]] = field(default_factory=dict)

    async def serve(self, generation: int, **weights: int) -> dict[str, Any]:
        """Command a split, and wait until it is served."""
        self.api.command(generation, **weights)
        return await self.until(lambda state: state["trafficGeneration"] == generation)

    async def is_ready(self) -> bool:
        """What the kubelet hears of both containers: Envoy's port, the agent's answer."""
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.ports[0])
            writer.close()
            return (await self.get("/ready"))[0] == 200
        except (OSError, aiohttp.ClientError):
            return False

    async def until_ready(self) -> None:
        """Wait until the pod is ready."""
        async with asyncio.timeout(40):
            while not await self.is_ready():  # noqa: ASYNC110 - a kubelet polls as well
                await asyncio.sleep(0.05)

    async def ledger(self, since: int = 0) -> dict[str, Any]:
        """The agent's answer."""
        status, text = await self.get(f"/llmfleet/ledger?since={since}")
        assert status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found

    async def booked(self, **wanted: int) -> None:
        """Wait until the ledger has booked at least so much."""
        async with asyncio.timeout(30):
            while True:
                total = totals(await self.ledger())
                if all(total[name] >= count for name, count in wanted.items()):
                    return
                await asyncio.sleep(0.05)

    def files(self) -> dict[str, bytes]:
        """What Envoy is served."""
        return {name: (self.directory / "xds" / name).read_bytes() for name in SERVED}

    async def kill(self, part: str) -> int:
        """As a crash or the kernel ends it; its exit status."""
        (status,) = await self.end(part, number=signal.SIGKILL)
        return status

    def envoy_pid(self) -> int:
        """Of Envoy, which is the launcher's only child."""
        launcher = self.running["envoy"].pid
        (child,) = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        return int(child)


def totals(answer: dict[str, Any]) -> Counter[str]:
    """What an answer's rows count, all together."""
    total: Counter[str] = Counter()
    for row in answer["rows"]:
        cells = dict(zip(answer["columns"], row, strict=True))
        total.update({name: cells[name] for name in OUTCOMES})
    return total


@contextlib.asynccontextmanager
async def stream_from(pod: Pod, chunks: int) -> AsyncIterator[asyncio.Task[str]]:
    """A stream of so many tenths of a second that has begun; its whole text."""
    body = {"messages": [], "stub": {"stream": chunks, "delay": 0.1}}
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(pod.url + CHAT, json=body) as answer,
    ):
        assert answer.status == 200
        await answer.content.readline()
        yield asyncio.create_task(answer.text())


@pytest_asyncio.fixture
async def pod(tmp_path: Path, start_engine: StartEngine) -> AsyncIterator[Pod]:
    running = Pod(directory=tmp_path, kubeconfig=tmp_path / "kubeconfig", namespace="team-a")
    running.environment["LLMFLEET_DRAIN_TIMEOUT_SECONDS"] = "30"
    await running.api.start(running.kubeconfig)
    for revision, names in {"aaaa": ("a1", "a2"), "bbbb": ("b1",)}.items():
        running.engines[revision] = [await start_engine(name) for name in names]
        running.api.endpoints(revision, running.engines[revision])
    try:
        yield running
    finally:
        await running.end(number=signal.SIGKILL)
        await running.api.stop()
        sys.stderr.write(running.log.read_text())  # shown when the test fails


async def begin(pod: Pod) -> None:
    """Both containers, and a split."""
    await pod.start()
    await pod.serve(1, aaaa=75, bbbb=25)
    await pod.until_ready()


async def test_agent_when_killed_then_no_request_is_lost_and_the_next_one_goes_on(pod: Pod) -> None:
    await begin(pod)
    async with stream_from(pod, 40) as stream, Prober(pod.url) as prober:
        await prober.seen(50)
        before, ledger = pod.files(), await pod.ledger()
        assert await pod.kill("agent") == -signal.SIGKILL
        await prober.seen(100)
        await pod.start("agent")
        state = await pod.until(lambda state: state["trafficGeneration"] == 1)
        assert [(r["weight"], r["endpoints"]) for r in state["revisions"]] == [(75, 2), (25, 1)]
        assert pod.files() == before, "a restart alone writes nothing"
        await pod.serve(2, aaaa=10, bbbb=90)
        seen = len(pod.engines["bbbb"][0].seen)
        await prober.seen(100)
        assert len(pod.engines["bbbb"][0].seen) - seen > 50, "the new split is really served"
        after = await pod.ledger(ledger["next"])
        assert (await stream).endswith("data: [DONE]\n\n")
        await prober.stop()
    assert prober.tally.failures == []
    assert after["epoch"] == ledger["epoch"]
    assert after["next"] > ledger["next"]
    assert {row[1] for row in after["rows"]} == {1, 2}
    await pod.booked(answered=prober.tally.total + 1)
    total = totals(await pod.ledger())
    assert total["sent"] == total["answered"] == prober.tally.total + 1, "each once, and good"


async def test_agent_when_it_starts_while_the_api_server_is_down_then_what_is_served_stays(
    pod: Pod,
) -> None:
    await begin(pod)
    before = pod.files()
    pod.api.go_down()
    pod.api.command(2, bbbb=100)
    async with Prober(pod.url) as prober:
        await pod.kill("agent")
        await pod.start("agent")
        await pod.until_ready()
        assert (await pod.until(lambda _: True))["object"]["uid"] == "c0ffee"
        await prober.seen(50)
        assert pod.files() == before
        pod.api.up = True
        await pod.until(lambda state: state["trafficGeneration"] == 2)
        await prober.seen(50)
        await prober.stop()
    assert prober.tally.failures == []


async def test_agent_when_killed_in_the_middle_of_changes_then_it_ends_with_the_newest(
    pod: Pod,
) -> None:
    """Whichever file was the last to be written: those of a half-done change are gone on from."""
    await begin(pod)
    a1, a2 = pod.engines["aaaa"]
    async with Prober(pod.url) as prober:
        for generation, name in enumerate(("cds.json", "eds-aaaa.json", "rds.json") * 2, start=2):
            path = pod.directory / "xds" / name
            inode = path.stat().st_ino
            pod.api.endpoints("aaaa", [a1, a2][: 1 + generation % 2])
            pod.api.endpoints(f"cccc{generation}", [a2])
            pod.api.command(generation, **{"aaaa": 60, f"cccc{generation}": 40})
            async with asyncio.timeout(30):
                await poll(lambda: path.stat().st_ino != inode)  # noqa: B023 - awaited here
            await pod.kill("agent")
            await prober.seen(10)
            await pod.start("agent")
            state = await pod.until(lambda s: s["trafficGeneration"] == generation)  # noqa: B023
            shown = {r["revision"]: (r["weight"], r["endpoints"]) for r in state["revisions"]}
            assert shown["aaaa"] == (60, 1 + generation % 2)
            assert shown[f"cccc{generation}"] == (40, 1)
            await prober.seen(10)
        await prober.stop()
    assert prober.tally.failures == []


async def test_envoy_when_killed_then_its_container_ends_and_the_next_one_serves_the_same(
    pod: Pod,
) -> None:
    await begin(pod)
    async with Prober(pod.url) as prober:
        await prober.seen(50)
        await prober.stop()
    await pod.booked(answered=prober.tally.total)
    ledger = await pod.ledger()
    await pod.until(lambda _: True)  # what Envoy counts after the last question goes with it
    os.kill(pod.envoy_pid(), signal.SIGKILL)
    async with asyncio.timeout(30):
        assert await pod.running["envoy"].wait() == 1
    assert not await pod.is_ready()
    assert (await pod.get("/health"))[0] == 200, "the agent's container is not restarted for it"
    await pod.start("envoy")
    async with asyncio.timeout(30):
        await poll(lambda: "envoy_starts_again" in pod.log.read_text())
    state = await pod.until(lambda state: state["trafficGeneration"] == 1)
    assert sum(row["requests"] for row in state["revisions"]) == prober.tally.total
    await pod.until_ready()
    async with Prober(pod.url) as again:
        await again.seen(30)
        await pod.serve(2, bbbb=100)
        await again.seen(30)
        await again.stop()
    assert again.tally.failures == []
    await pod.booked(answered=again.tally.total)
    after = await pod.ledger()
    assert int(after["epoch"]) > int(ledger["epoch"])
    assert totals(after)["sent"] == again.tally.total, "the new table begins with nothing"


async def test_envoy_when_it_starts_again_without_an_agent_then_it_serves_what_it_served(
    pod: Pod,
) -> None:
    await begin(pod)
    await pod.kill("agent")
    await pod.kill("envoy")
    await pod.start("envoy")
    statuses: list[int] = []
    async with aiohttp.ClientSession() as session, asyncio.timeout(40):
        while not statuses:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(pod.url + CHAT, json={"messages": []}) as answer:
                    statuses.append(answer.status)
            await asyncio.sleep(0.05)
    assert statuses == [200]
    await pod.start("agent")
    await pod.until_ready()


async def test_envoy_when_there_was_no_agent_yet_then_it_waits_for_it(pod: Pod) -> None:
    await pod.start("envoy")
    async with asyncio.timeout(30):
        await poll(lambda: "waiting_for_the_agent" in pod.log.read_text())
    assert not await pod.is_ready()
    await pod.start("agent")
    await pod.serve(1, aaaa=100)
    await pod.until_ready()
    assert await pod.end() == [0, 0]


async def test_envoy_when_told_to_stop_before_there_was_an_agent_then_it_ends(pod: Pod) -> None:
    await pod.start("envoy")
    async with asyncio.timeout(30):
        await poll(lambda: "waiting_for_the_agent" in pod.log.read_text())
    assert await pod.end() == [0]


async def test_pod_when_told_to_stop_then_streams_end_whole_and_the_ledger_is_read_to_its_end(
    pod: Pod,
) -> None:
    await begin(pod)
    last: dict[str, Any] = {}
    async with stream_from(pod, 30) as stream:
        assert totals(await pod.ledger())["answered"] == 0
        ending = asyncio.create_task(pod.end())
        with contextlib.suppress(aiohttp.ClientError):
            while not ending.done():  # as the operator, which asks every 5 s
                last = await pod.ledger()
                await asyncio.sleep(0.3)
        assert (await stream).endswith("data: [DONE]\n\n")
    assert await ending == [0, 0]
    assert totals(last)["sent"] == totals(last)["answered"] == 1


async def test_pod_when_told_to_stop_and_the_agent_dies_then_streams_end_whole(pod: Pod) -> None:
    await begin(pod)
    async with stream_from(pod, 30) as stream:
        ending = asyncio.create_task(pod.end())
        async with asyncio.timeout(30):
            await poll(lambda: '"draining"' in pod.log.read_text())
        await pod.kill("agent")
        assert (await stream).endswith("data: [DONE]\n\n")
    assert sorted(await ending) == [-signal.SIGKILL, 0]


async def test_agent_when_it_alone_is_told_to_stop_then_envoy_serves_on(pod: Pod) -> None:
    await begin(pod)
    async with stream_from(pod, 80) as stream, Prober(pod.url) as prober:
        assert await pod.end("agent") == [0]
        await prober.seen(20)
        await pod.start("agent")
        await pod.until_ready()
        assert (await stream).endswith("data: [DONE]\n\n")
        await prober.stop()
    assert prober.tally.failures == []
    assert pod.running["envoy"].returncode is None


class BrokenSource:
    """Meets something that nobody expected, each time."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self, store: Store) -> None:
        """Fails."""
        self.runs += 1
        raise ZeroDivisionError(store)


async def test_agent_when_a_part_of_it_fails_again_and_again_then_the_rest_goes_on(
    tmp_path: Path, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfleet_router.agent.TROUBLE_SECONDS", (0.01, 0.01))
    source, engine = BrokenSource(), await start_engine("a")
    async with running_router(tmp_path, source) as router, asyncio.timeout(40):
        await router.serve(1, {"aaaa": 100}, aaaa=[engine])
        await poll(lambda: source.runs > 3)
        await router.serve(2, {"aaaa": 100}, aaaa=[engine])
        assert router.agent.state.ready
