"""kopf, started again after errors that end it; the test plays the API server and the effects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmfleet import handlers
from llmfleet.cluster.client import ApiClient, load_configuration
from llmfleet.handlers import Watch
from llmfleet.tasks import Tasks
from tests.unit.test_tasks import OTHER, OWNER, World

JSON = dict[str, Any]
KIND = {"apiVersion": "llmfleet.dev/v1alpha1", "kind": "LLMDeployment"}
EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "expired"}}
VERBS = ["get", "list", "watch", "patch"]
NAMESPACES = {"name": "namespaces", "singularName": "namespace", "kind": "Namespace",
              "namespaced": False, "verbs": VERBS}  # fmt: skip
RESOURCE = {"name": "llmdeployments", "singularName": "llmdeployment", "kind": "LLMDeployment",
            "namespaced": True, "verbs": VERBS}  # fmt: skip
VERSION = {"version": "v1alpha1", "groupVersion": "llmfleet.dev/v1alpha1"}
DISCOVERY: JSON = {
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [NAMESPACES]},
    "/apis": {
        "groups": [{"name": "llmfleet.dev", "versions": [VERSION], "preferredVersion": VERSION}]
    },
    "/apis/llmfleet.dev/v1alpha1": {"resources": [RESOURCE]},
}
FORBIDDEN = 'llmdeployments.llmfleet.dev is forbidden: User "x" cannot {} resource "llmdeployments"'


class Server:
    """As much of an API server as kopf asks for."""

    def __init__(self) -> None:
        self.items: list[JSON] = []
        self.refusals: dict[str, tuple[int, str]] = {}
        """By verb: what it is answered with."""
        self.refused_namespace = ""
        """Where; empty = everywhere."""
        self.watched = 0
        self.open = 0
        self._cut = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._answer)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        self.cut()
        assert self._runner is not None
        await self._runner.cleanup()

    def add(self, owner: tuple[str, str]) -> None:
        meta = {"namespace": owner[0], "name": owner[1], "uid": owner[1], "resourceVersion": "5"}
        self.items.append({**KIND, "metadata": meta})

    def cut(self) -> None:
        """End every watch, so that it has to begin with a list."""
        self._cut.set()
        self._cut = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/llmdeployments"):
            found = DISCOVERY.get(request.path)
            return web.json_response(found, status=404 if found is None else 200)
        watch = "watch" in request.query
        refusal = self.refusals.get("watch" if watch else "list")
        if refusal and self.refused_namespace in request.path:
            status, message = refusal
            refused = {"kind": "Status", "code": status, "message": message, "reason": "Told"}
            return web.json_response(refused, status=status)
        if watch:
            return await self._watch(request)
        meta = {"resourceVersion": "10"}
        return web.json_response({**KIND, "metadata": meta, "items": self.items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        self.watched += 1
        self.open += 1
        try:
            await asyncio.wait_for(self._cut.wait(), float(request.query["timeoutSeconds"]))
            await answer.write(json.dumps(EXPIRED).encode() + b"\n")
        except TimeoutError:
            pass
        finally:
            self.open -= 1
        return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    yield made
    await made.stop()


class Running:
    """A watch that runs, and what it woke."""

    def __init__(self, watch: Watch, world: World, take_signals: Callable[[], None]) -> None:
        self.watch = watch
        self.world = world
        self.task = asyncio.create_task(watch.run(take_signals))


@pytest.fixture
async def running(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Running]:
    cluster = {"name": "c", "cluster": {"server": await server.start()}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    config = {"current-context": "c", "clusters": [cluster], "contexts": [context], "users": [user]}
    (tmp_path / "config").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(handlers, "RETRIES_SECONDS", (0.05,))
    api = ApiClient(await load_configuration())
    world = World()
    tasks = Tasks(world)
    namespaces = getattr(request, "param", [])
    started = Running(Watch(tasks, api, namespaces), world, lambda: None)
    yield started
    world.gate.set()
    started.task.cancel()
    await asyncio.gather(started.task, return_exceptions=True)
    await api.close()


async def until(question: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not question():  # noqa: ASYNC110 - a server and a watch tell the test nothing
            await asyncio.sleep(0.02)


@pytest.mark.long
@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        pytest.param({"list": (503, "down"), "watch": (503, "down")}, "503", id="server down"),
        pytest.param(
            {"list": (403, FORBIDDEN.format("list"))}, "cannot list resource", id="list refused"
        ),
        pytest.param(
            {"watch": (403, FORBIDDEN.format("watch"))}, "cannot watch resource", id="watch refused"
        ),
    ],
)
async def test_watch_when_it_is_refused_for_long_then_it_says_so_and_goes_on_by_itself(
    running: Running,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    refusals: dict[str, tuple[int, str]],
    words: str,
) -> None:
    running.world.gate.clear()
    await until(lambda: server.watched)
    server.refusals = refusals
    running.watch._objects.wake(OWNER)  # its pass is under way when kopf ends
    await running.world.next()
    server.cut()
    await until(lambda: words in (running.watch.problem() or ""))
    assert not running.task.done()
    running.world.gate.set()
    await until(lambda: running.world.completed == 1)
    assert [each for each in caplog.records if each.exc_info] == []

    server.refusals = {}
    server.add(OTHER)
    assert await running.world.next(20) == OTHER
    assert running.watch.problem() is None


@pytest.mark.long
@pytest.mark.parametrize("running", [["a", "b"]], indirect=True, ids=["two namespaces"])
async def test_watch_when_one_namespace_is_refused_then_no_watch_of_another_is_left_over(
    running: Running, server: Server
) -> None:
    await until(lambda: server.open == 2)
    server.refusals = {"list": (403, FORBIDDEN.format("list"))}
    server.refused_namespace = "/namespaces/b/"
    server.cut()
    await until(running.watch.problem)
    server.refusals = {}
    before = server.watched
    await until(lambda: running.watch.problem() is None and server.watched >= before + 4)
    await until(lambda: server.open == 2)
    await asyncio.sleep(0.5)  # what is awaited is that no third one is there
    assert server.open == 2


async def test_watch_when_ended_then_the_pass_under_way_is_waited_for(
    running: Running, server: Server
) -> None:
    running.world.gate.clear()
    server.add(OWNER)
    assert await running.world.next(20) == OWNER
    running.task.cancel()
    asyncio.get_running_loop().call_later(0.2, running.world.gate.set)
    with pytest.raises(asyncio.CancelledError):
        await running.task
    assert running.world.completed == 1
