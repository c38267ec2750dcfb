"""Events are posted once each, also when a POST gets no answer; the API server is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from llmfleet.cluster import event_recorder
from llmfleet.cluster.errors import AlreadyExists, Forbidden, TooManyRequests, Unavailable
from llmfleet.cluster.event_recorder import (
    NOTE_LIMIT,
    SAME_EVENT_SECONDS,
    TRIES,
    EventRecorder,
    build_event,
)
from llmfleet.planning.plan import PlannedEvent
from tests.unit.planning.fleet import Fleet, resource

JSON = dict[str, Any]
RAW: JSON = {
    "apiVersion": "llmfleet.dev/v1alpha1",
    "kind": "LLMDeployment",
    "metadata": {"name": "chat", "namespace": "a", "uid": "u1", "resourceVersion": "7"},
}
PROMOTED = PlannedEvent(type="Normal", reason="Promoted", message="new is served")
LOST_ANSWER = Unavailable("timeout", status=0)


class Server:
    """Stores Events by name; fails as the test says, after storing or instead of it."""

    def __init__(self) -> None:
        self.stored: dict[str, JSON] = {}
        self.failures: list[Exception] = []
        self.stores_anyway = False
        self.tries = 0

    async def create(self, kind: Any, body: JSON) -> JSON:
        del kind
        self.tries += 1
        name = body["metadata"]["name"]
        failure = self.failures.pop(0) if self.failures else None
        if failure is None and name in self.stored:
            raise AlreadyExists(name, status=409)
        if failure is None or self.stores_anyway:
            self.stored[name] = body
        if failure is not None:
            raise failure
        return body

    def notes(self) -> list[str]:
        return [body["note"] for body in self.stored.values()]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def recorder(server: Server) -> AsyncIterator[EventRecorder]:
    made = EventRecorder(server, "pod", first_pause_seconds=0.001)  # type: ignore[arg-type]  # played
    yield made
    await made.close()


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("llmfleet_events_total", {"result": result}) or 0.0


async def until_counted(result: str, count: float) -> None:
    async with asyncio.timeout(5):
        while counted(result) < count:  # noqa: ASYNC110 - a counter cannot be awaited
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "failures",
    [[LOST_ANSWER], [LOST_ANSWER] * (TRIES - 1), [TooManyRequests("later", status=429)]],
    ids=["no answer", "no answer for long", "too many requests"],
)
async def test_event_when_its_post_fails_then_it_is_posted_again(
    server: Server, recorder: EventRecorder, failures: list[Exception]
) -> None:
    posted = counted("posted")
    server.failures = list(failures)
    assert await recorder.post(RAW, PROMOTED)
    await until_counted("posted", posted + 1)
    assert server.notes() == ["new is served"]


async def test_event_when_only_the_answer_was_lost_then_it_is_there_once(
    server: Server, recorder: EventRecorder
) -> None:
    posted = counted("posted")
    server.failures, server.stores_anyway = [LOST_ANSWER], True
    await recorder.post(RAW, PROMOTED)
    await until_counted("posted", posted + 1)
    assert server.notes() == ["new is served"]


@pytest.mark.parametrize(
    ("failures", "tries"),
    [([Forbidden("no right", status=403)], 1), ([LOST_ANSWER] * TRIES, TRIES)],
    ids=["refused", "never an answer"],
)
async def test_event_when_it_cannot_be_posted_then_it_counts_as_failed(
    server: Server, recorder: EventRecorder, failures: list[Exception], tries: int
) -> None:
    failed = counted("failed")
    server.failures = list(failures)
    await recorder.post(RAW, PROMOTED)
    await until_counted("failed", failed + 1)
    assert (server.tries, server.notes()) == (tries, [])


async def test_events_when_too_many_wait_then_the_oldest_is_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_recorder, "WAITING_EVENTS", 2)
    waiting = EventRecorder(server, "pod", first_pause_seconds=3600)  # type: ignore[arg-type]  # played
    failed = counted("failed")
    server.failures = [LOST_ANSWER] * 10
    for number in range(4):
        await waiting.post(RAW, PlannedEvent(type="Normal", reason="X", message=str(number)))
        await asyncio.sleep(0)
    # One is under way, two wait.
    assert counted("failed") == failed + 1
    await waiting.close()


def test_event_when_the_note_is_too_long_then_its_middle_is_left_out_and_its_command_is_not() -> (
    None
):
    command = "`kubectl llmfleet -n team-a retry chat --revision 0123456789`"
    message = f"it was rejected ({'ä' * 2000}): {command}"
    event = PlannedEvent(type="Warning", reason="X", message=message)
    made = build_event(RAW, event, "pod", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert len(made["note"].encode()) <= NOTE_LIMIT
    assert made["note"].startswith("it was rejected (ää")
    assert "…" in made["note"]
    assert made["note"].endswith(f"): {command}")
    assert made["eventTime"] == "2026-01-02T03:04:05.000000Z"
    assert made["regarding"]["uid"] == "u1"


def test_events_when_anything_differs_then_their_names_do() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    other = PlannedEvent(type="Normal", reason="Promoted", message="another")
    made = [
        build_event(RAW, PROMOTED, "pod", now),
        build_event(RAW, other, "pod", now),
        build_event(RAW, PROMOTED, "pod-2", now),
        build_event(RAW, PROMOTED, "pod", now.replace(microsecond=1)),
    ]
    assert len({each["metadata"]["name"] for each in made}) == len(made)


def test_event_when_repeated_then_new_again_only_after_a_while() -> None:
    now = [0.0]
    recorder = EventRecorder(None, "pod", lambda: now[0])  # type: ignore[arg-type]  # posts nothing
    event = PlannedEvent(type="Normal", reason="X", message="m")
    other = PlannedEvent(type="Normal", reason="X", message="n")
    assert recorder.is_new("u1", event)
    now[0] = SAME_EVENT_SECONDS - 1
    assert not recorder.is_new("u1", event)
    assert recorder.is_new("u1", other)
    assert recorder.is_new("u1", replace(event, occurrence="2"))
    assert recorder.is_new("u2", event)
    now[0] = SAME_EVENT_SECONDS
    assert recorder.is_new("u1", event)


@pytest.mark.parametrize("reason", ["NoAddress", "NoReadyReplicas", "NoReadyRouters"])
def test_outage_when_there_is_another_within_minutes_then_both_and_their_ends_are_told(
    reason: str,
) -> None:
    recorder = EventRecorder(None, "pod", lambda: 0.0)  # type: ignore[arg-type]  # posts nothing
    outage = PlannedEvent(type="Warning", reason=reason, message="none is ready")
    over = PlannedEvent(type="Normal", reason="Available", message="1 engine pod reached")
    for _ in range(3):
        assert recorder.is_new("u1", outage)
        assert not recorder.is_new("u1", outage)
        assert recorder.is_new("u1", over)
        assert not recorder.is_new("u1", over)
    assert recorder.is_new("u2", over)


async def test_events_when_something_flaps_for_long_then_they_are_bounded_and_others_are_not(
    server: Server,
) -> None:
    now = [0.0]
    recorder = EventRecorder(server, "pod", lambda: now[0])  # type: ignore[arg-type]  # played
    suppressed = counted("suppressed")
    for number in range(300):  # an hour, each time with other words
        now[0] = 12.0 * number
        flaps = PlannedEvent(type="Warning", reason="NoReadyReplicas", message=str(number))
        await recorder.post(RAW, flaps)
    assert len(server.stored) < 150
    assert counted("suppressed") - suppressed == 300 - len(server.stored)
    assert await recorder.post(RAW, PROMOTED)
    now[0] += event_recorder.REFILL_SECONDS
    assert await recorder.post(RAW, replace(flaps, message="the last"))


@pytest.mark.parametrize("component", ["engine", "router"])
def test_outage_when_it_is_decided_again_within_minutes_then_the_recorder_knows_its_reasons(
    component: str,
) -> None:
    world = Fleet(resource(replicas=1))
    world.settle()
    recorder = EventRecorder(None, "pod", lambda: 0.0)  # type: ignore[arg-type]  # posts nothing
    told = []
    for ready in (False, True) * 2:
        for name, pod in list(world.pods.items()):
            if pod.component == component:
                world.pods[name] = replace(pod, ready=ready)
        events = [*world.reconcile().events, *world.reconcile().events]
        told.append([each.reason for each in events if recorder.is_new("u1", each)])
    assert all(told), told
    assert told[2:] == [told[0], ["Available"]]
