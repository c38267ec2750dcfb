"""The ledger with the real Envoy: each request is booked once, as what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hack.controlplane.apiserver import free_ports
from hack.processes.agent import RunningRouter, running_router

from llmfleet_router.ledger import OUTCOMES
from llmfleet_router.model import Endpoint
from llmfleet_router.routing import HeaderMatch, HeaderRoute, Mirror, Routing
from llmfleet_router.settings import Policy
from tests.integration.router.conftest import StartEngine
from tests.integration.router.harness import StubEngine, poll

OLD, NEW = "a000000001", "b000000002"
CHAT = "/v1/chat/completions"


async def _ledger(router: RunningRouter, since: int = 0) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{router.agent_url}/llmfleet/ledger?since={since}") as answer,
    ):
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def _booked(router: RunningRouter, *by: str) -> dict[Any, dict[str, int]]:
    """What was counted, by some of the columns, without zeros."""
    answer = await _ledger(router)
    totals: dict[Any, Counter[str]] = {}
    for row in answer["rows"]:
        cells = dict(zip(answer["columns"], row, strict=True))
        key = tuple(cells[name] for name in by)
        totals.setdefault(key[0] if len(by) == 1 else key, Counter()).update(
            {name: cells[name] for name in OUTCOMES}
        )
    shown = {key: {n: c for n, c in counts.items() if c} for key, counts in totals.items()}
    return {key: counts for key, counts in shown.items() if counts}


async def _settled(router: RunningRouter, sent: int) -> dict[str, int]:
    """What all counted together, once so many were sent and all have ended."""
    async with asyncio.timeout(10):
        while True:
            total: Counter[str] = Counter()
            for counts in (await _booked(router, "class")).values():
                total.update(counts)
            ended = sum(n for name, n in total.items() if name not in {"sent", "first"})
            if total["sent"] == sent == ended:
                return dict(total)
            await asyncio.sleep(0.02)


async def _ask(
    url: str, wish: dict[str, Any] | None = None, *, leave_after: float | None = None,
    headers: dict[str, str] | None = None, size: int = 0,
) -> int | None:  # fmt: skip
    body = json.dumps({"messages": [], "stub": wish or {}, "pad": "x" * size})
    timeout = aiohttp.ClientTimeout(total=leave_after)
    every = {"content-type": "application/json", **(headers or {})}
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url + CHAT, data=body, headers=every) as answer,
        ):
            await answer.read()
            return answer.status
    return None


async def _ask_who(url: str, number: int) -> str | None:
    """Which revision says that it answered."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + CHAT, json={"messages": [f"question {number}"]}) as answer,
    ):
        return answer.headers.get("x-llmfleet-revision") if answer.status == 200 else None


@pytest.mark.parametrize(
    ("wish", "leave_after", "expected"),
    [
        ({}, None, {"first": 1, "answered": 1}),
        ({"stream": 3}, None, {"first": 1, "answered": 1}),
        ({"stream": 3, "delay": 0.01, "cut_after": 1}, None, {"first": 1, "cut": 1}),
        ({"stream": 50, "delay": 0.1}, 0.5, {"first": 1, "answered": 1}),
        ({"sleep": 5}, 0.3, {"abandoned": 1}),
        ({"reset": True}, None, {"reset": 1}),
        ({"status": 400}, None, {"badRequest": 1}),
        ({"status": 401}, None, {"unauthorized": 1}),
        ({"status": 404}, None, {"notFound": 1}),
        ({"status": 422}, None, {"unprocessable": 1}),
        ({"status": 429}, None, {"refused": 1}),
        ({"status": 500}, None, {"error": 1}),
        ({"status": 503}, None, {"refused": 1}),
    ],
    ids=json.dumps,
)
async def test_request_when_it_has_ended_then_it_is_booked_as_what_became_of_it(
    router: RunningRouter,
    start_engine: StartEngine,
    wish: dict[str, Any],
    leave_after: float | None,
    expected: dict[str, int],
) -> None:
    await router.serve(7, {OLD: 100}, **{OLD: [await start_engine("a")]})
    await _ask(router.url, wish, leave_after=leave_after)
    assert await _settled(router, 1) == {"sent": 1, **expected}


async def test_engine_when_it_is_gone_then_its_requests_are_booked_as_not_connected(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(7, {OLD: 100}, **{OLD: [engine]})
    await engine.stop()
    assert await _ask(router.url) == 503
    assert await _settled(router, 1) == {"sent": 1, "connect": 1}


async def test_retry_when_it_is_answered_then_its_request_is_booked_once_and_good(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engines = [await start_engine("a"), await start_engine("b")]
    await router.serve(7, {OLD: 100}, **{OLD: engines})
    for engine in engines:
        engine.refuse_retriable = 1
    statuses = [await _ask(router.url) for _ in range(3)]
    assert statuses.count(200) >= 2
    total = await _settled(router, 3)
    assert total.get("answered") == statuses.count(200)


async def test_requests_when_routed_differently_then_their_classes_tell_them_apart(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    old, new = await start_engine("a"), await start_engine("b")
    routing = Routing(
        header_route=HeaderRoute(
            revision=NEW, headers=(HeaderMatch(name="x-tester", kind="exact", value="1"),)
        ),
        mirror=Mirror(revision=NEW, percent=100),
        preview=NEW,
    )
    await router.serve(9, {OLD: 100}, routing, **{OLD: [old], NEW: [new]})
    await _ask(router.url)
    await _ask(router.url, headers={"x-tester": "1"})
    await _ask(router.preview_url)
    await _settled(router, 3)
    one = {"sent": 1, "first": 1, "answered": 1}
    assert await _booked(router, "class", "revision", "generation") == {
        ("split", OLD, 9): one,
        ("header", NEW, 9): one,
        ("preview", NEW, 9): one,
    }
    assert len(new.seen) == 3  # the copy is in none of them


@pytest.mark.parametrize("policy", [Policy.PREFIX_HASH, Policy.LEAST_REQUEST])
async def test_revision_when_no_pod_of_it_can_be_reached_then_its_requests_are_booked_so(
    tmp_path: Path, start_engine: StartEngine, policy: Policy
) -> None:
    engine = await start_engine("a")
    dead = [Endpoint(address="127.0.0.1", port=port) for port in free_ports(2)]
    async with running_router(tmp_path, policy=policy) as router:
        router.agent.store.set_endpoints({OLD: (engine.endpoint,), NEW: tuple(dead)})
        router.command(7, **{OLD: 50, NEW: 50})
        await router.confirmed(7)
        answers = [await _ask_who(router.url, number) for number in range(40)]
        assert answers == [OLD] * 40, "the answer says whose pod gave it"
        await _settled(router, 40)
        booked = await _booked(router, "revision")
    sent = booked[NEW]["sent"]
    assert 0 < sent < 40
    assert booked == {
        OLD: {"sent": 40 - sent, "first": 40 - sent, "answered": 40 - sent},
        NEW: {"sent": sent, "connect": sent},
    }


async def test_request_when_the_split_changes_under_it_then_it_is_booked_where_it_was_sent(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    old, new = await start_engine("a"), await start_engine("b")
    old.held = asyncio.Event()
    engines: dict[str, list[StubEngine]] = {OLD: [old], NEW: [new]}
    await router.serve(3, {OLD: 100}, **engines)
    slow = asyncio.create_task(_ask(router.url, {"status": 500}))
    await poll(lambda: old.active > 0)
    await router.serve(4, {NEW: 100}, **engines)
    await _ask(router.url, size=3000)
    old.held.set()
    assert await slow == 500
    await _settled(router, 2)
    assert await _booked(router, "generation", "revision", "size") == {
        (3, OLD, 0): {"sent": 1, "error": 1},
        (4, NEW, 2): {"sent": 1, "first": 1, "answered": 1},
    }


async def test_what_was_not_sent_to_an_engine_then_is_in_no_cohort(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    await router.serve(7, {OLD: 100}, **{OLD: [await start_engine("a")]})
    async with aiohttp.ClientSession() as session:
        for method, path, kind in (
            ("GET", "/v1/models", None), ("GET", "/health", None), ("POST", "/nowhere", None),
            ("POST", CHAT, "text/plain"),
        ):  # fmt: skip
            headers = {"content-type": kind} if kind else {}
            async with session.request(method, router.url + path, headers=headers):
                pass
    assert (await _ledger(router))["rows"] == []


async def test_pod_when_it_has_just_become_ready_then_its_requests_are_young(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    old, new = await start_engine("a"), await start_engine("b")
    await router.serve(7, {OLD: 100}, **{OLD: [old]})
    await _ask(router.url)
    await router.serve(8, {NEW: 100}, **{OLD: [old], NEW: [new]})
    await _ask(router.url)
    await _settled(router, 2)
    one = {"sent": 1, "first": 1, "answered": 1}
    assert await _booked(router, "class", "revision") == {
        ("split", OLD): one, ("young", NEW): one,
    }  # fmt: skip


async def test_ledger_when_asked_then_it_says_whose_it_is_and_what_is_new(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    state = await router.serve(7, {OLD: 100}, **{OLD: [await start_engine("a")]})
    assert "ledger/1" in state["features"]
    await _ask(router.url)
    await _settled(router, 1)
    answer = await _ledger(router)
    assert answer["object"] == state["object"]
    assert answer["pod"] == state["pod"]
    assert answer["columns"][:5] == ["slot", "generation", "revision", "class", "size"]
    far = (1 << 63) - 1
    assert (await _ledger(router, far))["rows"] == []
    async with aiohttp.ClientSession() as session:
        for wrong in ("x", "-1", "9" * 20, "%C2%B2"):
            url = f"{router.agent_url}/llmfleet/ledger?since={wrong}"
            async with session.get(url) as refused:
                assert refused.status == 400


async def test_request_when_it_has_no_body_then_it_is_booked_as_well(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    await router.serve(7, {OLD: 100}, **{OLD: [await start_engine("a")]})
    headers = {"content-type": "application/json", "content-length": "0"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(router.url + CHAT, headers=headers) as answer,
    ):
        assert answer.status == 200
    assert await _settled(router, 1) == {"sent": 1, "first": 1, "answered": 1}


async def test_client_when_it_writes_nonsense_then_its_request_is_no_failure_of_the_engine(
    router: RunningRouter, start_engine: StartEngine
) -> None:
    engine = await start_engine("a")
    await router.serve(7, {OLD: 100}, **{OLD: [engine]})
    body = json.dumps({"messages": [], "stub": {"stream": 50, "delay": 0.1}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.agent.settings.http_port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    received = b""
    while b"data: 1" not in received:  # the engine answers
        received += await reader.read(65536)
    writer.write(b"\xff" * 40)
    await writer.drain()
    assert await _settled(router, 1) == {"sent": 1, "first": 1, "answered": 1}
    writer.close()


async def test_dead_address_when_it_never_was_an_engine_then_no_other_outcome_is_booked(
    router: RunningRouter,
) -> None:
    nobody = type("Nobody", (), {"endpoint": Endpoint(address="127.0.0.1", port=1)})()
    await router.serve(7, {OLD: 100}, **{OLD: [nobody]})
    assert await _ask(router.url) == 503
    assert await _settled(router, 1) == {"sent": 1, "connect": 1}
