"""What is asked about pods that do not come, of whom, how often, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from llmfleet.cluster import inspecting
from llmfleet.cluster.errors import Forbidden, Unavailable
from llmfleet.cluster.inspecting import AT_ONCE, PodInspector, is_node_ready, latest_warning
from llmfleet.planning.snapshot import JSON, ObservedPod, PodWarning
from tests.unit.planning.builders import engine_pod

OWNER = ("a", "chat")
BEGUN = datetime.now(UTC) - timedelta(seconds=100)


def pod(name: str = "p", **facts: Any) -> ObservedPod:
    base = {"node": "n1", "created_at": BEGUN, "unready_since": BEGUN}
    return engine_pod(name, **{**base, **facts})


def creating(**facts: Any) -> ObservedPod:
    return pod(**{"sandbox_missing_since": BEGUN, **facts})


def running(**facts: Any) -> ObservedPod:
    return pod(**{"phase": "Running", "running_since": BEGUN, "pod_ip": "127.0.0.1", **facts})


def event(reason: str, message: str, *, age: float = 0, **fields: Any) -> JSON:
    at = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    return {"reason": reason, "message": message, "lastTimestamp": at, **fields}


class Api:
    """The API server, played: nodes that are ready or not, and Events."""

    def __init__(self) -> None:
        self.ready = True
        self.events: list[JSON] = []
        self.asked: list[tuple[str, str]] = []
        self.calls: asyncio.Queue[str] = asyncio.Queue()
        self.at_once = self.most_at_once = 0
        self.refuses = self.down = False
        self._asked = asyncio.Event()

    async def until_asked(self, times: int) -> None:
        """Until it has been asked so many times more."""
        many = len(self.asked) + times
        async with asyncio.timeout(20):
            while len(self.asked) < many:
                self._asked.clear()
                await self._asked.wait()

    async def get(
        self, path: str, query: Any = None, timeout_seconds: Any = None, longest: Any = None
    ) -> JSON:
        del timeout_seconds, longest
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.asked.append((path, (query or {}).get("fieldSelector", "")))
        self.calls.put_nowait(path)
        self._asked.set()
        if self.refuses:
            raise Forbidden("no", status=403)
        if self.down:
            raise Unavailable("down", status=0)
        if "/nodes/" in path:
            status = "True" if self.ready else "Unknown"
            return {"status": {"conditions": [{"type": "Ready", "status": status}]}}
        return {"items": self.events}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def woken() -> asyncio.Queue[Any]:
    return asyncio.Queue()


@pytest.fixture
async def inspector(api: Api, woken: asyncio.Queue[Any]) -> AsyncIterator[PodInspector]:
    found = PodInspector(api, woken.put_nowait, after_seconds=50, every_seconds=0.02)  # type: ignore[arg-type]  # played
    yield found
    await found.close()


async def answered(
    inspector: PodInspector, woken: asyncio.Queue[Any], *pods: ObservedPod
) -> ObservedPod:
    """The first pod as it is known once its owner was woken."""
    assert not inspector.track(OWNER, pods)[0].asked
    async with asyncio.timeout(5):
        assert await woken.get() == OWNER
    return inspector.track(OWNER, pods)[0]


async def test_pod_when_its_node_does_not_begin_it_then_its_own_warnings_are_asked_for(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.events = [event("FailedMount", 'configmap "t"\x1b[31m not found')]
    found = await answered(inspector, woken, creating())
    assert found.asked
    assert found.warning == PodWarning(reason="FailedMount", message='configmap "t" not found')
    assert not found.node_lost
    asked = next(query for path, query in api.asked if path == "/api/v1/namespaces/a/events")
    assert asked.startswith("involvedObject.uid=p,type=Warning,")


async def test_pod_when_its_node_is_not_ready_then_it_is_lost_and_nothing_else_is_asked(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.ready = False
    found = await answered(inspector, woken, running())
    assert (found.node_lost, found.asked) == (True, True)
    assert {path for path, _ in api.asked} == {"/api/v1/nodes/n1"}


async def test_pod_when_nothing_may_be_read_then_it_is_as_it_says_itself(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.refuses = True
    assert await answered(inspector, woken, creating()) == creating()


async def test_answers_when_they_are_old_then_nothing_is_concluded_until_they_come_again(
    inspector: PodInspector,
    api: Api,
    woken: asyncio.Queue[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api.events = [event("FailedMount", "no")]
    assert (await answered(inspector, woken, creating())).asked
    api.down = True
    monkeypatch.setattr(inspecting, "ANSWERS_LAST", timedelta(0))
    (found,) = inspector.track(OWNER, [creating()])
    assert (found.asked, found.warning) == (False, None)
    monkeypatch.undo()
    assert inspector.track(OWNER, [creating()])[0].asked, "what was known grows old, and no faster"


async def test_api_server_when_it_fails_then_that_is_no_answer_and_the_next_one_wakes(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.down = True
    for waiting in (creating(), running()):
        inspector.track(OWNER, [waiting])
        await api.until_asked(3)
        assert woken.empty()
        assert not inspector.track(OWNER, [waiting])[0].asked
    api.down = False
    assert (await answered(inspector, woken, creating())).asked


async def test_pod_when_it_held_nothing_and_the_api_server_fails_then_it_holds_nothing(
    inspector: PodInspector,
    api: Api,
    woken: asyncio.Queue[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api.ready = False
    ending = pod(deleting=True, ends_at=BEGUN)
    await answered(inspector, woken, ending)
    api.down = True
    monkeypatch.setattr(inspecting, "ANSWERS_LAST", timedelta(0))
    (found,) = inspector.track(OWNER, [ending])
    assert (found.asked, found.node_lost) == (False, True)


QUIET = {
    "ready": pod(ready=True),
    "without a node": pod(node=None),
    "failed": pod(phase="Failed"),
    "ending, with grace left": pod(deleting=True, ends_at=datetime.now(UTC) + timedelta(60)),
    "ending, without an end": pod(deleting=True),
}


@pytest.mark.parametrize("name", QUIET)
async def test_pod_when_it_is_well_then_nothing_is_asked(
    inspector: PodInspector, api: Api, name: str
) -> None:
    assert inspector.track(OWNER, [QUIET[name]]) == (QUIET[name],)
    await asyncio.sleep(0.1)
    assert api.asked == []


async def test_pod_when_it_is_young_then_it_is_asked_about_later(
    inspector: PodInspector, api: Api
) -> None:
    young = running(running_since=datetime.now(UTC), unready_since=datetime.now(UTC))
    (found,) = inspector.track(OWNER, [young])
    await asyncio.sleep(0.1)
    assert api.asked == []
    assert not found.asked, "nothing is concluded from time before"


async def test_pod_when_it_should_be_gone_then_its_node_is_asked_for(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.ready = False
    found = await answered(inspector, woken, pod(deleting=True, ends_at=BEGUN))
    assert found.node_lost


async def test_pods_when_many_wait_then_a_few_at_a_time_and_each_node_once(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    await answered(inspector, woken, *(running(name=f"p{n}", uid=f"p{n}") for n in range(40)))
    await asyncio.sleep(0.2)
    assert api.most_at_once <= AT_ONCE
    assert len(api.asked) <= AT_ONCE


async def test_owner_when_its_pods_are_well_again_or_it_is_gone_then_nothing_more_is_asked(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    await answered(inspector, woken, creating())
    inspector.track(OWNER, [pod(ready=True)])
    await asyncio.sleep(0.05)
    api.asked.clear()
    await asyncio.sleep(0.1)
    assert api.asked == []
    inspector.track(OWNER, [creating()])
    inspector.forget(OWNER)
    await asyncio.sleep(0.1)
    assert len(api.asked) <= 1


async def test_owner_when_the_answer_stays_the_same_then_it_is_not_woken_again(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any]
) -> None:
    api.events = [event("FailedMount", "no")]
    await answered(inspector, woken, creating())
    await api.until_asked(3)
    assert woken.empty()
    api.events = [event("FailedMount", "another")]
    async with asyncio.timeout(5):
        await woken.get()


class Supervisor:
    """A supervisor's health port, played."""

    def __init__(self) -> None:
        self.said: JSON | None = {"bytes": 0, "totalBytes": 1000, "idleSeconds": 30.0}
        self.garbles = False

    async def health(self, _: web.Request) -> web.Response:
        body = {"phase": "Fetching", "engine": "x", "download": self.said}
        return web.Response(text="no") if self.garbles else web.json_response(body)


@pytest.fixture
async def supervisor(
    api: Api, woken: asyncio.Queue[Any]
) -> AsyncIterator[tuple[Supervisor, PodInspector]]:
    played = Supervisor()
    app = web.Application()
    app.router.add_get("/health", played.health)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    inspector = PodInspector(
        api, woken.put_nowait, port=runner.addresses[0][1], after_seconds=50, every_seconds=0.02  # type: ignore[arg-type]
    )  # fmt: skip
    yield played, inspector
    await inspector.close()
    await runner.cleanup()


async def test_engine_when_it_runs_then_its_supervisor_says_how_far_its_download_is(
    supervisor: tuple[Supervisor, PodInspector], woken: asyncio.Queue[Any]
) -> None:
    played, inspector = supervisor
    found = await answered(inspector, woken, running())
    assert found.download is not None
    assert (found.download.bytes_done, found.download.bytes_total) == (0, 1000)
    age = datetime.now(UTC) - found.download.moved_at
    assert timedelta(seconds=29) < age < timedelta(seconds=40)
    assert played.said is not None
    played.said["bytes"] = 99
    await asyncio.sleep(0.1)
    assert woken.empty(), "tenths are told, not bytes"
    played.said["bytes"] = 100
    async with asyncio.timeout(5):
        await woken.get()
    again = replace(running(), running_since=BEGUN + timedelta(seconds=50))
    (restarted,) = inspector.track(OWNER, [again])
    assert (restarted.asked, restarted.download) == (False, None)


async def test_engine_when_an_answer_does_not_come_then_its_download_stays_known(
    supervisor: tuple[Supervisor, PodInspector], woken: asyncio.Queue[Any]
) -> None:
    played, inspector = supervisor
    told = await answered(inspector, woken, running())
    played.garbles = True
    async with asyncio.timeout(5):
        await woken.get()
    (found,) = inspector.track(OWNER, [running()])
    assert found.download is not None
    assert found.download == told.download
    assert found.silent_since is not None
    since = found.silent_since
    await asyncio.sleep(0.1)
    assert woken.empty()
    assert inspector.track(OWNER, [running()])[0].silent_since == since
    played.garbles = False
    async with asyncio.timeout(5):
        await woken.get()
    assert inspector.track(OWNER, [running()])[0].silent_since is None


async def test_engine_when_nobody_answers_then_since_when_is_known_whether_or_not_one_refuses(
    api: Api, woken: asyncio.Queue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfleet.cluster.inspecting.ANSWER_SECONDS", 0.1)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in ("it accepts and says nothing", "it refuses"):
        inspector = PodInspector(api, woken.put_nowait, port=port, after_seconds=50)  # type: ignore[arg-type]
        try:
            found = await answered(inspector, woken, running())
            assert found.silent_since is not None
            assert datetime.now(UTC) - found.silent_since < timedelta(seconds=30)
        finally:
            await inspector.close()
            server.close()


async def test_node_when_the_api_server_does_not_answer_then_what_it_said_last_stays(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfleet.cluster.inspecting.NODE_SECONDS", 0)
    api.ready = False
    assert (await answered(inspector, woken, creating())).node_lost
    api.down = True
    for _ in range(api.calls.qsize() + 3):
        async with asyncio.timeout(5):
            await api.calls.get()
    assert woken.empty()
    assert inspector.track(OWNER, [creating()])[0].node_lost


async def test_pod_when_its_node_is_back_then_it_is_waited_for_from_then_on(
    inspector: PodInspector, api: Api, woken: asyncio.Queue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmfleet.cluster.inspecting.NODE_SECONDS", 0)
    api.ready = False
    assert (await answered(inspector, woken, creating())).node_lost
    api.ready = True
    async with asyncio.timeout(5):
        await woken.get()
    (found,) = inspector.track(OWNER, [creating()])
    assert not found.node_lost
    assert found.unready_since is not None
    assert datetime.now(UTC) - found.unready_since < timedelta(seconds=30)


NOW = datetime.now(UTC)
EVENTS: dict[str, tuple[list[JSON], str | None]] = {
    "none": ([], None),
    "the latest": ([event("FailedMount", "old", age=60), event("FailedMount", "new")], "new"),
    "too old": ([event("FailedMount", "old", age=601)], None),
    "of something else": ([event("Unhealthy", "probe failed")], None),
    "a series": (
        [
            {
                "reason": "FailedCreatePodSandBox",
                "message": "no network",
                "lastTimestamp": None,
                "eventTime": "2020-01-01T00:00:00.000000Z",
                "series": {"lastObservedTime": NOW.isoformat()},
            }
        ],
        "no network",
    ),
    "of a time to come": (
        [
            {
                "reason": "FailedMount",
                "message": "forged",
                "lastTimestamp": "9999-12-31T23:59:59Z",
            },
            event("FailedMount", "true", age=60),
        ],
        "true",
    ),
    "a clock a minute ahead": ([event("FailedMount", "ahead", age=-60)], "ahead"),
    "without times or words": ([{"reason": "FailedMount"}, event("FailedMount", "")], None),
}


@pytest.mark.parametrize("name", EVENTS)
def test_warning_when_events_are_read_then_the_latest_that_tells_why_counts(name: str) -> None:
    events, message = EVENTS[name]
    found = latest_warning(events, NOW + timedelta(seconds=1))
    assert (found and found.message) == message


def test_node_when_it_says_nothing_then_it_is_not_ready() -> None:
    assert not is_node_ready({})
    assert not is_node_ready({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
