"""The webhook against a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from llmfleet.cluster import notifying
from llmfleet.cluster.notifying import CONTENT_TYPE, Notifier, build_cloud_event
from llmfleet.cluster.transitions import Transitions
from llmfleet.planning.plan import PlannedEvent

RAW: dict[str, Any] = {
    "apiVersion": "llmfleet.dev/v1alpha1",
    "metadata": {"name": "chat", "namespace": "team-a", "uid": "u-1", "resourceVersion": "7"},
}
STATUS: dict[str, Any] = {
    "phase": "Progressing",
    "servedRevision": "old",
    "canaryWeight": 25,
    "rollout": {"id": 3, "revision": "new", "step": 1, "plan": {"maxSurge": 1}},
}
PROMOTED = PlannedEvent(type="Normal", reason="Promoted", message="new is served to all clients")


class Webhook:
    """Answers with these statuses, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.asked = 0
        self.hangs = asyncio.Event()
        """Until it is set, no answer comes."""
        self.hangs.set()
        self.endless = False

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await self.hangs.wait()
        if self.endless:
            return await self.answer_without_end(request)
        if request.method == "GET":
            return web.Response()
        self.got.put_nowait((request.headers["Content-Type"], await request.json()))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        place = {"Location": "/hook"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=place)

    async def answer_without_end(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):  # the other side has heard enough
            while True:
                await answer.write(b"x" * 65536)
        return answer

    async def start(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/hook", self.take)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/hook"

    async def next(self) -> tuple[str, Any]:
        return await asyncio.wait_for(self.got.get(), 5)


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    made = Webhook(200)
    yield made
    await made.runner.cleanup()


def sent(result: str) -> float:
    return REGISTRY.get_sample_value("llmfleet_notifications_total", {"result": result}) or 0.0


async def until_counted(result: str, count: float) -> None:
    async with asyncio.timeout(5):
        while sent(result) < count:  # noqa: ASYNC110 - a counter cannot be awaited
            await asyncio.sleep(0.01)


async def test_event_when_a_webhook_is_set_then_it_gets_a_cloud_event(webhook: Webhook) -> None:
    notifier = Notifier(await webhook.start())
    notifier.send(RAW, PROMOTED, STATUS)
    kind, body = await webhook.next()
    await notifier.close()
    assert kind == CONTENT_TYPE
    assert body["specversion"] == "1.0"
    assert body["type"] == "dev.llmfleet.Promoted"
    assert body["source"].endswith("/namespaces/team-a/llmdeployments/chat")
    assert body["data"] == {
        "namespace": "team-a", "name": "chat", "severity": "Normal", "reason": "Promoted",
        "message": "new is served to all clients", "phase": "Progressing",
        "servedRevision": "old", "canaryWeight": 25,
        "rollout": {"id": 3, "revision": "new", "step": 1},
    }  # fmt: skip


class Recorder:
    """Takes every Event for new."""

    def __init__(self) -> None:
        self.posted: list[str] = []

    async def post(self, raw: Any, event: PlannedEvent) -> bool:
        del raw
        self.posted.append(event.reason)
        return True


async def test_event_when_it_is_a_detail_of_another_then_it_is_posted_and_rings_no_bell(
    webhook: Webhook,
) -> None:
    recorder, notifier = Recorder(), Notifier(await webhook.start())
    transitions = Transitions(recorder, notifier)  # type: ignore[arg-type]
    detail = PlannedEvent(type="Warning", reason="Degraded", message="x", detail=True)
    for event in (detail, PROMOTED):
        await transitions.publish(RAW, event, STATUS)
    _, body = await webhook.next()
    await notifier.close()
    assert recorder.posted == ["Degraded", "Promoted"]
    assert (body["type"], webhook.got.empty()) == ("dev.llmfleet.Promoted", True)


async def test_webhook_when_it_fails_for_a_while_then_the_same_event_comes_again(
    webhook: Webhook,
) -> None:
    webhook.statuses = [503, 429, 200]
    before = sent("sent")
    notifier = Notifier(await webhook.start(), first_pause_seconds=0.01)
    notifier.send(RAW, PROMOTED, STATUS)
    bodies = [(await webhook.next())[1] for _ in range(3)]
    await until_counted("sent", before + 1)
    await notifier.close()
    assert bodies[0] == bodies[1] == bodies[2]


async def test_webhook_when_it_refuses_then_nobody_insists_and_the_next_one_is_sent(
    webhook: Webhook,
) -> None:
    webhook.statuses = [400, 200]
    before = sent("failed")
    notifier = Notifier(await webhook.start(), first_pause_seconds=0.01)
    notifier.send(RAW, PROMOTED, STATUS)
    notifier.send(RAW, PlannedEvent(type="Normal", reason="Healthy", message="well"), STATUS)
    reasons = [(await webhook.next())[1]["data"]["reason"] for _ in range(2)]
    await notifier.close()
    assert reasons == ["Promoted", "Healthy"]
    assert sent("failed") == before + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_webhook_when_it_redirects_then_nothing_is_sent_there_and_it_counts_as_failed(
    webhook: Webhook, status: int
) -> None:
    webhook.statuses = [status, 200]
    before = sent("failed")
    notifier = Notifier(await webhook.start(), first_pause_seconds=0.01)
    notifier.send(RAW, PROMOTED, STATUS)
    await until_counted("failed", before + 1)
    await notifier.close()
    assert webhook.asked == 1


async def test_webhook_when_it_hangs_then_it_is_given_up_and_the_next_one_is_sent(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "ANSWER_SECONDS", 0.05)
    before = sent("failed"), sent("sent")
    url = await webhook.start()
    webhook.hangs.clear()
    notifier = Notifier(url, first_pause_seconds=0.001)
    notifier.send(RAW, PROMOTED, STATUS)
    await until_counted("failed", before[0] + 1)
    webhook.hangs.set()
    notifier.send(RAW, PlannedEvent(type="Normal", reason="Healthy", message="well"), STATUS)
    await until_counted("sent", before[1] + 1)
    await notifier.close()


async def test_webhook_when_its_answer_has_no_end_then_nobody_reads_it(webhook: Webhook) -> None:
    before = sent("sent")
    webhook.endless = True
    notifier = Notifier(await webhook.start(), first_pause_seconds=0.01)
    for _ in range(2):
        notifier.send(RAW, PROMOTED, STATUS)
    await until_counted("sent", before + 2)
    await notifier.close()


async def test_webhook_when_nobody_listens_then_it_is_given_up_and_counted() -> None:
    before = sent("failed")
    notifier = Notifier("http://127.0.0.1:1/hook", first_pause_seconds=0.001)
    notifier.send(RAW, PROMOTED, STATUS)
    await until_counted("failed", before + 1)
    await notifier.close()


async def test_event_when_no_webhook_is_set_then_nothing_waits() -> None:
    notifier = Notifier(None)
    notifier.send(RAW, PROMOTED, STATUS)
    await notifier.close()


def test_id_when_state_or_words_differ_then_it_does() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    ids = {
        build_cloud_event(raw, event, STATUS, now)["id"]
        for raw in (RAW, {**RAW, "metadata": {**RAW["metadata"], "resourceVersion": "8"}})
        for event in (PROMOTED, PlannedEvent(type="Normal", reason="Promoted", message="other"))
    }
    assert len(ids) == 4
    assert build_cloud_event(RAW, PROMOTED, STATUS, now)["id"] in ids
